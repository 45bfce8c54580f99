"""Run the whole denoising loop as captured steps: denoiser, guidance and scheduler, with nothing read back."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator
from types import MethodType
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment, component_name
from diffopt.backends.runtime.step_plan import PLAN

Pipe = TypeVar("Pipe")
CAPTURED = "_diffopt_captured"
FROZEN = "_diffopt_frozen_prompt"
MODES = ("eager", "default", "max-autotune", "regional", "regional-tuned")
ATTENTION = {
    "auto": (), "cudnn": ("CUDNN_ATTENTION",), "flash": ("FLASH_ATTENTION",), "efficient": ("EFFICIENT_ATTENTION",),
}  # fmt: skip
WATCHED = ("callback", "callback_on_step_end")
"""Arguments of a call that want to see each step."""

TUNED: dict[str, Any] = {"max_autotune": True, "triton.cudagraphs": False, "conv_1x1_as_mm": True}
MORE_BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")
"""Classes that repeat in denoisers whose class does not say so."""

MOST = 4
"""Loops kept at once, each for a schedule and a shape of call."""


def capture_step(pipe: Pipe, component: str, *, mode: str = "max-autotune", attention: str = "auto") -> Pipe:
    """Capture a step of the loop, denoiser, guidance and scheduler together, and replay it for every step.

    The first request of each schedule and size runs as it always did and is listened to; if its steps are what a loop
    over the scheduler's recurrence makes of them, later requests run as captured steps (on CUDA; on other devices the
    same loop runs uncaptured). Requests that want a callback at each step always run as they did.

    mode: how the denoiser is compiled before it is captured: whole (`default`, `max-autotune`), or its repeated blocks
        alone (`regional`, `regional-tuned`), which takes a tenth of the time.
    attention: kernel that attention takes first, where it can.
    Raises BackendError if the denoiser was compiled, exported or captured already, or an option is unknown.
    """
    if mode not in MODES or attention not in ATTENTION:
        raise BackendError(f"no mode {mode!r} with attention {attention!r}", f"modes: {', '.join(MODES)}")
    name, state = component_name(pipe, component), attachment(pipe)
    denoiser = getattr(pipe, name)
    for earlier in ("export", "compile", "capture_step"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: {earlier} was applied already")
    taker = Taker(pipe, state, name, denoiser, mode, attention)
    denoiser.__dict__[CAPTURED] = taker

    @functools.wraps(denoiser.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return taker.forward(*args, **kwargs)

    denoiser.__dict__["forward"] = forward
    state.layers.append(taker.request)
    state.note(name, "capture_step", mode=mode, attention=attention)
    state.witnesses.append(taker.witness)
    return pipe


class _Again(Exception):
    """A request is not what its loop was made for, and has to run as it always did."""


class Taker:
    """Decides for each request whether a loop stands for it, and steps in where the pipeline asks denoiser and scheduler.

    In a request that a loop takes, the pipeline sees a schedule of one step: its call of the denoiser hands over the
    conditions, and its step of the scheduler returns the latents after the last step. So every pipeline class works
    unpatched, and what it does before and after its loop stays its own.
    """

    def __init__(self, pipe: Any, state: Attachment, name: str, denoiser: Any, mode: str, attention: str) -> None:
        from diffopt.backends.runtime.denoiser_call import WholePass

        self._pipe, self._state, self._name, self._denoiser = pipe, state, name, denoiser
        self._mode, self._attention = mode, attention
        self._original = denoiser.forward
        self._whole = WholePass(denoiser)
        self._compiled: dict[str, Any] = {}
        self._recordings: dict[Hashable, Any] = {}
        self._loops: dict[Hashable, Any] = {}
        self._counts = {"requests": 0, "captured": 0, "steps": 0}
        self._phase = ""
        self._key: Hashable = None
        self._scale = 1.0
        self._now: Any = None
        self._enabled = True
        self.last: Any = None

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call."""
        self._counts["requests"] += self._state.counting
        if any(call.get(name) is not None for name in WATCHED) or not self._enabled:
            return proceed(call)
        scale = call.get("guidance_scale", self._state.call_default("guidance_scale"))
        self._scale = float(scale) if isinstance(scale, int | float) else 1.0
        self._key, self._phase, self._now = _signature(call), "waiting", None
        generators = _generators(call)
        before = [(generator, generator.get_state()) for generator in generators]
        try:
            with self._listening():
                try:
                    made = proceed(call)
                except _Again:
                    for generator, kept in before:
                        generator.set_state(kept)
                    self._phase = ""
                    return proceed(call)
            if self._phase == "record":
                self._finish()
            return made
        finally:
            self._phase, self._now = "", None

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Let requests run as they always did for a while."""
        self._enabled = False
        try:
            yield
        finally:
            self._enabled = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take the place of the denoiser's forward."""
        from diffopt.backends.runtime.denoiser_call import read_call

        if self._phase not in ("record", "replay"):
            return self._original(*args, **kwargs)
        read = read_call(self._original, args, kwargs)
        if isinstance(read, str):
            if self._phase == "replay":
                raise _Again
            self._now.wrong = f"the loop does not know {read}"
            return self._original(*args, **kwargs)
        shape, tensors = read
        if self._phase == "record":
            made = self._original(*args, **kwargs)
            self._now.asked(shape, tensors, made[0] if isinstance(made, tuple) else made.sample)
            return made
        recording = self._recordings[self._key]
        self._now = self._loop(recording, shape, tensors)
        answer = recording.answers[0]
        if kwargs.get("return_dict", True) is False:
            return (answer,)
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=answer)

    def witness(self) -> Witness:
        counts = self._counts
        detail = (
            f"{self._name}: {counts['captured']} of {counts['requests']} requests, {counts['steps']} captured steps"
        )
        return Witness("capture_step", counts["steps"], detail)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Stand between the pipeline and its scheduler for one request."""
        scheduler = self._pipe.scheduler
        names = ("set_timesteps", "scale_model_input", "step")
        own = {name: scheduler.__dict__.get(name) for name in names}
        for name, hook in zip(names, (self._timed, self._scaled, self._stepped), strict=True):
            if hasattr(scheduler, name):
                scheduler.__dict__[name] = hook(scheduler, getattr(scheduler, name))
        try:
            yield
        finally:
            for name, kept in own.items():
                if kept is None:
                    scheduler.__dict__.pop(name, None)
                else:
                    scheduler.__dict__[name] = kept

    def _timed(self, scheduler: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        from diffopt.backends.runtime.linear_schedule import on_host
        from diffopt.backends.runtime.loop_record import Recording

        @functools.wraps(original)
        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if self._phase != "waiting":
                return result
            times = tuple(scheduler.timesteps.tolist())
            self._key = (self._key, times, type(scheduler).__name__)
            found = self._recordings.get(self._key)
            if found is None:
                self._phase, self._now = "record", Recording(on_host(scheduler), self._scale)
            elif found.wrong:
                self._phase = ""
            else:
                self._phase = "replay"
                scheduler.timesteps = scheduler.timesteps[:1]
            return result

        return set_timesteps

    def _scaled(self, scheduler: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def scale_model_input(sample: Any, *args: Any, **kwargs: Any) -> Any:
            return sample if self._phase == "replay" else original(sample, *args, **kwargs)

        return scale_model_input

    def _stepped(self, scheduler: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            if self._phase == "replay":
                return self._taken(sample, dictionary=kwargs.get("return_dict", True))
            result = original(model_output, timestep, sample, *args, **kwargs)
            if self._phase == "record":
                self._now.stepped(model_output, sample, result[0])
            return result

        return step

    def _taken(self, sample: Any, *, dictionary: bool) -> Any:
        from types import SimpleNamespace

        if self._now is None:
            raise _Again
        made = self._now.run(sample)
        self.last = self._now
        self._counts["captured"] += self._state.counting
        self._counts["steps"] += len(self._now.plan.kinds) * self._state.counting
        plan = self._denoiser.__dict__.get(PLAN)
        if plan is not None and self._state.counting:
            plan.count_folded(1)
        return SimpleNamespace(prev_sample=made) if dictionary else (made,)

    def _finish(self) -> None:
        """Decide by what was heard whether a loop may stand for such requests."""
        from diffopt.backends.runtime.linear_schedule import recurrence

        recording = self._now
        found = recurrence(recording.scheduler)
        recording.wrong = found if isinstance(found, str) else recording.unlike(found)
        plan = self._plan(len(recording.steps)) if not recording.wrong else ""
        if isinstance(plan, str):
            recording.wrong = recording.wrong or plan
        if recording.wrong:
            self._state.say_once(f"steps are not captured: {recording.wrong}")
        recording.found, recording.plan = found, plan
        if len(self._recordings) >= MOST:
            self._recordings.clear()
            self._loops.clear()
        self._recordings[self._key] = recording

    def _plan(self, count: int) -> Any:
        """Return the plan of the loop; a step plan that does not fit this request leaves all steps full."""
        from diffopt.backends.runtime.loop_plan import loop_plan

        held = self._denoiser.__dict__.get(PLAN)
        if held is None or len(held.full) != count:
            return loop_plan((True,) * count, (True,) * count)
        table = held._table
        if not all(table.fresh) or table.apart:
            return "a step plan that takes the halves of guidance apart is not captured"
        return loop_plan(table.full, table.guided, order=table.order)

    def _loop(self, recording: Any, shape: Any, tensors: Any) -> Any:
        """Return the loop for a call, with the call's conditions in it."""
        from diffopt.backends.runtime.captured_loop import CapturedLoop

        frozen = self._denoiser.__dict__.get(FROZEN)
        named = dict(zip(shape.names, tensors, strict=True))
        variant = frozen.variant(named, recording.guided) if frozen is not None else None
        key = (self._key, variant)
        loop = self._loops.get(key)
        if loop is None:
            loop = CapturedLoop(
                recording, recording.found, recording.plan, self._leaves(recording), self._context(variant)
            )
        if not loop.fits(shape, tensors):
            raise _Again
        self._loops[key] = loop
        loop.load(tensors, self._scale)
        if frozen is not None:
            frozen.load(variant, named)
        return loop

    def _context(self, variant: Hashable) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        frozen = self._denoiser.__dict__.get(FROZEN)

        @contextlib.contextmanager
        def entered() -> Iterator[None]:
            from torch.nn.attention import SDPBackend, sdpa_kernel

            with contextlib.ExitStack() as stack:
                first = [getattr(SDPBackend, name) for name in ATTENTION[self._attention]]
                if first:
                    rest = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
                    order = [*first, *(backend for backend in rest if backend not in first)]
                    stack.enter_context(sdpa_kernel(order, set_priority=True))
                if frozen is not None:
                    stack.enter_context(frozen.entered(variant))
                yield

        return entered

    def _leaves(self, recording: Any) -> Any:
        held = self._denoiser.__dict__.get(PLAN)
        if held is None or len(held.full) != len(recording.steps):
            self._whole.shape = recording.shape
            return {"whole": self._compile("whole", self._whole)}
        return {name: self._compile(name, leaf.module) for name, leaf in held.leaves.items()}

    def _compile(self, name: str, module: Any) -> Any:
        import torch

        if self._mode == "eager":
            return module
        if self._mode.startswith("regional"):
            if not self._compiled:
                self._compiled["blocks"] = compile_blocks(self._denoiser, TUNED if "tuned" in self._mode else {})
            return module
        if name not in self._compiled:
            options = TUNED if self._mode == "max-autotune" else {}
            self._compiled[name] = torch.compile(module, dynamic=False, options=options)
        return self._compiled[name]


