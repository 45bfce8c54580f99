"""Look up what a denoiser makes of a timestep, where it was at that timestep before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment, component_name
from diffopt.backends.runtime.weights_mark import being_traced, weights_mark

Pipe = TypeVar("Pipe")
TABLE = "_diffopt_time_table"
MOST = 4096
"""Entries of each table: all timesteps of a schedule at a few batch sizes."""

MIXED = ("class_embed_type", "num_class_embeds", "addition_embed_type", "time_cond_proj_dim", "encoder_hid_dim_type")
"""Configuration entries of a UNet whose time embedding depends on more than the timestep."""


def constant_embeddings(pipe: Pipe, component: str) -> Pipe:
    """Keep what a denoiser makes of the timestep alone, by timestep and batch; bit for bit the same.

    Of a UNet, the time embedding and each block's projection of it; of a transformer with one modulation for all blocks
    (PixArt), that modulation. Only timesteps on the processor are looked up: to read one from a GPU costs more than the
    layers do.
    Raises BackendError if the component is neither, or was compiled or exported already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    denoiser = getattr(pipe, name)
    mixed = _mixed(denoiser)
    if mixed:
        raise BackendError(f"{name}: its time embedding depends on more than the timestep ({mixed})")
    for earlier in ("export", "compile"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: {earlier} was applied already, its code computes the embeddings itself")
    if TABLE in denoiser.__dict__:
        raise BackendError(f"{name}: its time embeddings are kept already")
    if hasattr(denoiser, "adaln_single"):
        layers = [denoiser.adaln_single]
        table = TimeTable(state, name, layers)
        layers[0].__dict__["forward"] = table.modulating(layers[0].forward)
    else:
        layers = [denoiser.time_embedding]
        projections = [getattr(part, "time_emb_proj", None) for part in denoiser.modules()]
        layers += [projection for projection in projections if projection is not None]
        table = TimeTable(state, name, layers)
        denoiser.__dict__["get_time_embed"] = table.entering(denoiser.get_time_embed)
        for layer in layers:
            layer.__dict__["forward"] = table.keeping(layer.forward)
    denoiser.__dict__[TABLE] = table
    state.layers.append(table.request)
    state.note(name, "constant_embeddings")
    state.witnesses.append(table.witness)
    return pipe


def _mixed(denoiser: Any) -> str:
    """Return what beside the timestep a denoiser's time embedding depends on; empty for nothing."""
    if hasattr(denoiser, "adaln_single"):
        return "use_additional_conditions" if denoiser.adaln_single.emb.use_additional_conditions else ""
    if not hasattr(denoiser, "get_time_embed") or not hasattr(denoiser, "time_embedding"):
        kind = type(denoiser).__name__
        raise BackendError(f"{kind} is no UNet2DConditionModel and no PixArt: its time embeddings cannot be kept")
    return next((key for key in MIXED if denoiser.config.get(key) is not None), "")


class TimeTable:
    """The tables of all layers, and the timestep the UNet is at. Emptied when weights change."""

    def __init__(self, state: Attachment, name: str, layers: list[Any]) -> None:
        self._state = state
        self._name = name
        self._layers = layers
        self._tables: list[dict[Hashable, Any]] = []
        self._mark: Hashable = None
        self._now: Hashable = None
        self._calls = self._hits = 0

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call; outside of one, nothing is looked up."""
        mark = weights_mark(self._layers)
        if mark != self._mark:
            self._mark = mark
            for table in self._tables:
                table.clear()
        try:
            return proceed(call)
        finally:
            self._now = None

    def entering(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return what takes the place of `get_time_embed`, the first thing that a pass of the UNet calls."""

        @functools.wraps(original)
        def get_time_embed(sample: Any, timestep: Any) -> Any:
            self._now = None if being_traced() else _time(sample, timestep)
            return original(sample=sample, timestep=timestep)

        return get_time_embed

    def keeping(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return what takes the place of a layer's forward."""
        look_up = self._table()

        @functools.wraps(original)
        def forward(embedded: Any, *args: Any) -> Any:
            if self._now is None or any(value is not None for value in args):
                return original(embedded, *args)
            return look_up(self._now, lambda: original(embedded, *args))

        return forward

    def modulating(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return what takes the place of the forward of `adaln_single`, which is given the timestep itself."""
        look_up = self._table()

        @functools.wraps(original)
        def forward(
            timestep: Any, added_cond_kwargs: Any = None, batch_size: Any = None, hidden_dtype: Any = None
        ) -> Any:
            made = functools.partial(original, timestep, added_cond_kwargs, batch_size, hidden_dtype)
            now = None if being_traced() else _values(timestep)
            if now is None:
                return made()
            return look_up((now, batch_size, hidden_dtype, timestep.dtype), made)

        return forward

    def _table(self) -> Callable[[Hashable, Callable[[], Any]], Any]:
        """Return a new table: what looks a key up, or has its value made."""
        table: dict[Hashable, Any] = {}
        self._tables.append(table)

        def look_up(key: Hashable, made: Callable[[], Any]) -> Any:
            self._calls += self._state.counting
            if key in table:
                self._hits += self._state.counting
                return table[key]
            if len(table) >= MOST:
                table.clear()
            table[key] = made()
            return table[key]

        return look_up

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._hits} of {self._calls} layers of the timestep looked up"
        return Witness("constant_embeddings", self._hits, detail)


def _time(sample: Any, timestep: Any) -> Hashable:
    """Return what the embedding of a timestep depends on, or None where it is not to be read."""
    now = _values(timestep)
    return None if now is None else (now, sample.shape[0], sample.dtype, sample.device)


def _values(timestep: Any) -> Hashable:
    """Return a timestep, or one for each image, as plain numbers; None where reading them costs too much."""
    import torch

    if not isinstance(timestep, torch.Tensor):
        return timestep  # type: ignore[no-any-return]
    if timestep.device.type != "cpu" or timestep.numel() > 16:
        return None
    return tuple(timestep.reshape(-1).tolist())
