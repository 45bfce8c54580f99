"""How a pipeline makes token ids of prompts: overheard while it runs, and done the same way afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from diffopt.backends.base import JSON, BackendError
from diffopt.backends.runtime.quick_tokenizer import QuickTokenizer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TextInput:
    """One tensor that a tokenizer makes of a prompt, as an input of a program.

    tokenizer: its name in the pipeline. field: `input_ids` or `attention_mask`. settings: how the pipeline calls it.
    """

    name: str
    tokenizer: str
    field: str
    settings: Mapping[str, JSON]

    def to_json(self) -> dict[str, JSON]:
        return asdict(self)


class PromptReader:
    """Makes a program's text inputs of prompts, as its pipeline does; nothing of the text encoders is run.

    clean: whether the pipeline is told to clean captions, where it has a way to.
    """

    def __init__(self, pipe: Any, inputs: Sequence[TextInput], *, clean: bool) -> None:
        self._inputs = inputs
        self._prepare = getattr(pipe, "_text_preprocessing", None)
        self._clean = clean and _can_clean()
        self._readers: dict[str, QuickTokenizer] = {}
        self._keys = [json.dumps([text.tokenizer, dict(text.settings)], sort_keys=True) for text in inputs]
        for text, key in zip(inputs, self._keys, strict=True):
            if key not in self._readers:
                self._readers[key] = QuickTokenizer(getattr(pipe, text.tokenizer), text.settings)

    def __call__(self, prompts: list[str]) -> list[torch.Tensor]:
        """Return the inputs in order, each prompts × tokens."""
        if self._prepare is not None:
            prompts = self._prepare(prompts, clean_caption=self._clean)
        found = {key: reader.fields(prompts) for key, reader in self._readers.items()}
        return [found[key][text.field] for key, text in zip(self._keys, self._inputs, strict=True)]


def _can_clean() -> bool:
    """Tell whether the pipelines' own cleaning has its packages; without them they warn, and do without it."""
    from diffusers.utils import is_bs4_available, is_ftfy_available

    return bool(is_bs4_available() and is_ftfy_available())


def text_tokenizers(pipe: Any) -> list[str]:
    """Return the names of the pipeline's tokenizers."""
    return [name for name, value in pipe.components.items() if name.startswith("tokenizer") and value is not None]


@contextlib.contextmanager
def overhearing(
    pipe: Any, prompt: str, make_input: Callable[[str, torch.Tensor], torch.Tensor]
) -> Iterator[list[TextInput]]:
    """Put `make_input` of a name and a tensor in the place of all that tokenizers make of this prompt, padded; list them.

    Raises BackendError if a tokenizer is called in a way that cannot be written down.
    """
    heard: list[TextInput] = []
    with contextlib.ExitStack() as stack:
        for name in text_tokenizers(pipe):
            own = pipe.__dict__[name]
            pipe.__dict__[name] = _Overheard(own, name, prompt, make_input, heard)
            stack.callback(pipe.__dict__.__setitem__, name, own)
        yield heard


class _Overheard:
    """A tokenizer whose calls are listened to."""

    def __init__(
        self,
        tokenizer: Any,
        name: str,
        prompt: str,
        make_input: Callable[[str, torch.Tensor], torch.Tensor],
        heard: list[TextInput],
    ) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._prompt = prompt
        self._make_input = make_input
        self._heard = heard

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._tokenizer, attribute)

    def __call__(self, text: Any, *args: Any, **settings: Any) -> Any:
        found = self._tokenizer(text, *args, **settings)
        texts = [text] if isinstance(text, str) else text
        if settings.get("padding") != "max_length" or list(texts) != [self._prompt]:
            return found
        settings.pop("return_tensors", None)
        strange = [key for key, value in settings.items() if not isinstance(value, bool | int | str)]
        if args or strange:
            raise BackendError(f"{self._name} is called with {strange or args}: such calls are not folded yet")
        ending = self._name.removeprefix("tokenizer")
        for field in ("input_ids", "attention_mask"):
            if field in found:
                name = f"{field}{ending}"
                found[field] = self._make_input(name, found[field])
                self._heard.append(TextInput(name, self._name, field, settings))
        return found
