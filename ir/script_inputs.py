"""Arguments of a pipeline's call: which are constants, which are inputs that come at run time, and of what kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath

import libcst as cst

from diffopt.ir.description import JSON, InputKind
from diffopt.ir.pipeline_classes import PipelineClass
from diffopt.ir.script_kinds import Missing, Symbol

RUNTIME = re.compile(r"^(negative_)?prompt(_\d|s)?$|^generator$|^text$|^class_labels$|^seed$")
"""Arguments that are different in each call by their nature: prompts and sources of noise."""

CALLBACKS = re.compile(r"^callback(_on_step_end)?$")
KINDS: tuple[tuple[str, InputKind], ...] = (
    (r"embed(?!dings?_multiples)", "embedding"),
    (r"attention_mask|prompt.*mask", "embedding"),
    (r"^control(net)?_|_control|^adapter_", "control"),
    (r"mask", "mask"),
    (r"latent", "latent"),
    (r"video|frames", "video"),
    (r"audio|speech|voice", "audio"),
    (r"image", "image"),
)
NUMBERS = re.compile(
    r"^(max|min)_|(scale|guidance_start|guidance_end|num_\w+|frame_rate|fps|height|width|strength|steps?|size|_in_s|threshold)$"
)
SIZES = re.compile(r"^(height|width|num_frames|video_length|negative_prompt)$|_size$|^crops_")
DEVICE = re.compile(r"`(torch\.(cuda|accelerator|mps|xpu|cpu)\.|len\(os\.sched|os\.cpu_count)")
"""What a machine tells of itself."""

COMPUTED = (cst.Call, cst.DictComp, cst.ListComp, cst.SetComp, cst.GeneratorExp)
LEAVES = (bool, int, float, str, type(None))


def input_kind(name: str, owner: PipelineClass | None) -> InputKind | None:
    """Return what kind of input a parameter of the call takes; `None` for those that take settings."""
    if NUMBERS.search(name):
        return None
    annotation = (owner.call_types.get(name, "") if owner is not None else "").replace(" ", "")
    scalar = bool(annotation) and not re.search(
        r"[A-Z](?!nion|ptional|one)\w*|list|dict|tuple|torch|np\.|image", annotation
    )
    if name == "image" and owner is not None and "control_image" not in owner.call and _takes_control(owner.name):
        return "control"
    for pattern, kind in KINDS:
        if re.search(pattern, name):
            return None if scalar and kind not in ("image", "video", "audio") else kind
    if (
        annotation
        and not scalar
        and not re.search(
            r"^(Optional|Union|List|Tuple|Dict|list|tuple|dict|int|float|str|bool|None|any|Any|[\[\],|])+$", annotation
        )
    ):
        return "other"
    return None


def _takes_control(class_name: str) -> bool:
    """Say whether `image` steers a text-to-image class, and is not what it starts from."""
    return bool(re.search(r"ControlNet|Adapter", class_name)) and not re.search(r"Img2Img|Inpaint", class_name)


def follows_data(name: str, value: Missing, owner: PipelineClass | None) -> bool:
    """Say whether an argument is made of data at run time: a size taken from an image, a table of features."""
    if not isinstance(value.node, COMPUTED) or "is computed when" not in value.reason:
        return False
    if SIZES.search(name) or DEVICE.match(value.reason):
        return True
    annotation = owner.call_types.get(name, "") if owner is not None else ""
    return bool(re.search(r"list|dict|tuple|Tensor|Callable", annotation, re.IGNORECASE))


def is_runtime(name: str) -> bool:
    """Say whether a parameter is given anew for every call."""
    return RUNTIME.match(name) is not None


def keywords(calls: tuple[cst.Call, ...], owner: PipelineClass | None) -> Iterator[str]:
    """Yield what calls may be given: the parameters of the class, and keywords it does not declare."""
    declared: Mapping[str, object] = owner.call if owner is not None else {}
    yield from declared
    extra = (arg.keyword.value for call in calls for arg in call.args if arg.keyword is not None)
    yield from (name for name in dict.fromkeys(extra) if name not in declared)


def as_json(value: object) -> JSON:
    """Return a constant as JSON.

    Raises:
        TypeError: it is no plain value.
    """
    if isinstance(value, LEAVES):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if isinstance(value, dict):
        return {str(key): as_json(part) for key, part in value.items()}
    raise TypeError(type(value).__name__)
