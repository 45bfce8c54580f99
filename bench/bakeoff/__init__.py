"""Every backend against eager torch, component by component of every built-in model."""
