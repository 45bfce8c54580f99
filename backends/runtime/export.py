"""Replace what a component computes by an engine; the component itself stays, for all the engine cannot take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import JSON, BackendError, Builder, EngineOptions, Run, Tensors, Witness, builder
from diffopt.backends.runtime.attachment import Attachment, attachment, component_name
from diffopt.backends.runtime.calibrate import CALIBRATION, Calibration
from diffopt.backends.runtime.step_plan import PLAN

if TYPE_CHECKING:
    import torch

    from diffopt.backends.runtime.leaf import Leaf, PlannedLeaf
    from diffopt.backends.runtime.recording import Envelope

Pipe = TypeVar("Pipe")
METHODS = {"vae": "decode"}
"""What a pipeline calls of a component, where it is not `forward`."""


def export(
    pipe: Pipe,
    component: str,
    *,
    backend: str = "openvino",
    precision: str = "f32",
    engines: Path,
    device: str = "cpu",
    height: int | None = None,
    width: int | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Pipe:
    """Run a component (`unet`, `text_encoder`, `vae`, `denoiser`, ...) by an engine, built or found below `engines`.

    height, width: pixels of the pictures the engine is for; by default those of the call defaults or the pipeline.
    sizes: other heights and widths that get an engine each, where the component's inputs are not the same.
    arguments: what else a call of the pipeline takes; by default what it takes when told nothing.
    Raises BackendError if the backend cannot work here or cannot take the component.
    """
    import torch

    from diffopt.backends.component_call import CalledComponent, component_call
    from diffopt.backends.runtime.leaf import Leaf
    from diffopt.backends.runtime.recording import Envelope, record

    name, state = component_name(pipe, component), attachment(pipe)
    options = EngineOptions(precision, dynamic_int8=multiplies_int8(state, name))
    chosen = builder(backend, options, device)
    module = getattr(pipe, name)
    refuse_export(module, name, state)
    method = METHODS.get(name, "forward")
    own = {key: value for key, value in (("height", height), ("width", width)) if value is not None}
    original = getattr(module, method)
    recorded = [
        record(pipe, {name: method}, size={**(arguments or {}), **size})[name]
        for size in (own, *({"height": high, "width": wide} for high, wide in sizes))
    ]
    plan = module.__dict__.get(PLAN)
    calibration = module.__dict__.get(CALIBRATION)
    if calibration is not None and backend != "openvino":
        raise BackendError(f"{name} is calibrated for OpenVINO, and {backend} was asked for")
    if calibration is not None and sizes:
        raise BackendError(f"{name} is calibrated for one size, and engines of several were asked for")
    dispatch = Dispatch(name, state)
    with torch.no_grad():
        if plan is None:
            known: list[tuple[Leaf, Envelope]] = []
            for args, kwargs in recorded:
                if any(not isinstance(calls.match(args, kwargs), str) for _, calls in known):
                    continue
                call = component_call(original, args, kwargs)
                calls = Envelope(inspect.signature(original), call)
                leaf = Leaf(name, CalledComponent(module, original, call).eval(), call.names, call.batched)
                samples = _samples(calibration, functools.partial(_matched, calls))
                engine = _engine(chosen, pipe, name, leaf, call.examples, options, engines, call.fixed, samples.get(0))
                dispatch.attach(leaf, call.examples, engine)
                known.append((leaf, calls))
            module.__dict__[method] = functools.wraps(original)(dispatch.method(known, original, *recorded[0]))
        else:
            samples = _samples(calibration, lambda call: [found for _, found in plan_examples(plan, *call)])
            for args, kwargs in recorded:
                for index, (leaf, examples) in enumerate(plan_examples(plan, args, kwargs)):
                    fixed = leaf.module.shape.fixed
                    engine = _engine(chosen, pipe, name, leaf, examples, options, engines, fixed, samples.get(index))
                    dispatch.attach(leaf, examples, engine)
    if calibration is not None:
        mode, count = calibration.mode, len(calibration.calls)
        detail = f"{name}: its engine quantized by NNCF ({mode}) on {count} recorded calls"
        state.witnesses.append(lambda: Witness("calibrate", count, detail))
    state.note(name, "export", backend=backend, precision=precision)
    state.witnesses.append(dispatch.witness)
    return pipe


def refuse_export(module: Any, name: str, state: Attachment) -> None:
    """Raise BackendError if the component is no longer, or not, something to build an engine of."""
    import torch

    for earlier in ("export", "compile"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: {earlier} was applied already, there is no torch code left to export")
    kinds = {parameter.dtype for parameter in module.parameters()}
    if kinds - {torch.float32}:
        raise BackendError(
            f"{name} is in {kinds.pop()}", "load the pipeline in float32, the engine picks its precision"
        )


def multiplies_int8(state: Attachment, *names: str) -> bool:
    """Tell whether any of these components was quantized to multiply in 8 bits."""
    entries = [entry for name in names for entry in state.transforms.get(name, [])]
    return any(isinstance(entry, dict) and entry.get("scheme") == "int8-dynamic" for entry in entries)


def plan_examples(plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[PlannedLeaf, Tensors]]:
    """Return the leaves of a step plan with example inputs, from the arguments of one denoiser call.

    Raises BackendError if the plan does not know such calls.
    """
    inputs = plan.settle(args, kwargs)
    if isinstance(inputs, str):
        raise BackendError(f"an engine that follows a step plan cannot take {inputs}")
    if "whole" in plan.leaves:
        return [(plan.leaves["whole"], inputs)]
    _, *features = plan.leaves["full"].module(*inputs)
    return [(plan.leaves["full"], inputs), (plan.leaves["shallow"], (*inputs, *features))]


class Dispatch:
    """Sends calls to an engine, or to torch where the engine cannot take them, and counts both."""

    def __init__(self, name: str, state: Attachment) -> None:
        self._name = name
        self._state = state
        self._calls = 0
        self._fallbacks = 0
        self._runs: dict[int, list[tuple[object, Run]]] = {}

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._calls} engine calls, {self._fallbacks} in torch"
        return Witness("export", self._calls, detail)

    def attach(self, leaf: Leaf, examples: Tensors, run: Run) -> None:
        """Let the engine run the leaf, for inputs of the examples' sizes in any batch; others as they were attached."""

        def kind(inputs: Tensors) -> object:
            return [(v.shape[1:] if b else v.shape, v.dtype) for v, b in zip(inputs, leaf.batched, strict=True)]

        known = self._runs.setdefault(id(leaf), [])
        known.append((kind(examples), run))

        def run_leaf(*inputs: torch.Tensor) -> Tensors:
            given = kind(inputs)
            for one, engine in known:
                if one == given:
                    self._calls += self._state.counting
                    return engine(inputs)
            self._fall_back("inputs of another size")
            return leaf.module(*inputs)  # type: ignore[no-any-return]

        leaf.run = run_leaf

    def method(
        self, known: Sequence[tuple[Leaf, Envelope]], original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return what takes the place of the component's method: the first leaf whose calls are like the one it gets."""
        made = _result(original, args, kwargs)

        def dispatched(*args: Any, **kwargs: Any) -> Any:
            reason = ""
            for leaf, calls in known:
                matched = calls.match(args, kwargs)
                if isinstance(matched, str):
                    reason = reason or matched
                    continue
                result = made(leaf.run(*matched.tensors))
                return result if matched.return_dict or isinstance(result, tuple) else result.to_tuple()
            self._fall_back(reason)
            return original(*args, **kwargs)

        return dispatched

    def _fall_back(self, reason: str) -> None:
        self._fallbacks += self._state.counting
        self._state.leave_engine(f"{self._name} runs in torch instead of its engine: {reason}")


def _result(original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensors], Any]:
    """Return what makes a component's result of the tensors in it."""
    from diffopt.backends.component_call import take_result_apart

    return take_result_apart(original(*args, **{**kwargs, "return_dict": True}))[1]


