"""DIFF032: the same prompt is encoded in every round of a loop."""

from __future__ import annotations

from diffopt.doctor import rule


class PromptEncodedInLoop(rule.Rule):
    """Find `encode_prompt` in a loop with arguments that do not change."""

    id = "DIFF032"
    severity = "warning"
    why = (
        "A prompt's embeddings are the same in every round; a text encoder of some billion parameters is run again to "
        "find them. Calls take them as `prompt_embeds`."
    )
    evidence = (rule.docs("using-diffusers/weighted_prompts"), rule.docs("optimization/memory#offloading"))
    fix = "Encode once, before the loop, and give `prompt_embeds` to the call."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        for prompt in ("a cat", "a dog"):
            with torch.no_grad():
                embeds, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
            image = pipe(prompt_embeds=embeds).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            for seed in range(4):
                with torch.no_grad():
                    embeds, _ = pipe.encode_prompt("a cat", "cpu", 1, False)
                generator = torch.Generator().manual_seed(seed)
                image = pipe(prompt_embeds=embeds, generator=generator).images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            loop = facts.loop(use.call)
            if use.path != ("encode_prompt",) or loop is None or loop in facts.script.ancestors(use.site.call):
                continue
            same = not any(facts.varies(arg.value, loop) for arg in use.call.args)
            if same and facts.repeats(use.call, loop) and not facts.changed_in(use.site, loop):
                self.flag(use.call, "the same prompt is encoded in every round: encode it before the loop")
