"""The report: everything in it, nothing that runs, and no field it cannot do without."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt import report_plot
from diffopt.bench.images import save_pairs
from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory
from diffopt.bench.references import References
from diffopt.bench.tiers import Thresholds
from diffopt.report import summary_lines, verdict, write_report
from diffopt.report_images import MOST_PAIRS, WORST_PAIRS

HOSTILE = "<script>alert(1)</script>"
EXPORT = "export{backend=openvino scope=pipeline precision=bf16}"
NEAR = f"reduce-steps{{steps=4 solver=deis2 spacing=trailing}},guidance-window{{stop=1.0}},{EXPORT}"
TRADED = f"reduce-steps{{steps=3 solver=deis2 spacing=trailing}},guidance-window{{stop=0.67}},{EXPORT}"
FINE = f"reduce-steps{{steps=12 solver=dpmsolver++ spacing=trailing}},{EXPORT}"
KEPT = "export{backend=openvino scope=components precision=bf16}"


def measured(ratio: float, psnr: float, tier: str, **changes: Any) -> dict[str, Any]:
    """Return the JSON of a measured outcome, as `diffopt.bench` writes it."""
    rng = np.random.default_rng(int(ratio * 1000))
    baseline = 0.72 * np.exp(rng.normal(0, 0.03, 9))
    candidate = baseline / ratio * np.exp(rng.normal(0, 0.04, 9))
    scored = changes.pop("scored", True)
    outcome = Measured(
        latency=Latency(
            ratio, ratio * 0.95, ratio * 1.04, 9, tuple(baseline.tolist()), tuple(candidate.tolist()), stopped="precise"
        ),
        fidelity=Fidelity(
            psnr, psnr - 4.2, psnr - 7.9, 0.98, 0.945 if scored else None, 0.95 if scored else None,
            0.00213 if scored else None, 0.0041 if scored else None, 200, ((HOSTILE, 7, psnr - 7.9),), 0.95, 16.3,
        ),
        memory=Memory(900_000_000, 1_300_000_000),
        build_s=4.2, load_s=6.1, first_call_s=0.9,
        witnesses=tuple(changes.pop("witnesses", ())),
        tier=tier,
        **changes,
    )  # fmt: skip
    return json.loads(json.dumps(outcome.to_json()))  # type: ignore[no-any-return]


def failed(kind: str, message: str) -> dict[str, Any]:
    return dict(Failed(kind, message, "Traceback ...").to_json())


def manifest() -> dict[str, Any]:
    return copy.deepcopy(_manifest())


@cache
def _manifest() -> dict[str, Any]:
    """Return a whole manifest, with hostile text wherever text can come from outside."""
    rng = np.random.default_rng(5)
    witnesses = (
        {"transform": "export", "count": 14, "detail": f"14 engine calls {HOSTILE}"},
        {"transform": "guidance-window", "count": 0, "detail": "0 of 3 steps without guidance"},
    )
    winner = measured(54.2, 36.4, "near", witnesses=witnesses)
    trials = []
    for number in range(40):
        if number % 9 == 4:
            outcome = failed("build", f"openvino: unsupported op {HOSTILE}\nsecond line")
        else:
            ratio = float(np.exp(rng.uniform(0.1, 4)))
            psnr = float(min(120.0, 72 - 9.5 * np.log(ratio) + rng.normal(0, 5)))
            tier = "exact" if psnr > 54 else "near" if psnr > 36 else "traded" if psnr > 28 else "changed"
            outcome = measured(ratio, psnr, tier)
        trace = [KEPT, NEAR, FINE, TRADED][number % 4]
        origin = ["rules", "swap", f"llm {HOSTILE}"][number % 3]
        trials.append({"id": number, "trace": trace, "key": f"{number:08x}", "origin": origin, "outcome": outcome})
    sentence = {
        "steps kept": "Steps as they were, median paired PSNR at least 45 dB.",
        ">=45 dB": "Median paired PSNR at least 45 dB.",
        "near": "Median at least 35 dB, worst tenth at least 30 dB, prompt accuracy within 1 point.",
        "traded": "Prompt accuracy within 2 points, feature distance within the spread of seeds.",
    }
    outcomes = [measured(3.84, 59.9, "exact"), measured(21.7, 47.3, "near"), winner, None]
    traces = [KEPT, FINE, NEAR, ""]
    return {
        "format": 1,
        "diffopt": "0.1.0",
        "created": "2026-11-23T07:00:00+00:00",
        "command": f"diffopt compile demo:shapes -o out --prompts '{HOSTILE}'",
        "target": "cpu",
        "source": {"kind": "directory", "path": f"models/{HOSTILE}"},
        "model": {"path": f"models/{HOSTILE}", "hash": "ab12"},
        "device": {
            "cpu": "AMD EPYC 9R14", "cores": 2, "features": ["avx512", "bf16"], "memory_bytes": 8_200_000_000,
            "system": "Linux 6.8 x86_64", "versions": {"torch": "2.13.0", "openvino": "2026.4.1"}, "device": "cpu",
        },
        "thresholds": Thresholds().to_json(),
        "workload": {"search": 64, "heldout": 200, "seed": 0, "height": 64, "width": 64, "prompts": [HOSTILE]},
        "trace": NEAR,
        "tier": "near",
        "goal": {"tier": "near", "min_psnr": None},
        "self_test": {"ratio": 1.004, "lo": 0.991, "hi": 1.012, "pairs": 15},
        "result": winner,
        "levels": [
            {"level": level, "requirement": sentence[level], "trace": trace, "key": "k", "outcome": outcome}
            for level, trace, outcome in zip(sentence, traces, outcomes, strict=True)
        ],
        "controls": [
            {"name": "fewer steps at equal time", "trace": "reduce-steps{steps=1 solver=own}",
             "outcome": measured(38.5, 17.2, "changed")},
            {"name": "stock torch.compile", "trace": "compile{mode=default}",
             "outcome": failed("timeout", f"no answer after 600 s {HOSTILE}")},
        ],
        "trials": trials,
        "steps": [
            {"pass": part.strip(","), "explanation": f"Sample in 4 steps instead of 50. {HOSTILE}"}
            for part in re.findall(r"[^,{]+\{[^}]*\}", NEAR)
        ],
        "seconds": {"baseline": 41.2, "search": 187.0, "final": 62.0, "total": 291.3},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 30 image pairs, the one of index 3 the worst."""
    rng = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("images")
    coarse = rng.random((30, 8, 8, 3), dtype=np.float32)
    references = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    images = np.clip(references + rng.normal(0, 0.02, references.shape), 0, 1).astype(np.float32)
    prompts = tuple(f"a red circle {index} {HOSTILE}" for index in range(30))
    psnr = [28.5 if index == 3 else 34.0 + index / 10 for index in range(30)]
    save_pairs(place, images, References(prompts, tuple(range(1000, 1030)), references, references), psnr)
    return place


