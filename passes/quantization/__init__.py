"""Narrower numbers."""
