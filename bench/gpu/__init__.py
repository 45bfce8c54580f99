"""Measuring on a GPU: scripts that a machine with one runs in a few minutes."""
