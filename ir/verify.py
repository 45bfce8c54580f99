"""What must hold of a module at each stage: one table of rules a stage, each a sentence and a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations, pairwise

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block

from diffopt.ir.description import DENOISERS, JSON, OTHER_DENOISERS, is_name
from diffopt.ir.dialect import (
    AddNoiseOp,
    CompressOp,
    DenoiseOp,
    EmbeddingType,
    ImageType,
    TextType,
    VideoType,
    components,
    loops,
    only_plain,
    scheduler_of,
    stages,
    steps_of,
)
from diffopt.ir.transforms import Phase, form
from diffopt.ir.unroll import unrolled_whole


class Stage(IntEnum):
    """How far a module has come; each stage keeps the rules of those before it."""

    LIFTED = 0
    SCHEDULED = 1
    EMITTABLE = 2


SIZE = "size-is-known"
"""The rule that code which stands alone keeps; a script that is edited leaves the size to the model it loads."""

MOST_STEPS = 10_000
"""Noise schedules are trained with a thousand steps; tables are made for each, so there must be an end."""


@dataclass(frozen=True)
class Diagnostic:
    """A rule that a module breaks."""

    rule: str
    message: str
    where: str = ""


@dataclass(frozen=True)
class Rule:
    """A named rule; `check` yields a sentence and a place for each breach."""

    name: str
    check: Callable[[ModuleOp], Iterator[tuple[str, str]]]


def verify(module: ModuleOp, stage: Stage) -> tuple[Diagnostic, ...]:
    """Check a module against the rules of its stage and all before it; pure."""
    found: list[Diagnostic] = []
    for level in Stage:
        if level > stage:
            break
        for rule in RULES[level]:
            found += [Diagnostic(rule.name, message, where) for message, where in rule.check(module)]
        if found:
            return tuple(found)
    return ()


def _has_pipeline(module: ModuleOp) -> Iterator[tuple[str, str]]:
    named = components(module)
    if "pipeline" not in named:
        yield "there is no component @pipeline", "module"
    if not any(name in named for name in DENOISERS + OTHER_DENOISERS):
        yield f"there is no denoiser (one of {', '.join(DENOISERS)})", "module"


def _has_loops(module: ModuleOp) -> Iterator[tuple[str, str]]:
    found = loops(module)
    if not found:
        yield "there is no diffusion.denoise loop", "@generate"
    expected = 0
    for index, loop in enumerate(found):
        start, stop = loop.bounds
        before = found[index - 1] if index else None
        follows = before is not None and loop.initial is before.result
        if before is not None and not follows and not _opens_stage(loop, found[:index]):
            yield "a loop does not go on from where the loop before it ends", "diffusion.denoise"
            follows = True
        expert = follows and before is not None and loop.side is not None and before.side is not None
        wanted = before.bounds[0] if expert and before is not None else expected if follows else _first_step(loop)
        if start != wanted and not (wanted is None and 0 <= start < stop):
            yield f"a loop starts at step {start} where {wanted} is next", "diffusion.denoise"
        expected = stop
        if stop > MOST_STEPS:
            yield f"a loop runs to step {stop}, more than the {MOST_STEPS} a schedule may have", "diffusion.denoise"
        if not loop.predicts:
            yield "a loop never asks the denoiser", "diffusion.denoise"
    yield from _experts_share(found)


def _opens_stage(loop: DenoiseOp, before: Sequence[DenoiseOp]) -> bool:
    """Tell whether a loop starts from a latent of its own: noise, or an image, that no loop has taken yet."""
    return not isinstance(loop.initial.owner, DenoiseOp) and all(loop.initial is not other.initial for other in before)


def _first_step(loop: DenoiseOp) -> int | None:
    """Return the step that the first loop of a stage starts at; `None` where its latent does not say."""
    match loop.initial.owner:
        case AddNoiseOp() as noised:
            return noised.step.value.data
        case CompressOp() | Block():
            return None
    return 0


def _experts_share(found: Sequence[DenoiseOp]) -> Iterator[tuple[str, str]]:
    """Two experts divide one schedule: the same steps, first those above the boundary, then those below it."""
    for index, loop in enumerate(found):
        if loop.side is None or (loop.side.data == "below" and index and found[index - 1].side is not None):
            continue
        other = found[index + 1] if index + 1 < len(found) else None
        if loop.side.data != "above" or other is None or other.side is None or other.side.data != "below":
            yield "a loop above a boundary is followed by one below it", "diffusion.denoise"
        elif loop.bounds != other.bounds or loop.boundary != other.boundary:
            yield "two experts share one schedule and one boundary", "diffusion.denoise"
        boundary = loop.boundary.value.data if loop.boundary is not None else 0.5
        if not 0.0 < boundary < 1.0:
            yield f"a boundary is a fraction of the training timesteps, not {boundary:g}", "diffusion.denoise"


def _prompt_counts(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """A pipeline with text encoders that is given no embedding encodes its prompt, and guides by what it says."""
    if not any(name.startswith("text_encoder") for name in components(module)):
        return
    for function in (op for op in module.body.block.ops if isinstance(op, FuncOp)):
        types = function.function_type.inputs.data
        if not any(isinstance(kind, TextType) for kind in types) or any(isinstance(t, EmbeddingType) for t in types):
            continue
        if not any(use for text in function.args if isinstance(text.type, TextType) for use in text.uses):
            yield "the prompt is used nowhere", "@generate"
        for loop in (op for op in function.walk() if isinstance(op, DenoiseOp) and op.guide is not None):
            if len({tuple(map(id, predict.conditions)) for predict in loop.predicts}) < len(loop.predicts):
                yield "a guided loop makes the same prediction twice", "diffusion.predict"


def _symbols_resolve(module: ModuleOp) -> Iterator[tuple[str, str]]:
    named = components(module)
    for op in module.walk():
        symbol = op.properties.get("component")
        name = getattr(getattr(symbol, "root_reference", None), "data", None)
        if name is not None and name not in named:
            yield f"@{name} is not a component", op.name


def _steps_agree(module: ModuleOp) -> Iterator[tuple[str, str]]:
    scheduler = scheduler_of(module)
    declared, runs = scheduler.values.get("steps"), steps_of(module)
    arguments = components(module)["pipeline"].values.get("arguments")
    until = arguments.get("denoising_end") if isinstance(arguments, dict) else None
    if isinstance(until, float) and 0 < until < 1 and isinstance(declared, int):
        first = stages(module)[-1][0].bounds[0]
        if max(round(until * declared), first + 1) != runs:
            yield f"the loops run to step {runs}, which is not {until:g} of {declared}", f"@{scheduler.sym_name.data}"
    elif declared != runs:
        yield f"the scheduler declares {declared} steps and the loops run {runs}", f"@{scheduler.sym_name.data}"


def _cache_within_schedule(module: ModuleOp) -> Iterator[tuple[str, str]]:
    steps = steps_of(module)
    predicts = [predict for loop in loops(module) for predict in loop.predicts]
    plans = {predict.full_steps for predict in predicts}
    if len({predict.reuse for predict in predicts}) > 1:
        yield "the denoiser calls follow different cache schedules", "diffusion.predict"
    for plan in plans - {None}:
        if not plan or plan[0] != 0:
            yield "a cache schedule starts with a full step", "diffusion.predict"
        elif any(later <= earlier for earlier, later in pairwise(plan)):
            yield "a cache schedule names its full steps in order, each once", "diffusion.predict"
        elif plan[-1] >= steps:
            yield f"the cache schedule names step {plan[-1]} of {steps}", "diffusion.predict"


def _unconditional_within_schedule(module: ModuleOp) -> Iterator[tuple[str, str]]:
    for loop in loops(module):
        fresh = loop.guide.fresh_steps if loop.guide is not None else None
        if fresh is None:
            continue
        start, stop = loop.bounds
        if loop.timestep is not None and fresh and fresh[0] <= start:  # the plan of the loop that it is a step of
            continue
        if not fresh or fresh[0] != start:
            yield "the unconditional prediction is computed at the first step of its loop", "diffusion.guide"
        elif any(later <= earlier for earlier, later in pairwise(fresh)) or fresh[-1] >= stop:
            yield f"the steps that compute it are in order, each once, and below {stop}", "diffusion.guide"


def _one_call(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """The loops of a stage are one call of a pipeline: one scheduler, one denoiser or two experts, one scale."""
    for found in stages(module):
        if len({loop.component for loop in found}) > 1:
            yield "the loops follow different schedulers", "diffusion.denoise"
        for side in {loop.side for loop in found}:
            if len({p.component for loop in found if loop.side == side for p in loop.predicts}) > 1:
                yield "the loops ask different denoisers", "diffusion.predict"
        scales = {loop.guide.scale.value.data for loop in found if loop.guide is not None}
        if len(scales) > 1:
            yield (
                f"the loops are guided by different scales: {', '.join(f'{s:g}' for s in sorted(scales))}",
                "diffusion.guide",
            )
        for scale in scales:
            if not 1.0 < scale < float("inf"):
                yield f"a guidance scale is more than 1, not {scale:g}", "diffusion.guide"
        for scale in {p.scale.value.data for loop in found for p in loop.predicts if p.scale is not None}:
            if not 0.0 <= scale < float("inf"):
                yield f"a scale that the denoiser takes is a number from 0, not {scale:g}", "diffusion.predict"


def _plan_is_plain(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """A plan of steps counts the denoiser's calls, which only a plain call makes one by one from the first step."""
    found = loops(module)
    windowed = any(len({loop.guide is None for loop in stage}) > 1 for stage in stages(module))
    cached = any(predict.full_steps is not None for loop in found for predict in loop.predicts)
    why = only_plain(module, distilled=not windowed, controls=True) if windowed or cached else ""
    if why:
        yield f"{why}: no plan over its steps can be followed yet", "diffusion.denoise"


