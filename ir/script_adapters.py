"""LoRA, IP-Adapter and textual inversion weights that a script loads into a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import libcst as cst

from diffopt.ir.description import Adapter, AdapterKind
from diffopt.ir.script_arguments import Argument, argument
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_conditions import is_dead, open_condition
from diffopt.ir.script_kinds import Known, Missing, Symbol, Value
from diffopt.ir.script_pipelines import Pipelines

LOADERS: dict[str, tuple[AdapterKind, tuple[str, ...]]] = {
    "load_lora_weights": ("lora", ("pretrained_model_name_or_path_or_dict", "adapter_name")),
    "load_lora_adapter": ("lora", ("pretrained_model_name_or_path_or_dict", "prefix")),
    "load_attn_procs": ("lora", ("pretrained_model_name_or_path_or_dict",)),
    "load_ip_adapter": ("ip_adapter", ("pretrained_model_name_or_path_or_dict", "subfolder", "weight_name")),
    "load_textual_inversion": ("textual_inversion", ("pretrained_model_name_or_path", "token")),
}
CHANGES = (
    "fuse_lora",
    "unfuse_lora",
    "set_adapters",
    "unload_lora_weights",
    "unload_lora",
    "delete_adapters",
    "unload_ip_adapter",
    "disable_lora",
    "set_ip_adapter_scale",
    "unload_textual_inversion",
)
NAMES = {"lora": "adapter_name", "ip_adapter": "", "textual_inversion": "token"}


@dataclass
class Adapters:
    """Adapters of a pipeline as the script loads, weights, fuses and drops them."""

    pipelines: Pipelines
    choice: Choice
    unknown: Callable[[str, Missing], object]
    found: list[Adapter] = field(default_factory=list)

    def read(self) -> tuple[Adapter, ...]:
        """Return the adapters that are loaded when the pipeline is called."""
        for name, call in sorted(self._calls(), key=lambda pair: self.pipelines.script.start(pair[1])):
            if is_dead(self.pipelines.values, call):
                continue
            condition = open_condition(self.pipelines.values, call, [site.call for site in self.choice.sites])
            if condition:
                label = LOADERS[name][0] if name in LOADERS else name
                if self.unknown(self._label(label), Missing(f"`{name}` hangs on `{condition}`", call)) is None:
                    continue
            if name in LOADERS:
                self._load(name, call)
            else:
                self._change(name, call)
        return tuple(self.found)

    def _calls(self) -> Iterator[tuple[str, cst.Call]]:
        script, sites = self.pipelines.script, set(self.choice.sites)
        first = max((script.start(call) for call in self.choice.calls), default=None)
        for name in (*LOADERS, *CHANGES):
            for call in self.pipelines.values.calls_by_name.get(name, ()):
                if not isinstance(call.func, cst.Attribute):
                    continue
                holder = call.func.value
                part = holder.value if isinstance(holder, cst.Attribute) else holder
                if not (self.pipelines.of(holder) & sites or self.pipelines.of(part) & sites):
                    continue
                behind = first is not None and script.start(call) > first
                if behind and name.startswith(("un", "delete", "disable")):
                    continue
                yield name, call

    def _label(self, kind: str) -> str:
        count = sum(adapter.kind == kind for adapter in self.found)
        return kind if count == 0 else f"{kind}_{count + 1}"

    def _load(self, name: str, call: cst.Call) -> None:
        kind, positions = LOADERS[name]
        value = self._value(call, positions[0], positions)
        weight = self._text(call, "weight_name", positions)
        subfolder = self._text(call, "subfolder", positions)
        if isinstance(value, Known) and value.value is None:
            return
        if isinstance(value, Missing):
            given = self.unknown(self._label(kind), value)
            models = [str(given) if given is not None else ""]
        elif isinstance(value.value, list | tuple):
            models = [str(item) for item in value.value]
        else:
            models = [str(value.value)]
        label = self._text(call, NAMES[kind], positions) if NAMES[kind] else ""
        span = self.pipelines.script.span(call)
        for index, model in enumerate(models):
            part = weight.split("\n")[index] if weight.count("\n") == len(models) - 1 else weight
            whole = "/".join(filter(None, (subfolder.split("\n")[0], part.replace("\n", ","))))
            self.found.append(Adapter(kind, model, weight_name=whole, name=label, span=span))

    def _change(self, name: str, call: cst.Call) -> None:
        match name:
            case "unload_lora_weights" | "unload_lora" | "disable_lora":
                # weights that are fused stay; so does the usual sequence load, fuse, unload
                self.found = [a for a in self.found if a.kind != "lora" or a.fused]
            case "unload_ip_adapter" | "unload_textual_inversion":
                self.found = [a for a in self.found if a.kind != name.removeprefix("unload_")]
            case "delete_adapters":
                gone = self._items(self._value(call, "adapter_names", ("adapter_names",)))
                self.found = [a for a in self.found if a.name not in gone]
            case "fuse_lora":
                scale = self._number(self._value(call, "lora_scale", ("components", "lora_scale")))
                names = self._items(self._value(call, "adapter_names", ()))
                self._each("lora", lambda a: a.name in names or not names, fused=True, scale=scale)
            case "unfuse_lora":
                self._each("lora", lambda a: True, fused=False)
            case "set_ip_adapter_scale":
                scales = self._value(call, "scale", ("scale",))
                if isinstance(scales, Missing):
                    self.unknown("ip_adapter_scale", scales)
                self._each("ip_adapter", lambda a: True, scale=self._number(scales))
            case "set_adapters":
                self._set(call)

    def _set(self, call: cst.Call) -> None:
        positions = ("adapter_names", "adapter_weights")
        names = self._items(self._value(call, "adapter_names", positions))
        weights = self._value(call, "adapter_weights", positions)
        if isinstance(weights, Missing):
            given = self.unknown("adapter_weights", weights)
            weights = Known(given, call)
        values = weights.value if isinstance(weights, Known) else None
        for index, name in enumerate(names):
            one = values[index] if isinstance(values, list | tuple) and index < len(values) else values
            scale = float(one) if isinstance(one, int | float) else None
            self._each("lora", lambda a, name=name: a.name == name, scale=scale)  # type: ignore[misc]
        if names:
            self.found = [a for a in self.found if a.kind != "lora" or a.fused or a.name in names or not a.name]

    def _each(
        self,
        kind: AdapterKind,
        which: Callable[[Adapter], bool],
        *,
        scale: float | None = None,
        fused: bool | None = None,
    ) -> None:
        self.found = [
            replace(a, scale=a.scale if scale is None else scale, fused=a.fused if fused is None else fused)
            if a.kind == kind and which(a)
            else a
            for a in self.found
        ]

    def _value(self, call: cst.Call, name: str, positions: tuple[str, ...]) -> Value:
        values = self.pipelines.values
        given = argument(values, call, name)
        if given is None and name in positions:
            free = [arg for arg in call.args if arg.keyword is None and not arg.star]
            index = positions.index(name)
            given = Argument(free[index].value, direct=True) if index < len(free) else None
        if given is None:
            return Known(None, call)
        return given if isinstance(given, Missing) else values.of(given.value)

    def _text(self, call: cst.Call, name: str, positions: tuple[str, ...]) -> str:
        value = self._value(call, name, positions)
        if isinstance(value, Missing):
            given = self.unknown(name, value)
            return "" if given is None else str(given)
        return "\n".join(self._items(value))

    def _items(self, value: Value) -> list[str]:
        if isinstance(value, Missing) or value.value is None:
            return []
        found = value.value if isinstance(value.value, list | tuple) else [value.value]
        return [str(item.name if isinstance(item, Symbol) else item) for item in found]

    def _number(self, value: Value) -> float | None:
        known = value.value if isinstance(value, Known) else None
        return float(known) if isinstance(known, int | float) else None
