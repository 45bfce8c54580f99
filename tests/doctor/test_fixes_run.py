"""Fixed code runs: on the built-in model, in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fixit import Invalid

from diffopt.doctor.page import dedented
from diffopt.doctor.runner import fixed, rules

NOT_HERE = {
    "DIFF005": "needs a model with files of a variant",
    "DIFF008": "offloading needs an accelerator",
    "DIFF009": "offloading needs an accelerator",
    "DIFF017": "512 pixels and 50 steps on a CPU",
    "DIFF035": "needs a model of SDXL's size",
    "DIFF036": "needs a model of FLUX's size",
}
"""Fixing rules whose example cannot run on a CPU with the built-in model, and why."""

RUNNER = """
import json, sys, traceback
import diffusers
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
for name, code in json.load(sys.stdin):
    try:
        exec(compile(code, name, "exec"), {"__name__": name})
        print(json.dumps([name, ""]), flush=True)
    except Exception:
        print(json.dumps([name, traceback.format_exc()]), flush=True)
"""


def _examples(directory: Path) -> list[tuple[str, str]]:
    """Return the fixed examples that load the built-in model, or none at all."""
    found = []
    for rule in rules():
        for number, case in enumerate(rule.INVALID):
            if rule.id in NOT_HERE or not isinstance(case, Invalid) or case.expected_replacement is None:
                continue
            code = fixed(dedented(case.code), f"{rule.id}.py", [rule])
            # the built-in model is kept in half precision
            model = repr(str(directory)) + ("" if "dtype=" in code else ", dtype=torch.float32")
            found.append((f"{rule.id}.{number}", "import torch\n" + code.replace('"model"', model)))
    return found


@pytest.mark.slow
def test_fixed_examples_run_on_the_built_in_model(shapes_directory: Path) -> None:
    examples = _examples(shapes_directory)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUNNER],
        input=json.dumps(examples),
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    results = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["DIFF'))
    assert set(results) == {name for name, _ in examples}
    failed = {name: text for name, text in results.items() if text}
    assert failed == {}, "\n".join(failed.values())
    assert len({name.partition(".")[0] for name in results}) >= 15


def test_each_fixing_rule_is_run_or_says_why_not() -> None:
    fixing = {rule.id for rule in rules() if rule.AUTOFIX}
    assert set(NOT_HERE) <= fixing
    for rule in rules():
        if rule.AUTOFIX and rule.id not in NOT_HERE:
            models = [case.code for case in rule.INVALID if isinstance(case, Invalid) and case.expected_replacement]
            assert any("StableDiffusionPipeline" in code or "from_pretrained" not in code for code in models), rule.id
