"""From a bad image or a slowdown of an artifact to the pass, the step and the layer at fault, and a reproducer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from diffopt.bench.evaluate import Evaluator, Failed, Measured, Outcome, Program, Thresholds
from diffopt.bench.teacher import layer_errors, step_errors
from diffopt.blame import blame
from diffopt.events import Listener, Stage, silence
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, applied, run
from diffopt.session import program

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

What = Literal["images", "speed", "crash"]
WHAT: Final = ("images", "speed", "crash")

REPRODUCE = '''"""Make one image with the pipeline as it was and with the passes at fault, and say how far they are apart."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import torch

PROMPT, SEED = {prompt!r}, {seed}
HERE = Path(__file__).resolve().parent


def image(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{{name}}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pipe = module.load(engines=HERE / "engines")
    return pipe(PROMPT, generator=torch.Generator("cpu").manual_seed(SEED), output_type="np").images[0]


before, after = image("before"), image("after")
error = float(np.mean((before - after) ** 2))
print(f"{{-10 * math.log10(max(error, 1e-12)):.1f}} dB between before.py and after.py")
'''


@dataclass(frozen=True)
class Fault:
    """What was found.

    Args:
        passes: those at fault, as text; empty where the whole is not bad.
        measured: how many programs were measured; tried: each with its outcome in a line.
        step: the first denoiser call that is off on the baseline's own latents, or None.
        step_errors: the error of each call.
        layer: the first layer that is off in that call, or None; layers: errors of the first few that are.
        note: why there is no step or layer, where there is none.
    """

    passes: str
    measured: int
    tried: tuple[tuple[str, str], ...]
    worst: tuple[str, int] | None = None
    step: int | None = None
    step_errors: tuple[float, ...] = ()
    layer: str | None = None
    layers: tuple[tuple[str, float], ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"ok": bool(self.passes), **asdict(self)}


def find_fault(
    evaluator: Evaluator,
    module: ModuleOp,
    trace: Trace,
    *,
    what: What = "images",
    floor_db: float | None = None,
    least_speedup: float = 1.0,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
    listen: Listener = silence,
) -> Fault:
    """Find the passes at fault among those of a trace.

    Args:
        what: "images": the median paired PSNR is below `floor_db` (by default what `near` asks); "speed": the whole
            interval of the speed-up is below `least_speedup`; "crash": it does not run. One that does not run is bad in
            any case.
    """
    from diffopt.display import describe, short

    floor = thresholds.near_psnr_median if floor_db is None else floor_db
    outcomes: dict[str, Outcome] = {}
    bad = _badness(what, floor, least_speedup)

    def chosen_trace(chosen: tuple[int, ...]) -> Trace:
        return Trace(tuple(trace.passes[index] for index in chosen))

    def test(chosen: tuple[int, ...]) -> bool:
        part = chosen_trace(chosen)
        pairs = (5, 12) if what == "speed" else (2, 2)
        outcome = evaluator.evaluate(program(applied(part, module), str(part)), pairs=pairs, any_image=True)
        outcomes[str(part)] = outcome
        listen(Stage(f"{'bad ' if bad(outcome) else 'good'}  {describe(outcome)}  {short(str(part))}"))
        return bad(outcome)

    found = blame(len(trace), test, legal=lambda chosen: not isinstance(run(chosen_trace(chosen), module), Refusal))
    tried = tuple((str(chosen_trace(c)), describe(outcomes[str(chosen_trace(c))])) for c, _ in found.tried)
    if not found.culprits:
        return Fault("", found.measured, tried)
    part = chosen_trace(found.culprits)
    outcome = outcomes[str(part)] if str(part) in outcomes else Failed("internal", "not measured")
    worst = outcome.fidelity.worst[0][:2] if isinstance(outcome, Measured) and outcome.fidelity.worst else None
    where = _place(evaluator, program(applied(part, module), str(part)), outcome, thresholds)
    return Fault(str(part), found.measured, tried, worst, **where)


def _badness(what: What, floor: float, least: float) -> Callable[[Outcome], bool]:
    def bad(outcome: Outcome) -> bool:
        if not isinstance(outcome, Measured):
            return True
        if what == "speed":
            return outcome.latency.hi < least
        return what == "images" and outcome.fidelity.psnr_median < floor

    return bad


def _place(evaluator: Evaluator, at_fault: Program, outcome: Outcome, thresholds: Thresholds) -> dict[str, Any]:
    """Return the step and the layer where the denoiser first goes wrong on the baseline's own latents."""
    if isinstance(outcome, Failed):
        return {"note": f"it does not run: {outcome.kind}: {outcome.message}"}
    seen = evaluator.observe(at_fault)
    if isinstance(seen, Failed):
        return {"note": f"its steps could not be watched: {seen.message}"}
    lesson, given = seen
    errors = step_errors(lesson, given)
    if errors is None:
        return {"note": "its steps run inside an engine, where no step or layer can be asked"}
    limit = thresholds.exact_error(lesson.dtype)
    step = next((index for index, error in enumerate(errors) if error > limit), None)
    if step is None:
        return {"step_errors": errors, "note": "the denoiser is right at every step; what lies around it is not"}
    if step >= lesson.calls:
        return {"step": step, "step_errors": errors, "note": "it takes more steps than the baseline"}
    layers = [(name, error) for name, error in layer_errors(lesson, given, step).items() if error > limit]
    note = "" if layers else "no layer's output is off: the step was left out, or put together otherwise"
    return {
        "step": step,
        "step_errors": errors,
        "layer": layers[0][0] if layers else None,
        "layers": tuple(layers[:8]),
        "note": note,
    }


def write_reproducer(folder: Path, fault: Fault, module: ModuleOp) -> Path:
    """Write before.py, after.py, reproduce.py and bisect.json into a new folder.

    Raises:
        DiffoptError: the folder is there already, or cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        changed = applied(Trace.parse(fault.passes), module)
        for name, text in (("before", program(module, "before")), ("after", program(changed, "after"))):
            (folder / f"{name}.py").write_text(text.pipeline_py, encoding="utf-8")
        prompt, seed = fault.worst or ("a photo", 0)
        (folder / "reproduce.py").write_text(REPRODUCE.format(prompt=prompt, seed=seed), encoding="utf-8")
        (folder / "bisect.json").write_text(json.dumps(fault.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DiffoptError(f"cannot be written: {error.strerror}", where=str(folder), hint="give another -o") from None
    return folder


def fault_lines(fault: Fault) -> list[str]:
    """Return what was found as text for people."""
    from diffopt.display import short

    lines = [f"{line}  {short(trace)}" for trace, line in fault.tried]
    lines.append(f"{fault.measured} programs measured")
    if not fault.passes:
        return [*lines, "nothing is at fault: the whole is not bad by this measure"]
    lines.append(f"at fault: {short(fault.passes)}")
    if fault.step is not None:
        error = fault.step_errors[fault.step]
        lines.append(f"first step that is off: {fault.step + 1} of {len(fault.step_errors)}, by {100 * error:.2g} %")
    lines += [f"layer {name}: off by {100 * error:.2g} %" for name, error in fault.layers]
    return lines + ([fault.note] if fault.note else [])
