"""Expert seeds: programs over passes that general knowledge says are good somewhere, the most telling first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, run
from diffopt.search.records import Trial

ENGINE = "ENGINE"
"""Stands for the best engine there is on the device, last in a preset."""

ENGINES = {
    "cpu": (
        'export{backend="openvino" scope="pipeline" precision="bf16"}',
        'export{backend="openvino" scope="components" precision="bf16"}',
        'export{backend="onnxruntime" scope="components" precision="f32"}',
        'compile{mode="default"}',
    ),
    "cuda": ('compile{mode="max-autotune-no-cudagraphs"}', 'compile{mode="default"}'),
}
"""What `ENGINE` may be on a kind of device: the first that is not refused."""

SAFE = {
    "cpu": (
        'export{backend="openvino" scope="pipeline" precision="f32"}',
        'export{backend="openvino" scope="components" precision="f32"}',
        'compile{mode="default"}',
    ),
    "cuda": ('compile{mode="default"}',),
}
"""Programs that keep the images as they are on a kind of device, the one with most to gain first."""

OWN_SOLVER = re.compile(r'solver="[^"]*" spacing="[^"]*"')
"""What a preset says of the solver; where that one is refused, the pipeline's own is tried."""

PRESETS = (
    # The first six hold one program for each level of fidelity, and two for the levels with most to gain.
    'reduce-steps{steps=10 solver="deis" spacing="trailing"},ENGINE',
    'reduce-steps{steps=2 solver="dpmsolver++" spacing="leading"},ENGINE',
    "cache-features{interval=3 branch=0},ENGINE",
    'reduce-steps{steps=4 solver="deis" spacing="leading"},ENGINE',
    'export{backend="openvino" scope="components" precision="bf16"}',
    'reduce-steps{steps=3 solver="deis" spacing="leading"},ENGINE',
    # Between and around them.
    'reduce-steps{steps=8 solver="deis" spacing="trailing"},ENGINE',
    'reduce-steps{steps=5 solver="dpmsolver++" spacing="trailing"},ENGINE',
    'reduce-steps{steps=10 solver="deis" spacing="trailing"},guidance-window{stop=0.8},ENGINE',
    'reduce-steps{steps=2 solver="deis" spacing="leading"},ENGINE',
    "cache-features{interval=2 branch=0},guidance-window{stop=0.8},ENGINE",
    'reduce-steps{steps=20 solver="deis" spacing="trailing"},cache-features{interval=2 branch=0},ENGINE',
    'reduce-steps{steps=6 solver="unipc" spacing="trailing"},ENGINE',
    # Other engines and precisions, for machines and models where the above do badly.
    'export{backend="openvino" scope="components" precision="f32"}',
    'quantize{scheme="int8-weights"},export{backend="openvino" scope="components" precision="bf16"}',
    'reduce-steps{steps=8 solver="deis" spacing="trailing"},export{backend="openvino" scope="components" precision="bf16"}',
    'reduce-steps{steps=8 solver="deis" spacing="trailing"},export{backend="onnxruntime" scope="components"}',
    'reduce-steps{steps=10 solver="ddim" spacing="leading"},ENGINE',
    "cache-features{interval=2 branch=0}",
    'reduce-steps{steps=20 solver="dpmsolver++" spacing="trailing"},compile{mode="default"}',
)


@dataclass(frozen=True)
class RuleProposer:
    """Proposes `PRESETS`, with the best engine of the device (``"cpu"`` or ``"cuda"``) that this module takes."""

    device: str = "cpu"
    name: str = "rules"

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """Return the presets in order; one that is refused stays in, so that its reason gets recorded."""
        return [_first_legal(self._readings(preset), module) for preset in PRESETS][:count]

    def _readings(self, preset: str) -> Iterator[Trace]:
        if not preset.endswith(ENGINE):
            yield Trace.parse(preset)
            return
        for program in dict.fromkeys((preset, OWN_SOLVER.sub('solver="own" spacing="trailing"', preset))):
            for engine in ENGINES[self.device.split(":")[0]]:
                yield Trace.parse(program.replace(ENGINE, engine))


@dataclass(frozen=True)
class Listed:
    """Proposes what it was given.

    Args:
        outside: whether it stands for plans from outside, as a language model's; see `standing.unearned`.
    """

    traces: Sequence[Trace]
    name: str = "rules"
    outside: bool = False

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """See `Proposer`."""
        return list(self.traces[:count])


def without_engines(module: ModuleOp) -> list[Trace]:
    """Return what the presets come to where no engine may be built: the same, without one, each program once."""
    found: dict[str, Trace] = {}
    for preset in PRESETS:
        for text in (preset, OWN_SOLVER.sub('solver="own" spacing="trailing"', preset)):
            read = Trace.parse(text.replace(f",{ENGINE}", ""))
            trace = Trace(tuple(step for step in read.passes if step.name not in ("export", "compile", "quantize")))
            if trace.passes and not isinstance(run(trace, module), Refusal):
                found.setdefault(str(trace), trace)
                break
    return list(found.values())


def with_engine(program: str, module: ModuleOp, device: str) -> Trace:
    """Return a program with the best engine of a device that a module takes behind it."""
    engines = ENGINES[device.split(":")[0]]
    return _first_legal((Trace.parse(f"{program},{engine}") for engine in engines), module)


def _first_legal(readings: Iterator[Trace], module: ModuleOp) -> Trace:
    tried = list[Trace]()
    for trace in readings:
        if not isinstance(run(trace, module), Refusal):
            return trace
        tried.append(trace)
    return tried[0]
