"""The arms: who answers tasks."""
