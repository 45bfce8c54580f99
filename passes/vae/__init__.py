"""What turns latents into pixels."""
