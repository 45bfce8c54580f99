"""The same images with less work."""
