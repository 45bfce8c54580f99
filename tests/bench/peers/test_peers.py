"""Peers: what a recipe may import, how its program is bound, what is said where an environment is missing, and the table."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory
from diffopt.bench.peers.__main__ import main
from diffopt.bench.peers.environments import ENVIRONMENTS, python_of
from diffopt.bench.peers.levels import LEVELS, fastest, reaches
from diffopt.bench.peers.measuring import call_of, entries
from diffopt.bench.peers.page import page
from diffopt.bench.peers.peer import HERE, Peer, peers
from diffopt.ir.errors import DiffoptError

PEERS = peers()
MODELS = ("demo:shapes", "demo:shapes-pixart")
LEVEL = {level.name: level for level in LEVELS}
ALLOWED = {"__future__", "typing", "pathlib", "hashlib", "diffopt.bench.peers.calling", "diffopt.bench.peers.peer"}


@pytest.fixture(params=PEERS, ids=lambda peer: str(peer.name))
def peer(request: pytest.FixtureRequest) -> Peer:
    return request.param  # type: ignore[no-any-return]


def _load(peer: Peer) -> ast.FunctionDef:
    tree = ast.parse(peer.text)
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load")


def test_a_recipe_imports_at_its_top_only_what_every_environment_has(peer: Peer) -> None:
    tops = [node for node in ast.parse(peer.text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {
        name
        for node in tops
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert named <= ALLOWED


def test_every_arm_is_arguments_of_its_load(peer: Peer) -> None:
    taken = {argument.arg for argument in _load(peer).args.kwonlyargs}
    assert "call" in taken
    assert all(set(options) <= taken - {"call"} for options in peer.arms.values())


def test_a_program_is_the_recipe_with_one_arm_bound(peer: Peer) -> None:
    for arm, options in peer.arms.items():
        text = peer.program(arm, {"num_inference_steps": 3})
        assert text.startswith(peer.text)
        names: dict[str, Any] = {"__name__": "a_peer"}
        exec(compile(text, "pipeline.py", "exec"), names)  # noqa: S102 - our own text; it imports nothing heavy
        assert names["load"].keywords == {"call": {"num_inference_steps": 3}, **options}
        assert "model" in inspect.signature(names["load"]).parameters


def test_every_peer_names_its_environment_source_and_licence(peer: Peer) -> None:
    assert peer.environment == HERE or peer.environment in ENVIRONMENTS
    assert peer.source
    assert peer.licence


def test_only_arms_without_steps_count_as_keeping_them() -> None:
    from diffopt.bench.models import builtin

    model = builtin("demo:shapes")
    assert model is not None
    results = importlib.import_module("diffopt.bench.peers.__main__").RESULTS
    found = entries(model, PEERS, results / "demo-shapes-cpu.json")
    assert {entry.kind for entry in found} == {"diffopt", "packaged", "by hand"}
    assert len({entry.name for entry in found}) == len(found)
    assert all(
        ("steps" not in entry.arm or "kept" in entry.arm) == entry.kept for entry in found if entry.kind != "diffopt"
    )
    assert not any("cache-dit" in entry.who for entry in found)  # it is for transformers alone
    assert call_of(model)["num_inference_steps"] == model.steps


def test_a_missing_environment_is_one_line_that_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DiffoptError, match=r"python -m diffopt\.bench\.peers install deepcache"):
        python_of("deepcache", tmp_path)


def test_an_environment_that_could_not_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "pruna.failed").write_text("pruna cannot be installed: no matching distribution\n")
    with pytest.raises(DiffoptError, match="no matching distribution"):
        python_of("pruna", tmp_path)


def test_a_page_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", "-o", str(tmp_path / "none.json"), "--page", str(tmp_path / "page.md")]) == 2
    assert "python -m diffopt.bench.peers measure" in capsys.readouterr().err


def test_an_unknown_environment_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "nothing", "--work", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def row(
    who: str, ratio: float, *, kind: str = "packaged", psnr: float = 50.0, tier: str = "near", kept: bool = False
) -> dict[str, Any]:
    """Return a row of results as measuring writes it."""
    latency = Latency(ratio, ratio * 0.9, ratio * 1.1, 6, (1.0,), (1.0 / ratio,))
    fidelity = Fidelity(psnr, psnr - 3, psnr - 6, 0.99, 1.0, 1.0, 0.0, 0.1, 16, ())
    outcome = Measured(latency, fidelity, Memory(1, 1), 0.0, 1.0, 0.1, (), tier)
    return {"who": who, "arm": "an arm", "kind": kind, "kept": kept, "environment": HERE, "program": "00",
            "outcome": outcome.to_json()}  # fmt: skip


def test_a_leader_reaches_the_level_and_is_surely_fast() -> None:
    rows = [
        row("fast but far", 9, psnr=20, tier="changed"),
        row("slower", 3),
        row("leader", 5),
        row("ours", 7, kind="diffopt"),
    ]
    assert [found["who"] for found in fastest(rows, LEVEL["near"], "packaged")] == ["leader", "slower"]


def test_levels_ask_for_decibels_tiers_and_steps() -> None:
    assert reaches(row("a", 2, psnr=46, kept=True), LEVEL["steps kept"])
    assert not reaches(row("a", 2, psnr=46), LEVEL["steps kept"])
    assert not reaches(row("a", 2, psnr=44), LEVEL[">=45 dB"])
    assert not reaches(row("a", 2, tier="traded"), LEVEL["near"])
    assert reaches(row("a", 2, tier="exact"), LEVEL["traded"])


def results_of_a_run() -> dict[str, Any]:
    ours, theirs = row("diffopt", 40, kind="diffopt"), row("package", 20)
    failed = {**row("broken", 1), "outcome": Failed("build", "ImportError: no | such thing\nin /a/b/c/d.py").to_json()}
    screen = {f"{found['who']}: an arm": found for found in (ours, theirs, failed)}
    race = {"ours": "diffopt: an arm", "theirs": "package: an arm", "programs": ["00", "00"]}
    direct = {"near": {"packaged": {**race, "outcome": row("diffopt", 1.6)["outcome"]}}}
    return {
        "environment": {"python": "3.11", "cpu": "a processor"}, "threads": 1, "versions": {},
        "models": {"demo:shapes": {"screen": screen, "finals": screen, "direct": direct}},
    }  # fmt: skip


def test_the_page_tells_bars_and_failures() -> None:
    text = page(results_of_a_run(), PEERS)
    assert "every program had 1 core." in text
    assert "Not measured yet" in text
    assert "≥ 1.5: not told apart" in text  # 1.6 times, but the interval begins at 1.44
    assert "ImportError: no / such thing" in text
    assert "none on held-out prompts yet" in text
    assert all(peer.source in text for peer in PEERS)


def test_the_page_in_the_documentation_is_the_page_of_the_results() -> None:
    place = importlib.import_module("diffopt.bench.peers.__main__").RESULTS
    found = json.loads((place / "peers-cpu.json").read_text())
    assert (place.parents[1] / "docs" / "peers.md").read_text() == page(found, PEERS)


def test_results_hold_what_measuring_wrote() -> None:
    names = {item.name for item in dataclasses.fields(Latency)}
    place = importlib.import_module("diffopt.bench.peers.__main__").RESULTS
    for results in json.loads((place / "peers-cpu.json").read_text())["models"].values():
        for races in results.get("direct", {}).values():
            assert all(set(race["outcome"]["latency"]) == names for race in races.values())
