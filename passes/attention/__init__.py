"""How attention is computed."""
