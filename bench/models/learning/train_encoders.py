"""Train the second CLIP encoder on a CPU: `python -m diffopt.bench.models.learning.train_encoders`.

As in demo:shapes, the encoder first learns to say what a caption describes; the denoisers read it frozen.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning import encoders
from diffopt.bench.models.learning.folder import store
from diffopt.bench.models.shapes.captions import caption
from diffopt.bench.models.shapes.scenes import random_scenes
from diffopt.bench.models.shapes.train_text import Readout
from diffopt.bench.models.shapes.training import cosine

if TYPE_CHECKING:
    import torch

BATCH, WIDTH = 64, 128
LOG = encoders.MODELS / "learning" / "train_encoders.log"


def main() -> None:
    """Train its last hidden states but one and its pooled vector, and store it."""
    import torch

    torch.set_num_threads(1)
    tokenizer = encoders.load_tokenizer(encoders.CLIP_TOKENIZER)
    clip = _new_clip(tokenizer)
    unfold = torch.nn.Linear(WIDTH, 6 * WIDTH)  # one pooled vector cannot be attended over

    def read(captions: list[str]) -> list[torch.Tensor]:
        made = clip(
            encoders.tokens_of(tokenizer, captions, torch.device("cpu"))["input_ids"], output_hidden_states=True
        )
        return [made.hidden_states[-2], unfold(made.text_embeds).view(len(captions), -1, WIDTH)]

    _train("clip", clip, read, [*clip.parameters(), *unfold.parameters()], steps=600, rate=1e-3, seed=21)
    store(clip, encoders.CLIP_2)


def _new_clip(tokenizer: Any) -> Any:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(21)
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            hidden_act="gelu",
            max_position_embeddings=encoders.TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _train(
    name: str,
    encoder: Any,
    read: Any,
    trained: list[torch.nn.Parameter],
    *,
    steps: int,
    rate: float,
    seed: int,
) -> None:
    """Train weights with a readout for each of the states that `read` returns."""
    import torch

    rng = random.Random(seed)
    started = time.monotonic()
    with torch.no_grad():
        readouts = [Readout() for _ in read(["a"])]
    weights = [*trained, *(weight for readout in readouts for weight in readout.weights())]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * cosine(step, steps)
        scenes = random_scenes(BATCH, rng, "train")
        found = read([caption(scene, rng) for scene in scenes])
        judged = [readout.judge(states, scenes) for readout, states in zip(readouts, found, strict=True)]
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack([loss for loss, _ in judged]).sum())
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            shown = " ".join(f"loss {loss.item():.4f} right {100 * right:.0f} %" for loss, right in judged)
            line = f"{name} {step + 1}/{steps} {shown}, {time.monotonic() - started:.0f} s"
            print(line, flush=True)
            with LOG.open("a") as file:
                file.write(line + "\n")
    encoder.eval()


if __name__ == "__main__":
    main()
