"""Fewer tokens for the denoiser."""
