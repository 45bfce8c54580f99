"""What stands beside a device and measures there: text in, text out, one at a time."""

from __future__ import annotations

import importlib
import json
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from diffopt.bench.outcome import Failed, Outcome
from diffopt.ir.errors import DiffoptError
from diffopt.search.executors.device_lock import device_lock

if TYPE_CHECKING:
    from diffopt.ir.description import JSON

Measure: TypeAlias = "Callable[[Mapping[str, JSON]], Outcome]"
"""Measures a program that is given as plain data."""


class Supervisor:
    """Measures what it is told, holding the lock of its device.

    What measures is made at the first call and kept: a baseline that is loaded once serves all candidates.

    Args:
        factory: ``module:function`` that makes a `Measure` of the settings.
        settings: its settings, as JSON.
        locks: folder of the device locks.
        device: what it measures on; of ``cuda``, the one that Ray shows this process.
    """

    def __init__(self, factory: str, settings: str, locks: str, device: str) -> None:
        self._factory, self._settings, self._locks, self._device = factory, settings, Path(locks), device
        if device.startswith("cuda") and (shown := os.environ.get("CUDA_VISIBLE_DEVICES")):
            self._device = f"cuda:{shown}"
        self._measure: Measure | None = None

    def host(self) -> str:
        """Return the name of this machine."""
        return socket.gethostname()

    def pid(self) -> int:
        """Return the number of this process."""
        return os.getpid()

    def measure(self, text: str) -> str:
        """Return the outcome of a program, or what the user has to mend, as JSON."""
        try:
            with device_lock(self._device, self._locks):
                if self._measure is None:
                    self._measure = made(self._factory, json.loads(self._settings))
                outcome = self._measure(json.loads(text))
        except DiffoptError as error:
            return json.dumps({"error": error.message, "where": error.where, "hint": error.hint})
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes into the outcome with its traceback
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            outcome = Failed("internal", message, traceback.format_exc())
        return json.dumps(outcome.to_json())


def made(factory: str, settings: Mapping[str, JSON]) -> Measure:
    """Import a factory by its name and make a measure.

    Raises:
        DiffoptError: there is no such function.
    """
    module, _, name = factory.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DiffoptError(f"no {factory!r} to measure with ({error})") from error
    return cast(Measure, function(settings))
