"""What of the user's environment a worker sees: an allow-list, and settings of ours on top."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from diffopt.bench.confinement import Confinement, devices, secrets_of

ALLOWED: Final = re.compile(
    r"PATH|LANG|LC_\w+|TZ|USER|LOGNAME|SHELL|LD_LIBRARY_PATH|LD_PRELOAD|CC|CXX|SSL_CERT_FILE|SSL_CERT_DIR"
    r"|HF_HOME|HF_HUB_CACHE|HUGGINGFACE_HUB_CACHE|HF_ENDPOINT|XDG_CACHE_HOME"
    r"|CUDA_\w+|NVIDIA_\w+|CUBLAS_\w+|NCCL_\w+"
    r"|OMP_\w+|GOMP_\w+|KMP_\w+|MKL_\w+|OPENBLAS_\w+|MALLOC_\w+|ONEDNN_\w+|DNNL_\w+|OV_\w+|ATEN_CPU_CAPABILITY"
)
SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
SYSTEM: Final = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/sys", "/etc/alternatives", "/etc/group",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd",
)  # fmt: skip
"""What libraries and compilers read of a system; processes in /proc keep their environment to themselves."""
TELEMETRY_OFF: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DIFFUSERS_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}


def allowed(
    environment: Mapping[str, str], *, home: Path, threads: int | None = None, offline: bool = True
) -> dict[str, str]:
    """Return the part of an environment that workers may see, with telemetry off.

    Settings that make the user's own script fast (OpenMP, allocator, CUDA) pass, so that the baseline is their script.

    Args:
        environment: the user's.
        home: the user's home, for the place of the model cache; workers get another one.
        threads: OpenMP threads, the same for every worker; None leaves what the user has.
        offline: forbid the hub; models must be on disk.
    """
    kept = {name: value for name, value in environment.items() if ALLOWED.fullmatch(name) and not SECRET.search(name)}
    kept.setdefault("HF_HOME", str(home / ".cache" / "huggingface"))
    kept |= TELEMETRY_OFF
    if offline:
        kept |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if threads is not None:
        kept |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return kept


def worker_environment(folder: Path, engines: Path) -> dict[str, str]:
    """Return the settings of one worker: a home and a temporary folder of its own, compile caches shared."""
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(engines / "inductor"),
        "TRITON_CACHE_DIR": str(engines / "triton"),
    }


def worker_confinement(
    folder: Path, program: Path, engines: Path, *, home: Path, hidden: Sequence[Path], offline: bool, walls: bool,
    readable: Sequence[str] = ("/",),
) -> Confinement:  # fmt: skip
    """Return what a worker may do: read all but the run's folders and the user's keys, write in its own and in engines.

    Args:
        folder: the worker's own; program: the folder its pipeline.py stands in.
        home: the user's home.
        hidden: folders of the run: reference images, other programs, the store.
        offline: no sockets but local ones.
        walls: False for limits alone.
        readable: folders and files it may read beside its own; what is hidden stays so.
    """
    return Confinement(
        writable=(str(folder), str(engines), *devices()),
        readable=(*readable, str(program)),
        hidden=(*map(str, hidden), *secrets_of(home)),
        network=not offline,
        file_bytes=64 << 30,
        walls=walls,
    )


def needed_to_run(*more: Path) -> tuple[str, ...]:
    """Return what a program needs to read: the system's libraries, the interpreter, its packages, and `more`.

    No home folder and no data: for code that nobody vetted and whose errors somebody else will see.

    Args:
        more: model directories; one in a hub's cache, whose files are links, brings the repository's folder.
    """
    import diffopt

    own = [folder for place in diffopt.__path__ for folder in (Path(place), *Path(place).iterdir()) if folder.is_dir()]
    models = [
        Path(*path.parts[: path.parts.index("snapshots")]) if "snapshots" in path.parts else path for path in more
    ]
    packages = [
        sys.prefix,
        sys.base_prefix,
        *(path for path in sys.path if path.endswith(("site-packages", "dist-packages"))),
    ]
    found = [str(path) for path in (*SYSTEM, *packages, *own, *models)]
    return tuple(dict.fromkeys(os.path.realpath(path) for path in found if os.path.exists(path)))


def cpus_for(environment: Mapping[str, str], available: set[int], threads: int | None = None) -> list[int] | None:
    """Return the cores that `threads` (or OMP_NUM_THREADS) stand for, or None for all.

    Engines with a thread pool of their own do not read OMP_NUM_THREADS: on more cores than the baseline uses they
    would be measured against a handicapped baseline.
    """
    asked = environment.get("OMP_NUM_THREADS", "")
    count = threads if threads is not None else int(asked) if asked.isdigit() else 0
    return sorted(available)[-count:] if 0 < count < len(available) else None
