"""Follow a table of what each step of a request computes: guided or not, in full or with reused features."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import BackendError, Tensors, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment, component_name
from diffopt.backends.runtime.feature_memory import FeatureMemory
from diffopt.backends.runtime.replaced import replaced

if TYPE_CHECKING:
    import torch

    from diffopt.backends.runtime.denoiser_call import CallShape
    from diffopt.backends.runtime.leaf import PlannedLeaf

Pipe = TypeVar("Pipe")
PLAN = "_diffopt_step_plan"


def follow_step_plan(
    pipe: Pipe,
    *,
    component: str = "unet",
    steps: int,
    full: Sequence[int] | None = None,
    branch: int = 0,
    blocks: Sequence[int] | None = None,
    cross_attention: bool = False,
    order: int = 0,
    guided: Sequence[int] | None = None,
    fresh: Sequence[int] | None = None,
    reuse: str = "difference",
    apart: bool = False,
) -> Pipe:
    """Make the denoiser follow a plan for requests of `steps` steps; other requests run as if there were none.

    full: steps (0-based, e.g. `range(0, 50, 3)`) computed in full, the others reuse features; None for all.
    branch: of a UNet, how many up layers besides the last a step with reused features still computes.
    blocks: of a transformer, how many first and last blocks such a step still computes; the middle ones are reused.
    cross_attention: what is reused is what the cross-attentions give out, and nothing else.
    order: how many derivatives carry reused features on; 0 takes them as they were.
    guided: steps with classifier-free guidance, the others run the conditional half alone; None for all.
    fresh: guided steps that compute the unconditional half; the others reuse it from the last one; None for all.
    reuse: what of it is kept, `difference` to the conditional half or the `prediction` itself.
    apart: whether guided steps ask for each half by itself instead of for both in one batch.
    Raises BackendError if the plan does not fit the denoiser.
    """
    name = component_name(pipe, component)
    denoiser, state = getattr(pipe, name), attachment(pipe)
    if getattr(denoiser, PLAN, None) is not None:
        raise BackendError(f"{name} follows a step plan already", "put guidance and cache into one plan")
    if state.noted(name, "export") or state.noted(name, "compile"):
        raise BackendError(f"{name} is an engine or compiled already", "follow_step_plan comes before")
    tables = {label: _table(given, steps, label) for label, given in (("full", full), ("guided", guided))}
    table = StepTable(tables["full"], tables["guided"], _table(fresh, steps, "fresh"), reuse, apart, order)
    if all(table.full):
        leaves, cached = _whole_leaf(name, denoiser), ""
    else:
        if not table.full[0]:
            raise BackendError("step 0 must be computed in full: there are no features before it")
        leaves, cached = two_leaves(name, denoiser, branch, blocks, cross_attention=cross_attention)
    for leaf in leaves.values():
        leaf.module.eval()
    plan = StepPlan(pipe, state, denoiser, leaves, table)
    denoiser.__dict__[PLAN] = plan

    @functools.wraps(denoiser.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return plan.forward(*args, **kwargs)

    denoiser.__dict__["forward"] = forward
    state.layers.append(plan.request)
    state.note(name, "follow_step_plan", **table.to_json(), branch=branch, blocks=blocks, cached=cached)
    state.witnesses += [
        functools.partial(plan.witness, *entry)
        for entry, used in (
            (("forecast-features" if order else cached, "shallow", "with cached features"), bool(cached)),
            (("guidance-window", "unguided", "without the unconditional half"), not all(table.guided)),
            (("reuse-unconditional", "reused", "with the unconditional half reused"), not all(table.fresh)),
            (("split-guidance-batch", "apart", "in two halves"), apart),
        )
        if used
    ]
    return pipe


@dataclass(frozen=True)
class StepTable:
    """What each step does; see `follow_step_plan`."""

    full: tuple[bool, ...]
    guided: tuple[bool, ...]
    fresh: tuple[bool, ...]
    reuse: str = "difference"
    apart: bool = False
    order: int = 0

    def __post_init__(self) -> None:
        if self.reuse not in ("difference", "prediction"):
            raise BackendError(f"no {self.reuse!r} of the unconditional half to reuse", "difference or prediction")
        guided = [step for step, is_guided in enumerate(self.guided) if is_guided]
        if guided and not self.fresh[guided[0]]:
            raise BackendError(f"step {guided[0]} must compute the unconditional half: there is none before it")

    def to_json(self) -> dict[str, Any]:
        tables = {name: [*map(int, getattr(self, name))] for name in ("full", "guided", "fresh")}
        return {**tables, "reuse": self.reuse, "apart": self.apart, "order": self.order}


class StepPlan:
    """The plan and where the current request stands in it. Reset at the start and the end of each request.

    A step ends where the pipeline calls its scheduler, so a pipeline may ask the denoiser several times a step; each
    of these turns has features of its own.
    """

    def __init__(
        self, pipe: Any, state: Attachment, denoiser: Any, leaves: dict[str, PlannedLeaf], table: StepTable
    ) -> None:
        self.leaves = leaves
        self.full = table.full
        self.guided = table.guided
        self._table = table
        self._pipe = pipe
        self._state = state
        self._original = denoiser.forward
        self._result_kind: Any = None
        self._shape: CallShape | None = None
        self._counts = {"steps": 0, "shallow": 0, "unguided": 0, "reused": 0, "apart": 0}
        self._inside = False
        self._active: bool | None = None
        self._scaled = False
        self._step = 0
        self._turn = 0
        self._kept: torch.Tensor | None = None
        self._memories: dict[int, FeatureMemory] = {}

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call with a fresh plan, and leave nothing behind, also when it raises."""
        self._reset(inside=True)
        scale = call.get("guidance_scale", self._state.call_default("guidance_scale"))
        self._scaled = isinstance(scale, int | float) and scale > 1
        try:
            with self._stepping():
                return proceed(call)
        finally:
            self._reset(inside=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take the place of the denoiser's forward."""
        if not self._inside or not self._follows():
            return self._original(*args, **kwargs)
        read = self.settle(args, kwargs)
        if isinstance(read, str):
            self._active = False
            self._state.say_once(f"the step plan is off: it does not know {read}")
            return self._original(*args, **kwargs)
        turn, self._turn = self._turn, self._turn + 1
        out = self._run(turn, read)
        from diffopt.backends.runtime.denoiser_call import denoiser_result

        return denoiser_result(next(iter(self.leaves.values())).module.denoiser, out, kwargs)

    def settle(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensors | str:
        """Return the tensors of a call of the denoiser, and let the leaves take such calls; or what they do not know.

        Once an engine or compiled code runs a leaf, only calls of the shape it was made for are taken.
        """
        from diffopt.backends.runtime.denoiser_call import read_call
        from diffopt.backends.runtime.feature_cache import KNOWN

        read = read_call(self._original, args, kwargs)
        if isinstance(read, str):
            return read
        shape, tensors = read
        given = [*(name.partition(".")[0] for name in shape.names), *shape.fixed]
        unknown = [name for name in given if name not in KNOWN]
        if self._is_unet and unknown:
            return unknown[0]
        if self._shape is not None and shape.same_as(self._shape):
            return tensors
        if self._shape is not None and any(leaf.run is not leaf.module for leaf in self.leaves.values()):
            return "a call with other arguments than its engine was made for"
        self._shape = shape
        for leaf in self.leaves.values():
            leaf.take(shape)
        return tensors

    def count_folded(self, requests: int) -> None:
        """Count requests an engine answered that follows this plan by construction."""
        table, guided = self._table, self.guided.count(True)
        reused = sum(g and not f for g, f in zip(table.guided, table.fresh, strict=True))
        self._counts["steps"] += requests * len(self.full)
        self._counts["shallow"] += requests * self.full.count(False)
        self._counts["unguided"] += requests * self.guided.count(False)
        self._counts["reused"] += requests * reused
        self._counts["apart"] += requests * (guided - reused) * table.apart

    def witness(self, transform: str, what: str, words: str) -> Witness:
        """Tell how many denoiser calls a part of the plan changed."""
        counts = self._counts
        return Witness(transform, counts[what], f"{counts[what]} of {counts['steps']} denoiser calls {words}")

    @property
    def _is_unet(self) -> bool:
        return hasattr(next(iter(self.leaves.values())).module.denoiser, "up_blocks")

    @contextlib.contextmanager
    def _stepping(self) -> Iterator[None]:
        """Count the calls of the scheduler for a while."""
        step = self._pipe.scheduler.step

        @functools.wraps(step)
        def stepping(*args: Any, **kwargs: Any) -> Any:
            self._step, self._turn = self._step + 1, 0
            return step(*args, **kwargs)

        with replaced(self._pipe.scheduler, step=stepping):
            yield

    def _follows(self) -> bool:
        """Tell whether the plan is made for this request; asked anew at its first denoiser call."""
        if self._active is None:
            count = len(self._pipe.scheduler.timesteps)
            self._active = count == len(self.full)
            if not self._active:
                self._state.say_once(f"the step plan is off: made for {len(self.full)} steps, asked for {count}")
        return self._active and self._step < len(self.full)

    def _guiding(self) -> bool:
        """Tell whether the pipeline asks for both halves in one batch."""
        own = getattr(self._pipe, "do_classifier_free_guidance", None)
        return own if isinstance(own, bool) else self._scaled

    def _run(self, turn: int, tensors: Tensors) -> torch.Tensor:
        import torch

        step, table, shape = self._step, self._table, self._shape
        if shape is None:
            raise AssertionError("a plan runs what it has settled")
        both = self._guiding() and tensors[0].shape[0] % 2 == 0
        self._count("steps")
        if both and not table.guided[step]:
            self._count("unguided")
            # Returned twice, u + s (c - u) = c.
            out = self._denoise(turn, shape.half(tensors))
            return torch.cat([out, out])
        if both and not table.fresh[step] and self._kept is not None:
            self._count("reused")
            out = self._denoise(turn, shape.half(tensors))
            return torch.cat([self._kept + out if table.reuse == "difference" else self._kept, out])
        if both and table.apart:
            self._count("apart")
            first, second = shape.halves(tensors)
            uncond, cond = self._denoise(turn - 1, first), self._denoise(turn, second)
            out = torch.cat([uncond, cond])
        else:
            out = self._denoise(turn, tensors)
            if not both or all(table.fresh):
                return out
            uncond, cond = out.chunk(2)
        if not all(table.fresh):
            self._kept = uncond - cond if table.reuse == "difference" else uncond
        return out

    def _denoise(self, turn: int, tensors: Tensors) -> torch.Tensor:
        if "whole" in self.leaves:
            return self.leaves["whole"](*tensors)[0]
        memory = self._memories.setdefault(turn, FeatureMemory(self._table.order))
        features = None if self.full[self._step] else memory.at(self._step, tensors[0].shape[0])
        if features is None:
            out, *kept = self.leaves["full"](*tensors)
            memory.keep(self._step, tuple(kept))
            return out
        self._count("shallow")
        return self.leaves["shallow"](*tensors, *features)[0]

    def _count(self, what: str) -> None:
        self._counts[what] += self._state.counting

    def _reset(self, *, inside: bool) -> None:
        self._inside = inside
        self._active = None
        self._scaled = False
        self._step = self._turn = 0
        self._kept = None
        self._memories = {}


def _whole_leaf(name: str, denoiser: Any) -> dict[str, PlannedLeaf]:
    """Return the one leaf of a plan without reused features."""
    from diffopt.backends.runtime.denoiser_call import WholePass
    from diffopt.backends.runtime.leaf import PlannedLeaf

    return {"whole": PlannedLeaf(name, WholePass(denoiser))}


def two_leaves(
    name: str, denoiser: Any, branch: int, blocks: Sequence[int] | None, *, cross_attention: bool
) -> tuple[dict[str, PlannedLeaf], str]:
    """Return the full and the shallow leaf, and the pass whose kind of reuse they are."""
    from diffopt.backends.runtime.feature_cache import FullPass, ShallowPass, refuse_feature_cache
    from diffopt.backends.runtime.leaf import PlannedLeaf
    from diffopt.backends.runtime.taps import TappedFull, TappedShallow

    if blocks is None and not cross_attention:
        refuse_feature_cache(denoiser, branch)
        full, shallow = FullPass(denoiser, branch), ShallowPass(denoiser, branch)
        return {
            "full": PlannedLeaf(f"{name}_full", full),
            "shallow": PlannedLeaf(f"{name}_shallow", shallow, ("deep",)),
        }, "cache-features"
    if blocks is not None:
        from diffopt.backends.runtime.block_cache import tap_blocks

        if len(blocks) != 2:
            raise BackendError(f"blocks are a number of first ones and one of last ones, not {list(blocks)}")
        taps, cached = tap_blocks(denoiser, *blocks), "cache-blocks"
    else:
        from diffopt.backends.runtime.cross_attention_gate import tap_cross_attentions

        taps, cached = tap_cross_attentions(denoiser), "gate-cross-attention"
    deep = tuple(f"deep_{index}" for index in range(taps.width))
    return {
        "full": PlannedLeaf(f"{name}_full", TappedFull(denoiser, taps)),
        "shallow": PlannedLeaf(f"{name}_shallow", TappedShallow(denoiser, taps), deep),
    }, cached


def _table(chosen: Sequence[int] | None, steps: int, name: str) -> tuple[bool, ...]:
    if chosen is None:
        return (True,) * steps
    outside = [step for step in chosen if not 0 <= step < steps]
    if outside:
        raise BackendError(f"{name}: there is no step {outside[0]} among {steps}")
    return tuple(step in set(chosen) for step in range(steps))
