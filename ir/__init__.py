"""The intermediate representation: the `diffusion` dialect, its verifier, its identity, and the ways in and out."""
