"""Energy that calls take, where this machine can tell: the processor's counters (RAPL) or a GPU's (NVML)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """A counter of joules, or why there is none."""

    name: str
    read: Callable[[], float] | None
    reason: str = ""

    def since(self, start: float | None) -> float | None:
        """Return the joules since a reading; None without a counter, or where it has wrapped around."""
        if self.read is None or start is None:
            return None
        used = self.read() - start
        return used if used >= 0 else None

    def now(self) -> float | None:
        """Return the counter, in joules."""
        return self.read() if self.read is not None else None


def meter(device: str, *, powercap: Path = POWERCAP) -> Meter:
    """Return the meter of a device: "cpu" or "cuda[:N]"."""
    return _nvml(device) if device.startswith("cuda") else _rapl(powercap)


def _rapl(powercap: Path) -> Meter:
    """Add up the packages; their parts (cores, memory) lie inside them."""
    files = [path / "energy_uj" for path in sorted(powercap.glob("*-rapl:*")) if path.name.count(":") == 1]
    try:
        for file in files:
            int(file.read_text())
    except (OSError, ValueError) as error:
        return Meter("rapl", None, f"the processor's energy counters cannot be read ({type(error).__name__})")
    if not files:
        return Meter("rapl", None, "this machine shows no energy counters of its processor")
    return Meter("rapl", lambda: sum(int(file.read_text()) for file in files) / 1e6)


def _nvml(device: str) -> Meter:
    try:
        import pynvml
    except ImportError:
        return Meter("nvml", None, "the energy of a GPU is read by pynvml, which is not installed")
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return Meter("nvml", None, f"the GPU does not tell its energy ({error})")
    return Meter("nvml", lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3)
