"""Look up what a UNet makes of a timestep, where it was at that timestep before."""

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
    """Keep the UNet's time embedding, and each block's projection of it, by timestep and batch; bit for bit the same.

    Only timesteps on the processor are looked up: to read one from a GPU costs more than the layers do.
    Raises BackendError if the component is no such UNet, or was compiled or exported already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    unet = getattr(pipe, name)
    if not hasattr(unet, "get_time_embed") or not hasattr(unet, "time_embedding"):
        raise BackendError(f"{type(unet).__name__} is no UNet2DConditionModel: its time embeddings cannot be kept")
    mixed = [key for key in MIXED if unet.config.get(key) is not None]
    if mixed:
        raise BackendError(f"{name}: its time embedding depends on more than the timestep ({mixed[0]})")
    for earlier in ("export", "compile"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: {earlier} was applied already, its code computes the embeddings itself")
    if TABLE in unet.__dict__:
        raise BackendError(f"{name}: its time embeddings are kept already")
    layers = [unet.time_embedding]
    projections = [getattr(part, "time_emb_proj", None) for part in unet.modules()]
    layers += [projection for projection in projections if projection is not None]
    table = TimeTable(state, name, layers)
    unet.__dict__[TABLE] = table
    unet.__dict__["get_time_embed"] = table.entering(unet.get_time_embed)
    for layer in layers:
        layer.__dict__["forward"] = table.keeping(layer.forward)
    state.layers.append(table.request)
    state.note(name, "constant_embeddings")
    state.witnesses.append(table.witness)
    return pipe


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
        table: dict[Hashable, Any] = {}
        self._tables.append(table)

        @functools.wraps(original)
        def forward(embedded: Any, *args: Any) -> Any:
            now = self._now
            if now is None or any(value is not None for value in args):
                return original(embedded, *args)
            self._calls += self._state.counting
            if now in table:
                self._hits += self._state.counting
                return table[now]
            if len(table) >= MOST:
                table.clear()
            table[now] = original(embedded, *args)
            return table[now]

        return forward

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._hits} of {self._calls} layers of the timestep looked up"
        return Witness("constant_embeddings", self._hits, detail)


def _time(sample: Any, timestep: Any) -> Hashable:
    """Return what the embedding of a timestep depends on, or None where it is not to be read."""
    import torch

    if isinstance(timestep, torch.Tensor):
        if timestep.device.type != "cpu" or timestep.numel() > 16:
            return None
        timestep = tuple(timestep.reshape(-1).tolist())
    return (timestep, sample.shape[0], sample.dtype, sample.device)
