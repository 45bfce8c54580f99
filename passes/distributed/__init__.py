"""Several GPUs for one request."""
