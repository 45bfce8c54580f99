"""Run the programs that pairs of passes come to, each once, in a few processes beside one another."""

from __future__ import annotations

import os
import runpy
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

PROMPT = "a red circle"


def run_programs(programs: Iterable[str], model: Path, *, processes: int) -> Iterator[tuple[str, str]]:
    """Yield each program with "" if it made an image, or what stopped it, as they end.

    Compilers are given their eager backend: what they trace is tried, and not the code they would generate. Programs with
    one come last. An engine is built once for all programs that share it.
    """
    with tempfile.TemporaryDirectory(prefix="diffopt-pairs-") as folder:
        ordered = sorted(programs, key=lambda code: ("compile" in code, code))
        if not ordered:
            return
        with ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_prepare, initargs=(folder, str(model))
        ) as pool:
            waiting = {pool.submit(_run, code): code for code in ordered}
            for done in as_completed(waiting):
                try:
                    yield waiting[done], done.result()
                except BrokenProcessPool:
                    yield waiting[done], "the process died, with this program or another"


def _prepare(folder: str, model: str) -> None:
    """Make a process ready: one thread, stand-ins for what only users can name, an eager compiler."""
    import torch

    from diffopt.bench.stand_ins import write_stand_ins

    torch.set_num_threads(1)
    own = Path(folder) / str(os.getpid())
    own.mkdir()
    write_stand_ins(own, Path(model))
    (own / "engines").symlink_to(Path(folder))
    os.chdir(own)
    compiler = torch.compile
    torch.compile = lambda model=None, **_: compiler(model, backend="eager")


def _run(code: str) -> str:
    import torch

    from diffopt.backends import BackendError

    torch._dynamo.reset()
    file = Path("pipeline.py").resolve()
    file.write_text(code, encoding="utf-8")
    try:
        pipe = runpy.run_path(str(file))["load"]()
        pipe.set_progress_bar_config(disable=True)
        image = pipe(PROMPT, generator=torch.Generator().manual_seed(0), output_type="pt").images
        return "" if bool(image.isfinite().all()) else "the image is not finite"
    except BackendError as error:
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a pair raises is to be heard of
        text = str(error).splitlines()[0] if str(error) else ""
        return f"refused: {text}" if "requires accelerator" in text else f"{type(error).__name__}: {text[:200]}"
