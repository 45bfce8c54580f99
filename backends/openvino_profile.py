"""Where the time of a whole-pipeline OpenVINO engine goes: its own counters, by the part and call an operation is of."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from diffopt.backends.base import EngineOptions
from diffopt.backends.openvino import MODEL, engine_config, import_openvino
from diffopt.backends.openvino_program import CALL_MARK

REST = "between parts"
_OWNER = re.compile(rf"^(\w+{CALL_MARK}\d+)/")


def profile(folder: Path, options: EngineOptions, *, runs: int = 15) -> tuple[dict[str, float], float]:
    """Return seconds by part and call (`unet#0`; operations of no part under `REST`), and seconds of a plain run.

    Medians after three runs for warming up. Counting costs time of its own, so the first sum to more than the second:
    use their shares. An operation fused of several belongs to the first of them.
    """
    counted, request = _request(folder, options, count=True)
    calls = _calls(folder)
    owners = {op.get_friendly_name(): _owner(op, calls) for op in counted.get_runtime_model().get_ops()}
    profiles: list[dict[str, float]] = []
    for _ in range(runs + 3):
        request.infer()
        times: defaultdict[str, float] = defaultdict(float)
        for info in request.profiling_info:
            times[owners.get(info.node_name, REST)] += info.real_time.total_seconds()
        profiles.append(dict(times))
    del counted, request
    _, plain = _request(folder, options, count=False)
    took = []
    for _ in range(runs + 3):
        started = time.perf_counter()
        plain.infer()
        took.append(time.perf_counter() - started)
    return sorted(profiles[3:], key=lambda found: sum(found.values()))[runs // 2], sorted(took[3:])[runs // 2]


def _request(folder: Path, options: EngineOptions, *, count: bool) -> tuple[Any, Any]:
    core = import_openvino().Core()
    config = engine_config(options) | {"PERF_COUNT": "YES" if count else "NO"}
    compiled = core.compile_model(core.read_model(folder / MODEL), "CPU", config)
    return compiled, compiled.create_infer_request()


def _calls(folder: Path) -> re.Pattern[str]:
    """Return a pattern that finds a part and call in the name of an operation that OpenVINO made of others."""
    operations = import_openvino().Core().read_model(folder / MODEL).get_ops()
    named = {found.group(1) for op in operations if (found := _OWNER.match(op.get_friendly_name()))}
    longest_first = sorted(named, key=lambda name: (-len(name), name))
    return re.compile(rf"({'|'.join(map(re.escape, longest_first))})/") if named else re.compile(r"(?!)")


def _owner(op: Any, calls: re.Pattern[str]) -> str:
    """Return the part and call that an executed operation is of, from the operations it was fused of."""
    info = op.get_rt_info()
    original = info["originalLayersNames"].astype(str) if "originalLayersNames" in info else ""
    found = calls.search(original) or calls.search(op.get_friendly_name())
    return found.group(1) if found else REST
