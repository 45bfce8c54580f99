"""Where classifier-free guidance is worth its second denoiser call."""
