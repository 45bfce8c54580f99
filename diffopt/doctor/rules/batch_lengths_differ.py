"""DIFF047: lists of different lengths in one call."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class BatchLengthsDiffer(rule.Rule):
    """Find a list of prompts whose negative prompts or generators are not as many."""

    id = "DIFF047"
    severity = "error"
    why = (
        "One negative prompt belongs to each prompt and one generator to each image; a list of another length raises "
        "`ValueError`. One text or generator serves all."
    )
    evidence = (rule.docs("using-diffusers/batched_inference"), rule.source("utils/torch_utils.py"))
    fix = "Give as many as there are prompts (times `num_images_per_prompt` for generators), or one for all."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        images = pipe(["a cat", "a dog"], negative_prompt=["blurry", "dark"]).images
        """,
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        generators = [torch.Generator().manual_seed(n) for n in range(4)]
        images = pipe("a cat", num_images_per_prompt=4, generator=generators).images
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            images = pipe(["a cat", "a dog"], negative_prompt=["blurry"]).images
            """
        ),
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            images = pipe("a cat", generator=[torch.Generator().manual_seed(n) for n in range(4)]).images
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            kind = facts.kind(site)
            prompt = facts.value(facts.argument(call, "prompt", 0))
            if kind is None or next(iter(kind.call), "") != "prompt" or facts.open(call):
                continue
            prompts = len(prompt) if isinstance(prompt, list) else 1 if isinstance(prompt, str) else None
            if prompts is None:
                continue
            negative = facts.keyword(call, "negative_prompt")
            negatives = facts.value(negative.value) if negative is not None else None
            if negative is not None and isinstance(negatives, list) and len(negatives) != prompts:
                self.flag(negative, f"{len(negatives)} negative prompts for {prompts} prompts: this raises")
            given = facts.keyword(call, "num_images_per_prompt")
            each = facts.value(given.value) if given is not None else 1
            generator = facts.keyword(call, "generator")
            count = self._count(facts, generator.value) if generator is not None else None
            if generator is None or count is None or count < 2 or not isinstance(each, int):
                continue
            if count != prompts * each:
                self.flag(generator, f"{count} generators for {prompts * each} images: this raises")

    def _count(self, facts: rule.Facts, node: cst.CSTNode | None) -> int | None:
        """Return the length of a list that is written out, or made over a constant range."""
        node = facts.bound(node) if isinstance(node, cst.Name) else node
        if isinstance(node, cst.List):
            return None if any(isinstance(e, cst.StarredElement) for e in node.elements) else len(node.elements)
        if not isinstance(node, cst.ListComp) or node.for_in.ifs or node.for_in.inner_for_in is not None:
            return None
        source = node.for_in.iter
        if isinstance(source, cst.Call) and facts.script.code(source.func) == "range" and len(source.args) == 1:
            value = facts.value(source.args[0].value)
            return value if isinstance(value, int) else None
        return None
