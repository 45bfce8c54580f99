"""One model's process: builds its arms, waits for its turn, measures. `python -m diffopt.bench.gpu.worker MODEL ...`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.bench.gpu.arms import ARMS, PROMPTS, Arm
from diffopt.bench.gpu.store import Results, load_caches, save_caches

ROUNDS = 12
LARGEST_WIDE = 20e9
"""Bytes of a pipeline beyond which its denoiser is not copied in float32 beside those of the other models."""


class _TooLong(BaseException):
    """Something took longer than it may; no `except Exception` of a compiler on the way is to take it."""


class Worker:
    """Builds and measures the arms of one model. What goes wrong with an arm is written down, and the rest go on."""

    def __init__(self, given: argparse.Namespace) -> None:
        from diffopt.bench.models.fullsize import write_model

        self.given = given
        self.device = given.device
        self.out: Path = given.out
        self.folder = given.work / given.label
        self.results = Results(self.out / f"{given.label}.json")
        self.model = write_model(
            given.model,
            self.folder / "model",
            small=given.small,
            dtype="float32" if given.device == "cpu" else "bfloat16",
        )
        self.call = {
            "steps": given.steps or self.model.steps, "guidance": self.model.guidance,
            "height": self.model.height, "width": self.model.width,
        }  # fmt: skip
        self.pipes: dict[str, Any] = {}
        data = self.results.data
        data |= {"model": given.model, "small": given.small, "device": self.device, "call": self.call}
        for key in ("arms", "problems", "notes"):
            data.setdefault(key, {})
        data.setdefault("rounds", [])

    def build(self, arms: tuple[Arm, ...]) -> None:
        """Build arm after arm, and make some images with each."""
        for arm in arms:
            left = self.given.build_until - time.time()
            if left < 5 and arm.kind != "eager":
                self._problem(arm.name, "no time was left to build it")
                continue
            start = time.time()
            try:
                with _limit(min(arm.limit_s, left) if arm.kind != "eager" else 120):
                    entry = self._build(arm)
                entry["build_s"] = round(time.time() - start, 2)
                self.results.data["arms"][arm.name] = entry
                self.results.data["problems"].pop(arm.name, None)
            except (Exception, _TooLong) as error:
                self.pipes.pop(arm.name, None)
                self._problem(arm.name, f"{type(error).__name__}: {error}"[:600], traceback.format_exc()[-3000:])
                if arm.kind == "eager":
                    raise
            self._say(f"{arm.name}: {time.time() - start:.1f} s {self.results.data['problems'].get(arm.name, '')}")
            if self.given.caches_out and time.time() - start > 10:
                with contextlib.suppress(Exception):
                    self.results.data["notes"]["caches"] = save_caches(
                        self.given.caches_out, self.given.label, 2 if self.given.model == "sdxl" else 1
                    )
            self.results.keep()
            gc.collect()
            if self.device != "cpu":
                import torch

                torch.cuda.empty_cache()

    def _build(self, arm: Arm) -> dict[str, Any]:
        import torch

        from diffopt.backends.runtime import witnesses
        from diffopt.bench.gpu.build import emitted, held_bytes, load, share_weights, use_stock

        fewer = int(self.call["steps"]) * 2 // 3 if self.given.small or self.given.steps else 0
        code = emitted(arm, self.folder / "model", self.call, compiled=not self.given.no_compile, fewer=fewer)
        pipe = load(code, self.folder / arm.name, self.folder / "model", self.device)
        if arm.kind != "eager":
            share_weights(pipe, self.pipes["eager"])
        if arm.kind == "stock":
            use_stock(pipe, arm.recipe)
        self.pipes[arm.name] = pipe
        taken, images = [], []
        # The first request of ours is listened to, the second compiles and captures, the third is as all that follow.
        for seed in (0, 0, 1) if arm.kind != "eager" else (0, 1):
            before = self._watch_memory()
            start = time.perf_counter()
            images.append(self._image(pipe, PROMPTS[0], seed))
            taken.append(round(time.perf_counter() - start, 4))
        other = self._image(pipe, PROMPTS[1], 0) if arm.kind == "eager" else images[0]
        entry: dict[str, Any] = {
            "kind": arm.kind, "trace": arm.trace, "recipe": arm.recipe, "calls_s": taken,
            "finite": bool(torch.isfinite(images[-1]).all()),
            "weights_bytes": held_bytes(pipe), "call_bytes": self._most_memory(before),
            "witnesses": [witness.detail for witness in witnesses(pipe)] if arm.kind == "ours" else [],
        }  # fmt: skip
        if arm.kind == "eager":
            entry["moves_with_prompt"] = float((other - images[0]).abs().mean())
            entry["moves_with_seed"] = float((images[1] - images[0]).abs().mean())
            self._flops(pipe)
        if not entry["finite"]:
            raise ArithmeticError("its image is not finite")
        return entry

    def measure(self, seconds: float) -> None:
        """Time all arms, and look at the loop's trace."""
        from diffopt.bench.gpu.rounds import measure, ratios

        data, rounds = self.results.data, self.results.data["rounds"]
        until = time.monotonic() + seconds
        rng = np.random.default_rng(int(time.time_ns()) % (1 << 32))
        runs = {name: self._timed(pipe, rng) for name, pipe in self.pipes.items()}
        self._guarded(
            "rounds",
            lambda: measure(runs, rounds, rng=rng, most=ROUNDS, until=until - 0.15 * seconds, keep=self.results.keep),
        )
        if rounds:
            data["ratios"] = ratios(rounds, [name for name in runs if not name.startswith("ours")])
            self.results.keep()
            self._guarded("control", lambda: self._control(rng))
        self._guarded("trace", self._trace)

    def check(self) -> None:
        """Look at what needs no quiet card: errors of the denoiser."""
        self._guarded("errors", self._errors)

    def _control(self, rng: np.random.Generator) -> None:
        """Time eager and the best stock arm with as many fewer steps as ours traded takes time."""
        found, wanted = self.results.data["ratios"], "ours-traded"
        if wanted not in found:
            return
        stock = [name for name in found if name.startswith("stock")]
        control: dict[str, Any] = {}
        for name in ("eager", *sorted(stock, key=lambda name: float(found[name]["median_s"]))[:1]):
            share = found[wanted]["median_s"] / found[name]["median_s"]
            steps = max(1, round(self.model.steps * share))
            run = self._timed(self.pipes[name], rng, num_inference_steps=steps)
            times = []
            for seed in range(4):
                start = time.perf_counter()
                run(seed)
                times.append(time.perf_counter() - start)
            control[name] = {"steps": steps, "median_s": float(np.median(times[1:]))}
        self.results.data["fewer_steps"] = control

    def _errors(self) -> None:
        from diffopt.bench.gpu.teacher import answers_of, ask_float32, errors, listen

        teacher = listen(self.pipes["eager"], PROMPTS[2], 11, self.device)
        if self.results.data["arms"]["eager"]["weights_bytes"] < LARGEST_WIDE:
            with contextlib.suppress(Exception):
                ask_float32(teacher, self.pipes["eager"])
        kinds = {arm.name: arm.kind for arm in ARMS[self.given.model]}
        for name, pipe in self.pipes.items():
            try:
                answers = answers_of(pipe, kinds[name], teacher, self.device)
                found: Any = answers if isinstance(answers, str) else errors(teacher, answers)
            except Exception as error:  # noqa: BLE001 - written down
                found = f"{type(error).__name__}: {error}"[:300]
            self.results.data["arms"].setdefault(name, {})["error"] = found
            self.results.keep()

    def _trace(self) -> None:
        from diffopt.bench.gpu.trace import loop_excerpt, profiled

        if self.device == "cpu":
            return
        times: dict[str, Any] = {}
        for name in [name for name in ("ours-regional", "ours-near") if name in self.pipes]:
            pipe = self.pipes[name]
            host, times[name] = profiled(lambda pipe=pipe: self._image(pipe, PROMPTS[3], 6))
            if name == "ours-regional":
                self.results.data["loop_trace"] = loop_excerpt(host)
        self.results.data["kernel_times"] = times

    def _watch_memory(self) -> int:
        import torch

        if self.device == "cpu":
            return 0
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def _most_memory(self, before: int) -> int | None:
        """Return the bytes that the last call held at most beyond what was held already."""
        import torch

        return None if self.device == "cpu" else torch.cuda.max_memory_allocated() - before

    def _flops(self, pipe: Any) -> None:
        """Count what one call of the denoiser and one decoding compute."""
        from torch.utils.flop_counter import FlopCounterMode

        from diffopt.bench.gpu.teacher import denoiser_name

        counts: dict[str, Any] = {}
        for name, method in ((denoiser_name(pipe), "forward"), ("vae", "decode")):
            part = getattr(pipe, name)
            original = getattr(part, method)

            def counted(*args: Any, original: Callable[..., Any] = original, name: str = name, **kwargs: Any) -> Any:
                counter = FlopCounterMode(display=False)
                with counter:
                    made = original(*args, **kwargs)
                counts[name] = counter.get_total_flops()
                return made

            part.__dict__[method] = counted
        try:
            pipe(PROMPTS[0], num_inference_steps=2, output_type="pt")
        finally:
            for name, method in ((denoiser_name(pipe), "forward"), ("vae", "decode")):
                getattr(pipe, name).__dict__.pop(method, None)
        self.results.data["flops"] = counts

    def _timed(self, pipe: Any, rng: np.random.Generator, **call: Any) -> Callable[[int], None]:
        def run(seed: int) -> None:
            self._image(pipe, PROMPTS[int(rng.integers(len(PROMPTS)))], seed, **call)

        return run

    def _image(self, pipe: Any, prompt: str, seed: int, **call: Any) -> Any:
        import torch

        from diffopt.bench.gpu.teacher import generator

        made = pipe(prompt, generator=generator(self.device, seed), output_type="pt", **call).images
        if self.device != "cpu":
            torch.cuda.synchronize()
        return made

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        start = time.time()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - written down
            self._problem(name, f"{type(error).__name__}: {error}"[:600], traceback.format_exc()[-3000:])
        self._say(f"{name}: {time.time() - start:.1f} s {self.results.data['problems'].get(name, '')}")
        self.results.keep()

    def _problem(self, name: str, message: str, log: str = "") -> None:
        self.results.data["problems"][name] = message
        if log:
            self.results.data.setdefault("logs", {})[name] = log

    def _say(self, text: str) -> None:
        print(f"[{self.given.label}] {text}", flush=True)


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in the main thread after some seconds."""

    def ring(*_: object) -> None:
        raise _TooLong(f"took more than {seconds:.0f} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1), 20)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Build, wait for the turn where there is one, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=ARMS)
    parser.add_argument("--label", default="", help="name of the results; the model where it is left out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--caches-in", type=Path)
    parser.add_argument("--caches-out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--steps", type=int, default=0, help="instead of the model's usual ones")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--build-until", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--turn", type=Path, help="file that says for how long to measure, once it is this one's turn")
    parser.add_argument("--arms", default="", help="only these, and eager")
    given = parser.parse_args()
    given.label = given.label or given.model
    if given.no_compile:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import torch

    torch._dynamo.config.cache_size_limit = 64
    torch.set_grad_enabled(False)
    if given.caches_in:
        print(f"[{given.model}] caches read: {load_caches(given.caches_in, given.model)} bytes", flush=True)
    worker = Worker(given)
    wanted = set(filter(None, given.arms.split(",")))
    worker.build(tuple(arm for arm in ARMS[given.model] if not wanted or arm.kind == "eager" or arm.name in wanted))
    if given.turn is not None:
        worker.check()
    (given.work / f"{given.label}.built").touch()
    if given.turn is not None:
        while not given.turn.is_file():
            time.sleep(0.2)
        worker.measure(float(json.loads(given.turn.read_text())["seconds"]))


if __name__ == "__main__":
    main()
