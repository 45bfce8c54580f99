"""Where damage of growing strength loses each tier: `python -m diffopt.bench.studies.degradations`.

Images of demo:shapes are made worse on purpose, and judged by the same figures and thresholds as a candidate's. Writes
bench/results/degradations-cpu.json; the images need no timing, so a busy machine does not matter.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.bench import device
from diffopt.bench.fidelity import Floats, compare
from diffopt.bench.outcome import Fidelity
from diffopt.bench.resident import Images
from diffopt.bench.tiers import Thresholds

RESULTS = Path(__file__).resolve().parents[1] / "results" / "degradations-cpu.json"
NOISE = (0.001, 0.003, 0.01, 0.03, 0.1)
BLUR = (0.25, 0.4, 0.6, 0.9, 1.5)
SHARE = (0.05, 0.1, 0.25, 0.5, 1.0)
BITS = (12, 10, 8, 7, 6, 5, 4, 3)
STEPS = (20, 15, 12, 10, 6, 3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make and judge the images."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.studies.degradations", description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--again", action="store_true", help="judge the figures that are there by today's thresholds")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    study = judged_again(json.loads(given.out.read_text())) if given.again else measure(given.prompts, given.steps)
    study["command"] = f"python -m diffopt.bench.studies.degradations --prompts {given.prompts} --steps {given.steps}"
    given.out.write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
    for row in study["rows"]:
        print(f"{row['kind']:<14}{row['strength']:>8g}  {row['fidelity']['psnr_median']:6.1f} dB  {row['tier']}")


def measure(count: int, steps: int) -> dict[str, Any]:
    """Return one row for each damage: its kind, its strength, its figures and its tier."""
    from diffopt.bench.models.shapes import SHAPES

    prompts, scorer = SHAPES.prompts("heldout", count), SHAPES.scorer()
    maker = Maker(steps, SHAPES.guidance)
    seeds = list(range(1000, 1000 + count))
    references, others = maker(prompts, seeds), maker(prompts, [seed + 10_000 for seed in seeds])
    rows = []
    for kind, strength, images, error in _damaged(maker, references, others, prompts, seeds):
        fidelity = compare(
            images, references, others, prompts=prompts, seeds=seeds, scorer=scorer, rng=np.random.default_rng(0)
        )
        fidelity = replace(fidelity, denoiser_error=error, denoiser_dtype="float32", worst=fidelity.worst[:1])
        rows.append(
            {
                "kind": kind,
                "strength": strength,
                "tier": Thresholds().tier(fidelity),
                "missing": Thresholds().missing(fidelity),
                "fidelity": {**asdict(fidelity), "psnr": [round(value, 2) for value in fidelity.psnr]},
            }
        )
    return {"machine": device.environment(), "thresholds": Thresholds().to_json(), "rows": rows}


def judged_again(study: dict[str, Any]) -> dict[str, Any]:
    """Return a study whose figures are judged by the thresholds of now."""
    for row in study["rows"]:
        fidelity = Fidelity(**{**row["fidelity"], "worst": ()})
        row |= {"tier": Thresholds().tier(fidelity), "missing": Thresholds().missing(fidelity)}
    return study | {"thresholds": Thresholds().to_json()}


class Maker:
    """Makes images with demo:shapes in this process, and says how far a changed denoiser is off when taught."""

    def __init__(self, steps: int, guidance: float) -> None:
        from diffopt.bench.fit import load_emitted
        from diffopt.bench.models.shapes import SHAPES
        from diffopt.ir.description import build_module
        from diffopt.ir.source_directory import describe_directory

        self.steps = steps
        self.pipe = load_emitted(build_module(describe_directory(SHAPES.directory, steps=steps, guidance=guidance)))

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int | None = None) -> Images:
        """Return one image a prompt, each from its own seed."""
        from diffopt.bench.teaching import generators

        made = [
            self.pipe(
                list(prompts[start : start + 8]), generator=generators(seeds[start : start + 8]), output_type="np",
                num_inference_steps=steps or self.steps,
            ).images
            for start in range(0, len(prompts), 8)
        ]  # fmt: skip
        return np.concatenate(made).astype(np.float32)

    def error(self, prompt: str, seed: int, change: Callable[[], None]) -> float:
        """Return the largest teacher-forced error over the steps of one call, once `change` has been made."""
        import tempfile

        from diffopt.bench.teacher import Lesson, step_errors
        from diffopt.bench.teaching import taught

        def call() -> None:
            self([prompt], [seed])

        with tempfile.TemporaryDirectory() as scratch:
            lesson, answers = Path(scratch) / "lesson", Path(scratch) / "answers"
            dtype = str(taught(self.pipe, call, None, lesson, layers=False)["dtype"])
            known = Lesson((prompt,), (seed,), lesson, _arrays(lesson), dtype)
            change()
            taught(self.pipe, call, lesson, answers, layers=False)
            errors = step_errors(known, _arrays(answers))
        return max(errors) if errors else 0.0


def _damaged(
    maker: Maker, references: Images, others: Images, prompts: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, float, Images, float | None]]:
    """Yield damage by kind and strength: images, and the error of the denoiser where that is what was changed."""
    rng = np.random.default_rng(0)
    for sigma in NOISE:
        yield "noise", sigma, _clipped(references + rng.normal(0, sigma, references.shape)), None
    for sigma in BLUR:
        yield "blur", sigma, _clipped(_blurred(references.astype(np.float64), sigma)), None
    order = rng.permutation(len(prompts))
    swapped = maker([prompts[(index + 1) % len(prompts)] for index in range(len(prompts))], seeds)
    for share in SHARE:
        chosen = order[: max(1, round(share * len(prompts)))]
        for kind, wrong in (("wrong seed", others), ("swapped prompt", swapped)):
            images = references.copy()
            images[chosen] = wrong[chosen]
            yield kind, share, images, None
    for steps in STEPS:
        yield "steps", steps, maker(prompts, seeds, steps=steps), 1.0
    original = {name: value.clone() for name, value in maker.pipe.unet.state_dict().items()}
    for bits in BITS:
        error = maker.error(prompts[0], seeds[0], lambda bits=bits: _quantize(maker.pipe.unet, bits))  # type: ignore[misc]
        yield "weight bits", bits, maker(prompts, seeds), error
        maker.pipe.unet.load_state_dict(original)


def _quantize(module: Any, bits: int) -> None:
    """Round each matrix's rows to so many bits, symmetric, and back."""
    import torch

    with torch.no_grad():
        for weight in (p for p in module.parameters() if p.ndim >= 2):
            flat = weight.reshape(len(weight), -1)
            scale = flat.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
            flat.copy_((flat / scale).round() * scale)


def _blurred(images: Floats, sigma: float) -> Floats:
    reach = max(1, int(3 * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (1, 2):
        padded = np.pad(images, [(reach, reach) if a == axis else (0, 0) for a in range(4)], mode="edge")
        length = images.shape[axis]
        images = sum(np.take(padded, range(k, k + length), axis=axis) * w for k, w in enumerate(weights))
    return images


def _clipped(images: Any) -> Images:
    return np.asarray(np.clip(images, 0, 1), dtype=np.float32)


def _arrays(file: Path) -> Any:
    from safetensors.numpy import load_file

    return load_file(str(file))


if __name__ == "__main__":
    main()
