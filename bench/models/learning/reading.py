"""A text encoder learns to say what a caption describes, before a denoiser reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning.loop import Say, Stop, fit

if TYPE_CHECKING:
    import torch
    from torch import nn

_TEXTS = 256


def train_text(
    encoder: nn.Module,
    tokens: torch.Tensor,
    mask: torch.Tensor | None,
    targets: torch.Tensor,
    classes: tuple[int, ...],
    *,
    seconds: float,
    say: Say,
    stop: Stop,
) -> nn.Module:
    """Train an encoder with queries that attend over its states and name each slot of the scene; return the encoder.

    Args:
        tokens: int64 [n * wordings, length], the wordings of a scene one after the other.
        mask: of the tokens, where the encoder is given one.
        targets: int64 [n, slots, len(classes)], -100 where there is nothing to say.
        classes: how many answers each reading of a slot has.
    """
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    wordings, slots, device = len(tokens) // len(targets), targets.shape[1], tokens.device
    config: Any = encoder.config
    width = int(config.hidden_size)

    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
            self.heads = nn.Linear(width, sum(classes))
            self.queries = nn.Parameter(torch.randn(1, slots, width))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            given = {} if mask is None else {"attention_mask": mask[rows]}
            states = self.encoder(tokens[rows], **given).last_hidden_state
            read, _ = self.attention(self.queries.expand(len(rows), -1, -1), states, states, need_weights=False)
            named: torch.Tensor = self.heads(read)
            return named

    def loss(network: nn.Module) -> torch.Tensor:
        rows = torch.randint(len(tokens), (_TEXTS,), device=device)
        heads = network(rows).flatten(0, 1).split(classes, dim=1)
        wanted = targets[rows // wordings].flatten(0, 1)
        return torch.stack(
            [cross_entropy(head, wanted[:, index], ignore_index=-100) for index, head in enumerate(heads)]
        ).sum()

    trained = fit(
        Reading().to(device), loss, seconds=seconds, rate=1e-3, say=say, stop=stop, half=False, recorded=False
    )
    with torch.no_grad():
        last = torch.arange(max(0, len(tokens) - 2000), len(tokens), device=device)
        wanted = targets[last // wordings]
        heads = trained(last).split(classes, dim=2)
        named = torch.stack([head.argmax(dim=2) for head in heads], dim=2)
    right = ((named == wanted) | (wanted == -100)).flatten(1).all(dim=1)
    say(f"text encoder: {100 * float(right.float().mean()):.1f} % of captions read in everything")
    found: nn.Module = trained.encoder  # type: ignore[assignment]
    return found
