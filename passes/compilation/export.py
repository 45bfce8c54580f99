"""Turn components, or the whole pipeline, into inference engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import EncodeOp, components, denoiser_of, only_plain
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, missing_package

Scope = Literal["denoiser", "components", "pipeline", "text_encoder", "vae"]
SEARCHED: tuple[Scope, ...] = ("denoiser", "components", "pipeline")
Precision = Literal["f32", "bf16"]

PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime", "aotinductor": "torch"}


@dataclass(frozen=True)
class Export(DiffusionPass):
    """Turn components, or the whole pipeline, into inference engines.

    What it does: `scope=denoiser` and `scope=components` replace the denoiser, or text encoder, denoiser and VAE, by
    engines; `scope=text_encoder` and `scope=vae` replace one of these, so that each component may have a backend and a
    precision of its own; `scope=pipeline` makes one engine of everything between token ids and image, with the denoise loop
    unrolled, the schedule folded into constants, and guidance window and cache schedule resolved.
    When it helps: nearly always on a CPU; the whole-pipeline engine most at few steps, where Python costs as much as
    the network. `backend=aotinductor` needs a C++ compiler and about a minute a component once; its engines load without
    either, and no search proposes it.
    Refuses when: an engine is there already, the package is missing, the backend has not that precision, engines
    are not made of such a denoiser yet, the pipeline has no such part, or more than one text encoder is to become
    an engine.
    What it costs: tier exact in f32, near in bf16.
    References: OpenVINO, ONNX Runtime and AOTInductor documentation.
    """

    name = "export"
    family = Family.COMPILATION
    tier = Tier.EXACT
    examples = (
        Example("export{backend=openvino}", expect='diffusion.transform "export" {backend = "openvino"'),
        Example(
            "export{scope=denoiser precision=bf16},export{scope=vae backend=onnxruntime}",
            expect='diffusion.transform "export" {backend = "onnxruntime"',
        ),
        Example("export{scope=denoiser},export{scope=denoiser}", refusal="cannot have export twice"),
        Example("compile,export{scope=pipeline}", refusal="compile inside a whole-pipeline engine"),
    )
    after = ("family:quantization",)
    one_of = "engine"

    backend: Literal["openvino", "onnxruntime", "aotinductor"] = "openvino"
    scope: Scope = "components"
    precision: Precision = "f32"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for scope in SEARCHED:
            for precision in get_args(Precision):
                yield cls(backend="openvino", scope=scope, precision=precision)
            yield cls(backend="onnxruntime", scope=scope, precision="f32")

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if self.backend == "onnxruntime" and self.precision == "bf16":
            return Refusal("ONNX Runtime has no bf16 kernels on the CPU", rule="unsupported-precision")
        if why := self._unlike(module):
            return Refusal(why, "diffusion.denoise", "wrong-kind")
        return missing_package(PACKAGES[self.backend], "cpu")

    def _unlike(self, module: ModuleOp) -> str:
        """Return why engines of this scope are not made of such a pipeline yet; empty where they are."""
        if why := only_plain(module):
            return f"{why}: engines of that are not made yet"
        denoiser, named = denoiser_of(module), components(module)
        if not denoiser.class_name.data.endswith(".UNet2DConditionModel"):
            return f"{denoiser.class_name.data} is no UNet2DConditionModel: engines of it are not made yet"
        missing = [part for part in ("text_encoder", "vae") if part not in named]
        if self.scope != "denoiser" and missing:
            return f"there is no {missing[0]} to make an engine of"
        if self.scope in ("components", "text_encoder") and "text_encoder_2" in named:
            return "its text encoders hand out all their hidden states: engines of such are not made yet"
        encoders = {op.component for op in module.walk() if isinstance(op, EncodeOp)}
        if self.scope == "pipeline" and len(encoders) > 1:
            return "there are several text encoders: they cannot become one engine yet"
        return ""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        arguments: dict[str, JSON] = {"backend": self.backend, "precision": self.precision}
        named = components(op)
        if self.scope == "pipeline":
            named["pipeline"].add_transform("export", arguments, self.name)
            return
        denoiser = denoiser_of(op).sym_name.data
        own = {"denoiser": (denoiser,), "text_encoder": ("text_encoder",), "vae": ("vae",)}
        parts = own.get(self.scope, ("text_encoder", denoiser, "vae"))
        for part in parts:
            named[part].add_transform("export", arguments, self.name)
