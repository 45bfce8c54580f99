"""The denoising loop of a request as a few captured graphs over memory that stays where it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from diffopt.backends.base import Tensors
from diffopt.backends.runtime.denoiser_call import CallShape
from diffopt.backends.runtime.linear_schedule import Recurrence
from diffopt.backends.runtime.loop_plan import Kind, LoopPlan
from diffopt.backends.runtime.loop_record import Recording, guided_output, place

WARM_UP = 2
"""Runs of each kind of step before it is captured: compilers and libraries set themselves up in them."""


class CapturedLoop:
    """One loop: denoiser, guidance and scheduler step, for one schedule and one shape of call.

    On CUDA each kind of step is one graph, and a request is their replays in a row: nothing is read back, and the host
    only launches. On other devices the same steps run as they are. Not for two requests at once.

    Args:
        leaves: what runs a step of a kind: from tensors to the answer and the features it keeps.
        attention: a context for all that runs.
    """

    def __init__(
        self,
        recording: Recording,
        found: Recurrence,
        plan: LoopPlan,
        leaves: Mapping[str, Callable[..., Tensors]],
        attention: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        assert recording.shape is not None
        self.plan = plan
        self.shape: CallShape = recording.shape
        self._leaves, self._attention, self._guided = leaves, attention, recording.guided
        sample, time = place(self.shape, "sample"), place(self.shape, "timestep")
        assert sample is not None
        assert time is not None
        self._sample, self._time = sample, time
        latents = recording.steps[0][1]
        self._device = latents.device
        self.conditions = [tensor.clone() for tensor in recording.tensors]
        self._times = torch.stack(recording.times)
        rows = [
            [found.inputs[i], plan.gaps[i], plan.ahead[i], *found.samples[i], *found.outputs[i]]
            for i in range(found.steps)
        ]
        self._table = torch.tensor(rows, dtype=torch.float32, device=self._device)
        self._counter = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._scale = torch.tensor(recording.scale, dtype=torch.float32, device=self._device)
        self._samples = [torch.zeros_like(latents) for _ in range(found.depth)]
        self._outputs = [torch.zeros_like(latents) for _ in range(found.depth)]
        self._terms: list[list[torch.Tensor]] = []
        self._graphs: dict[Kind, Any] = {}
        self._ready = False

    def load(self, tensors: Tensors, scale: float) -> None:
        """Take over what the denoiser is given beside latents and timestep, and the scale of guidance."""
        for index, (kept, given) in enumerate(zip(self.conditions, tensors, strict=True)):
            if index not in (self._sample, self._time):
                kept.copy_(given)
        self._scale.fill_(scale)

    def fits(self, shape: CallShape, tensors: Tensors) -> bool:
        """Tell whether a call of the denoiser is of the shape that the loop was made for."""
        return shape.same_as(self.shape) and all(
            one.shape == other.shape and one.dtype == other.dtype
            for one, other in zip(tensors, self.conditions, strict=True)
        )

    def run(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents after the last step."""
        if not self._ready:
            self._prepare(latents)
        self.start(latents)
        for kind in self.plan.kinds:
            self.step(kind)
        return self._samples[0].clone()

    def start(self, latents: torch.Tensor) -> None:
        """Go to the first step."""
        self._counter.zero_()
        self._samples[0].copy_(latents)

    def step(self, kind: Kind) -> None:
        """Do one step."""
        if kind in self._graphs:
            self._graphs[kind].replay()
        else:
            with self._attention():
                self._compute(kind)

    def outputs_at(self, latents: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return what the scheduler would be given at each step if the latents were these: the teacher's, not ours."""
        if not self._ready:
            self._prepare(latents[0])
        found = []
        self.start(latents[0])
        for kind, given in zip(self.plan.kinds, latents, strict=True):
            self._samples[0].copy_(given)
            self.step(kind)
            # The history has moved on by one: what was computed last stands first in it.
            found.append(self._outputs[0].clone())
        return found

    def _prepare(self, latents: torch.Tensor) -> None:
        """Run every kind a few times, then capture it."""
        if self._device.type != "cuda":
            self._ready = True
            return
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), self._attention():
            for kind in self.plan.distinct:
                for _ in range(WARM_UP):
                    self.start(latents)
                    self._compute(kind)
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        pool = torch.cuda.graph_pool_handle()
        self.start(latents)
        for kind in self.plan.distinct:
            graph = torch.cuda.CUDAGraph()
            with self._attention(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                self._compute(kind)
            self._graphs[kind] = graph
        self._ready = True

    def _compute(self, kind: Kind) -> None:
        """Compute one step from the kept tensors to the kept tensors."""
        row = self._table.index_select(0, self._counter)[0]
        latents = self._samples[0]
        given = (latents.float() * row[0]).to(latents.dtype)
        both = self._guided and kind.guided
        tensors = [*self.conditions]
        tensors[self._time] = self._times.index_select(0, self._counter)[0]
        tensors[self._sample] = torch.cat([given, given]) if self._guided else given
        handed: Tensors = tuple(tensors)
        if self._guided and not kind.guided:
            handed = self.shape.half(handed)
        answer = self._answer(kind, handed, row)
        depth = len(self._samples)
        output = guided_output(answer, self._scale, both, latents)
        outputs, samples = [output, *self._outputs[: depth - 1]], self._samples
        # Accumulated in float32, as schedulers do, and rounded once.
        total = sum(samples[k].float() * row[3 + k] + outputs[k].float() * row[3 + depth + k] for k in range(depth))
        for k in range(depth - 1, 0, -1):
            self._outputs[k].copy_(self._outputs[k - 1])
            self._samples[k].copy_(self._samples[k - 1])
        self._outputs[0].copy_(output)
        self._samples[0].copy_(total)
        self._counter.add_(1)

    def _answer(self, kind: Kind, tensors: Tensors, row: torch.Tensor) -> torch.Tensor:
        if "whole" in self._leaves:
            return self._leaves["whole"](*tensors)[0]
        if kind.full:
            answer, *features = self._leaves["full"](*tensors)
            self._keep(features, row)
            return answer
        features = [self._part(value, tensors) for value in self._terms[0]]
        for term in self._terms[1:]:
            features = [
                (value + self._part(change, tensors) * row[2]).to(value.dtype)
                for value, change in zip(features, term, strict=True)
            ]
        return self._leaves["shallow"](*tensors, *features)[0]

    def _keep(self, features: list[torch.Tensor], row: torch.Tensor) -> None:
        if not self._terms:
            self._terms = [[torch.zeros_like(f) for f in features] for _ in range(1 + self.plan.order)]
        for place_, feature in enumerate(features):
            kept = [self._like(term[place_], feature) for term in self._terms]
            if len(kept) > 1:
                kept[1].copy_((feature - kept[0]) * row[1])
            kept[0].copy_(feature)

    def _part(self, kept: torch.Tensor, tensors: Tensors) -> torch.Tensor:
        batch = tensors[self._sample].shape[0]
        return kept.chunk(2)[1] if self._guided and batch * 2 == self.conditions[self._sample].shape[0] else kept

    def _like(self, kept: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
        return kept.chunk(2)[1] if kept.shape[0] == 2 * feature.shape[0] else kept
