"""DIFF051: a comment suppresses a rule that there is none of."""

from __future__ import annotations

import re
from difflib import get_close_matches

import libcst as cst

from diffopt.doctor import rule


class UnknownSuppression(rule.Rule):
    """Find `lint-ignore` and `lint-fixme` comments with the id or name of a rule that does not exist."""

    id = "DIFF051"
    severity = "warning"
    why = (
        "Such a comment suppresses nothing: the finding it was written for stays, or comes back unseen. Names that are "
        "not like those of the doctor's rules are left alone: they may be other rules of Fixit."
    )
    evidence = ("https://fixit.readthedocs.io/en/stable/guide/quickstart.html",)
    fix = "Write an id or a name that `diffopt doctor --rules` lists."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained(
            "model",
            torch_dtype=torch.float32,  # lint-ignore: DIFF001, UseFstring
        )
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float32)  # lint-ignore: DIFF0011
            """
        ),
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            # lint-fixme: TorchDtypeSpeling
            pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float32)
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for comment in facts.script.all(cst.Comment):
            for name in rule.suppressed(comment.value) or ():
                meant = self._meant(name.removesuffix("Rule"))
                if meant is not None:
                    hint = f": {meant} is meant" if meant else ": `diffopt doctor --rules` lists them"
                    self.flag(comment, f"there is no rule `{name}` to suppress{hint}")

    def _meant(self, name: str) -> str | None:
        """Return what an unknown name is likely to mean, empty where nobody knows; `None` for a name that is none of ours."""
        from diffopt.doctor.runner import rules

        names = {known.__name__.lower(): known.__name__ for known in rules()}
        if name.lower() in names or name.upper() in {known.id for known in rules()}:
            return None
        close = get_close_matches(name.lower(), names, 1, cutoff=0.85)
        if close:
            return names[close[0]]
        return "" if re.fullmatch(r"(?i)diff\d+", name) else None
