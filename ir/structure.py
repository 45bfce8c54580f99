"""From a description to the structure of a call: which component is asked what, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xdsl.dialects.builtin import FunctionType, ModuleOp, StringAttr, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from diffopt.ir import dialect as d
from diffopt.ir.description import Input, PipelineDescription, symbol
from diffopt.ir.errors import DiffoptError
from diffopt.ir.parts import parts_of
from diffopt.ir.pipeline_classes import PipelineClass, pipeline_class
from diffopt.ir.roles import (
    CONTROLS,
    DECODERS,
    ENCODERS,
    IMAGE_ENCODERS,
    PRIORS,
    SCHEDULERS,
    Guidance,
    denoiser_names,
    guidance_of_class,
    medium,
)

TYPES: Mapping[str, Attribute] = {
    "image": d.ImageType(),
    "mask": d.MaskType(),
    "control": d.ImageType(),
    "latent": d.LatentType(),
    "embedding": d.EmbeddingType(),
    "video": d.VideoType(),
    "audio": d.AudioType(),
    "other": d.DataType(),
}
RESULTS: Mapping[str, Attribute] = {
    "image": d.ImageType(),
    "video": d.VideoType(),
    "audio": d.AudioType(),
    "data": d.DataType(),
}
TEXT_INPUTS = ("prompt", "prompts", "task_prompt", "messages", "transcription", "source_prompt")


def build(description: PipelineDescription) -> ModuleOp:
    """Write a checked description as a module.

    Raises:
        DiffoptError: a part is missing that the pipeline's class needs.
    """
    return _Builder(description).module()


@dataclass
class _Builder:
    """One function in the making: its block, and the values of its arguments."""

    description: PipelineDescription
    block: Block = field(init=False)
    given: dict[str, SSAValue] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.known: PipelineClass | None = pipeline_class(self.description.pipeline_class)
        self.held = [part.name for part in self.description.components]
        self.kind = medium(self.description)
        self.denoisers = denoiser_names(self.description)
        self.scheduler = next((name for name in SCHEDULERS if name in self.held), "")
        self._refuse()
        denoiser = self.description.component(self.denoisers[0])
        self.guidance: Guidance = guidance_of_class(
            self.description.pipeline_class, denoiser.config if denoiser else {}
        )
        self.block = Block()

    def module(self) -> ModuleOp:
        """Return the module."""
        description = self.description
        parts = parts_of(description, self.guidance, self.scheduler)
        result = self._body()
        types = [argument.type for argument in self.block.args]
        function = FunctionType.from_lists(types, [result.type])
        generate = FuncOp("generate", function, Region(self.block))
        module = ModuleOp([*parts, generate], sym_name=StringAttr(symbol(description.name)))
        if description.source:
            module.attributes["source"] = d.to_attribute(description.source)
        if description.spans:
            module.attributes["spans"] = d.to_attribute({name: str(span) for name, span in description.spans.items()})
        if description.assumptions:
            module.attributes["assumptions"] = d.to_attribute(
                [
                    {"name": a.name, "span": str(a.span) if a.span else "", "text": a.text}
                    for a in description.assumptions
                ]
            )
        return module

    def _refuse(self) -> None:
        """Refuse a pipeline without the parts that a loop needs."""
        if not self.denoisers:
            self._missing("denoiser")
        if not self.scheduler:
            self._missing("scheduler")
        for name, what in (("text_encoder", "text encoder"), ("vae", "VAE")):
            needed = self.known is None or (name in self.known.components and name not in self.known.optional)
            others = [*self.held, *(given.name for given in self.description.inputs)]
            stands_in = ENCODERS.match if name == "text_encoder" else DECODERS.__contains__
            embedded = name == "text_encoder" and any("embeds" in other for other in others)
            if needed and not embedded and not any(stands_in(other) for other in others):
                self._missing(what)

    def _missing(self, what: str) -> None:
        description = self.description
        raise DiffoptError(
            f"{description.pipeline_class} has no {what} among its components",
            where=description.source or description.model,
            hint="only pipelines with a denoise loop are lifted: a denoiser, a scheduler, and the encoders and decoders "
            "that their class names",
        )

    def _body(self) -> SSAValue:
        """Write the body of `@generate` and return what it returns."""
        seed = self._arguments()
        scale, guided = self._scale()
        conditional, unconditional = self._conditions(guided)
        noise = self._add(d.NoiseOp(seed, self.kind)).results[0]
        for denoiser, scheduler in PRIORS:
            if denoiser in self.held and scheduler in self.held and denoiser not in self.denoisers:
                conditional, unconditional = self._prior(denoiser, scheduler, seed, conditional, unconditional)
                break
        initial, start, known = self._start(noise)
        mask = self.given.get("mask")
        blends = mask is not None and known is not None and self._plain_channels()
        if mask is not None and not blends:
            conditional = [*conditional, mask, *([known] if known is not None else [])]
            unconditional = [*unconditional, mask, *([known] if known is not None else [])]
        latent = self._loops(
            initial,
            start,
            [unconditional, conditional] if guided else [conditional],
            scale if guided else None,
            (known, mask) if blends and known is not None and mask is not None else None,
        )
        result = latent
        decoders = [name for name in DECODERS if name in self.held and name not in self.denoisers][:1]
        if self.description.arguments.get("output_type") == "latent":
            decoders = []
        for name in decoders:
            result = self._add(d.DecodeOp(name, latent, RESULTS[self.kind])).results[0]
            result.name_hint = self.kind
        self._add(ReturnOp(result))
        return result

    def _arguments(self) -> SSAValue:
        """Declare what the function takes; return the seed."""
        reads_text = self.known is None or any(name in self.known.call for name in TEXT_INPUTS)
        names: list[tuple[str, Attribute]] = []
        if reads_text:
            names += [("prompt", d.TextType()), ("negative", d.TextType())]
        names.append(("seed", i64))
        for given in self._inputs():
            names.append((given.name, TYPES[given.kind] if given.kind != "latent" else d.LatentType(self.kind)))
        self.block = Block(arg_types=[kind for _, kind in names])
        for (name, _), value in zip(names, self.block.args, strict=True):
            value.name_hint = name if name.isascii() else None
            self.given[name] = value
        for given in self._inputs():
            self.given.setdefault(given.kind, self.given[given.name])
        return self.given["seed"]

    def _inputs(self) -> tuple[Input, ...]:
        return self.description.inputs

    def _scale(self) -> tuple[float, bool]:
        """Return the scale of classifier-free guidance, and whether there is any."""
        description, how = self.description, self.guidance
        if not how.scale:
            return 1.0, False
        if how.scale == "true_cfg_scale":
            default = self.known.call.get(how.scale) if self.known else None
            value = description.arguments.get(how.scale, default)
            scale = float(value) if isinstance(value, int | float) else 1.0
            names = [given.name for given in description.inputs]
            names += list(description.arguments)
            negative = bool(description.negative_prompt) or any(name.startswith("negative") for name in names)
            return scale, scale > 1.0 and negative
        return description.guidance, description.guidance > 1.0

    def _conditions(self, guided: bool) -> tuple[list[SSAValue], list[SSAValue]]:
        """Encode prompt and negative prompt by each encoder; what is given encoded counts as it is."""
        conditional: list[SSAValue] = []
        unconditional: list[SSAValue] = []
        embedded = {
            given.name: self.given[given.name] for given in self.description.inputs if given.kind == "embedding"
        }
        texts = [name for name in self.held if ENCODERS.match(name) and "image" not in name and "siglip" not in name]
        if "prompt" in self.given and "prompt_embeds" not in embedded:
            negatives = []
            for index, name in enumerate(texts):
                suffix = str(index + 1) if len(texts) > 1 else ""
                conditional.append(self._add(d.EncodeOp(name, self.given["prompt"], f"c{suffix}")).results[0])
                if guided:
                    negatives.append(d.EncodeOp(name, self.given["negative"], f"u{suffix}"))
            unconditional = [self._add(negative).results[0] for negative in negatives]
        for name, value in embedded.items():
            (unconditional if name.startswith("negative") else conditional).append(value)
        images = [self._image_condition(given) for given in self.description.inputs]
        for value in filter(None, images):
            conditional.append(value)
            unconditional.append(value)
        for given in self.description.inputs:
            if given.kind == "other":
                conditional.append(self.given[given.name])
                unconditional.append(self.given[given.name])
        return conditional, unconditional or (list(conditional) if guided else [])

    def _image_condition(self, given: Input) -> SSAValue | None:
        """Encode an image, frames or sound that conditions the denoiser rather than being its start."""
        if given.kind not in ("image", "video", "audio") or self._starts_from() == given.name:
            return None
        encoder = next(
            (name for name in self.held if ENCODERS.match(name) and ("image" in name or "siglip" in name)), ""
        )
        if encoder and (given.kind == "image"):
            return self._add(d.EncodeOp(encoder, self.given[given.name], "ci")).results[0]
        vae = next((name for name in IMAGE_ENCODERS if name in self.held), "")
        if vae:
            return self._add(d.CompressOp(vae, self.given[given.name], self.kind)).results[0]
        return self.given[given.name]

    def _starts_from(self) -> str:
        """Return the input that the first latent is made of: an image or video noised as far as `strength` says."""
        if self.known is not None and "strength" not in self.known.call and "denoising_start" not in self.known.call:
            return ""
        names = [given.name for given in self.description.inputs if given.kind in ("image", "video")]
        wanted = ("image", "video", "images", "init_image")
        return next((name for name in wanted if name in names), "")

    def _start(self, noise: SSAValue) -> tuple[SSAValue, int, SSAValue | None]:
        """Return the first latent, the step to start at, and the latent of the given image."""
        description, steps = self.description, self.description.steps
        name = self._starts_from()
        vae = next((part for part in IMAGE_ENCODERS if part in self.held), "")
        if not name or not vae:
            given = next((self.given[i.name] for i in description.inputs if i.kind == "latent"), None)
            return (given if given is not None and isinstance(given.type, d.LatentType) else noise), 0, None
        known = self._add(d.CompressOp(vae, self.given[name], self.kind)).results[0]
        begin = description.arguments.get("denoising_start")
        if isinstance(begin, int | float) and 0 < begin < 1:
            start = min(round(begin * steps), steps - 1)
            return known, start, known
        default = self.known.call.get("strength") if self.known else None
        strength = description.arguments.get("strength", default)
        start = self._first_step(strength) if isinstance(strength, int | float) else 0
        if start >= steps:
            raise DiffoptError(
                f"a strength of {strength} takes none of {steps} steps", where=description.source or description.model
            )
        return self._add(d.AddNoiseOp(self.scheduler, known, noise, start)).results[0], start, known

    def _first_step(self, strength: float) -> int:
        """Return the step that an image noised with a strength starts at, as the class's own source rounds it."""
        steps = self.description.steps
        if self.known is not None and self.known.strength_in_parts:
            return int(max(steps - min(steps * strength, steps), 0))
        return max(steps - min(int(steps * strength), steps), 0)

    def _plain_channels(self) -> bool:
        """Tell whether the denoiser takes the latent alone, so that masking is done outside of it."""
        parts = [self.description.component(name) for name in (self.denoisers[0], "vae")]
        channels = [
            part.config.get(key) for part, key in zip(parts, ("in_channels", "latent_channels"), strict=True) if part
        ]
        return len(channels) == 2 and channels[0] is not None and channels[0] == channels[1]

    def _prior(
        self, denoiser: str, scheduler: str, seed: SSAValue, conditional: list[SSAValue], unconditional: list[SSAValue]
    ) -> tuple[list[SSAValue], list[SSAValue]]:
        """Write the first stage: an embedding, denoised from noise, that conditions the second."""
        steps = self.description.arguments.get("prior_num_inference_steps")
        default = self.known.call.get("prior_num_inference_steps") if self.known else None
        count = next((n for n in (steps, default) if isinstance(n, int) and n > 0), 25)
        scale = self.description.arguments.get("prior_guidance_scale")
        if scale is None and self.known is not None:
            scale = self.known.call.get("prior_guidance_scale")  # type: ignore[assignment]
        guided = bool(unconditional) and isinstance(scale, int | float) and scale > 1
        noise = self._add(d.NoiseOp(seed, "data")).results[0]
        loop = d.denoise_loop(
            scheduler,
            denoiser,
            0,
            count,
            noise,
            [unconditional, conditional] if guided else [conditional],
            float(scale) if guided and isinstance(scale, int | float) else None,
        )
        embedding = self._add(loop).results[0]
        embedding.name_hint = "prior"
        return [*conditional, embedding], [*unconditional, embedding] if unconditional else []

    def _loops(
        self,
        initial: SSAValue,
        start: int,
        conditions: list[list[SSAValue]],
        guidance: float | None,
        blend: tuple[SSAValue, SSAValue] | None,
    ) -> SSAValue:
        """Write the loop, or the two loops of experts, and return the last latent."""
        controls = []
        image = self.given.get("control") or (self.given.get("image") if self._starts_from() == "" else None)
        for name in [name for name in self.held if name in CONTROLS]:
            if image is not None:
                controls.append((name, image))
        stop = self.description.steps
        until = self.description.arguments.get("denoising_end")
        if isinstance(until, int | float) and 0 < until < 1:
            stop = max(round(until * stop), start + 1)
        boundary = self.description.settings.get("boundary_ratio")
        latent = initial
        for index, denoiser in enumerate(self.denoisers):
            loop = d.denoise_loop(
                self.scheduler,
                denoiser,
                start,
                stop,
                latent,
                conditions,
                guidance,
                in_turn=guidance is not None and self.guidance.in_turn,
                scale=self.description.guidance if self.guidance.distilled else None,
                controls=controls,
                blend=blend,
            )
            if len(self.denoisers) > 1:
                ratio = float(boundary) if isinstance(boundary, int | float) else None
                loop.set_side(("above", "below")[index], ratio)
            latent = self._add(loop).results[0]
        return latent

    def _add(self, op: Operation) -> Operation:
        self.block.add_op(op)
        return op
