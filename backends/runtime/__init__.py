"""What an emitted pipeline calls: each function changes the live pipeline it is given and returns it.

Importing this is cheap: torch and the engines are imported by the functions that need them.
"""

from diffopt.backends.runtime.call_defaults import call_defaults
from diffopt.backends.runtime.compile_component import compile_component
from diffopt.backends.runtime.export import export
from diffopt.backends.runtime.export_pipeline import export_pipeline
from diffopt.backends.runtime.quantize import quantize
from diffopt.backends.runtime.step_plan import follow_step_plan
from diffopt.backends.runtime.witnesses import witnesses

__all__ = [
    "call_defaults",
    "compile_component",
    "export",
    "export_pipeline",
    "follow_step_plan",
    "quantize",
    "witnesses",
]