def _samples(
    calibration: Calibration | None, tensors: Callable[[Any], list[Tensors]]
) -> dict[int, tuple[str, list[Tensors]]]:
    """Return how each leaf is to be quantized and its inputs in the recorded calls, by the leaf's place."""
    if calibration is None:
        return {}
    rows = [tensors(call) for call in calibration.calls]
    return {index: (calibration.mode, list(column)) for index, column in enumerate(zip(*rows, strict=True))}


def _matched(calls: Envelope, call: tuple[tuple[Any, ...], dict[str, Any]]) -> list[Tensors]:
    matched = calls.match(*call)
    if isinstance(matched, str):
        raise BackendError(f"a recorded call is not like those of the engine: {matched}")
    return [matched.tensors]


def _engine(
    chosen: Builder,
    pipe: Any,
    name: str,
    leaf: Leaf,
    examples: Tensors,
    options: EngineOptions,
    engines: Path,
    fixed: Mapping[str, Any],
    quantized: tuple[str, list[Tensors]] | None = None,
) -> Run:
    from diffopt.backends.base import Part
    from diffopt.backends.engine_store import open_engine
    from diffopt.backends.runtime.engine_key import engine_key, in_the_graph, plainly, signature_of

    given = {argument: plainly(value) for argument, value in sorted(fixed.items()) if value is not None and value != {}}
    key = engine_key(
        chosen,
        [getattr(pipe, name)],
        transforms=in_the_graph(attachment(pipe).transforms.get(name, [])),
        inputs=signature_of(leaf.input_names, examples, leaf.batched),
        options={**options.to_json(), "leaf": leaf.name, **({"fixed": given} if given else {})},
    )
    attachment(pipe).engines.append(key.hash)
    part = Part(leaf.name, leaf.module, examples, leaf.input_names, leaf.batched)

    def build(folder: Path) -> dict[str, JSON]:
        from diffopt.backends.nncf_engine import quantize_folder
        from diffopt.backends.numeric_check import refuse_far

        facts = dict(refuse_far(chosen.build(part, folder, options), options, name))
        return facts if quantized is None else {**facts, **quantize_folder(folder, quantized[1], quantized[0])}

    return open_engine(
        Path(engines),
        key,
        build,
        lambda folder: chosen.load(folder, options),
    )
