"""The peers' environments: real virtual environments below one folder, each with a link to this diffopt."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from diffopt.backends.base import BackendError
from diffopt.backends.isolated import make_environment
from diffopt.bench.peers.peer import HERE
from diffopt.ir.errors import DiffoptError

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
_STACK = ("-c", str(CONSTRAINTS), "torch", "diffusers", "transformers", "accelerate", "numpy")
"""The baseline's own versions, for packages that leave us the choice."""


@dataclass(frozen=True)
class Environment:
    """Arguments of pip, and the packages whose versions are worth telling."""

    packages: tuple[str, ...]
    told: tuple[str, ...]


# Versions are those that a resolver (uv) found with only the peer given: pip alone looks for them for longer than it takes to
# install them.
ENVIRONMENTS = {
    "deepcache": Environment((*_STACK, "DeepCache==0.1.1"), ("DeepCache",)),
    "tomesd": Environment((*_STACK, "tomesd==0.1.3"), ("tomesd",)),
    "cache-dit": Environment((*_STACK, "cache-dit==1.5.3"), ("cache-dit",)),
    "pruna": Environment(
        (
            "torch==2.13.0",
            "torchvision==0.28.0",
            "pruna==0.3.4",
            "diffusers==0.42.1",
            "transformers==5.16.1",
            "torchao==0.16.0",
        ),
        ("pruna", "torchao", "torchvision"),
    ),
    "optimum-intel": Environment(
        (
            "torch==2.13.0",
            "torchvision==0.28.0",
            "optimum-intel[openvino,diffusers]==2.2.0",
            "optimum==2.3.0",
            "diffusers==0.39.0",
            "transformers==5.5.4",
            "openvino==2026.4.1",
        ),
        ("optimum-intel", "optimum", "openvino", "nncf"),
    ),
    "olive": Environment(
        (
            "torch==2.13.0",
            "olive-ai==0.13.0",
            "diffusers==0.42.1",
            "transformers",
            "accelerate",
            "onnxruntime",
            "onnxscript",
        ),
        ("olive-ai", "onnxruntime", "onnx"),
    ),
}
"""By name."""
_USUAL = ("torch", "diffusers", "transformers")


def install(name: str, home: Path) -> str:
    """Make an environment; return an empty text, or why it cannot be made, which is kept beside it."""
    try:
        make_environment(home / name, ENVIRONMENTS[name].packages)
    except BackendError as error:
        (home / f"{name}.failed").write_text(error.message + "\n")
        return error.message
    (home / f"{name}.failed").unlink(missing_ok=True)
    return ""


def python_of(name: str, home: Path) -> str:
    """Return the Python of an environment, with diffopt's packages linked into it.

    Raises:
        DiffoptError: it is not there; says what to run, or why it could not be made.
    """
    if name == HERE:
        return sys.executable
    folder = home / name
    if not (folder / "done").exists():
        failed = home / f"{name}.failed"
        if failed.exists():
            raise DiffoptError(failed.read_text().strip(), where=name, hint="python -m diffopt.bench.peers install")
        raise DiffoptError(
            "no such environment is installed", where=name, hint=f"python -m diffopt.bench.peers install {name}"
        )
    _link(folder)
    return str(folder / "bin" / "python")


def _link(folder: Path) -> None:
    """Let the environment import this diffopt: a link to the package alone, no folder that would shadow others."""
    import diffopt

    here = Path(diffopt.__file__).resolve().parent
    (packages,) = folder.glob("lib/python*/site-packages")
    link = packages / "diffopt"
    if link.is_symlink() and link.resolve() == here:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(here, target_is_directory=True)


def versions_in(name: str, home: Path) -> dict[str, str]:
    """Return the versions of what counts in an environment."""
    told = (*_USUAL, *(ENVIRONMENTS[name].told if name != HERE else ("openvino",)))
    code = (
        "import importlib.metadata as m, json, sys\n"
        "def v(n):\n try: return m.version(n)\n except m.PackageNotFoundError: return ''\n"
        "print(json.dumps({n: v(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run([python_of(name, home), "-I", "-c", code, *told], capture_output=True, text=True, check=False)
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return {package: version for package, version in found.items() if version}
