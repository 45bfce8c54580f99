"""Direct mode: whole scripts, judged by three gates in a row; measuring is scripted here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome
from diffopt.llm.client import Client
from diffopt.llm.debugger import Effort
from diffopt.llm.direct import Attributes, Direct, StaticGate, gates, judge
from diffopt.llm.transcript import Transcript

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedEndpoint

SCRIPT = """\
from diffusers import DDIMScheduler, StableDiffusionPipeline


def load(model="m", device="cpu", engines=None):
    pipe = StableDiffusionPipeline.from_pretrained(model)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.fuse_qkv_projections()
    return pipe
"""
WANTED = Attributes(
    names=("StableDiffusionPipeline", "DDIMScheduler"), calls=("fuse_qkv_projections",), arguments=(("model", '"m"'),)
)


def outcome(ratio: float, psnr: float) -> Measured:
    latency = Latency(ratio, ratio * 0.95, ratio * 1.05, 5, (1.0,) * 5, (1 / ratio,) * 5)
    fidelity = Fidelity(psnr, psnr, psnr, 1.0, 0.9, 1.0, None, None, 8, ())
    return Measured(latency, fidelity, Memory(1, 1), 0.0, 0.0, 0.0, (), "near")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (SCRIPT, ""),
        (SCRIPT.replace("def load", "def make"), "no function load"),
        (SCRIPT + "(", "not Python"),
        (SCRIPT.replace("StableDiffusionPipeline", "AutoPipelineForText2Image"), "it lacks StableDiffusionPipeline"),
        (SCRIPT.replace("pipe.fuse_qkv_projections()", "pipe.enable_attention_slicing()"), "it lacks fuse_qkv_projections"),
    ],
)  # fmt: skip
def test_the_first_gate_reads_and_runs_nothing(code: str, said: str) -> None:
    wanted = Attributes(WANTED.names, WANTED.calls)
    reason = StaticGate(wanted)(code)
    assert (said in reason) if said else reason == ""
    assert 'model="n"' in StaticGate(Attributes(arguments=(("model", '"n"'),)))(
        "def load():\n    return f(model='m')\n"
    )


@pytest.mark.parametrize("value", ["a" + ".b" * 900, "-" * 900 + "1", "[" * 180 + "]" * 180, "'\ud800'"])
def test_a_script_too_deep_to_be_read_is_a_reason_and_no_crash(value: str) -> None:
    code = f"x = {value}\ndef load(model, device, engines):\n    pass\n"
    reason = StaticGate(Attributes(names=("missing",)))(code)
    # How deep is too deep is the interpreter's limit, which libraries raise: what can be read lacks the name.
    assert reason.startswith(("it is too deeply nested", "it is not Python", "it lacks missing"))


def test_gates_close_in_their_order_and_one_script_is_measured_once() -> None:
    asked: list[str] = []

    def measure(code: str) -> Outcome:
        asked.append(code)
        return {"slow": outcome(1.1, 60), "bad": outcome(4.0, 12), "good": outcome(4.0, 60)}.get(
            code.split("# ")[-1].strip(), Failed("build", "no such layer")
        )

    row = gates(measure, Attributes(), min_psnr=30, min_accuracy=0.8, min_speedup=2.0)
    assert judge("x = (", row)[0] == "static"
    assert asked == []
    assert judge(SCRIPT + "# other", row) == ("absolute", "it does not run: build: no such layer\n")
    assert judge(SCRIPT + "# bad", row) == ("absolute", "images at a median of 12.0 dB, 30 are asked for")
    assert judge(SCRIPT + "# slow", row)[0] == "relative"
    assert judge(SCRIPT + "# good", row) == ("", "")
    assert len(asked) == 4


def test_a_script_is_mended_from_what_the_gate_says(endpoint: ScriptedEndpoint) -> None:
    endpoint.says({"reason": "first", "code": SCRIPT.replace("fuse_qkv_projections", "fuse_qkv")})
    endpoint.says({"reason": "second", "code": SCRIPT + "# slow"})
    endpoint.says({"reason": "third", "code": SCRIPT})
    outcomes = [outcome(1.2, 60), outcome(2.4, 60)]
    row = gates(lambda code: outcomes.pop(0), Attributes(calls=("fuse_qkv_projections",)), min_speedup=2.0)
    client = Client(endpoint.url, "scripted", max_retries=0)
    found = Direct(client, Transcript(None), effort=Effort(3, 1)).write(
        "Make it twice as fast with fused QKV.", SCRIPT, row
    )
    assert found.piece is not None
    assert found.piece.reason == "third"
    assert [a.problem.partition(":")[0] for a in found.attempts] == ["gate static", "gate relative", ""]
    assert "it lacks fuse_qkv_projections(...)" in endpoint.seen[1].body["messages"][-1]["content"]
    assert "2 is asked for" in endpoint.seen[2].body["messages"][-1]["content"]
