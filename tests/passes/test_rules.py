"""What passes declare of one another holds for both, whichever of the two is asked and whichever declares it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes import base
from diffopt.passes.base import DiffusionPass, Family, Refusal, Tier, registry
from diffopt.passes.pipeline import Trace, key, run
from diffopt.passes.rules import Row, architecture, table


@dataclass(frozen=True)
class Alone(DiffusionPass):
    """Puts one transform of its own name on one component."""

    name = "alone"
    family = Family.MEMORY
    tier = Tier.EXACT
    examples = ()

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)[self.part()].add_transform(self.name.replace("-", "_"), {}, self.name)

    def part(self) -> str:
        return "unet"


def declared(name: str, **rules: object) -> DiffusionPass:
    made: type[Alone] = type(name.capitalize(), (Alone,), {"name": name, **rules})
    return made()


def both_ways(
    monkeypatch: pytest.MonkeyPatch, module: ModuleOp, one: DiffusionPass, other: DiffusionPass
) -> tuple[ModuleOp | Refusal, ModuleOp | Refusal]:
    known = {**registry(), one.name: type(one), other.name: type(other)}
    monkeypatch.setattr(base, "registry", lambda: types.MappingProxyType(known))
    return run(Trace((one, other)), module), run(Trace((other, one)), module)


def test_what_excludes_another_is_refused_in_both_orders(
    monkeypatch: pytest.MonkeyPatch, standard_module: ModuleOp
) -> None:
    one, other = declared("one", excludes={"other": "both want the same memory"}), declared("other")
    first, second = both_ways(monkeypatch, standard_module, one, other)
    assert first == Refusal("not with one: both want the same memory", "other", "excludes")
    assert second == Refusal("not with other: both want the same memory", "one", "excludes")


@pytest.mark.parametrize("entry", ["other", "family:memory"])
@pytest.mark.parametrize("declares", ["one", "other"])
def test_an_order_is_kept_whichever_pass_declares_it(
    monkeypatch: pytest.MonkeyPatch, standard_module: ModuleOp, entry: str, declares: str
) -> None:
    one = declared("one", before=(entry,) if declares == "one" else ())
    other = declared("other", after=(entry.replace("other", "one"),) if declares == "other" else ())
    first, second = both_ways(monkeypatch, standard_module, one, other)
    assert isinstance(first, ModuleOp)
    reason = "one must come before other, which stands there already"
    assert second == Refusal(reason, "one @unet", "order")


def test_an_order_says_nothing_of_different_components(
    monkeypatch: pytest.MonkeyPatch, standard_module: ModuleOp
) -> None:
    one, other = declared("one", before=("other",)), declared("other", part=lambda self: "vae")
    first, second = both_ways(monkeypatch, standard_module, one, other)
    assert isinstance(first, ModuleOp)
    assert isinstance(second, ModuleOp)


def test_a_component_holds_one_of_a_group(monkeypatch: pytest.MonkeyPatch, standard_module: ModuleOp) -> None:
    one, other = declared("one", one_of="offload"), declared("other", one_of="offload")
    for result in both_ways(monkeypatch, standard_module, one, other):
        assert isinstance(result, Refusal)
        assert result.rule == "one-of"
        assert "a component holds at most one offload" in result.reason
    elsewhere = declared("other", one_of="offload", part=lambda self: "vae")
    for result in both_ways(monkeypatch, standard_module, one, elsewhere):
        assert isinstance(result, ModuleOp)
    assert isinstance(run(Trace((one, one)), standard_module), Refusal)


def test_what_is_required_must_be_there_already(monkeypatch: pytest.MonkeyPatch, standard_module: ModuleOp) -> None:
    first, second = both_ways(monkeypatch, standard_module, declared("one"), declared("other", requires=("one",)))
    assert isinstance(first, ModuleOp)
    assert second == Refusal("needs one ahead of it, which is not there", "other", "requires")


def test_a_pass_for_another_architecture_or_without_its_package_is_refused(standard_module: ModuleOp) -> None:
    assert architecture(standard_module) == "unet"
    refused = declared("one", architectures=("transformer",)).refusal(standard_module)
    assert refused == Refusal(
        "is for transformers, and the denoiser is diffusers.UNet2DConditionModel", "@unet", "architecture"
    )
    refused = declared("one", packages={"no_such_package_here": "cpu"}).refusal(standard_module)
    assert refused is not None
    assert refused.rule == "missing-package"


def test_asking_leaves_the_module_as_it_is(monkeypatch: pytest.MonkeyPatch, standard_module: ModuleOp) -> None:
    one, other = declared("one", one_of="weights"), declared("other", one_of="weights")
    both_ways(monkeypatch, standard_module, one, other)
    after = run(Trace((one,)), standard_module)
    assert isinstance(after, ModuleOp)
    before = key(Trace(), after)
    assert other.refusal(after) is not None
    assert key(Trace(), after) == before


def test_the_rules_of_a_pass_are_rows() -> None:
    made = declared("one", after=("a",), excludes={"b": "they fight"}, one_of="engine", architectures=("unet",))
    assert table(made) == (
        Row("after", "a"),
        Row("excludes", "b", "they fight"),
        Row("at most one", "engine"),
        Row("only for", "unets"),
    )


def test_every_name_in_a_rule_is_a_pass_or_a_family() -> None:
    families = {f"family:{family.value}" for family in Family}
    for name, found in registry().items():
        for entry in (*found.after, *found.before):
            assert entry in registry() or entry in families, f"{name}: {entry}"
        for entry in (*found.requires, *found.excludes):
            assert entry in registry(), f"{name}: {entry}"
        assert set(found.architectures) <= {"unet", "transformer"}, name
