"""Measure candidates on many devices: Ray carries JSON to supervisors and back, the store stays with the driver."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diffopt.bench.outcome import Failed, Outcome, outcome_from_json
from diffopt.ir.errors import DiffoptError
from diffopt.search.executors.supervisor import Supervisor
from diffopt.search.records import Candidate

if TYPE_CHECKING:
    from diffopt.ir.description import JSON

OPTION = "--executor ray"

PATIENCE_S = 180.0
"""How long supervisors may take to start."""

OBJECTS_BYTES = 128 << 20
"""Memory of a cluster started here for what travels: text, where Ray would take a third of the machine's."""

LIVES = 3
"""Workers that a candidate may lose before it is to blame."""


class RayExecutor:
    """An `Executor` over a Ray cluster; a context manager.

    Each measurement is a task of a supervisor: an actor that holds what measures (a baseline, a fork server), and the
    lock of its device. Tasks and answers are JSON text; no object is pickled but text and numbers, and what a
    candidate makes never travels. A supervisor that dies is replaced and its candidate measured again, three times at
    most. The driver keeps the store: when it is killed, its supervisors end, and the next driver gets the pending
    candidates from the store again.

    Ray's usage statistics and dashboard are off in a cluster that is started here; an existing one is its owner's.

    Args:
        factory: ``module:function`` that makes a `supervisor.Measure` of `settings`; imported by the supervisors.
        settings: plain data for it.
        payload: turns a candidate into plain data for the measure; called here.
        workers: supervisors, one a device or slot.
        address: of an existing cluster; None starts one here, for this process.
        devices: names to lock, in turn; supervisors of one name on one machine measure one at a time.
        locks: folder of the device locks on the supervisors' machines.
        gpus: GPUs that Ray reserves for a supervisor.

    Raises:
        DiffoptError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        factory: str,
        settings: Mapping[str, JSON],
        payload: Callable[[Candidate], Mapping[str, JSON]],
        *,
        workers: int = 1,
        address: str | None = None,
        devices: tuple[str, ...] = ("cpu",),
        locks: Path = Path("/tmp"),
        gpus: float = 0,
    ) -> None:
        self._given = (factory, json.dumps(dict(settings)), str(locks))
        self._payload, self._devices, self._gpus = payload, devices, gpus
        self._ray = _started(address, workers)
        self._idle = [self._supervisor(number) for number in range(workers)]
        self._running: dict[Any, tuple[Any, Candidate, int]] = {}
        self._number = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in [*self._idle, *(actor for actor, _, _ in self._running.values())]:
            with suppress(Exception):
                self._ray.kill(actor)
        self._ray.shutdown()

    @property
    def free(self) -> bool:
        """See `Executor`."""
        return bool(self._idle)

    def submit(self, candidate: Candidate) -> None:
        """See `Executor`."""
        self._start(self._idle.pop(), candidate, LIVES)

    def wait(self) -> tuple[Candidate, Outcome]:
        """See `Executor`."""
        if not self._running:
            raise ValueError("nothing was submitted")
        while True:
            ready, _ = self._ray.wait(list(self._running), num_returns=1)
            actor, candidate, lives = self._running.pop(ready[0])
            try:
                answer = json.loads(self._ray.get(ready[0]))
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.WorkerCrashedError) as error:
                with suppress(Exception):
                    self._ray.kill(actor)
                fresh = self._supervisor(self._number)
                self._number += 1
                if lives > 1:
                    self._start(fresh, candidate, lives - 1)
                    continue
                self._idle.append(fresh)
                return candidate, Failed("crash", f"the worker was lost {LIVES} times", str(error)[:2000])
            self._idle.append(actor)
            if "error" in answer:
                raise DiffoptError(str(answer["error"]), where=answer.get("where", ""), hint=answer.get("hint", ""))
            return candidate, outcome_from_json(answer)

    def pids(self) -> list[int]:
        """Return the processes of the idle supervisors, as they say."""
        found: list[int] = self._ray.get([actor.pid.remote() for actor in self._idle])
        return found

    def hosts(self, patience_s: float = PATIENCE_S) -> list[str]:
        """Wait until all supervisors have started; return their machines, each with how many are on it.

        Raises:
            DiffoptError: they cannot start, or the cluster has no room for as many.
        """
        asked = [actor.host.remote() for actor in self._idle]
        ready, waiting = self._ray.wait(asked, num_returns=len(asked), timeout=patience_s)
        try:
            names: list[str] = self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()[:200]
            hint = "install the same diffopt on its machines"
            raise DiffoptError(f"supervisors do not start ({reason})", where=OPTION, hint=hint) from error
        if waiting:
            found = f"{len(ready)} of {len(asked)} supervisors found room on the cluster in {patience_s:g} s"
            raise DiffoptError(found, where=OPTION, hint="ask for fewer --workers")
        return [f"{name} ({names.count(name)})" for name in dict.fromkeys(names)]

    def _start(self, actor: Any, candidate: Candidate, lives: int) -> None:
        text = json.dumps(dict(self._payload(candidate)))
        self._running[actor.measure.remote(text)] = (actor, candidate, lives)

    def _supervisor(self, number: int) -> Any:
        made = self._ray.remote(Supervisor).options(num_cpus=1, num_gpus=self._gpus, max_restarts=0)
        return made.remote(*self._given, self._devices[number % len(self._devices)])


def _started(address: str | None, workers: int) -> Any:
    # Set before Ray is imported: it reads them then. Nothing is sent anywhere, and no page is served.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise DiffoptError("Ray is not installed", where=OPTION, hint="pip install 'diffopt[ray]'") from error
    if address:
        _reachable(address)
    local = {
        "address": "local",
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": OBJECTS_BYTES,
    }
    given: dict[str, Any] = {"address": address} if address else local
    try:
        ray.init(**given, configure_logging=False, log_to_driver=False)
    except Exception as error:  # Ray raises bare exceptions too, where a node does not start
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        hint = "check its address" if address else "the machine may be too busy; try again"
        raise DiffoptError(f"no Ray cluster ({reason})", where=OPTION, hint=hint) from error
    return ray


def _reachable(address: str) -> None:
    """Check that somebody listens; Ray itself tries for minutes.

    Raises:
        DiffoptError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        message = f"no Ray cluster at {address} ({error.strerror or error})"
        raise DiffoptError(message, where=OPTION, hint="check its address") from error
