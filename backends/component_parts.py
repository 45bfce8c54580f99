"""The components of a live pipeline as parts to build engines of, with the dimensions that a workload leaves open.

Which dimension stands for what is seen, not known: the pipeline is run for one step at the usual sizes, and once more for
each thing that may vary; a dimension that changes with the height is the height's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffopt.backends.base import Axis, BackendError, Part, Tensors
from diffopt.backends.component_call import CalledComponent, ComponentCall, component_call, tensors_of
from diffopt.backends.runtime.attachment import attachment
from diffopt.backends.runtime.recording import quiet, record
from diffopt.backends.runtime.replaced import replaced

VARYING = ("batch", "height", "width", "sequence")
DECODER, ENCODER = "vae_decoder", "vae_encoder"
SEQUENCE = "max_sequence_length"
METHODS = {"vae": "decode"}


@dataclass(frozen=True)
class Workload:
    """What calls of the pipeline may be like: pictures a call, pixels, and tokens of a prompt; None is as it is."""

    batch: Axis
    height: Axis | None = None
    width: Axis | None = None
    sequence: Axis | None = None

    def open(self) -> Iterator[Axis]:
        """Yield what really varies."""
        for name in VARYING:
            axis: Axis | None = getattr(self, name)
            if axis is not None and axis.least < axis.most:
                yield axis


def component_parts(pipe: Any, workload: Workload, components: Sequence[str] = ()) -> list[Part]:
    """Return a part for each component that a call of the pipeline runs, and the VAE's two halves.

    components: only these; `vae` stands for both halves, `denoiser` for the unet or transformer.
    Raises BackendError if one is not there, or if what is to vary changes no input of any.
    """
    chosen = _chosen(pipe, components)
    watched = {name.removesuffix("_decoder").removesuffix("_encoder"): "" for name in chosen if name.startswith("vae")}
    watched |= {name: "" for name in chosen if not name.startswith("vae")}
    watched = {name: METHODS.get(name, "forward") for name in watched}
    _refuse_longer(pipe, workload.sequence)
    usual = {axis.name: axis.usual for axis in (getattr(workload, name) for name in VARYING) if axis is not None}
    base = _calls(pipe, watched, usual)
    varied = {
        axis.name: (axis, _shapes(_calls(pipe, watched, {**usual, axis.name: _other(axis)}), base))
        for axis in workload.open()
    }
    for name, (_, shapes) in varied.items():
        if all(shapes[part] == _sizes(call.examples) for part, call in base.items()):
            raise BackendError(f"no component's input changes with the {name}", f"leave the {name} as it is")
    parts = []
    for name in chosen:
        owner = "vae" if name.startswith("vae") else name
        call = base[owner]
        axes = _axes(call, {key: (axis, shapes[owner]) for key, (axis, shapes) in varied.items()})
        parts.append(_encoder(pipe, call, axes) if name == ENCODER else _part(pipe, name, owner, call, axes))
    return parts


def with_calls(pipe: Any, parts: Sequence[Part], prompts: Sequence[str], steps: int = 8) -> list[Part]:
    """Return the parts with the inputs of the calls that requests of these prompts make, at the usual sizes.

    What a request does not call, such as the VAE's encoder, keeps its one example.
    """
    seen: dict[str, list[Tensors]] = {part.name: [] for part in parts}

    def listening(part: Part, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            tensors = tensors_of(original, args, kwargs)
            if len(tensors) == len(part.inputs):
                seen[part.name].append(tensors)
            return original(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for part in parts:
            owner = "vae" if part.name == DECODER else part.name
            if part.name == ENCODER:
                continue
            module, method = getattr(pipe, owner), METHODS.get(owner, "forward")
            stack.enter_context(replaced(module, **{method: listening(part, getattr(module, method))}))
        stack.enter_context(quiet(pipe))
        with attachment(pipe).looking():
            for index, prompt in enumerate(prompts):
                pipe(
                    prompt=prompt,
                    num_inference_steps=steps,
                    generator=torch.Generator().manual_seed(index),
                    output_type="pt",
                )
    return [replace(part, calls=tuple(seen[part.name]) or (part.inputs,)) for part in parts]


def _chosen(pipe: Any, components: Sequence[str]) -> list[str]:
    modules = [
        name
        for name, value in pipe.components.items()
        if isinstance(value, torch.nn.Module) and name not in ("safety_checker", "image_encoder", "vae")
    ]
    every = [*modules, *((DECODER, ENCODER) if getattr(pipe, "vae", None) is not None else ())]
    if not components:
        return every
    denoiser = "unet" if "unet" in every else "transformer"
    wanted = {"denoiser": (denoiser,), "vae": (DECODER, ENCODER)}
    named = [part for name in components for part in wanted.get(name, (name,))]
    unknown = [name for name in named if name not in every]
    if unknown:
        raise BackendError(f"{type(pipe).__name__} has no component {unknown[0]!r}", f"there are {', '.join(every)}")
    return list(dict.fromkeys(named))


def _calls(pipe: Any, watched: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, ComponentCall]:
    """Return what each component is called with in a call of these sizes."""
    arguments: dict[str, Any] = {name: sizes[name] for name in ("height", "width") if name in sizes}
    parameters = attachment(pipe).parameters
    if "class_labels" in parameters:
        arguments["class_labels"] = [0] * sizes["batch"]
    else:
        arguments["prompt"] = ["a"] * sizes["batch"]
    if "image" in parameters:
        arguments["image"] = _picture(pipe, sizes)
    with contextlib.ExitStack() as stack:
        if "sequence" in sizes:
            if SEQUENCE in parameters:
                arguments[SEQUENCE] = sizes["sequence"]
            else:
                stack.enter_context(_sequence(pipe, sizes["sequence"]))
        seen = record(pipe, dict(watched), size=arguments)
    with torch.no_grad():
        return {
            name: component_call(getattr(getattr(pipe, name), watched[name]), args, kwargs)
            for name, (args, kwargs) in seen.items()
        }


def _tokenizers(pipe: Any) -> list[Any]:
    return [value for name, value in pipe.components.items() if "tokenizer" in name and value is not None]


def _refuse_longer(pipe: Any, sequence: Axis | None) -> None:
    longest = min((tokenizer.model_max_length for tokenizer in _tokenizers(pipe)), default=0)
    if sequence is not None and sequence.most > longest:
        raise BackendError(f"a sequence of {sequence.most} is longer than the tokenizer's {longest}")


@contextlib.contextmanager
def _sequence(pipe: Any, length: int) -> Iterator[None]:
    """Let the tokenizers cut and fill prompts to another length for a while."""
    tokenizers = _tokenizers(pipe)
    before = [tokenizer.model_max_length for tokenizer in tokenizers]
    for tokenizer in tokenizers:
        tokenizer.model_max_length = length
    try:
        yield
    finally:
        for tokenizer, value in zip(tokenizers, before, strict=True):
            tokenizer.model_max_length = value


def _picture(pipe: Any, sizes: Mapping[str, int]) -> Any:
    from PIL import Image

    native = getattr(pipe, "vae_scale_factor", 8) * getattr(
        getattr(pipe, "unet", None) or pipe.transformer, "config", {}
    ).get("sample_size", 64)
    size = (sizes.get("width", native), sizes.get("height", native))
    return [Image.new("RGB", size, "gray")] * sizes["batch"] if sizes["batch"] > 1 else Image.new("RGB", size, "gray")


def _other(axis: Axis) -> int:
    return axis.least if axis.least != axis.usual else axis.most


def _sizes(values: Tensors) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in values]


def _shapes(calls: Mapping[str, ComponentCall], base: Mapping[str, ComponentCall]) -> dict[str, list[tuple[int, ...]]]:
    for name, call in calls.items():
        if call.names != base[name].names:
            raise BackendError(f"{name} is called with other arguments at other sizes: it cannot be one engine")
    return {name: _sizes(call.examples) for name, call in calls.items()}


def _axes(call: ComponentCall, varied: Mapping[str, tuple[Axis, list[tuple[int, ...]]]]) -> tuple[dict[int, Axis], ...]:
    """Return the open dimensions of a component's inputs; dimensions of one name are of one size."""
    found: dict[str, Axis] = {}
    opened: list[dict[int, Axis]] = []
    for index, value in enumerate(call.examples):
        axes: dict[int, Axis] = {}
        for position, size in enumerate(value.shape):
            by = [
                (axis, shapes[index][position]) for axis, shapes in varied.values() if shapes[index][position] != size
            ]
            if by:
                axes[position] = _settled(_dimension(size, by), found, call.names[index])
        opened.append(axes)
    return tuple(opened)


