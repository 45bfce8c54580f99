"""Make one engine of the whole pipeline: from token ids and noise to the picture, with the loop unrolled."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import JSON, BackendError, Builder, EngineKey, EngineOptions, Program, Run, builder
from diffopt.backends.runtime.attachment import attachment
from diffopt.backends.runtime.export import multiplies_int8, refuse_export
from diffopt.backends.runtime.step_plan import PLAN

if TYPE_CHECKING:
    import torch

    from diffopt.backends.runtime.capture import Capture
    from diffopt.backends.runtime.leaf import Leaf

Pipe = TypeVar("Pipe")
COMPONENTS = ("text_encoder", "unet", "vae")


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
    negative_prompt: str = "",
    device: str = "cpu",
) -> Pipe:
    """Answer calls of this many steps, this guidance and this size with one engine, built or found below `engines`.

    A step plan must be attached before; the engine follows it. Other calls run in torch as before, said once.
    Raises BackendError if the pipeline is of another class, or does what cannot be folded into one engine.
    """
    from diffopt.backends.runtime.engine_request import EngineRequests

    options = EngineOptions(precision, dynamic_int8=multiplies_int8(attachment(pipe), *COMPONENTS))
    chosen = builder(backend, options, device)
    refuse_fold(pipe)
    for name in COMPONENTS:
        refuse_export(getattr(pipe, name), name, attachment(pipe))
    fold = Fold(pipe, steps=steps, guidance=guidance, height=height, width=width, negative_prompt=negative_prompt)
    run = fold.engine(chosen, options, Path(engines))
    requests = EngineRequests(pipe, run, steps, guidance, height, width, negative_prompt)
    state = attachment(pipe)
    state.layers.append(requests.route)
    state.witnesses.append(requests.witness)
    state.note("pipeline", "export", backend=backend, precision=precision)
    return pipe


def refuse_fold(pipe: Any) -> None:
    """Raise BackendError if a call of the pipeline cannot become one program."""
    state = attachment(pipe)
    kind = state.pipeline_class
    if kind.__name__ != "StableDiffusionPipeline" or not kind.__module__.startswith("diffusers."):
        raise BackendError(f"{kind.__name__} cannot become one engine yet", "export its components")
    if getattr(pipe.text_encoder.config, "use_attention_mask", None):
        raise BackendError("this text encoder takes an attention mask: it cannot become one engine yet")


class Fold:
    """One pipeline call of fixed settings, as a program; `outlined`, its parts stay what runs them now, engines too."""

    def __init__(
        self,
        pipe: Any,
        *,
        steps: int,
        guidance: float,
        height: int,
        width: int,
        negative_prompt: str,
        outlined: bool = False,
    ) -> None:
        self._pipe = pipe
        self._outlined = outlined
        self._just_checked: list[Run] = []
        self._settings: dict[str, JSON] = {
            "steps": steps,
            "guidance": guidance,
            "height": height,
            "width": width,
            "negative_prompt": negative_prompt,
        }

    def engine(self, chosen: Builder, options: EngineOptions, engines: Path) -> Run:
        from diffopt.backends.engine_store import open_engine

        key = self._key(chosen, options)
        attachment(self._pipe).engines.append(key.hash)
        return open_engine(
            engines,
            key,
            lambda folder: self._build(chosen, options, folder),
            lambda folder: self._just_checked.pop() if self._just_checked else chosen.load(folder, options),
        )

    def _key(self, chosen: Builder, options: EngineOptions) -> EngineKey:
        from diffopt.backends.runtime.engine_key import engine_key

        pipe, transforms = self._pipe, attachment(self._pipe).transforms
        scheduler = {name: repr(value) for name, value in pipe.scheduler.config.items() if not name.startswith("_")}
        applied: list[JSON] = [[name, transforms.get(name, [])] for name in COMPONENTS]
        applied += [["scheduler", transforms["scheduler"]]] if "scheduler" in transforms else []
        inputs: list[JSON] = [["input_ids", pipe.tokenizer.model_max_length], ["noise", pipe.unet.config.in_channels]]
        settings: dict[str, JSON] = {
            **options.to_json(),
            "scheduler": [type(pipe.scheduler).__name__, scheduler],
            **self._settings,
        }
        modules = [getattr(pipe, name) for name in COMPONENTS]
        return engine_key(chosen, modules, transforms=applied, inputs=inputs, options=settings)

    def _build(self, chosen: Builder, options: EngineOptions, folder: Path) -> dict[str, JSON]:
        from diffopt.backends.numeric_check import error

        started = time.perf_counter()
        program, expected = self.program()
        captured = time.perf_counter()
        facts = chosen.build_program(program, folder, options)
        built = time.perf_counter()
        run = chosen.load(folder, options)
        largest, relative = error(run(program.inputs), (expected,))
        if options.precision == "f32" and relative > 1e-2:
            raise BackendError(f"the engine is off by {relative:.1%} from torch on the picture it was made with")
        self._just_checked.append(run)  # read from the files that are now put in place
        return {
            **facts,
            "capture_s": round(captured - started, 3),
            "build_s": round(built - captured, 3),
            "first_load_s": round(time.perf_counter() - built, 3),
            "max_error": largest,
            "relative_l2_error": relative,
        }

    def program(self) -> tuple[Program, torch.Tensor]:
        """Return the call as a program, and the picture it makes of the program's example inputs."""
        import torch

        from diffopt.backends.one_thread import one_thread
        from diffopt.backends.runtime.capture import Capture
        from diffopt.backends.runtime.leaf import Closed, Leaf
        from diffopt.backends.runtime.recording import quiet

        pipe, settings = self._pipe, self._settings
        ids = pipe.tokenizer(
            "a", padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        size = [int(str(settings[axis])) // pipe.vae_scale_factor for axis in ("height", "width")]
        shape = (1, pipe.unet.config.in_channels, *size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        text = Leaf(
            "text_encoder",
            Closed(pipe.text_encoder, pipe.text_encoder.forward, ("input_ids",), {}),
            ("input_ids",),
            (True,),
        )
        latent = next(iter(inspect.signature(pipe.vae.decode).parameters))  # not every autoencoder calls it `z`
        decode = Leaf("vae", Closed(pipe.vae, pipe.vae.decode, (latent,), {"return_dict": False}), ("z",), (True,))
        capture, decoded = Capture(), list[torch.Tensor]()
        with torch.no_grad(), one_thread():
            with attachment(pipe).looking():
                negative = pipe.encode_prompt("a", "cpu", 1, True, str(settings["negative_prompt"]))[1]
            with attachment(pipe).looking(), quiet(pipe), self._listening(capture, decode, decoded), capture:
                inputs = [capture.input("input_ids", ids), capture.input("noise", noise)]
                (embedded, *_) = capture.call(text, inputs[0])
                pipe(
                    prompt=None,
                    negative_prompt=None,
                    prompt_embeds=embedded,
                    negative_prompt_embeds=negative,
                    latents=inputs[1],
                    num_inference_steps=settings["steps"],
                    guidance_scale=settings["guidance"],
                    height=settings["height"],
                    width=settings["width"],
                    output_type="pt",
                )
        (picture,) = decoded
        return capture.program(picture), picture

    @contextlib.contextmanager
    def _listening(self, capture: Capture, decode: Leaf, decoded: list[torch.Tensor]) -> Iterator[None]:
        """Route the denoiser's and the decoder's calls through the capture for a while."""
        import functools

        import torch

        from diffopt.backends.runtime.leaf import Closed, Leaf, running

        unet, vae = self._pipe.unet, self._pipe.vae
        own = unet.__dict__.get("forward")
        plan = unet.__dict__.get(PLAN)

        def decode_now(z: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            (picture,) = capture.call(decode, z)
            decoded.append(picture)
            return (picture.clone(),)

        names = ("sample", "timestep", "encoder_hidden_states")
        whole = Leaf("unet", Closed(unet, unet.forward, names, {"return_dict": False}), names, (True, False, True))

        def denoise_now(sample: Any, timestep: Any, encoder_hidden_states: Any, **extra: Any) -> tuple[Any]:
            unknown = [name for name, value in extra.items() if value is not None and name != "return_dict"]
            if unknown:
                raise BackendError(f"the denoiser gets {unknown[0]}, which cannot be folded into one engine yet")
            (out,) = capture.call(whole, sample, torch.as_tensor(timestep), encoder_hidden_states)
            return (out,)

        vae.__dict__["decode"] = decode_now
        if plan is None:
            unet.__dict__["forward"] = denoise_now
        runs = {leaf.name: leaf.run for leaf in plan.leaves.values()} if plan else {}
        for leaf in plan.leaves.values() if plan else ():
            leaf.run = functools.partial(capture.call, running(leaf, leaf.run) if self._outlined else leaf)
        try:
            yield
        finally:
            del vae.__dict__["decode"]
            for leaf in plan.leaves.values() if plan else ():
                leaf.run = runs[leaf.name]
            if plan is None and own is None:
                del unet.__dict__["forward"]
            elif plan is None:
                unet.__dict__["forward"] = own
