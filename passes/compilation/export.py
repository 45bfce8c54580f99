"""Turn components, or the whole pipeline, into inference engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import components, denoiser_of, only_plain
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, missing_package
from diffopt.passes.folding import text_encoders, why_not_folded

Scope = Literal["denoiser", "components", "pipeline", "text_encoder", "vae"]
SEARCHED: tuple[Scope, ...] = ("denoiser", "components", "pipeline")
Precision = Literal["f32", "bf16"]
Backend = Literal["openvino", "onnxruntime", "aotinductor"]

PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime", "aotinductor": "torch"}


@dataclass(frozen=True)
class Export(DiffusionPass):
    """Turn components, or the whole pipeline, into inference engines.

    What it does: `scope=denoiser` and `scope=components` replace the denoiser, or text encoders, denoiser and VAE, by
    engines; `scope=text_encoder` and `scope=vae` replace these alone, so that each component may have a backend and a
    precision of its own; `scope=pipeline` makes one engine of everything between token ids and image, with the denoise loop
    unrolled, the schedule folded into constants, and guidance window and cache schedule resolved.
    When it helps: nearly always on a CPU; the whole-pipeline engine most at few steps, where Python costs as much as
    the network. `backend=aotinductor` needs a C++ compiler and about a minute a component once; its engines load without
    either, and no search proposes it.
    Refuses when: an engine is there already, the package is missing, the backend has not that precision, the pipeline has no
    such part, or, for `scope=pipeline`, its class is not one of those whose calls were seen to become one program. What a
    backend cannot convert (`docs/coverage.md`) fails when the engine is built.
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

    backend: Backend = "openvino"
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
        if self.scope in ("components", "text_encoder") and not text_encoders(module):
            return "there is no text encoder to make an engine of"
        if self.scope != "denoiser" and "vae" not in components(module):
            return "there is no vae to make an engine of"
        return why_not_folded(module) if self.scope == "pipeline" else ""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        arguments: dict[str, JSON] = {"backend": self.backend, "precision": self.precision}
        named = components(op)
        if self.scope == "pipeline":
            named["pipeline"].add_transform("export", arguments, self.name)
            return
        denoiser = denoiser_of(op).sym_name.data
        encoders = text_encoders(op)
        own = {"denoiser": [denoiser], "text_encoder": encoders, "vae": ["vae"]}
        for part in own.get(self.scope, [*encoders, denoiser, "vae"]):
            named[part].add_transform("export", arguments, self.name)
