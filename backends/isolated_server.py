"""Run one ONNX file in an environment of its own; needs numpy and onnxruntime there, and nothing of diffopt.

Started by `isolated.py` with the model's path and an execution provider. Requests come as lines of JSON on standard input,
tensors lie in shared memory; one line of JSON answers each.
"""

from __future__ import annotations

import json
import os
import sys
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy


def main() -> None:
    """Answer requests until standard input ends."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it would report the very import over the network
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    # Left alone it binds a thread to each physical core, whatever this process may use.
    settings.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(sys.argv[1], settings, providers=sys.argv[2].split(","))
    names = [value.name for value in session.get_inputs()]
    _answer({"ready": onnxruntime.__version__, "providers": session.get_providers()})
    kept: dict[str, shared_memory.SharedMemory] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            inputs = [_view(kept, row).copy() for row in request["inputs"]]
            results = session.run(None, dict(zip(names, inputs, strict=True)))
            _answer({"outputs": [_put(kept, request["out"], index, value) for index, value in enumerate(results)]})
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises goes to the other side
            _answer({"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"})


def _answer(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def _view(kept: dict[str, shared_memory.SharedMemory], row: dict[str, Any]) -> Any:
    block = _block(kept, row["name"])
    return numpy.ndarray(row["shape"], row["dtype"], buffer=block.buf)


def _put(kept: dict[str, shared_memory.SharedMemory], blocks: list[str], index: int, value: Any) -> dict[str, Any]:
    """Write a result into the block that is kept for it, where it fits; the other side makes larger ones."""
    array = numpy.ascontiguousarray(value)
    row = {"shape": list(array.shape), "dtype": str(array.dtype), "bytes": array.nbytes}
    if index >= len(blocks) or _block(kept, blocks[index]).size < array.nbytes:
        return row
    target = numpy.ndarray(array.shape, array.dtype, buffer=_block(kept, blocks[index]).buf)
    target[...] = array
    return {**row, "name": blocks[index]}


def _block(kept: dict[str, shared_memory.SharedMemory], name: str) -> shared_memory.SharedMemory:
    if name not in kept:
        kept[name] = shared_memory.SharedMemory(name)
        # the block is the other side's; this side's tracker would take it away at exit (cpython issue 82300)
        resource_tracker.unregister(kept[name]._name, "shared_memory")  # type: ignore[attr-defined]
    return kept[name]


if __name__ == "__main__":
    main()
