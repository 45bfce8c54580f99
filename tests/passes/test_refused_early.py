"""What cannot be is refused on the module alone, before anything is loaded or built, and says what to do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.api import compile
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import print_module
from diffopt.passes import rules
from diffopt.passes.base import DiffusionPass, Refusal, options, registry
from diffopt.passes.pipeline import Trace, run

PASSES = list(registry().values())
BOUND = [
    pytest.param(found, option, id=f"{found.name}-{option.name}")
    for found in PASSES
    for option in options(found)
    if option.type in ("int", "float") and not option.choices
]
FOR_ONE = [pytest.param(found, id=found.name) for found in PASSES if found.architectures]
WITH_PACKAGES = [pytest.param(found, id=found.name) for found in PASSES if found.packages]
MODEL = {"unet": "unet", "transformer": "flow"}


def _asked(found: type[DiffusionPass]) -> Trace:
    """Return the pass as its first example that comes to something asks for it."""
    return Trace.parse(next(example.trace for example in found.examples if example.expect))


@pytest.mark.parametrize(("found", "option"), BOUND)
@pytest.mark.parametrize("value", [-(10**6), 10**6])
def test_a_number_out_of_range_is_refused_as_it_is_read(found: type[DiffusionPass], option: Any, value: int) -> None:
    with pytest.raises(DiffoptError, match=rf"^{found.name}: option {option.name}=.* must be "):
        Trace.parse(f"{found.name}{{{option.name}={value}}}")


@pytest.mark.parametrize("found", FOR_ONE)
def test_a_pass_for_another_architecture_says_which_it_is_for(
    modules: dict[str, ModuleOp], found: type[DiffusionPass]
) -> None:
    other = next(kind for kind in rules.ARCHITECTURES if kind not in found.architectures)
    module = modules[MODEL[other]]
    before = print_module(module)
    result = run(Trace((_asked(found).passes[-1],)), module)
    assert isinstance(result, Refusal)
    assert result.rule == "architecture"
    assert f"is for {found.architectures[0]}s" in result.reason
    assert print_module(module) == before


@pytest.mark.parametrize("found", WITH_PACKAGES)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    modules: dict[str, ModuleOp], found: type[DiffusionPass], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, extra = next(iter(found.packages.items()))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    loaded = package in sys.modules
    example = next(example for example in found.examples if example.expect)
    result = run(Trace.parse(example.trace), modules[example.model])
    assert isinstance(result, Refusal)
    assert result.rule == "missing-package"
    assert f"needs {package}, which is not installed: pip install 'diffopt[{extra}]'" in result.reason
    assert (package in sys.modules) is loaded, "asking imports nothing"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_engine_whose_package_is_missing_is_refused_so_too(
    modules: dict[str, ModuleOp], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == backend else find(name, *rest))
    result = run(Trace.parse(f"export{{backend={backend}}}"), modules["unet"])
    assert isinstance(result, Refusal)
    assert "pip install 'diffopt[cpu]'" in result.reason


@pytest.mark.parametrize("found", [pytest.param(found, id=found.name) for found in PASSES if found.devices])
def test_a_pass_for_another_device_is_refused_by_the_target(found: type[DiffusionPass]) -> None:
    refusal = rules.unfit(found, "cpu")
    assert refusal is not None
    assert refusal.rule == "device"
    assert refusal.reason == "is for cuda devices, and the target is cpu"
    assert rules.unfit(found, "cuda:1") is None


def test_compile_refuses_it_before_the_source_is_read(tmp_path: Path) -> None:
    with pytest.raises(DiffoptError, match=r"^offload-model: is for cuda devices, and the target is cpu"):
        compile("no-such-source", tmp_path, passes="offload-model", target="cpu")
