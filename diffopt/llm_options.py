"""The options of commands that may ask a language model, or run what one wrote."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from diffopt.agents import LlmSettings
from diffopt.ir.errors import DiffoptError


def add_llm(parser: argparse.ArgumentParser, *, passes: str = "new passes to have written at the end") -> None:
    """Add the options; `passes` is the help of the one that asks for new passes."""
    group = parser.add_argument_group("language model")
    group.add_argument("--llm-base-url", metavar="URL", help="OpenAI-compatible endpoint")
    group.add_argument("--llm-model", metavar="NAME", help="its model")
    group.add_argument("--llm-calls", type=int, default=24, metavar="N", help="most calls (default: %(default)s)")
    group.add_argument(
        "--llm-tokens", type=int, default=400_000, metavar="N", help="most tokens (default: %(default)s)"
    )
    group.add_argument("--llm-money", type=float, metavar="X", help="most money; needs --llm-price")
    group.add_argument("--llm-price", metavar="IN,OUT", help="price of a million prompt tokens and answer tokens")
    group.add_argument("--llm-passes", type=int, default=0, metavar="N", help=passes)
    group.add_argument("--llm-replay", metavar="FILE", help="answer from this transcript alone; a miss is an error")
    add_sandbox(group)


def add_sandbox(parser: argparse._ActionsContainer) -> None:
    """Add the option that says how tight the sandbox must be."""
    parser.add_argument(
        "--sandbox-level",
        type=int,
        default=4,
        metavar="N",
        help="least level for generated code (default: %(default)s)",
    )


def llm_settings(options: argparse.Namespace) -> LlmSettings:
    """Return what the options say.

    Raises:
        DiffoptError: a price or a number that cannot be.
    """
    price = None
    if options.llm_price is not None:
        try:
            prompt, answer = (float(part) for part in options.llm_price.split(","))
        except ValueError:
            raise DiffoptError(
                f"{options.llm_price!r} is not two numbers", "--llm-price", hint="such as 2.5,10"
            ) from None
        price = (prompt, answer)
    for name, value in (("--llm-money", options.llm_money), *(("--llm-price", one) for one in price or ())):
        if value is not None and not 0 <= value < math.inf:
            raise DiffoptError(f"{value:g} is no amount of money", name, hint="such as 2.5")
    if options.llm_passes < 0:
        raise DiffoptError("must not be negative", "--llm-passes")
    return LlmSettings(
        base_url=options.llm_base_url,
        model=options.llm_model,
        calls=options.llm_calls,
        tokens=options.llm_tokens,
        money=options.llm_money,
        price=price,
        replay=None if options.llm_replay is None else Path(options.llm_replay),
        passes=options.llm_passes,
        sandbox_level=options.sandbox_level,
    )
