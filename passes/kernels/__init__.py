"""Kernels of ours in the place of layers."""