def _transform_order(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """Emission runs transforms by phase, so those of a component stand in that order; nothing is built twice."""
    for name, component in components(module).items():
        found = [transform.transform.data for transform in component.transforms]
        for first, second in combinations(found, 2):
            earlier, later = form(first).phase, form(second).phase
            if later < earlier:
                yield f"{second} after {first}: what {first} makes is made of what stands before it", f"@{name}"
            elif earlier == later == Phase.BUILT:
                yield f"{second} after {first}: no torch code is left of the component", f"@{name}"


def _one_engine(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """A whole-pipeline engine is made of every component, so none may be one or be changed where it runs."""
    named = components(module)
    if not any(t.transform.data == "export" for t in named["pipeline"].transforms):
        return
    for name, component in named.items():
        for transform in component.transforms:
            kind = transform.transform.data
            if not form(kind).folds and not (name == "pipeline" and kind == "export"):
                holds = f"it holds @{name} already" if name != "pipeline" else "the call's parts are one"
                yield f"{kind} inside a whole-pipeline engine: {holds}", f"@{name}"


GIVEN = frozenset({"engines", "steps", "guidance", "height", "width", "sizes", "negative_prompt"})
"""Arguments of runtime functions that say what the module says elsewhere."""

DTYPES = ("float32", "float16", "bfloat16")


def _names_are_identifiers(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """Names of the IR become names in code, so nothing but a name may stand there."""
    for name, component in components(module).items():
        if not is_name(name):
            yield f"{name!r} is no name for a component", f"@{name}"
        class_name = component.class_name.data
        if not all(is_name(part) for part in class_name.split(".")):
            yield f"{class_name!r} is no class name", f"@{name}"
        if "." not in class_name:
            yield f"{class_name!r} does not say which library it is from", f"@{name}"
        overrides = component.values.get("overrides")
        keys = list(overrides) if isinstance(overrides, dict) else []
        if (overrides is not None or name == "pipeline") and not class_name.startswith("diffusers."):
            yield f"{class_name!r} is not from diffusers, and emitted code imports nothing else", f"@{name}"
        for transform in component.transforms:
            if not is_name(transform.transform.data):
                yield f"{transform.transform.data!r} is no name for a transform", f"@{name}"
            keys += transform.arguments
            for key in GIVEN.intersection(transform.arguments):
                yield f"{key!r} is an argument that the emitted code gives itself", f"@{name}"
        own = component.values.get("model") is not None and name != "pipeline"
        if own and class_name.split(".")[0] not in ("diffusers", "transformers"):
            yield f"{class_name!r} is not from diffusers or transformers, so no code can load it", f"@{name}"
        swapped = component.values.get("swapped")
        keys += list(swapped) if isinstance(swapped, dict) else []
        without = component.values.get("without")
        keys += map(str, without if isinstance(without, list) else ())
        for item in _listed(component.values.get("inputs")):
            keys.append(str(item.get("name")))
        for item in _listed(component.values.get("present")):
            keys += [*str(item.get("name")).split("."), *_keys(item.get("arguments"))]
        for key in keys:
            if not is_name(key):
                yield f"{key!r} is no name for an argument", f"@{name}"


def _listed(value: JSON) -> list[dict[str, JSON]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _keys(value: JSON) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _origins_are_names(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """An origin becomes a comment in code, so it may not end the line."""
    for op in module.walk():
        origin = op.attributes.get("origin", StringAttr(""))
        text = origin.data if isinstance(origin, StringAttr) else "\n"
        if not text.isprintable():
            yield f"{text!r} is no name of a pass", op.name


def _takes_pictures(module: ModuleOp) -> bool:
    """Tell whether a call is given an image or frames, whose size then counts."""
    kinds = (ImageType, VideoType)
    functions = [op for op in module.body.block.ops if isinstance(op, FuncOp)]
    return any(isinstance(kind, kinds) for op in functions for kind in op.function_type.inputs.data)


def _size_is_known(module: ModuleOp) -> Iterator[tuple[str, str]]:
    values = components(module)["pipeline"].values
    names = values.get("call")
    for key in ("height", "width"):
        if values.get(key) is not None or (isinstance(names, dict) and key not in names) or _takes_pictures(module):
            continue
        how = "give --set height=PIXELS --set width=PIXELS, or download the model"
        yield f"{key} must be a whole number of pixels: {how}", "@pipeline"


def _call_is_complete(module: ModuleOp) -> Iterator[tuple[str, str]]:
    values = components(module)["pipeline"].values
    names, arguments = values.get("call"), values.get("arguments")
    for key in ("height", "width"):
        size = values.get(key)
        if size is not None and (type(size) is not int or size < 1):
            yield f"{key} must be a whole number of pixels", "@pipeline"
    sizes = values.get("sizes", [])
    if not isinstance(sizes, list) or not all(
        isinstance(pair, list) and [type(n) for n in pair] == [int, int] and min(map(int, map(str, pair))) > 0
        for pair in sizes
    ):
        yield "sizes must be pairs of a height and a width in pixels", "@pipeline"
    named = [*map(str, names.values() if isinstance(names, dict) else ())]
    for name in [*named, *(arguments if isinstance(arguments, dict) else ())]:
        if not is_name(name):
            yield f"{name!r} is no name for an argument", "@pipeline"
    if not isinstance(values.get("model"), str):
        yield "model must name a model directory or hub id", "@pipeline"
    for adapter in _listed(values.get("adapters")):
        if not adapter.get("model"):
            yield (
                f"the {adapter.get('kind')} {adapter.get('name')!r} does not say where it was loaded from",
                "@pipeline",
            )
    if values.get("dtype") not in DTYPES:
        yield f"dtype must be one of {', '.join(DTYPES)}", "@pipeline"


RULES: dict[Stage, tuple[Rule, ...]] = {
    Stage.LIFTED: (
        Rule("has-pipeline", _has_pipeline),
        Rule("has-loops", _has_loops),
        Rule("symbols-resolve", _symbols_resolve),
        Rule("prompt-counts", _prompt_counts),
    ),
    Stage.SCHEDULED: (
        Rule("steps-agree", _steps_agree),
        Rule("one-call", _one_call),
        Rule("cache-within-schedule", _cache_within_schedule),
        Rule("unconditional-within-schedule", _unconditional_within_schedule),
        Rule("transform-order", _transform_order),
        Rule("one-engine", _one_engine),
        Rule("unrolled-whole", unrolled_whole),
    ),
    Stage.EMITTABLE: (
        Rule("names-are-identifiers", _names_are_identifiers),
        Rule("origins-are-names", _origins_are_names),
        Rule(SIZE, _size_is_known),
        Rule("call-is-complete", _call_is_complete),
        Rule("plan-is-plain", _plan_is_plain),
    ),
}
