"""A program in its worker: load it, call it with every answer checked, ask what its transforms did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from diffopt.bench.images import fault
from diffopt.bench.outcome import Failed
from diffopt.bench.resident import Died, Images, Resident
from diffopt.bench.workload import Workload

_T = TypeVar("_T")
_PATIENCE = 20
_SHORTEST_DEADLINE_S = 60.0


class Contestant:
    """One program in one worker process.

    Args:
        resident: the worker, fresh.
        workload: gives the sizes every answer is checked against.
        timeout_s: deadline of the load with all building, and of the first call, which may compile.
        usual_s: the baseline's time a call; later calls get 20 times that, 60 s at least, `timeout_s` at most.
    """

    def __init__(self, resident: Resident, workload: Workload, *, timeout_s: float, usual_s: float = 0.0) -> None:
        self.resident, self._workload = resident, workload
        self._timeout_s, self._usual_s = timeout_s, usual_s
        self.load_s = self.first_call_s = 0.0
        self.threads = 0
        self.frames = workload.frames
        self.guards: tuple[str, ...] = ()

    def load(self, path: Path, *, model: str | None, device: str, engines: Path) -> None:
        """Run the program's `load`.

        Raises:
            Died: it raised, or the process died.
        """
        reply = self.resident.load(path, model=model, device=device, engines=engines, deadline_s=self._timeout_s)
        threads, guards = reply.message.get("threads"), reply.message.get("guards")
        self.guards = tuple(map(str, guards)) if isinstance(guards, list) else ()
        self.load_s, self.threads = reply.seconds, threads if isinstance(threads, int) else 0

    def __call__(self, prompts: list[str], seeds: list[int]) -> tuple[float, Images]:
        """Make images in one call; return the seconds by the parent's clock, and the images.

        Raises:
            Died: it raised, the process died, or what came is no picture.
        """
        later_s = min(self._timeout_s, max(_SHORTEST_DEADLINE_S, _PATIENCE * self._usual_s))
        deadline_s = (later_s if self.first_call_s else self._timeout_s) * max(1, len(prompts) // self._workload.batch)
        reply = self.resident.generate(prompts, seeds, deadline_s=deadline_s)
        wrong = self._frames_fault(reply.message.get("frames")) or fault(
            reply.images,
            count=len(prompts), height=self._workload.height * max(1, self.frames), width=self._workload.width,
        )  # fmt: skip
        if wrong:
            self.refuse(wrong)
        self.first_call_s = self.first_call_s or reply.seconds
        return reply.seconds, reply.images

    def images(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        """Make images of up to a batch of prompts, in a call of a whole batch: engines may know only that size."""
        return self(self._fill(prompts), self._fill(seeds))[1][: len(prompts)]

    def witnesses(self) -> tuple[dict[str, object], ...]:
        """Return what each transform says it did so far.

        Raises:
            Died: it raised, or what came are no witnesses.
        """
        found = self.resident.request("witnesses", {}, deadline_s=_SHORTEST_DEADLINE_S).message.get("witnesses")
        if not isinstance(found, list) or not all(_is_witness(witness) for witness in found):
            raise Died(self.resident, Failed("protocol", f"these are no witnesses: {str(found)[:200]}"))
        return tuple(found)

    def refuse(self, message: str) -> NoReturn:
        """Give up on this program because of its images."""
        raise Died(self.resident, Failed("numerics", message))

    def _frames_fault(self, told: object) -> str | None:
        """Say what is wrong with the number of frames, which the first answer decides where nothing else does."""
        if type(told) is not int or told < 1:
            return f"videos of {str(told)[:80]} frames"
        self.frames = self.frames or told
        return None if told == self.frames else f"{told} frames, want {self.frames}"

    def _fill(self, values: Sequence[_T]) -> list[_T]:
        return [values[index % len(values)] for index in range(self._workload.batch)]


def _is_witness(witness: object) -> bool:
    if not isinstance(witness, dict):
        return False
    return [type(witness.get(name)) for name in ("transform", "count", "detail")] == [str, int, str]
