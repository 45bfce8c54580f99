"""DIFF013: a generator on the GPU for a pipeline on the CPU."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.ir.script_pipelines import Site

NO_PLACE = frozenset(
    {"dtype", "torch_dtype", "variant", "use_safetensors", "revision", "safety_checker", "token", "subfolder"}
)
"""Arguments of a loader that put nothing on a device; a model that is given may be anywhere."""


class GeneratorOnAnotherDevice(rule.Rule):
    """Find a CUDA generator that is given to a pipeline on the CPU."""

    id = "DIFF013"
    severity = "error"
    why = (
        "Noise for a pipeline on the CPU cannot be drawn by a generator of the GPU: the call raises `ValueError`. The "
        "other way round works, and draws the same noise on every machine."
    )
    evidence = (rule.docs("using-diffusers/reusing_seeds"), rule.source("utils/torch_utils.py"))
    fix = 'Write `torch.Generator("cpu")`.'
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model").to("cuda")
        image = pipe("a cat", generator=torch.Generator("cpu").manual_seed(0)).images[0]
        """,
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.enable_model_cpu_offload()
        image = pipe("a cat", generator=torch.Generator("cuda").manual_seed(0)).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2, generator=torch.Generator("cuda").manual_seed(0)).images[0]
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2, generator=torch.Generator("cpu").manual_seed(0)).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            arg = facts.keyword(call, "generator")
            made = self._generator(facts, arg.value) if arg is not None else None
            if made is None or not self._on_cpu(facts, site):
                continue
            device = facts.argument(made, "device", 0)
            if facts.device(device) not in ("cuda", "xpu"):
                continue
            shared = isinstance(arg.value, cst.Name) and self._elsewhere(facts, arg.value.value) if arg else False
            plain = not shared and isinstance(device, cst.SimpleString) and device.quote in ('"', "'")
            new = device.with_changes(value=f"{device.quote}cpu{device.quote}") if plain and device else None  # type: ignore
            message = 'the pipeline is on the CPU and cannot use a generator of the GPU: write `torch.Generator("cpu")`'
            self.flag(device or made, message, new)

    def _generator(self, facts: rule.Facts, node: cst.BaseExpression) -> cst.Call | None:
        """Return the call that makes a generator; names are followed to where they are set."""
        if isinstance(node, cst.Call):
            if facts.called(node) == "torch.Generator":
                return node
            if isinstance(node.func, cst.Attribute) and node.func.attr.value == "manual_seed":
                return self._generator(facts, node.func.value)
        elif isinstance(node, cst.Name):
            bound = facts.bound(node)
            return self._generator(facts, bound) if isinstance(bound, cst.Call) else None
        return None

    def _elsewhere(self, facts: rule.Facts, name: str) -> bool:
        """Say whether a generator's name is used for anything but calls of pipelines."""
        calls = {call for call, _ in facts.calls}
        for node in facts.script.all(cst.Name):
            parent = facts.script.parents.get(node)
            if node.value != name or isinstance(parent, cst.AssignTarget):
                continue
            if isinstance(parent, cst.Arg) and (parent.keyword is node or facts.script.parents.get(parent) in calls):
                continue
            if isinstance(parent, cst.Attribute) and (parent.attr is node or parent.attr.value == "manual_seed"):
                continue
            return True
        return False

    def _on_cpu(self, facts: rule.Facts, site: Site) -> bool:
        """Say whether nothing in the script puts a pipeline on another device."""
        for use in facts.uses:
            moves = use.path[-1] in ("to", "cuda") or "offload" in use.path[-1]
            to_cpu = len(use.path) == 1 and facts.device(facts.argument(use.call, "device", 0)) == "cpu"
            if use.site is site and moves and not to_cpu:
                return False
        names = {arg.keyword.value for arg in site.call.args if arg.keyword is not None}
        return bool(site.loader) and names <= NO_PLACE and not facts.open(site.call) and facts.stays(site)
