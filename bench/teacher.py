"""Teacher forcing: how far a candidate's denoiser is from the baseline's on the baseline's own latents, step by step."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffopt.bench.disk import clear, write_new
from diffopt.bench.outcome import Failed
from diffopt.bench.resident import Died, Resident

Arrays = Mapping[str, npt.NDArray[np.float32]]

MOST_BYTES = 4 << 30
MISSING = 1.0
"""The error of a step that the candidate did not compute: as if it had answered zero."""


@dataclass(frozen=True)
class Lesson:
    """The baseline's denoiser calls for some prompts and seeds: latents, answers, and its dtype ("" for none)."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    file: Path
    arrays: Arrays
    dtype: str

    @property
    def calls(self) -> int:
        """How many times the denoiser was called."""
        return sum(name.startswith("out.") for name in self.arrays)


def lesson(
    baseline: Resident,
    folder: Path,
    prompts: tuple[str, ...],
    seeds: tuple[int, ...],
    *,
    deadline_s: float,
    layers: bool = False,
) -> Lesson:
    """Write down the baseline's denoiser calls in one request.

    Args:
        folder: the baseline's own.

    Raises:
        Died: it raised, or the process died.
    """
    file = folder / "lesson.safetensors"
    arrays, dtype = _run(baseline, None, file, prompts, seeds, deadline_s, layers)
    return Lesson(prompts, seeds, file, arrays, dtype)


def answers(candidate: Resident, folder: Path, known: Lesson, *, deadline_s: float, layers: bool = False) -> Arrays:
    """Return the candidate's denoiser outputs on the baseline's latents.

    Args:
        folder: the candidate's own; the latents are written there, the baseline's outputs are not.

    Raises:
        Died: it raised, the process died, or what it wrote is no answer.
    """
    from safetensors.numpy import save

    inputs = folder / "lesson.safetensors"
    write_new(inputs, save({name: value for name, value in known.arrays.items() if name.startswith("in.")}))
    return _run(candidate, inputs, folder / "answers.safetensors", known.prompts, known.seeds, deadline_s, layers)[0]


def step_errors(known: Lesson, given: Arrays) -> tuple[float, ...] | None:
    """Return the relative L2 error of each denoiser call; None where the candidate's denoiser was never called.

    It is the larger of two: of the denoiser's answer, and of the latents that the candidate's own guidance and scheduler
    came to by then from such answers.
    Such a candidate runs its steps inside an engine, where nothing can be asked of them.
    """
    count = sum(name.startswith("out.") for name in given)
    if count == 0 or known.calls == 0:
        return None
    errors = [
        max(_error(known.arrays[name], given.get(name)) for name in (f"out.{i}", f"in.{i}") if name in known.arrays)
        for i in range(known.calls)
    ]
    return tuple(errors + [MISSING] * max(0, count - known.calls))


def layer_errors(known: Lesson, given: Arrays, step: int) -> dict[str, float]:
    """Return the relative error of each layer that both have in one size, at one denoiser call, in the order they ran."""
    ours, theirs = _layers(known.arrays, step), _layers(given, step)
    return {name: _error(ours[size, name], theirs[size, name]) for size, name in ours if (size, name) in theirs}


def _layers(arrays: Arrays, step: int) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    """Return the samples of each layer by its size and name, in the order they ran."""
    found = sorted(name for name in arrays if name.startswith(f"layer.{step}."))
    return {(name.split(".", 4)[3], name.split(".", 4)[4]): arrays[name] for name in found}


def _error(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32] | None) -> float:
    if found is None or found.shape != expected.shape or not np.isfinite(found).all():
        return MISSING
    scale = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / scale if scale else MISSING


def _run(
    worker: Resident,
    inputs: Path | None,
    out: Path,
    prompts: tuple[str, ...],
    seeds: tuple[int, ...],
    deadline_s: float,
    layers: bool,
) -> tuple[Arrays, str]:
    fields: dict[str, object] = {
        "prompts": list(prompts), "seeds": list(seeds), "inputs": None if inputs is None else str(inputs),
        "out": str(out), "layers": layers,
    }  # fmt: skip
    clear(out)
    reply = worker.request("teach", fields, deadline_s=deadline_s)
    return _read(worker, out), str(reply.message.get("dtype", ""))


def _read(worker: Resident, file: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise OSError("too large, or no file")
        return {name: np.asarray(value, dtype=np.float32) for name, value in load_file(str(file)).items()}
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise Died(worker, Failed("protocol", f"no answers of the denoiser came ({error})")) from error
