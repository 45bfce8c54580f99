"""Make one engine of the whole pipeline: from token ids and noise to the picture, with the loop unrolled."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import JSON, BackendError, Builder, EngineKey, EngineOptions, Run, builder
from diffopt.backends.runtime.attachment import attachment
from diffopt.backends.runtime.export import multiplies_int8, refuse_export

if TYPE_CHECKING:
    from diffopt.backends.runtime.fold import Interface, Settings

Pipe = TypeVar("Pipe")
INTERFACE = "interface"
"""Under this name an engine's facts hold what it takes and gives."""
TOLERANCE = {"f32": 1e-2}
"""How far the picture of an engine may be from torch's, relative L2, by precision."""
COARSE = 0.3
"""The same where numbers are rounded: so far that rounding is no excuse, and something was folded that varies."""


def export_pipeline(
    pipe: Pipe,
    *,
    backend: str = "openvino",
    precision: str = "f32",
    engines: Path,
    steps: int,
    guidance: float,
    height: int,
    width: int,
    sizes: Sequence[tuple[int, int]] = (),
    negative_prompt: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Pipe:
    """Answer calls of this many steps, this guidance and this size with one engine, built or found below `engines`.

    sizes: other heights and widths that get an engine each. arguments: what else those calls are given. A step plan must be attached before; the engine follows it. Other calls
    run in torch as before, said once.
    Raises BackendError if the pipeline makes more than pictures of prompts, or does what cannot be folded into one engine.
    """
    from diffopt.backends.runtime.engine_request import EngineRequests, routed, together
    from diffopt.backends.runtime.fold import Settings, folded_parts, refuse_fold

    state = attachment(pipe)
    refuse_fold(pipe)
    parts = folded_parts(pipe)
    options = EngineOptions(precision, dynamic_int8=multiplies_int8(state, *parts))
    chosen = builder(backend, options, device)
    for name in parts:
        refuse_export(getattr(pipe, name), name, state)
    made: list[EngineRequests] = []
    for high, wide in ((height, width), *sizes):
        settings = Settings(steps, guidance, high, wide, negative_prompt, arguments or {})
        run, interface = _engine(pipe, settings, chosen, options, Path(engines))
        made.append(EngineRequests(pipe, run, settings, interface))
    state.layers.append(made[0].route if len(made) == 1 else routed(made))
    state.witnesses.append(lambda: together([requests.witness() for requests in made]))
    state.note("pipeline", "export", backend=backend, precision=precision)
    return pipe


def _engine(
    pipe: Any, settings: Settings, chosen: Builder, options: EngineOptions, engines: Path
) -> tuple[Run, Interface]:
    from diffopt.backends.engine_store import open_engine, read_manifest
    from diffopt.backends.runtime.fold import Fold, Interface

    key = _key(pipe, settings, chosen, options)
    attachment(pipe).engines.append(key.hash)
    just_checked: list[Run] = []

    def build(folder: Path) -> Mapping[str, JSON]:
        started = time.perf_counter()
        fold = Fold(pipe, settings)
        program, interface = fold.program()
        captured = time.perf_counter()
        facts = chosen.build_program(program, folder, options)
        built = time.perf_counter()
        run = chosen.load(folder, options)
        loaded = time.perf_counter()
        largest, relative = fold.error_of(run, interface)
        if not relative <= TOLERANCE.get(options.precision, COARSE):
            raise BackendError(f"the engine is off by {relative:.1%} from torch on a picture it was not made with")
        just_checked.append(run)  # read from the files that are now put in place
        return {
            **facts,
            INTERFACE: interface.to_json(),
            "capture_s": round(captured - started, 3),
            "build_s": round(built - captured, 3),
            "first_load_s": round(loaded - built, 3),
            "max_error": largest,
            "relative_l2_error": relative,
        }

    def load(folder: Path) -> tuple[Run, Interface]:
        run = just_checked.pop() if just_checked else chosen.load(folder, options)
        return run, Interface.from_json(read_manifest(folder)["facts"][INTERFACE])

    return open_engine(engines, key, build, load)


def _key(pipe: Any, settings: Settings, chosen: Builder, options: EngineOptions) -> EngineKey:
    from diffopt.backends.runtime.engine_key import engine_key
    from diffopt.backends.runtime.fold import folded_parts, noise_shape
    from diffopt.backends.runtime.prompt_reading import text_tokenizers

    transforms = attachment(pipe).transforms
    scheduler = {name: repr(value) for name, value in pipe.scheduler.config.items() if not name.startswith("_")}
    parts = folded_parts(pipe)
    applied: list[JSON] = [[name, transforms.get(name, [])] for name in parts]
    applied += [["scheduler", transforms["scheduler"]]] if "scheduler" in transforms else []
    inputs: list[JSON] = [[name, int(getattr(pipe, name).model_max_length)] for name in text_tokenizers(pipe)]
    inputs.append(["noise", list(noise_shape(pipe, settings))])
    given: dict[str, JSON] = {
        **options.to_json(),
        **settings.to_json(),
        "pipeline": attachment(pipe).pipeline_class.__name__,
        "scheduler": [type(pipe.scheduler).__name__, scheduler],
    }
    modules = [getattr(pipe, name) for name in parts]
    return engine_key(chosen, modules, transforms=applied, inputs=inputs, options=given)
