"""A trace: an ordered tuple of passes, its text form, and what running it gives."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import context, module_hash
from diffopt.ir.verify import Stage, verify
from diffopt.passes.base import DiffusionPass, Refusal, Value, options, registry
from diffopt.passes.cleanup import clean_up

OPTIONS = re.compile(r"\{([^{}]*)\}")
ASSIGNMENT = re.compile(r"""([A-Za-z_][\w-]*)\s*=\s*("[^"]*"|'[^']*'|[^\s,"']+)""")


@dataclass(frozen=True)
class Trace:
    """Passes in order of application."""

    passes: tuple[DiffusionPass, ...] = ()

    def __str__(self) -> str:
        """Print every option, defaults too, so that stored text keeps its meaning when a default changes."""
        return ",".join(str(p.spec(include_default=True)) for p in self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __iter__(self) -> Iterator[DiffusionPass]:
        return iter(self.passes)

    @classmethod
    def parse(cls, text: str) -> Trace:
        """Read `name{option=value option=value},name`; options may also be parted by commas, quotes may be left out.

        Raises:
            DiffoptError: the text does not parse, or a pass, option or value is unknown.
        """
        try:
            specs = tuple(parse_pipeline(_normalize(text)))
        # xDSL 0.74 derives ArgSpecParseError from BaseException, and runs off the end of a text as a RuntimeError.
        except (ArgSpecParseError, ValueError, IndexError, RuntimeError) as error:
            reason = str(error).strip().splitlines()
            raise DiffoptError(
                f"cannot read the passes {text!r}: {reason[-1].strip() if reason else 'bad syntax'}",
                where="--passes",
                hint='write them like "reduce-steps{steps=12},export{backend=openvino}"',
            ) from None
        return cls(tuple(build_pass(spec.name, _values(spec)) for spec in specs))


def build_pass(name: str, values: dict[str, Value]) -> DiffusionPass:
    """Make a pass from its name and options.

    Raises:
        DiffoptError: no such pass or option (with the nearest name), or a value out of range.
    """
    pass_type = registry().get(name)
    if pass_type is None:
        raise DiffoptError(f"unknown pass {name!r}", where="--passes", hint=nearest(name, tuple(registry())))
    declared = {option.name: option for option in options(pass_type)}
    for key in values:
        if key not in declared:
            raise DiffoptError(f"unknown option {key!r}", where=name, hint=nearest(key, tuple(declared)))
    return pass_type(**values)


def run(trace: Trace, module: ModuleOp, *, known_good: bool = False) -> ModuleOp | Refusal:
    """Apply a trace to a copy of the module; `module` itself is never changed.

    Args:
        known_good: the module came out of a run, which has checked it.

    Returns:
        The rewritten module, or the refusal of the first pass that cannot be applied where it stands.

    Raises:
        DiffoptError: the module is wrong as it is given.
    """
    given = () if known_good else verify(module, Stage.SCHEDULED)
    if given:
        raise DiffoptError(f"{given[0].message} [{given[0].rule}]", where=given[0].where)
    current, ctx = module, context()
    for instance in trace:
        refusal = instance.refusal(current)
        if refusal is not None:
            return Refusal(refusal.reason, f"{instance.name}{refusal.where and ' ' + refusal.where}", refusal.rule)
        # Asking changes nothing, and in a search most askings end in a refusal.
        current = current.clone() if current is module else current
        instance.apply(ctx, current)
        clean_up(current)
        broken = verify(current, Stage.SCHEDULED)
        if broken:
            return Refusal(broken[0].message, f"{instance.name} {broken[0].where}".strip(), broken[0].rule)
    current = current.clone() if current is module else current
    current.verify()
    return current


def applied(trace: Trace, module: ModuleOp) -> ModuleOp:
    """Return the rewritten module.

    Raises:
        DiffoptError: the trace is refused; names the pass and the rule.
    """
    result = run(trace, module)
    if isinstance(result, Refusal):
        raise DiffoptError(f"{result.reason}{result.rule and f' [{result.rule}]'}", where=result.where)
    return result


def key(trace: Trace, module: ModuleOp) -> str | Refusal:
    """Return the identity of the candidate a trace leads to: traces with one key are one program."""
    result = run(trace, module)
    return result if isinstance(result, Refusal) else module_hash(result)


def _normalize(text: str) -> str:
    """Quote values and part options by spaces, the one form that xDSL's parser takes."""

    def options_text(match: re.Match[str]) -> str:
        body = match.group(1)
        rest = ASSIGNMENT.sub("", body).replace(",", " ").strip()
        if rest:
            raise ValueError(f"{rest.split()[0]!r} is not of the form option=value")
        found = ASSIGNMENT.findall(body)
        for name, count in Counter(name for name, _ in found).items():
            if count > 1:
                raise ValueError(f"option {name} is given twice")
        pairs = [f"{name}={_quoted(value)}" for name, value in found]
        return "{" + " ".join(pairs) + "}" if pairs else ""

    return re.sub(r"\s*,\s*", ",", OPTIONS.sub(options_text, text.strip()))


def _quoted(value: str) -> str:
    if value[0] in "\"'":
        return f'"{value[1:-1]}"'
    if value in ("true", "false"):
        return value
    try:
        number = float(value)
    except ValueError:
        return f'"{value}"'
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", value):
        return value
    # xDSL 0.74 has no exponent without a point: 1e-07 prints, but does not parse.
    return f"{Decimal(repr(number)):f}" if math.isfinite(number) else f'"{value}"'


def _values(spec: ArgSpec) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, given in spec.normalize_parameter_names().parameters.items():
        if len(given) != 1:
            raise DiffoptError(f"option {name} takes one value, not {len(given)}", where=spec.name)
        values[name] = given[0]
    return values


def nearest(name: str, known: tuple[str, ...]) -> str:
    """Return the hint for a misspelt name: the known name nearest to it, or all of them."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}"
