"""Types of the `diffusion` dialect, and JSON as attributes."""

from __future__ import annotations

import re

from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    BytesAttr,
    DictionaryAttr,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    UnitAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition

from diffopt.ir.description import JSON


@irdl_attr_definition
class TextType(ParametrizedAttribute, TypeAttribute):
    """A prompt."""

    name = "diffusion.text"


@irdl_attr_definition
class EmbeddingType(ParametrizedAttribute, TypeAttribute):
    """An encoded prompt: tokens × width."""

    name = "diffusion.embedding"


@irdl_attr_definition
class LatentType(ParametrizedAttribute, TypeAttribute):
    """A latent image: channels × height × width."""

    name = "diffusion.latent"


@irdl_attr_definition
class TimestepType(ParametrizedAttribute, TypeAttribute):
    """The point in time a denoiser is asked about."""

    name = "diffusion.timestep"


@irdl_attr_definition
class PredictionType(ParametrizedAttribute, TypeAttribute):
    """What a denoiser says of a latent: noise, velocity or sample."""

    name = "diffusion.prediction"


@irdl_attr_definition
class ImageType(ParametrizedAttribute, TypeAttribute):
    """A decoded image."""

    name = "diffusion.image"


def to_attribute(value: JSON) -> Attribute:
    """Write a JSON value as an attribute; `None` becomes `unit`."""
    if value is None:
        return UnitAttr()
    if isinstance(value, bool):
        return BoolAttr.from_bool(value)
    if isinstance(value, int):
        # A tokenizer's `model_max_length` is often 10**30, "no limit".
        fits = -(2**63) <= value < 2**63
        return IntegerAttr(value, i64 if fits else IntegerType(value.bit_length() + 1))
    if isinstance(value, float):
        return FloatAttr(value, f64)
    if isinstance(value, str):
        # xDSL 0.74 reads a literal with bytes over 0x7f back as bytes, so such a string is bytes from the start.
        return StringAttr(value) if value.isascii() else BytesAttr(value.encode(errors="surrogatepass"))
    if isinstance(value, list | tuple):
        return ArrayAttr([to_attribute(v) for v in value])
    return DictionaryAttr({_spelled(k): to_attribute(v) for k, v in value.items()})


def from_attribute(attribute: Attribute) -> JSON:
    """Read a JSON value back from an attribute.

    Raises:
        TypeError: the attribute is of a kind that `to_attribute` does not make.
        UnicodeDecodeError: the attribute holds bytes that are no text.
    """
    match attribute:
        case UnitAttr():
            return None
        case IntegerAttr(type=IntegerType(width=width)) if width.data == 1:
            return bool(attribute.value.data)
        case IntegerAttr():
            return attribute.value.data
        case FloatAttr():
            return attribute.value.data
        case StringAttr():
            return attribute.data
        case BytesAttr():
            return attribute.data.decode(errors="surrogatepass")
        case ArrayAttr():
            return [from_attribute(v) for v in attribute.data]
        case DictionaryAttr():
            return {_unspelled(k): from_attribute(v) for k, v in attribute.data.items()}
    raise TypeError(f"no JSON for attribute {attribute}")


def in_order(attribute: Attribute) -> Attribute:
    """Sort the keys of every dictionary in an attribute."""
    match attribute:
        case ArrayAttr():
            return ArrayAttr([in_order(v) for v in attribute.data])
        case DictionaryAttr():
            return DictionaryAttr({k: in_order(v) for k, v in sorted(attribute.data.items())})
    return attribute


# xDSL 0.74 prints a key over 0x7f but does not read it back, so such characters stand as `\Uxxxxxxxx` in keys.
def _spelled(key: str) -> str:
    return re.sub(r"[^\x00-\x7f]|\\", lambda match: f"\\U{ord(match.group()):08x}", key)


def _unspelled(key: str) -> str:
    return re.sub(r"\\U(00[01][0-9a-f]{5})", lambda match: chr(min(int(match.group(1), 16), 0x10FFFF)), key)
