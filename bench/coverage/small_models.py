"""Small random models of diffusers' classes, and inputs for one call of each, from the table `small.json`.

An input is written as its kind and its sizes: `f 2 4 8 8` normal, `u` uniform in [0, 1), `i 2 <10` whole numbers below
10 (1000 where no limit is given), `c 2 =6` a whole number, `a 4 +2` ascending from 2, `o` ones, `z` zeros, `b` true,
`x` complex of length 1. All else is given to the call as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

TABLE = Path(__file__).with_name("small.json")
KINDS = "fuicaozbx"
NAMES = ("Transformer", "UNet", "DiT", "UVit")
OTHERS = ("ControlNetModel", "Vae")
"""Parts of the names of classes that are no denoisers."""


def table() -> dict[str, dict[str, Any]]:
    """Return settings and inputs by class."""
    found: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def denoiser_classes() -> dict[str, type[torch.nn.Module]]:
    """Return every transformer and UNet class of the installed diffusers, by name."""
    import diffusers
    from diffusers.models import transformers, unets

    found: dict[str, type[torch.nn.Module]] = {}
    for module in (diffusers, transformers, unets):
        for name in dir(module):
            if not any(part in name for part in NAMES) or any(part in name for part in OTHERS):
                continue
            kind: Any = getattr(module, name, None)
            if isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin):
                found[name] = cast("type[torch.nn.Module]", kind)
    return dict(sorted(found.items()))


def small_model(kind: type[torch.nn.Module], config: Mapping[str, Any]) -> torch.nn.Module:
    """Return a model of this class with random weights; what its class sets to zero or one is random too."""
    import torch

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = kind(**{name: _tuples(value) for name, value in config.items()}).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # an output layer of zeros would make every comparison of outputs pass
            if parameter.numel() == 0 or (parameter == parameter.flatten()[0]).all():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def small_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of one call."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return {name: _made(value, generator) for name, value in inputs.items()}


def _made(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, str) and value[0] in KINDS:
        return _tensor(value, generator)
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return tuple(value)
    if isinstance(value, list):
        return [_made(item, generator) for item in value]
    if isinstance(value, dict):
        return {int(key) if key.isdigit() else key: _made(item, generator) for key, item in value.items()}
    return value


def _tensor(text: str, generator: torch.Generator) -> torch.Tensor:
    import torch

    kind, *words = text.split()
    shape = [int(word) for word in words if word.isdigit()]
    extra = next((int(word[1:]) for word in words if word[0] in "<=+"), None)
    match kind:
        case "f":
            return torch.randn(shape, generator=generator)
        case "u":
            return torch.rand(shape, generator=generator)
        case "i":
            return torch.randint(0, extra or 1000, shape, generator=generator)
        case "c":
            return torch.full(shape, extra or 0)
        case "a":
            return (torch.arange(shape[-1]) + (extra or 0)).expand(shape).clone()
        case "o":
            return torch.ones(shape)
        case "z":
            return torch.zeros(shape)
        case "b":
            return torch.ones(shape, dtype=torch.bool)
        case _:
            return torch.polar(torch.ones(shape), torch.randn(shape, generator=generator))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
