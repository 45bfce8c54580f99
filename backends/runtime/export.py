"""Replace what a component computes by an engine; the component itself stays, for all the engine cannot take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import JSON, BackendError, Builder, EngineOptions, Run, Tensors, Witness, builder
from diffopt.backends.runtime.attachment import Attachment, attachment, component_name
from diffopt.backends.runtime.calibrate import CALIBRATION, Calibration
from diffopt.backends.runtime.step_plan import PLAN

if TYPE_CHECKING:
    import torch

    from diffopt.backends.runtime.leaf import Leaf
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
    arguments: Mapping[str, Any] | None = None,
) -> Pipe:
    """Run a component (`unet`, `text_encoder`, `vae`, `denoiser`, ...) by an engine, built or found below `engines`.

    height, width: pixels of the pictures the engine is for; by default those of the call defaults or the pipeline.
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
    size = {key: value for key, value in (("height", height), ("width", width)) if value is not None}
    args, kwargs = record(pipe, {name: method}, size={**(arguments or {}), **size})[name]
    original = getattr(module, method)
    plan = module.__dict__.get(PLAN)
    calibration = module.__dict__.get(CALIBRATION)
    if calibration is not None and backend != "openvino":
        raise BackendError(f"{name} is calibrated for OpenVINO, and {backend} was asked for")
    dispatch = Dispatch(name, state)
    with torch.no_grad():
        if plan is None:
            call = component_call(original, args, kwargs)
            calls = Envelope(inspect.signature(original), call)
            leaf = Leaf(name, CalledComponent(module, original, call).eval(), call.names, call.batched)
            samples = _samples(calibration, lambda call: [_matched(calls, call)])
            engine = _engine(chosen, pipe, name, leaf, call.examples, options, engines, samples.get(0))
            dispatch.attach(leaf, call.examples, engine)
            module.__dict__[method] = functools.wraps(original)(
                dispatch.method(leaf, calls, original, module, args, kwargs)
            )
        else:
            samples = _samples(calibration, lambda call: [found for _, found in plan_examples(plan, *call)])
            for index, (leaf, examples) in enumerate(plan_examples(plan, args, kwargs)):
                engine = _engine(chosen, pipe, name, leaf, examples, options, engines, samples.get(index))
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


def plan_examples(plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Leaf, Tensors]]:
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

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._calls} engine calls, {self._fallbacks} in torch"
        return Witness("export", self._calls, detail)

    def attach(self, leaf: Leaf, examples: Tensors, run: Run) -> None:
        """Let the engine run the leaf, for inputs of the examples' sizes in any batch."""
        shapes = [value.shape[1:] if b else value.shape for value, b in zip(examples, leaf.batched, strict=True)]
        kinds = [value.dtype for value in examples]

        def run_leaf(*inputs: torch.Tensor) -> Tensors:
            found = [value.shape[1:] if b else value.shape for value, b in zip(inputs, leaf.batched, strict=True)]
            if found != shapes or [value.dtype for value in inputs] != kinds:
                self._fall_back("inputs of another size")
                return leaf.module(*inputs)  # type: ignore[no-any-return]
            self._calls += self._state.counting
            return run(inputs)

        leaf.run = run_leaf

    def method(
        self, leaf: Leaf, calls: Envelope, original: Any, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return what takes the place of the component's method."""
        made = _result(original, args, kwargs)

        def dispatched(*args: Any, **kwargs: Any) -> Any:
            matched = calls.match(args, kwargs)
            if isinstance(matched, str):
                self._fall_back(matched)
                return original(*args, **kwargs)
            values = leaf.run(*matched.tensors)
            result = made(values)
            return result if matched.return_dict or isinstance(result, tuple) else result.to_tuple()

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


def _matched(calls: Envelope, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensors:
    matched = calls.match(*call)
    if isinstance(matched, str):
        raise BackendError(f"a recorded call is not like those of the engine: {matched}")
    return matched.tensors


def _engine(
    chosen: Builder,
    pipe: Any,
    name: str,
    leaf: Leaf,
    examples: Tensors,
    options: EngineOptions,
    engines: Path,
    quantized: tuple[str, list[Tensors]] | None = None,
) -> Run:
    from diffopt.backends.base import Part
    from diffopt.backends.engine_store import open_engine
    from diffopt.backends.runtime.engine_key import engine_key, in_the_graph, signature_of

    key = engine_key(
        chosen,
        [getattr(pipe, name)],
        transforms=in_the_graph(attachment(pipe).transforms.get(name, [])),
        inputs=signature_of(leaf.input_names, examples, leaf.batched),
        options={**options.to_json(), "leaf": leaf.name},
    )
    attachment(pipe).engines.append(key.hash)
    part = Part(leaf.name, leaf.module, examples, leaf.input_names, leaf.batched)

    def build(folder: Path) -> dict[str, JSON]:
        from diffopt.backends.nncf_engine import quantize_folder

        facts = chosen.build(part, folder, options)
        return facts if quantized is None else {**facts, **quantize_folder(folder, quantized[1], quantized[0])}

    return open_engine(
        Path(engines),
        key,
        build,
        lambda folder: chosen.load(folder, options),
    )
