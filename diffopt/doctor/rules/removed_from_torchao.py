"""DIFF043: a name that the installed torchao does not have."""

from __future__ import annotations

from diffopt.doctor import rule
from diffopt.doctor.imports import missing_names


class RemovedFromTorchao(rule.Rule):
    """Find imports of names that the installed torchao does not have, such as `autoquant`."""

    id = "DIFF043"
    severity = "error"
    why = (
        "The import raises `ImportError`. Functions that many recipes use, `apply_dynamic_quant`, `autoquant` and the "
        "`int8_weight_only()` family, are gone. What there is, is read off the installed torchao; without it the rule "
        "is silent."
    )
    evidence = (rule.docs("quantization/torchao"), rule.docs("optimization/fp16#dynamic-quantization"))
    fix = "Use `quantize_` with a configuration class: `quantize_(model, Int8WeightOnlyConfig())`."
    VALID = [
        """
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
        """,
        """
        try:
            from torchao import autoquant
        except ImportError:
            autoquant = None
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from torchao import apply_dynamic_quant
            """
        ),
        rule.Invalid(
            """
            from torchao.quantization import int8_weight_only, quantize_
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for alias, module, name in missing_names(facts, "torchao"):
            message = f"`{module}` has no `{name}` any more: use `quantize_` with a configuration class"
            self.flag(alias, message)