def compile_blocks(denoiser: Any, options: dict[str, Any]) -> int:
    """Compile the repeated blocks of a denoiser, each class once, in place; return how many blocks there are.

    A block that is listened to (cached features) is compiled beneath what listens, so that one compilation serves all.
    """
    import torch

    from diffopt.backends.runtime.taps import COMPILED

    wanted = {*(getattr(denoiser, "_repeated_blocks", None) or ()), *MORE_BLOCKS}
    compiled: dict[Any, Any] = {}
    count = 0
    for part in denoiser.modules():
        if type(part).__name__ not in wanted:
            continue
        own = part.__dict__.get("forward")
        beneath = getattr(own, "__wrapped__", own)
        function = beneath.__func__ if isinstance(beneath, MethodType) else type(part).forward
        if function not in compiled:
            compiled[function] = torch.compile(function, dynamic=False, options=options)
        place = "forward" if own is beneath else COMPILED
        part.__dict__[place] = functools.partial(compiled[function], part)
        count += 1
    return count


def _signature(call: Call) -> Hashable:
    """Return what of a call's arguments decides the shape of the loop: all but what may differ at random."""
    entries: list[Hashable] = []
    for name, value in sorted(call.items()):
        if name in ("generator", "output_type", "return_dict", "guidance_scale"):
            continue
        if isinstance(value, str):
            entries.append((name, "text"))
        elif isinstance(value, list | tuple):
            entries.append((name, len(value)))
        elif hasattr(value, "shape"):
            entries.append((name, tuple(value.shape), str(getattr(value, "dtype", ""))))
        else:
            entries.append((name, repr(value)))
    scale = call.get("guidance_scale")
    entries.append(("guided", isinstance(scale, int | float) and scale > 1))
    return tuple(entries)


def _generators(call: Call) -> list[Any]:
    given = call.get("generator")
    return [given] if hasattr(given, "get_state") else list(given) if isinstance(given, list | tuple) else []
