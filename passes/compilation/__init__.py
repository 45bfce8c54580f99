"""Compilers and engines."""
