"""Answer pipeline calls with a whole-pipeline engine, as cheaply as the surroundings allow."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from diffopt.backends.base import BackendError, Run, Witness
from diffopt.backends.runtime.attachment import Call, Layer, Proceed, attachment, component_name
from diffopt.backends.runtime.fit_timesteps import FITTED
from diffopt.backends.runtime.fold import Interface, Settings, cleans, folded_parts
from diffopt.backends.runtime.prompt_reading import PromptReader, text_tokenizers
from diffopt.backends.runtime.step_plan import PLAN
from diffopt.backends.runtime.unroll_steps import UNROLLED

INPUTS = frozenset({"prompt", "generator", "latents", "output_type", "return_dict"})
"""Arguments an engine call looks at or may ignore; all others must be what the engine was made with."""


class EngineRequests:
    """The engine of one pipeline, and what a call must be like for it. Not for two threads at once."""

    def __init__(
        self, pipe: Any, run: Run, settings: Settings, interface: Interface, transform: str = "export"
    ) -> None:
        self._transform = transform
        self._pipe = pipe
        self._run = run
        self._state = attachment(pipe)
        self._denoiser = component_name(pipe, "denoiser")
        denoiser = getattr(pipe, self._denoiser)
        self._plan = denoiser.__dict__.get(PLAN)
        self._schedule = pipe.scheduler.__dict__.get(UNROLLED)
        self._fitted = pipe.scheduler.__dict__.get(FITTED)
        self._negative = settings.negative_prompt
        # XL's embedding of no negative prompt is zeros, and another of an empty one.
        self._none_is_zeros = bool(pipe.config.get("force_zeros_for_empty_prompt"))
        self._reader = PromptReader(pipe, interface.texts, clean=cleans(pipe, settings))
        self._shape = interface.noise
        parts = (*folded_parts(pipe), *text_tokenizers(pipe), "scheduler")
        self._parts = {name: getattr(pipe, name) for name in parts}
        self._scheduler_config = pipe.scheduler.config
        self._weight = next(denoiser.parameters())
        self._output: Any = getattr(sys.modules[self._state.pipeline_class.__module__], interface.output)
        self._fields = [field.name for field in dataclasses.fields(self._output)]
        if set(self._fields) - {"images", "nsfw_content_detected"}:
            raise BackendError(f"a {interface.output} is more than pictures: it cannot come from one engine yet")
        call = inspect.signature(self._state.pipeline_class.__call__).parameters
        self._expected: dict[str, Any] = {name: parameter.default for name, parameter in call.items()}
        usual = self._expected
        self._needed = [name for name, value in settings.arguments.items() if usual.get(name) != value]
        self._expected = {**usual, **settings.arguments}
        native = denoiser.config.sample_size
        native = (native, native) if isinstance(native, int) else tuple(native)
        if native == self._shape[1:]:
            self._default_size: tuple[Any, Any] = (None, None)
        else:
            self._default_size = (settings.height, settings.width)
        self._settings = settings.call_of_numbers()
        self._calls = 0
        self._fallbacks = 0

    def witness(self) -> Witness:
        what = "engine calls" if self._transform == "export" else "calls as one function"
        detail = f"pipeline: {self._calls} {what}, {self._fallbacks} in torch"
        return Witness(self._transform, self._calls, detail)

    def takes(self, call: Call) -> bool:
        """Tell whether the engine can answer a call."""
        return self._outside(call, _prompts(call)) is None

    def route(self, proceed: Proceed, call: Call) -> Any:
        """Answer a call by the engine, or pass it on to torch."""
        prompts = _prompts(call)
        reason = self._outside(call, prompts)
        if reason is not None:
            self._fallbacks += 1
            self._state.leave_engine(f"the pipeline runs in torch instead of its engine: {reason}")
            return proceed(call)
        noise = call.get("latents")
        if noise is None:
            noise = randn_tensor(
                (len(prompts), *self._shape), call.get("generator"), torch.device("cpu"), torch.float32
            )
        given = (noise, *self._reader(prompts))
        pictures = [self._run(tuple(value[i : i + 1] for value in given))[0] for i in range(len(prompts))]
        self._calls += len(prompts)
        for followed in filter(None, (self._plan, self._schedule, self._fitted)):
            followed.count_folded(len(prompts))
        return self._finish(pictures, call)

    def _outside(self, call: Call, prompts: Any) -> str | None:
        """Return None if the engine can answer the call, or else why not."""
        if not isinstance(prompts, list) or not prompts or not all(type(p) is str for p in prompts):
            return "there is no prompt as text"
        for name, value in self._settings.items():
            given = call.get(name, self._expected[name])
            if given != value and not (
                given is None and self._default_size == (None, None) and name in ("height", "width")
            ):
                return f"{name} is {given}, the engine's is {value}"
        left_out = [name for name in self._needed if name not in call]
        if left_out:
            return f"{left_out[0]} is left out, the engine was made with one"
        for name, value in call.items():
            if name in INPUTS or name in self._settings or self._same(name, value, prompts):
                continue
            return f"{name} is not what the engine was made for"
        if not self._same("negative_prompt", call.get("negative_prompt"), prompts):
            return "negative_prompt is left out, the engine was made with one"
        latents, generator = call.get("latents"), call.get("generator")
        if latents is not None and (latents.shape != (len(prompts), *self._shape) or latents.dtype != torch.float32):
            return "latents are of another size or type"
        if isinstance(generator, list) and len(generator) != len(prompts):
            return "there are not as many generators as prompts"
        if call.get("output_type", "pil") not in ("pil", "np", "pt"):
            return f"output_type is {call['output_type']}"
        return self._changed()

    def _same(self, name: str, value: Any, prompts: list[str]) -> bool:
        if name == "negative_prompt":
            mine = self._negative
            if not self._none_is_zeros:
                value, mine = value or "", mine or ""
            return bool(value == mine or value == [mine] * len(prompts))
        if name == "eta":
            return not value
        expected = self._expected.get(name, None)
        return value is None or value is expected or (isinstance(value, (int, float)) and value == expected)

    def _changed(self) -> str | None:
        pipe = self._pipe
        for name, part in self._parts.items():
            if getattr(pipe, name) is not part:
                return f"{name} was replaced"
        if pipe.scheduler.config is not self._scheduler_config:
            return "the scheduler was configured anew"
        if self._weight.device.type != "cpu" or self._weight.dtype != torch.float32:
            return f"the pipeline is on {self._weight.device} in {self._weight.dtype}"
        if getattr(getattr(pipe, self._denoiser), "peft_config", None):
            return "an adapter was loaded"
        return None

    def _finish(self, pictures: list[torch.Tensor], call: Call) -> Any:
        pipe, unsafe = self._pipe, None
        plain = type(pipe.image_processor).postprocess is VaeImageProcessor.postprocess
        kind = call.get("output_type", "pil")
        if getattr(pipe, "safety_checker", None) is None and plain:
            images = _postprocess(pictures, kind)
        elif getattr(pipe, "safety_checker", None) is None:
            images = pipe.image_processor.postprocess(torch.cat(pictures), kind)
        else:
            raw, unsafe = pipe.run_safety_checker(torch.cat(pictures), torch.device("cpu"), torch.float32)
            keep = [True] * len(raw) if unsafe is None else [not flag for flag in unsafe]
            images = pipe.image_processor.postprocess(raw, kind, keep)
        found = {"images": images, "nsfw_content_detected": unsafe}
        values = {name: found[name] for name in self._fields}
        return self._output(**values) if call.get("return_dict", True) else tuple(values.values())


def routed(every: Sequence[EngineRequests]) -> Layer:
    """Return what answers each call by the first engine that can; where none can, the first one says why."""

    def route(proceed: Proceed, call: Call) -> Any:
        return next((one for one in every if one.takes(call)), every[0]).route(proceed, call)

    return route


def together(every: Sequence[Witness]) -> Witness:
    """Return what engines of several sizes did as one: those that nobody asked for are no transform that did nothing."""
    first, *others = every
    if not others:
        return first
    counts = ", ".join(str(witness.count) for witness in others)
    return Witness(first.transform, sum(w.count for w in every), f"{first.detail}; by those of other sizes: {counts}")


def _prompts(call: Call) -> Any:
    asked = call.get("prompt")
    return [asked] if isinstance(asked, str) else asked


def _postprocess(pictures: list[torch.Tensor], output_type: str) -> Any:
    """Do what VaeImageProcessor.postprocess does, to the same bits, in fewer steps."""
    if output_type != "pil":
        raw = torch.cat(pictures).mul_(0.5).add_(0.5).clamp_(0, 1)
        return raw if output_type == "pt" else raw.permute(0, 2, 3, 1).numpy()
    images = []
    for picture in pictures:
        values = picture[0].numpy()
        values *= 0.5
        values += 0.5
        numpy.clip(values, 0, 1, out=values)
        values *= 255
        numpy.rint(values, out=values)
        pixels = values.astype(numpy.uint8)
        if pixels.shape[0] == 1:
            images.append(Image.fromarray(pixels[0], mode="L"))
        else:
            images.append(Image.fromarray(numpy.ascontiguousarray(pixels.transpose(1, 2, 0))))
    return images