@pytest.fixture
def page(tmp_path: Path, folder: Path) -> Callable[[dict[str, Any]], str]:
    def write(data: dict[str, Any]) -> str:
        write_report(data, folder, tmp_path / "report.html")
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


class Elements(HTMLParser):
    """Collects start tags with their attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_hostile_text_stays_text(page: Callable[[dict[str, Any]], str]) -> None:
    html = page(manifest())
    found = Elements(html)
    assert "<script" not in html
    assert HOSTILE in found.text
    assert {tag for tag, _ in found.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "section", "h1", "h2", "h3", "p", "table", "thead",
        "tbody", "tr", "th", "td", "span", "code", "pre", "figure", "figcaption", "svg", "g", "line", "text", "circle",
        "path", "rect", "polyline", "ul", "ol", "li", "div", "img", "br", "bdi",
    }  # fmt: skip
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]


def test_page_needs_nothing_else(page: Callable[[dict[str, Any]], str]) -> None:
    html = page(manifest())
    found = Elements(html)
    links = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(str(link).startswith("data:image/png;base64,") for link in links)
    assert "url(" not in html
    assert "@import" not in html
    assert any("default-src 'none'" in str(attributes.get("content")) for _, attributes in found.tags)


def test_a_program_of_no_level_has_a_row_too() -> None:
    found = manifest()
    assert not [line for line in summary_lines(found) if line.startswith("the artifact")]
    found["trace"] = "export{precision=f32}"
    (line,) = [line for line in summary_lines(found) if line.startswith("the artifact")]
    assert "54.2× [51.5, 56.4]" in line


def test_says_verdict_ladder_controls_and_failures(page: Callable[[dict[str, Any]], str]) -> None:
    text = Elements(page(manifest())).text
    assert verdict(manifest()) in text
    assert "Tier near: 54.2× [51.5, 56.4] as fast as the baseline" in text
    assert "36.4 dB in the median" in text
    assert "AMD EPYC 9R14 (2 cores)" in text
    assert "36.4 / 32.2 / 28.5" in text
    assert "94.5 % (95.0 %)" in text
    assert "0.00213 (0.0041)" in text
    assert "no program of the search met it" in text
    assert f"timeout: no answer after 600 s {HOSTILE}" in text
    assert f"build: openvino: unsupported op {HOSTILE}" in text
    assert "second line" not in text
    assert "did nothing" in text
    assert "cannot be told apart here" in text
    assert f"diffopt compile demo:shapes -o out --prompts '{HOSTILE}'" in text


def test_shows_a_bounded_number_of_pairs_and_marks_the_worst(page: Callable[[dict[str, Any]], str]) -> None:
    html = page(manifest())
    found = Elements(html)
    assert sum(tag == "img" for tag, _ in found.tags) == 2 * MOST_PAIRS
    assert html.count('<figure class="worst">') == WORST_PAIRS
    assert html.index("28.5 dB · seed 1003") < html.index("34.0 dB · seed 1000") < html.index("36.9 dB · seed 1029")
    assert "12 of 30 held-out pairs" in found.text


@pytest.mark.slow
def test_reduces_large_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((1, 1024, 1024, 3), dtype=np.float32)
    save_pairs(tmp_path, noise, References(("a",), (1,), noise, noise), [120.0])
    write_report(manifest(), tmp_path, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_unreadable_images_are_left_out(tmp_path: Path, folder: Path) -> None:
    listed = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    (tmp_path / "images.json").write_text(json.dumps(listed))
    (tmp_path / "000-baseline.png").write_bytes(b"not an image")
    write_report(manifest(), tmp_path, tmp_path / "report.html")
    assert "No images were kept." in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_shows_the_pairs_that_an_artifact_kept(tmp_path: Path, folder: Path) -> None:
    for name in ("images.json", "003-baseline.png", "003-candidate.png", "017-baseline.png", "017-candidate.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    write_report(manifest(), tmp_path, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("<img ") == 4
    assert "seed 1017" in html


def test_without_a_scorer_says_so(page: Callable[[dict[str, Any]], str]) -> None:
    data = manifest()
    data["result"] = measured(9.0, 41.0, "near", scored=False)
    data["levels"] = [{"level": "near", "requirement": "r", "trace": NEAR, "outcome": data["result"]}]
    html = page(data)
    assert "no scorer" in html
    assert "prompts followed (baseline –)" not in verdict(data)


def test_says_when_a_level_is_missed_on_heldout_prompts(page: Callable[[dict[str, Any]], str]) -> None:
    data = manifest()
    data["levels"][1]["outcome"] = measured(21.7, 43.9, "near")
    data["levels"][2]["outcome"] = measured(54.2, 34.1, "traded")
    assert page(data).count("missed on held-out prompts") == 2
    assert sum("missed on held-out prompts" in line for line in summary_lines(data)) == 2


def test_failed_result_gives_a_plain_no(page: Callable[[dict[str, Any]], str]) -> None:
    data = manifest() | {"result": failed("crash", "killed by signal 11")}
    assert verdict(data).startswith("No program met the goal of tier near (crash: killed by signal 11)")
    assert verdict(data) in Elements(page(data)).text


def test_unstable_images_are_reported(page: Callable[[dict[str, Any]], str]) -> None:
    steady, unsteady = manifest(), manifest() | {"result": measured(54.2, 36.4, "near", deterministic=False)}
    assert "did not give the same image" not in page(steady)
    assert "did not give the same image" in page(unsteady)


def test_break_even_counts_longer_load_and_first_call(page: Callable[[dict[str, Any]], str]) -> None:
    data = manifest()
    slower = measured(0.8, 60.0, "exact")
    data["controls"] = [{"name": "slower", "trace": "t", "outcome": slower}]
    winner = measured(2.0, 60.0, "exact")
    winner["latency"] |= {"baseline_s": [1.0], "candidate_s": [0.5]}
    data["levels"] = [{"level": "near", "trace": NEAR, "outcome": winner | {"build_s": 9.0, "first_call_s": 1.0}}]
    text = Elements(page(data)).text
    assert "19 images" in text
    assert "never" in text


@pytest.mark.parametrize("field", sorted(manifest()))
@pytest.mark.parametrize("value", [None, "text", [None]], ids=repr)
def test_no_field_is_needed(field: str, value: object, tmp_path: Path) -> None:
    data = manifest()
    data |= {"trials": data["trials"][:5], field: value}
    write_report(data, tmp_path, tmp_path / "report.html")
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert summary_lines(data)


def test_text_that_utf8_cannot_hold_is_replaced(tmp_path: Path) -> None:
    write_report(manifest() | {"command": "diffopt \ud800"}, tmp_path, tmp_path / "report.html")
    assert "diffopt ?" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_empty_manifest_gives_a_page(tmp_path: Path) -> None:
    write_report({}, tmp_path / "absent", tmp_path / "report.html")
    assert "No program met the goal" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert summary_lines({})[0].startswith("No program met the goal")


def test_every_number_may_be_none_or_infinite(tmp_path: Path) -> None:
    def spoiled(value: Any, by: float | None) -> Any:
        if isinstance(value, dict):
            return {key: spoiled(item, by) for key, item in value.items()}
        if isinstance(value, list):
            return [spoiled(item, by) for item in value]
        return by if isinstance(value, float | int) else value

    for by in (None, float("inf"), float("nan"), float("-inf"), 0, -1):
        write_report(spoiled(manifest(), by), tmp_path, tmp_path / "report.html")
        summary_lines(spoiled(manifest(), by))


def test_summary_is_plain_text_in_columns() -> None:
    data = manifest()
    data["levels"][0]["level"] = "steps\x1b[31m kept"
    lines = summary_lines(data)
    assert lines[0] == verdict(data)
    assert all(line.isprintable() for line in lines)
    assert "steps\\x1b[31m kept" in "\n".join(lines)
    near = next(line for line in lines if line.startswith("near "))
    header = lines[2]
    assert near.index("54.2×") == header.index("speedup")
    assert near.index("36.4 /") == header.index("PSNR")
    assert "timeout: no answer after 600 s" in next(line for line in lines if line.startswith("stock torch.compile"))


def test_front_holds_what_no_trial_beats() -> None:
    points = report_plot.points(manifest())
    front = report_plot.front(points)
    trials = [point for point in points if point.kind == "trial"]
    for trial in trials:
        beaten = any(o.ratio >= trial.ratio and o.psnr >= trial.psnr and o != trial for o in trials)
        assert beaten != (trial in front)


@given(
    st.lists(st.tuples(st.floats(0.05, 500), st.floats(-5, 120), st.floats(1, 1.5)), min_size=1, max_size=12),
    st.sampled_from([(860, 440), (350, 400)]),
)
@settings(max_examples=25, deadline=None)
def test_every_mark_and_label_stays_inside_the_plot(
    found: list[tuple[float, float, float]], size: tuple[int, int]
) -> None:
    kinds = ["trial", "winner", "control"]
    points = [
        report_plot.Point(kinds[index % 3], f"name {index}", "near", ratio, ratio / wide, ratio * wide, psnr)
        for index, (ratio, psnr, wide) in enumerate(found)
    ]
    plot = report_plot.draw(points, [(35.0, "near")], *size)
    assert plot is not None
    left, top, right, bottom = plot.frame
    for mark in plot.marks:
        assert left <= mark.left <= mark.x <= mark.right <= right
        assert top <= mark.y <= bottom
    for label in plot.labels:
        assert label.box[0] >= 0
        assert label.box[2] <= size[0]
    order = sorted(plot.marks, key=lambda mark: mark.point.ratio)
    assert [mark.x for mark in order] == sorted(mark.x for mark in order)
