"""What measuring one program gives: Measured or Failed, frozen, and JSON both ways."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

VERSION = 1
_LARGEST = 10**18


@dataclass(frozen=True)
class Latency:
    """Paired timings of baseline and candidate; `ratio` is baseline time / candidate time, `lo` to `hi` its 95 %.

    `state` compares the baseline's time now with its median over the whole run ("normal", "fast", "slow");
    `drift` is that quotient, `load_average` the machine's load over the last minute, `stopped` why the race ended.
    `states` are those the pairs themselves fell into: name, number of pairs, and ratio in it. `baseline_j` and `candidate_j`
    are joules of a call, where the machine can tell.
    """

    ratio: float
    lo: float
    hi: float
    pairs: int
    baseline_s: tuple[float, ...]
    candidate_s: tuple[float, ...]
    unit: str = "s"
    state: str = "normal"
    drift: float = 1.0
    load_average: float = 0.0
    stopped: str = ""
    states: tuple[tuple[str, int, float], ...] = ()
    baseline_j: float | None = None
    candidate_j: float | None = None

    @property
    def half_width(self) -> float:
        """Half the interval in log space: about the relative error of the ratio."""
        return math.log(self.hi / self.lo) / 2


@dataclass(frozen=True)
class Fidelity:
    """How near the candidate's images are to the baseline's of the same prompt and seed; images in [0, 1], dB.

    `seed_distance` is the yardstick for `feature_distance`: how far two seeds of the baseline itself can lie apart.
    `seed_psnr_median` is the same for PSNR: what two unrelated images of this model give.
    `psnr` is that of each image, of a video its worst frame's; `psnr_interval` and `accuracy_drop` are bootstrap 95 % intervals over prompts, of the median
    and of the share of prompts fewer that are right. `too_good` says what is better than it can honestly be.
    `adherence` is the mean cosine of images and prompts, where a feature network reads text.
    `denoiser_error` is the teacher-forced relative L2 error of the denoiser, the largest over the steps; None where it was
    not asked or cannot be (a whole-pipeline engine). `denoiser_dtype` is the baseline's.
    Of videos of several `frames`, `flicker` is the change from frame to frame in grey levels of 255, `baseline_flicker` the
    references', and `added_flicker` that of the difference between the two, which is 0 where an error stays as it is over time.
    """

    psnr_median: float
    psnr_p10: float
    psnr_worst: float
    ssim_median: float
    prompt_accuracy: float | None
    baseline_prompt_accuracy: float | None
    feature_distance: float | None
    seed_distance: float | None
    images: int
    worst: tuple[tuple[str, int, float], ...]
    ssim_p10: float = 0.0
    seed_psnr_median: float | None = None
    psnr: tuple[float, ...] = ()
    psnr_interval: tuple[float, float] | None = None
    ms_ssim_median: float | None = None
    cosine_median: float | None = None
    cosine_worst: float | None = None
    adherence: float | None = None
    baseline_adherence: float | None = None
    accuracy_drop: tuple[float, float] | None = None
    too_good: str = ""
    denoiser_error: float | None = None
    denoiser_dtype: str = ""
    lpips_median: float | None = None
    frames: int = 1
    flicker: float | None = None
    baseline_flicker: float | None = None
    added_flicker: float | None = None


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of the candidate's processes and of the baseline's, in bytes, seen from outside."""

    peak_bytes: int
    baseline_peak_bytes: int


@dataclass(frozen=True)
class Measured:
    """A program that ran: numbers, and what its transforms said they did."""

    status: ClassVar[str] = "measured"

    latency: Latency
    fidelity: Fidelity
    memory: Memory
    build_s: float
    load_s: float
    first_call_s: float
    witnesses: tuple[dict[str, object], ...]
    tier: str
    environment: dict[str, object] = field(default_factory=dict)
    deterministic: bool = True

    @property
    def inactive(self) -> tuple[str, ...]:
        """Names of transforms that took no effect in the measured process."""
        return tuple(str(witness["transform"]) for witness in self.witnesses if not witness["count"])

    def to_json(self) -> dict[str, object]:
        """Return plain JSON data."""
        return {"version": VERSION, "status": self.status, **_plain(self), "inactive": list(self.inactive)}

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Measured:
        """Read what `to_json` wrote.

        Raises:
            ValueError: what is to be a number is none, a ratio is not above zero, or a witness is none.
        """
        fields = cast(dict[str, Any], dict(data))
        latency, fidelity = dict(fields["latency"]), dict(fields["fidelity"])
        _check_numbers(Latency, latency, above_zero=("ratio", "lo", "hi"))
        _check_numbers(Fidelity, fidelity)
        _check_numbers(Memory, fields["memory"])
        if not all({"transform", "count"} <= dict(witness).keys() for witness in fields["witnesses"]):
            raise ValueError("a witness does not say what did how much")
        for name in ("baseline_s", "candidate_s"):
            latency[name] = tuple(latency[name])
        latency["states"] = tuple(tuple(state) for state in latency.get("states", ()))
        for name in ("psnr", "psnr_interval", "accuracy_drop"):
            if fidelity.get(name) is not None:
                fidelity[name] = tuple(fidelity[name])
        fidelity["worst"] = tuple((prompt, seed, psnr) for prompt, seed, psnr in fidelity["worst"])
        return Measured(
            latency=Latency(**latency),
            fidelity=Fidelity(**fidelity),
            memory=Memory(**fields["memory"]),
            witnesses=tuple(dict(witness) for witness in fields["witnesses"]),
            **{n: fields[n] for n in ("build_s", "load_s", "first_call_s", "tier", "environment", "deterministic")},
        )


@dataclass(frozen=True)
class Failed:
    """A program without a number, and why: a status, never a time or a score.

    `kind` is one of "build" (load raised), "crash" (the process died or a call raised), "timeout", "memory", "disk"
    (wrote too much), "numerics" (NaN, wrong shape, constant or unrelated images), "protocol" (bad frames, forged
    answers, work while others are timed), "internal" (an error of diffopt's own).
    """

    status: ClassVar[str] = "failed"

    kind: str
    message: str
    log: str = ""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON data."""
        return {"version": VERSION, "status": self.status, **_plain(self)}

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Failed:
        """Read what `to_json` wrote."""
        return Failed(str(data["kind"]), str(data["message"]), str(data["log"]))


Outcome = Measured | Failed


def outcome_from_json(data: Mapping[str, object]) -> Outcome:
    """Read the outcome that `to_json` of either class wrote.

    Raises:
        ValueError: it is of another version or neither of the two.
    """
    if data.get("version") != VERSION:
        raise ValueError(f"an outcome of version {data.get('version')!r}, this program reads {VERSION}")
    status = data.get("status")
    if status == Measured.status:
        return Measured.from_json(data)
    if status == Failed.status:
        return Failed.from_json(data)
    raise ValueError(f"an outcome of unknown status {status!r}")


def _check_numbers(kind: type, values: Mapping[str, Any], above_zero: tuple[str, ...] = ()) -> None:
    """Raise ValueError where a field of this class that is a number is something else."""
    for item in dataclasses.fields(kind):
        value, told = values.get(item.name, item.default), str(item.type)
        if told.split(" | ")[0] not in ("int", "float") or (value is None and told.endswith("None")):
            continue
        if item.name in values and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{kind.__name__.lower()}.{item.name} is {value!r}, which is no number")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError(f"{kind.__name__.lower()}.{item.name} is a number of {len(str(value))} digits")
        if item.name in above_zero and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{kind.__name__.lower()}.{item.name} is {value!r}, which is no ratio of times")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
