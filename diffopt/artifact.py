"""The artifact: a folder with the optimized pipeline, its engines and the evidence; loading needs no compiler."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FORMAT = 1
HASHED = ("pipeline.py", "changes.patch")
"""Files whose hashes stand in the manifest; engines carry their own."""

MANIFEST = {
    "files": dict, "versions": dict, "target": str, "source": dict, "workload": dict, "thresholds": dict,
    "baseline_ir": str, "trace": str, "result": dict, "engines": list, "steps": list,
}  # fmt: skip
"""What every manifest holds, and as what."""

Outside = Literal["torch", "raise"]
EXACT_VERSIONS = ("openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt")
"""Engine formats are tied to the very version of these; the others may differ in their last number."""


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk."""

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Artifact:
        """Read the manifest and check that the files are those it was written for.

        Raises:
            DiffoptError: no artifact, one of another format, or a changed or missing file.
        """
        root = Path(path)
        manifest = _read_manifest(root)
        for name in HASHED:
            file, expected = root / name, manifest["files"].get(name)
            if expected is None and not file.exists():
                continue
            if not file.is_file():
                raise DiffoptError(f"the artifact lacks {name}", where=str(root), hint="compile it again")
            if file_hash(file) != expected:
                raise DiffoptError(f"{name} is not the file that was measured", where=str(root), hint="compile again")
        return cls(root, manifest)

    def load(
        self, *, model: str | Path | None = None, device: str | None = None, outside: Outside = "torch"
    ) -> DiffusionPipeline:
        """Return the optimized pipeline; it takes the arguments it took before, and its defaults are the tuned ones.

        Args:
            model: where the model directory stands, if it has moved since.
            device: torch device; by default the one it was measured on.
            outside: what becomes of calls that an engine was not made for: `torch` answers them, said once and counted,
                or `raise` refuses them.

        Raises:
            DiffoptError: made for another device kind or other library versions, or the model cannot be found.
        """
        if outside not in get_args(Outside):
            raise DiffoptError(
                f"{outside!r} is no choice", where="outside", hint=f"give {' or '.join(get_args(Outside))}"
            )
        check_model(model)
        self.check_versions()
        made_for = str(self.manifest.get("target", "cpu"))
        target = device or made_for
        if target.split(":")[0] != made_for.split(":")[0]:
            raise DiffoptError(
                f"made for {made_for}, asked to run on {target}",
                where=str(self.path),
                hint=f"compile it again with --target {target}",
            )
        code = self._code()
        source = str(model) if model is not None else str(code.MODEL)
        if (os.sep in source or source.startswith(".")) and not Path(source).is_dir():
            raise DiffoptError(f"the model directory {source} is gone", where=str(self.path), hint="pass model=PATH")
        pipe = code.load(model=source, device=target, engines=self.path / "engines")
        if outside == "raise":
            from diffopt.backends.runtime.attachment import attachment

            attachment(pipe).outside = outside
        return pipe

    def check_versions(self) -> None:
        """Check that the libraries here are those the artifact was made with.

        Raises:
            DiffoptError: one is missing or of another version; says which to install.
        """
        recorded = self.manifest.get("versions", {})
        for package, version in recorded.items():
            here = installed_version(package)
            same = here == version if package in EXACT_VERSIONS else _minor(here) == _minor(version)
            if not same:
                found = f"here is {here}" if here else "it is not installed here"
                raise DiffoptError(
                    f"made with {package} {version}, {found}",
                    where=str(self.path),
                    hint=f"pip install '{package}=={version}', or compile again",
                )

    def _code(self) -> ModuleType:
        file = self.path / "pipeline.py"
        name = f"diffopt_artifact_{uuid.uuid4().hex}"
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise DiffoptError("pipeline.py cannot be imported", where=str(file))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def load(
    path: str | Path, *, model: str | Path | None = None, device: str | None = None, outside: Outside = "torch"
) -> DiffusionPipeline:
    """Load an artifact: `diffopt.load(path)(prompt).images[0]`.

    It runs the artifact's `pipeline.py`, so load only artifacts you trust, as with any program.

    Raises:
        DiffoptError: see `Artifact.open` and `Artifact.load`.
    """
    return Artifact.open(path).load(model=model, device=device, outside=outside)


def check_model(model: str | Path | None) -> None:
    """Refuse a model that is named and not there; a bare name would be asked of the hub.

    Raises:
        DiffoptError: it is no directory.
    """
    if model is not None and not Path(model).is_dir():
        raise DiffoptError("no such model directory", where=str(model), hint="give the one with model_index.json")


def write_artifact(
    out: Path, manifest: Mapping[str, Any], files: Mapping[str, str], folders: Mapping[str, Iterable[Path]]
) -> Artifact:
    """Write an artifact beside its place, then move it there in one step; an older one is replaced whole.

    Args:
        files: text of each file by name.
        folders: files or folders to copy into each folder, by its name.
    """
    draft = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir(parents=True)
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8", newline="")
        for name, sources in folders.items():
            (draft / name).mkdir()
            for source in sources:
                copy = shutil.copytree if source.is_dir() else shutil.copy2
                copy(source, draft / name / source.name)
        hashes = {name: file_hash(draft / name) for name in HASHED if (draft / name).exists()}
        full = {"format": FORMAT, **manifest, "files": hashes}
        (draft / "manifest.json").write_text(json.dumps(full, indent=1, ensure_ascii=False), encoding="utf-8")
        _put(draft, out)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise DiffoptError(
            f"cannot be written: {error.strerror}", where=str(out), hint="free space, or use -o"
        ) from None
    return Artifact(out, full)


def _put(draft: Path, out: Path) -> None:
    """Move a draft to its place; an older artifact goes, anything else stays and the draft is left beside it."""
    if not os.path.lexists(out):
        draft.rename(out)
        return
    if not is_artifact(out):
        raise DiffoptError(
            "has come into the way", where=str(out), hint=f"the artifact is in {draft}; move it yourself"
        )
    old = out.with_name(f".{out.name}.old-{uuid.uuid4().hex[:8]}")
    out.rename(old)
    try:
        draft.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def is_artifact(path: Path) -> bool:
    """Say whether a folder holds an artifact, of whatever version."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"format", "diffopt", "trace"} <= manifest.keys()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_version(package: str) -> str | None:
    """Return the installed version of a package without its local part, or `None`."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _read_manifest(root: Path) -> dict[str, Any]:
    if not root.exists():
        raise DiffoptError("no such artifact", where=str(root), hint="check the path, or make one: diffopt compile")
    file = root / "manifest.json"
    if not file.is_file():
        raise DiffoptError("not an artifact: it has no manifest.json", where=str(root))
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DiffoptError(f"the manifest cannot be read: {error}", where=str(file)) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise DiffoptError(
            f"an artifact of format {found}, this diffopt reads {FORMAT}", where=str(file), hint="compile it again"
        )
    for name, kind in MANIFEST.items():
        if not isinstance(manifest.get(name), kind):
            raise DiffoptError(
                f"the manifest's {name!r} is not what it should be", where=str(file), hint="compile again"
            )
    strings = (*manifest["files"].values(), *manifest["versions"].values())
    if not all(isinstance(value, str) for value in strings):
        raise DiffoptError("the manifest's hashes and versions are not text", where=str(file), hint="compile it again")
    return manifest


def _minor(version: str | None) -> str | None:
    return None if version is None else ".".join(version.split(".")[:2])
