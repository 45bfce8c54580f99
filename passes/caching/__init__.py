"""Reuse of the denoiser's features from step to step."""
