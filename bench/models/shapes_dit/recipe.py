"""Train demo:shapes-dit: the class in every block's normalization; demo:shapes teaches it, asked by the class's name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning import encoders
from diffopt.bench.models.learning.feed import DROPOUT, Feed, encode_images, encode_texts
from diffopt.bench.models.learning.folder import write_directory
from diffopt.bench.models.learning.objective import taught
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.learning.stable_diffusion import SHARED, trained_unet
from diffopt.bench.models.shapes import parts as shapes_parts
from diffopt.bench.models.shapes_dit import SHAPES_DIT
from diffopt.bench.models.shapes_dit.classes import NULL, attributes, labels

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn


@dataclass(frozen=True)
class DiTRecipe(Recipe):
    """See `Recipe`."""

    name: str = "dit"
    component: str = "transformer"
    pool: str = "single"
    batch: int = 64
    rate: float = 2e-3
    seed: int = 35
    decay: float = 0.99

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        import torch

        numbers = {name: number for number, name in labels().items()}
        classes = torch.tensor([numbers[caption] for caption in drawn.captions], device=device)
        vae = shapes_parts.load("vae").to(device)
        named = encode_texts(encoders.clip_last(device), [*labels().values(), ""])["states"]
        constants = {"alphas": shapes_parts.new_scheduler().alphas_cumprod.float().to(device), "named": named}
        return Feed(encode_images(vae, drawn.images), labels={"classes": classes}, constants=constants)

    def network(self) -> nn.Module:
        """See `Recipe`; it drops no class by itself, each block would do so on its own."""
        from diffusers import DiTTransformer2DModel

        network = DiTTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=4,
            attention_head_dim=16,
            num_attention_heads=4,
            norm_num_groups=8,
            num_embeds_ada_norm=NULL,
        )
        for classes in _class_embeddings(network):
            classes.dropout_prob = 0.0
        found: nn.Module = network
        return found

    def begun(self, network: nn.Module) -> nn.Module:
        """See `Recipe`; while it learns, a class is the sum of its attributes, so classes learn from each other."""
        for classes in _class_embeddings(network):
            classes.embedding_table = _summed(classes.embedding_table.weight.detach().cpu())
        return network

    def finished(self, network: nn.Module) -> nn.Module:
        """See `Recipe`; the sums become the table of classes that diffusers knows."""
        import torch

        done = copy.deepcopy(network)
        for classes in _class_embeddings(done):
            summed = classes.embedding_table
            with torch.no_grad():
                rows = summed(torch.arange(NULL + 1, device=summed.members.device))
            classes.embedding_table = torch.nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows)
        return done

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        import torch

        drawn, teacher = feed.draw(self.batch), trained_unet(feed.clean.device)
        dropped = torch.rand(self.batch, device=feed.clean.device) < DROPOUT
        classes = torch.where(dropped, NULL, drawn["classes"])
        states = feed.constants["named"][torch.where(dropped, -1, drawn["classes"])].float()

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(noisy, timestep=times, class_labels=classes, return_dict=False)[0]
            return made

        def teach(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            said: torch.Tensor = teacher(noisy, times, states, return_dict=False)[0]
            return said

        return taught(predict, teach, drawn["clean"], feed.constants["alphas"])

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import DiTPipeline

        return DiTPipeline(
            transformer=parts["transformer"],
            vae=shapes_parts.load("vae"),
            scheduler=shapes_parts.new_scheduler(),
            id2label=labels(),
        )

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        return {**SHAPES_DIT.inputs(prompts), "guidance_scale": 2.0}

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        write_directory(self.pipeline(parts), folder, {"vae": SHARED["vae"]})


def _class_embeddings(network: Any) -> list[Any]:
    return [block.norm1.emb.class_embedder for block in network.transformer_blocks]


def _summed(table: torch.Tensor) -> nn.Module:
    """Return a module that reads classes as sums of vectors to learn, one an attribute, and NULL as one of its own.

    They start as close to a table of classes [NULL + 1, width] as sums can.
    """
    import torch

    class Summed(torch.nn.Module):
        members: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            rows = attributes()
            nothing = max(map(max, rows)) + 1
            members = [list(row) for row in rows] + [[nothing] * len(rows[0])] * (NULL + 1 - len(rows))
            self.register_buffer("members", torch.tensor(members))
            counts = torch.nn.functional.one_hot(self.members, nothing + 1).sum(dim=1).float()
            self.vectors = torch.nn.Parameter(torch.linalg.pinv(counts) @ table)

        def forward(self, classes: torch.Tensor) -> torch.Tensor:
            return self.vectors[self.members[classes]].sum(dim=1)

    return Summed()


RECIPE = DiTRecipe()