def _dimension(size: int, by: Sequence[tuple[Axis, int]]) -> Axis:
    """Return the range of a dimension of this size, which was seen to change with these."""
    least = most = float(size)
    for axis, seen in by:
        slope = (seen - size) / (_other(axis) - axis.usual)
        least *= (size + slope * (axis.least - axis.usual)) / size
        most *= (size + slope * (axis.most - axis.usual)) / size
    name = "_".join(axis.name for axis, _ in by)
    return Axis(name, max(1, round(least)), size, round(most))


def _settled(axis: Axis, found: dict[str, Axis], argument: str) -> Axis:
    """Return the axis under its name, or under a name of its own where that name is of another size."""
    known = found.setdefault(axis.name, axis)
    if known == axis:
        return known
    own = Axis(f"{argument}_{axis.name}", axis.least, axis.usual, axis.most)
    return found.setdefault(own.name, own)


def _part(pipe: Any, name: str, owner: str, call: ComponentCall, axes: tuple[dict[int, Axis], ...]) -> Part:
    module = getattr(pipe, owner)
    method = getattr(module, METHODS.get(owner, "forward"))
    called = CalledComponent(module, method, call).eval()
    return Part(name, called, call.examples, call.names, call.batched, axes)


def _encoder(pipe: Any, call: ComponentCall, axes: tuple[dict[int, Axis], ...]) -> Part:
    """Return the VAE's encoder; it takes pictures of the size that the decoder makes of its latents."""
    with torch.no_grad():
        picture = pipe.vae.decode(call.examples[0], return_dict=False)[0]
    scales = [there / here for there, here in zip(picture.shape, call.examples[0].shape, strict=True)]
    opened = {
        position: Axis(axis.name, *(round(size * scales[position]) for size in (axis.least, axis.usual, axis.most)))
        for position, axis in axes[0].items()
    }
    return Part(ENCODER, Encoder(pipe.vae).eval(), (picture.clamp(-1, 1),), ("sample",), (True,), (opened,))


class Encoder(torch.nn.Module):
    """A VAE's encoder as a module: pictures in, the parameters of the latents' distribution out."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, sample: torch.Tensor) -> Tensors:
        vae: Any = self.vae
        found = vae.encode(sample)
        distribution = getattr(found, "latent_dist", None)
        return (found[0] if distribution is None else distribution.parameters,)
