"""Trace one pipeline call of fixed settings into a program: from token ids and noise to the picture."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from diffopt.backends.base import JSON, BackendError, Program, Run
from diffopt.backends.component_call import CalledComponent, component_call, take_apart, take_result_apart
from diffopt.backends.runtime.attachment import attachment, component_name
from diffopt.backends.runtime.leaf import Leaf, PlannedLeaf, running
from diffopt.backends.runtime.prompt_reading import PromptReader, TextInput, overhearing
from diffopt.backends.runtime.replaced import replaced
from diffopt.backends.runtime.step_plan import PLAN

if TYPE_CHECKING:
    from diffopt.backends.runtime.capture import Capture

NEEDED = ("prompt", "latents", "generator", "num_inference_steps", "guidance_scale", "height", "width")
STRANGE = ("image", "mask_image", "control_image")
"""Arguments that the call of a pipeline which makes pictures of prompts alone must have, and such as it does not have."""
WORDS = ("a", "red")
"""Prompts to trace with: the first that is not the negative prompt. Whatever a tokenizer does with them is traced."""
CHECKED = "A  Red, b!"
"""A prompt unlike those, in case and spaces too, to compare the program with the pipeline; short, so that none cuts it."""
NOISE = "noise"


@dataclass(frozen=True)
class Settings:
    """What is fixed in a program: of the picture, of the loop, and what else the pipeline's call is given."""

    steps: int
    guidance: float
    height: int
    width: int
    negative_prompt: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def call(self) -> dict[str, Any]:
        """Return the arguments of the pipeline's call."""
        given = {} if self.negative_prompt is None else {"negative_prompt": self.negative_prompt}
        return {**self.arguments, **self.call_of_numbers(), **given}

    def call_of_numbers(self) -> dict[str, Any]:
        return {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "height": self.height,
            "width": self.width,
        }

    def to_json(self) -> dict[str, JSON]:
        return {
            "steps": self.steps,
            "guidance": self.guidance,
            "height": self.height,
            "width": self.width,
            "negative_prompt": self.negative_prompt,
            "arguments": dict(self.arguments),
        }


@dataclass(frozen=True)
class Interface:
    """What a program takes and gives: one picture's noise, then text inputs in this order, and the class of results.

    output: the name that class has in the pipeline's module.
    """

    texts: tuple[TextInput, ...]
    noise: tuple[int, ...]
    output: str

    def to_json(self) -> dict[str, JSON]:
        return {"texts": [text.to_json() for text in self.texts], "noise": list(self.noise), "output": self.output}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Interface:
        return cls(tuple(TextInput(**text) for text in found["texts"]), tuple(found["noise"]), str(found["output"]))


def folded_parts(pipe: Any) -> tuple[str, ...]:
    """Return the names of the components that a program calls: text encoders, denoiser, decoder."""
    encoders = [
        name
        for name, value in pipe.components.items()
        if name.startswith("text_encoder") and isinstance(value, torch.nn.Module)
    ]
    return (*encoders, component_name(pipe, "denoiser"), component_name(pipe, "vae"))


def refuse_fold(pipe: Any) -> None:
    """Raise BackendError if a call of the pipeline cannot become one program."""
    state = attachment(pipe)
    kind = state.pipeline_class
    plain = all(name in state.parameters for name in NEEDED) and not any(name in state.parameters for name in STRANGE)
    if not plain or not kind.__module__.startswith("diffusers.") or not hasattr(pipe, "vae_scale_factor"):
        raise BackendError(f"{kind.__name__} cannot become one engine yet", "export its components")
    if getattr(pipe, "watermark", None) is not None:
        raise BackendError(
            "the pipeline writes a watermark: load it with add_watermarker=False to make one engine of it"
        )


def noise_shape(pipe: Any, settings: Settings) -> tuple[int, ...]:
    """Return the sizes of one picture's noise; that the pipeline draws it so is checked with the program."""
    denoiser = getattr(pipe, component_name(pipe, "denoiser"))
    return (
        denoiser.config.in_channels,
        settings.height // pipe.vae_scale_factor,
        settings.width // pipe.vae_scale_factor,
    )


