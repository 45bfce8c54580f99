"""What an optimized pipeline needs at run time: engines (`Builder`) and the functions emitted code calls (`runtime`)."""

from diffopt.backends.base import BackendError, Builder, EngineKey, Part, Program, Witness

__all__ = ["BackendError", "Builder", "EngineKey", "Part", "Program", "Witness"]
