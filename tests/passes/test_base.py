"""The base of every pass: options, the registry, refusals."""

from __future__ import annotations

import importlib.metadata
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import DiffusionPass, Family, Option, Refusal, Tier, missing_package, options, registry


@dataclass(frozen=True)
class Sample(DiffusionPass):
    """A pass with an option of each kind."""

    name = "sample"
    family = Family.STEPS
    tier = Tier.EXACT
    examples = ()

    count: int = 3
    share: float = 0.5
    fast: bool = False
    kind: Literal["a", "b"] = "a"
    label: str = ""

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()
        yield cls(count=7)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        return Refusal("seven is too many") if self.count == 7 else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Change nothing."""


def test_options_are_read_off_the_fields() -> None:
    assert options(Sample) == (
        Option("count", "int", 3),
        Option("share", "float", 0.5),
        Option("fast", "bool", False),
        Option("kind", "str", "a", ("a", "b")),
        Option("label", "str", ""),
    )


def test_a_whole_number_will_do_for_a_float() -> None:
    assert Sample(share=1) == Sample(share=1.0)
    assert type(Sample(share=1).share) is float


def test_the_schedule_space_leaves_out_what_is_refused(standard_module: ModuleOp) -> None:
    assert Sample.schedule_space(Context(), standard_module) == (Sample(),)


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (Refusal("it is so"), "it is so"),
        (Refusal("it is so", "@unet"), "@unet: it is so"),
        (Refusal("it is so", rule="a-rule"), "it is so [a-rule]"),
        (Refusal("it is so", "@unet", "a-rule"), "@unet: it is so [a-rule]"),
    ],
)
def test_a_refusal_prints_place_reason_and_rule(refusal: Refusal, text: str) -> None:
    assert str(refusal) == text


def test_the_registry_is_in_the_order_of_families_and_cannot_be_changed() -> None:
    order = [list(Family).index(pass_type.family) for pass_type in registry().values()]
    assert order == sorted(order)
    assert {"reduce-steps", "guidance-window", "cache-features", "quantize", "export", "compile"} <= set(registry())
    with pytest.raises(TypeError):
        registry()["other"] = Sample  # type: ignore[index]


def _installed(monkeypatch: pytest.MonkeyPatch, *modules: types.ModuleType) -> None:
    class Entry:
        def __init__(self, module: types.ModuleType) -> None:
            self.module = module

        def load(self) -> types.ModuleType:
            return self.module

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry(m) for m in modules])


def test_a_pass_of_an_installed_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("theirs")
    vars(module)["Sample"] = Sample
    _installed(monkeypatch, module)
    assert registry.__wrapped__()["sample"] is Sample


def test_two_passes_of_one_name_are_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("theirs")
    vars(module)["Other"] = type("Other", (Sample,), {"name": "quantize", "__module__": "theirs"})
    _installed(monkeypatch, module)
    with pytest.raises(DiffoptError) as caught:
        registry.__wrapped__()
    assert str(caught.value) == "diffopt.passes.quantization.quantize, theirs: two passes are named quantize"


def test_a_missing_package_names_the_extra() -> None:
    assert missing_package("xdsl", "cpu") is None
    assert missing_package("no_such_package_here", "cpu") == Refusal(
        "needs no_such_package_here, which is not installed: pip install 'diffopt[cpu]'", rule="missing-package"
    )