class Fold:
    """Traces a pipeline's call; `outlined`, its parts stay what runs them now, engines too."""

    def __init__(self, pipe: Any, settings: Settings, *, outlined: bool = False) -> None:
        self._pipe = pipe
        self._settings = settings
        self._outlined = outlined
        self._denoiser = component_name(pipe, "denoiser")
        self._encoders = folded_parts(pipe)[:-2]

    def program(self) -> tuple[Program, Interface]:
        """Return the call as a program, and what it takes."""
        from diffopt.backends.one_thread import one_thread
        from diffopt.backends.runtime.capture import Capture
        from diffopt.backends.runtime.recording import quiet, refusing

        pipe, settings = self._pipe, self._settings
        shape = noise_shape(pipe, settings)
        word = next(word for word in WORDS if word != (settings.negative_prompt or "").strip().lower())
        noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
        capture, decoded = Capture(), list[torch.Tensor]()
        with torch.no_grad(), one_thread(), attachment(pipe).looking(), quiet(pipe), contextlib.ExitStack() as stack:
            texts = stack.enter_context(overhearing(pipe, word, capture.input))
            stack.enter_context(self._listening(capture, decoded))
            stack.enter_context(capture)
            latents = capture.input(NOISE, noise)
            with refusing(attachment(pipe), settings.call()):
                result = pipe(prompt=word, latents=latents, **settings.call(), output_type="pt")
        if len(decoded) != 1:
            raise BackendError(f"a call decodes {len(decoded)} times: it cannot be folded into one engine")
        program = capture.program(decoded[0])
        by_name = {text.name: text for text in texts}
        used = [name for name in program.input_names if name != NOISE]
        if len(used) + 1 != len(program.input_names) or not used:
            raise BackendError(
                "the picture depends on no prompt, or on no noise: there is nothing to make an engine of"
            )
        return program, Interface(tuple(by_name[name] for name in used), shape, type(result).__name__)

    def error_of(self, run: Run, interface: Interface) -> tuple[float, float]:
        """Return the largest and the relative L2 difference of a picture to the pipeline's of the same prompt and seed.

        The prompt and the noise are others than the program was traced with.
        """
        from diffopt.backends.numeric_check import error
        from diffopt.backends.runtime.recording import quiet

        pipe, settings = self._pipe, self._settings
        reader = PromptReader(pipe, interface.texts, clean=cleans(pipe, settings))
        with torch.no_grad(), attachment(pipe).looking(), quiet(pipe):
            seeded = torch.Generator().manual_seed(1)
            expected = pipe(prompt=CHECKED, **settings.call(), generator=seeded, output_type="pt").images
            noise = torch.randn((1, *interface.noise), generator=torch.Generator().manual_seed(1))
            (picture,) = run((noise, *reader([CHECKED])))
        return error((picture.mul(0.5).add(0.5).clamp(0, 1),), (expected,))

    @contextlib.contextmanager
    def _listening(self, capture: Capture, decoded: list[torch.Tensor]) -> Iterator[None]:
        """Route the calls of encoders, denoiser and decoder through the capture for a while."""
        pipe = self._pipe
        denoiser = getattr(pipe, self._denoiser)
        plan = denoiser.__dict__.get(PLAN)
        with contextlib.ExitStack() as stack:
            for name in self._encoders:
                stack.enter_context(replaced(getattr(pipe, name), forward=_encoding(pipe, name, capture)))
            stack.enter_context(replaced(pipe.vae, decode=_decoding(pipe, capture, decoded)))
            if plan is None:
                forward = _denoising(self._denoiser, denoiser, capture)
                stack.enter_context(replaced(denoiser, forward=forward))
            for leaf in plan.leaves.values() if plan else ():
                stack.callback(setattr, leaf, "run", leaf.run)
                leaf.run = functools.partial(capture.call, running(leaf, leaf.run) if self._outlined else leaf)
            yield


def cleans(pipe: Any, settings: Settings) -> bool:
    """Tell whether a call of these settings cleans its captions."""
    return bool(settings.arguments.get("clean_caption", attachment(pipe).call_default("clean_caption")))


def _encoding(pipe: Any, name: str, capture: Capture) -> Callable[..., Any]:
    """Return what takes the place of a text encoder; what does not depend on the prompt is computed as before."""
    encoder = getattr(pipe, name)
    original = encoder.forward
    signature = inspect.signature(original)
    leaves: dict[str, Leaf] = {}

    def encode(*args: Any, **kwargs: Any) -> Any:
        given = take_apart(signature, args, kwargs)
        if not any(map(capture.depends, given.examples)):
            with capture.aside():
                return original(*args, **kwargs)
        if name in leaves:
            raise BackendError(f"{name} reads the prompt twice: that is not folded yet")
        call = component_call(original, args, kwargs)
        leaves[name] = Leaf(name, CalledComponent(encoder, original, call).eval(), call.names, call.batched)
        with capture.aside():
            _, made = take_result_apart(original(*args, **kwargs))
        return made(capture.call(leaves[name], *given.examples))

    return encode


def _decoding(pipe: Any, capture: Capture, decoded: list[torch.Tensor]) -> Callable[..., Any]:
    original = pipe.vae.decode

    def decode(*args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        call = component_call(original, args, kwargs)
        leaf = Leaf("vae", CalledComponent(pipe.vae, original, call).eval(), call.names, call.batched)
        picture = capture.call(leaf, *take_apart(inspect.signature(original), args, kwargs).examples)[0]
        decoded.append(picture)
        return (picture.clone(),)

    return decode


def _denoising(name: str, denoiser: Any, capture: Capture) -> Callable[..., Any]:
    """Return what takes the place of a denoiser without a plan."""
    from diffopt.backends.runtime.denoiser_call import WholePass, denoiser_result, read_call

    original = denoiser.forward
    leaf = PlannedLeaf(name, WholePass(denoiser).eval())
    first: list[Any] = []

    def denoise(*args: Any, **kwargs: Any) -> Any:
        read = read_call(original, args, kwargs)
        if isinstance(read, str):
            raise BackendError(f"the denoiser gets {read}, which cannot be folded into one engine yet")
        shape, tensors = read
        if not first:
            first.append(shape)
            leaf.take(shape)
        elif not shape.same_as(first[0]):
            raise BackendError("the denoiser is called in several ways, which cannot be folded into one engine yet")
        (out,) = capture.call(leaf, *tensors)
        return denoiser_result(denoiser, out, kwargs)

    return denoise
