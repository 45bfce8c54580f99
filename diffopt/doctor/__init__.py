"""Lint of diffusers code, on Fixit: one file a rule, nothing is run or imported of what is read."""
