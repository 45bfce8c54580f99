"""Passes that change what stands between the components."""
