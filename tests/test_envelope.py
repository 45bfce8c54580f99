from __future__ import annotations

from dataclasses import replace

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Outcome
from diffopt.bench.workload import Workload
from diffopt.envelope import Envelope, Point, choose_everywhere, module_at, workload_at
from diffopt.events import Event, Stage
from diffopt.finals import Final
from diffopt.ir.dialect import components
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import module_hash, parse_module, print_module
from diffopt.passes.pipeline import Trace, applied
from diffopt.search.goals import LEVELS, Constraints
from diffopt.search.records import Candidate
from diffopt.search.study.synthetic import measured


def test_sizes_are_width_before_height_and_stand_beside_the_own(standard_module: ModuleOp) -> None:
    envelope = Envelope.parse("64x64, 96X64,96x64", "1,4")
    assert envelope.points(standard_module) == (
        Point(64, 64, 4),
        Point(64, 96, 1),
        Point(64, 96, 4),
    )
    assert str(Point(64, 96, 4)) == "96x64, batch 4"


@pytest.mark.parametrize(
    ("sizes", "batches", "option"),
    [("64", None, "--sizes"), ("0x64", None, "--sizes"), ("64x64,", None, "--sizes"), (None, "0", "--batches"),
     (None, "1;4", "--batches"), (None, "1000", "--batches"), ("9x-9", None, "--sizes")],
)  # fmt: skip
def test_nonsense_names_its_option(sizes: str | None, batches: str | None, option: str) -> None:
    with pytest.raises(DiffoptError) as raised:
        Envelope.parse(sizes, batches)
    assert raised.value.where == option


def test_a_size_that_the_vae_cannot_draw_is_refused_before_anything_is_measured(standard_module: ModuleOp) -> None:
    changed = standard_module.clone()
    components(changed)["vae"].set_value("config", {"block_out_channels": [32, 64, 128]})
    with pytest.raises(DiffoptError, match="63x64 cannot be drawn: the VAE makes sides that are multiples of 4"):
        Envelope.parse("63x64", None).on(changed)
    Envelope.parse("60x64", None).on(changed)


def test_engines_of_all_sizes_are_in_the_code_and_the_first_size_is_the_calls(standard_module: ModuleOp) -> None:
    module = Envelope.parse("96x64", None).on(standard_module)
    for scope in ("pipeline", "components"):
        trace = Trace.parse(f"export{{scope={scope}}}")
        here = emit_pipeline(applied(trace, module))
        there = emit_pipeline(applied(trace, module_at(module, Point(64, 96, 1))))
        assert "height=64, width=64, sizes=[[64, 96]]" in here
        assert "height=64, width=96, sizes=[[64, 64]]" in there
        assert "sizes" not in emit_pipeline(applied(trace, standard_module))
    assert emit_pipeline(module) == emit_pipeline(standard_module), "the baseline has no engines"


def test_an_envelope_of_batches_alone_changes_no_program(standard_module: ModuleOp) -> None:
    module = Envelope.parse("64x64", "4").on(standard_module)
    assert module_hash(module) == module_hash(standard_module)
    assert module_hash(module_at(module, Point(64, 64, 4))) == module_hash(standard_module)


def test_sizes_of_an_ir_that_are_none_are_refused_before_they_are_code(standard_module: ModuleOp) -> None:
    for wrong in ([[64]], [[64, "a"]], "x", [[0, 64]], [[True, 64]]):
        module = standard_module.clone()
        components(module)["pipeline"].set_value("sizes", wrong)  # type: ignore[arg-type]
        with pytest.raises(DiffoptError, match="sizes must be"):
            emit_pipeline(parse_module(print_module(module)))


def test_a_point_has_the_searchs_prompts_and_the_first_held_out_ones() -> None:
    work = Workload(("a",), tuple(f"b{n}" for n in range(64)), 0, 64, 64)
    there = workload_at(work, Point(64, 96, 4))
    assert (there.width, there.batch, there.prompts, len(there.heldout)) == (96, 4, ("a",), 16)


def test_the_winner_keeps_the_goal_at_every_point() -> None:
    point = Point(64, 96, 1)

    def final(number: int, ratio: float) -> Final:
        return Final(LEVELS[2], Candidate(number, f"t{number}", f"k{number}", "rules"), measured(ratio, 40.0))

    def everywhere(trace: str) -> dict[Point, Outcome]:
        return {point: replace(measured(3.0, 40.0), tier="traded" if trace == "t1" else "near")}

    said: list[Event] = []
    chosen, found = choose_everywhere(
        [final(1, 9.0), final(1, 9.0), final(2, 5.0)], Constraints(tier="near"), everywhere, said.append
    )
    assert chosen is not None
    assert chosen.candidate is not None
    assert (chosen.candidate.trace, list(found)) == ("t2", [point])
    assert said == [Stage("not at 96x64, batch 1: tier traded, asked for near")]
    assert choose_everywhere([final(1, 9.0)], Constraints(tier="near"), everywhere)[0] is None
