"""DIFF019: a LoRA is loaded into a compiled model."""

from __future__ import annotations

from diffopt.doctor import rule
from diffopt.doctor.compiled import compilations


class CompileBeforeLora(rule.Rule):
    """Find `load_lora_weights` after the model was compiled."""

    id = "DIFF019"
    severity = "warning"
    why = (
        "Loading a LoRA puts new layers into the model, and what was compiled before is compiled again, at the first "
        "call and for every further LoRA. The first LoRA belongs before `torch.compile`; the next ones are swapped in "
        "with `hotswap=True`."
    )
    evidence = (
        rule.docs("tutorials/using_peft_for_inference#hotswapping"),
        rule.issue(11752),
    )
    fix = "Load (and fuse) the first LoRA, then compile; call `enable_lora_hotswap` before it to swap others in."
    VALID = [
        """
        import torch
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        pipe.load_lora_weights("lora")
        pipe.transformer = torch.compile(pipe.transformer)
        """,
        """
        import torch
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        pipe.enable_lora_hotswap(target_rank=64)
        pipe.load_lora_weights("lora", adapter_name="one")
        pipe.transformer.compile()
        pipe.load_lora_weights("another", hotswap=True, adapter_name="one")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("model")
            pipe.transformer = torch.compile(pipe.transformer, mode="max-autotune")
            pipe.load_lora_weights("lora")
            """
        ),
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("model")
            pipe.transformer.compile_repeated_blocks(fullgraph=True)
            pipe.load_lora_weights("lora")
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for compiled in compilations(facts):
            if compiled.path[0] not in ("unet", "transformer", "transformer_2", "prior"):
                continue
            for load in facts.uses_of(compiled.site, "load_lora_weights"):
                swapped = facts.keyword(load.call, "hotswap") or facts.uses_of(compiled.site, "enable_lora_hotswap")
                if len(load.path) == 1 and not swapped and facts.before(compiled.node, load.call):
                    line = facts.script.line(compiled.node)
                    message = f"the LoRA is loaded into a model compiled in line {line}: load it before, then compile"
                    self.flag(load.call, message)
