"""DIFF042: a torchao quantization named by text."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.edits import with_line_before

CONFIGS = {
    "int4wo": "Int4WeightOnlyConfig",
    "int4_weight_only": "Int4WeightOnlyConfig",
    "int8wo": "Int8WeightOnlyConfig",
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8dq": "Int8DynamicActivationInt8WeightConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
    "float8wo": "Float8WeightOnlyConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
    "float8wo_e4m3": "Float8WeightOnlyConfig",
    "float8dq": "Float8DynamicActivationFloat8WeightConfig",
    "float8dq_e4m3": "Float8DynamicActivationFloat8WeightConfig",
    "float8_dynamic_activation_float8_weight": "Float8DynamicActivationFloat8WeightConfig",
}


class TorchaoTypeAsText(rule.Rule):
    """Find `TorchAoConfig("int8wo")`."""

    id = "DIFF042"
    severity = "error"
    why = "Names of quantizations were taken out: `TorchAoConfig` raises `TypeError` for anything but a configuration."
    evidence = (rule.docs("quantization/torchao"), rule.issue(2778, "bghira/SimpleTuner"))
    fix = "Give a configuration of torchao: `TorchAoConfig(Int8WeightOnlyConfig())`."
    VALID = [
        """
        from diffusers import TorchAoConfig
        from torchao.quantization import Int8WeightOnlyConfig
        config = TorchAoConfig(Int8WeightOnlyConfig())
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import TorchAoConfig

            config = TorchAoConfig("int8wo")
            """,
            expected_replacement="""
            from diffusers import TorchAoConfig

            from torchao.quantization import Int8WeightOnlyConfig
            config = TorchAoConfig(Int8WeightOnlyConfig())
            """,
        ),
        rule.Invalid(
            """
            from diffusers import TorchAoConfig
            config = TorchAoConfig("int4wo", group_size=64)
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            if not (name := facts.called(call)).startswith("diffusers.") or not name.endswith(".TorchAoConfig"):
                continue
            given = facts.argument(call, "quant_type", 0)
            value = facts.value(given)
            if given is None or not isinstance(value, str):
                continue
            config = CONFIGS.get(value, "")
            advice = f"give `{config}()`" if config else "give a configuration of `torchao.quantization`"
            message = f"`TorchAoConfig` takes no text such as {value!r}: {advice}"
            line = facts.statement(call)
            if line is None or not config or len(call.args) > 1 or not isinstance(given, cst.SimpleString):
                self.flag(call, message)
                continue
            new = cst.ensure_type(
                line.deep_replace(given, cst.parse_expression(f"{config}()")), cst.SimpleStatementLine
            )
            before = f"from torchao.quantization import {config}"
            self.flag(line, message, with_line_before(line, before, new), at=call)
