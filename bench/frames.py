"""The wire format between the parent and a worker: length-prefixed JSON objects, and raw bytes they announce.

A frame is four bytes, big endian, then that many bytes of JSON holding one object. Images follow their frame as raw
bytes. Nothing is ever pickled, and nothing is ever read from a worker's standard output.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from typing import Final, cast

JSON = dict[str, object]

HEADER: Final = struct.Struct(">I")
LARGEST_FRAME: Final = 1 << 20
LARGEST_PAYLOAD: Final = 1 << 30
ITEM_BYTES: Final = {"float32": 4, "uint8": 1}


class FrameError(Exception):
    """Bytes that are no valid frame."""


def encode(message: JSON) -> bytes:
    """Turn a message into a frame."""
    body = json.dumps(message, allow_nan=False).encode()
    if len(body) > LARGEST_FRAME:
        raise FrameError(f"a message of {len(body)} bytes is larger than a frame may be")
    return HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Read a frame's header.

    Raises:
        FrameError: the length is zero or beyond the cap.
    """
    (length,) = cast(tuple[int], HEADER.unpack(header))
    if not 2 <= length <= LARGEST_FRAME:
        raise FrameError(f"a frame claims {length} bytes")
    return length


def decode(body: bytes) -> JSON:
    """Read a frame's body.

    Raises:
        FrameError: it is not a JSON object.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a frame is not JSON ({error})") from None
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return cast(JSON, message)


def payload_shape(message: JSON) -> tuple[tuple[int, int, int, int], str, int, str]:
    """Check the announcement of images and return their shape, dtype, size in bytes and sha256.

    Raises:
        FrameError: a field is missing, of the wrong type, or they contradict one another.
    """
    shape, dtype, count, digest = (message.get(name) for name in ("shape", "dtype", "bytes", "sha256"))
    if not isinstance(shape, list) or len(shape) != 4 or not all(type(n) is int and 0 < n < 1 << 20 for n in shape):
        raise FrameError(f"images of shape {str(shape)[:80]}, want [n, height, width, channels]")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise FrameError(f"images of dtype {str(dtype)[:80]}, want float32 or uint8")
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if type(count) is not int or count != size or size > LARGEST_PAYLOAD:
        raise FrameError(f"{str(count)[:80]} bytes announced for images of {size} bytes")
    if not isinstance(digest, str) or len(digest) != 64:
        raise FrameError("images without a sha256")
    return (shape[0], shape[1], shape[2], shape[3]), dtype, size, digest


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """Read `count` bytes from a blocking socket, or fewer when the other side has closed it."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)
