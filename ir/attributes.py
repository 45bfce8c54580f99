"""Types of the `diffusion` dialect, and JSON as attributes."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from diffopt.ir.description import JSON

MEDIA = ("image", "video", "audio", "data")
"""What a latent stands for, and what is decoded from it."""


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
    """What is denoised: of an image, channels × height × width; `!diffusion.latent<video>` has frames, audio time."""

    name = "diffusion.latent"
    medium: StringAttr

    def __init__(self, medium: str | StringAttr = "image") -> None:
        super().__init__(medium if isinstance(medium, StringAttr) else StringAttr(medium))

    def print_parameters(self, printer: Printer) -> None:
        if self.medium.data != "image":
            with printer.in_angle_brackets():
                printer.print_string(self.medium.data)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        if parser.parse_optional_punctuation("<") is None:
            return (StringAttr("image"),)
        medium = parser.parse_identifier()
        parser.parse_punctuation(">")
        return (StringAttr(medium),)

    def verify(self) -> None:
        if self.medium.data not in MEDIA:
            raise VerifyException(f"a latent is of {', '.join(MEDIA)}, not of {self.medium.data!r}")


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
    """An image, decoded or given."""

    name = "diffusion.image"


@irdl_attr_definition
class VideoType(ParametrizedAttribute, TypeAttribute):
    """Frames, decoded or given."""

    name = "diffusion.video"


@irdl_attr_definition
class AudioType(ParametrizedAttribute, TypeAttribute):
    """A sound, decoded or given."""

    name = "diffusion.audio"


@irdl_attr_definition
class MaskType(ParametrizedAttribute, TypeAttribute):
    """Which part of an image is to be painted anew."""

    name = "diffusion.mask"


@irdl_attr_definition
class ResidualsType(ParametrizedAttribute, TypeAttribute):
    """What a control net adds to the denoiser's features."""

    name = "diffusion.residuals"


@irdl_attr_definition
class DataType(ParametrizedAttribute, TypeAttribute):
    """Anything else a call is given."""

    name = "diffusion.data"


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
