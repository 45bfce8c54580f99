"""Feature networks of random weights: the same path as CLIP and DINOv2, without their files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffopt.bench.features import TransformersFeatures, gaussian_kernel, network_here
from diffopt.bench.fidelity import kernel_distance
from diffopt.bench.resident import Images
from diffopt.ir.errors import DiffoptError


def pictures(count: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).random((count, 20, 24, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP with its tokenizer."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

    folder = tmp_path_factory.mktemp("clip")
    letters = list("abcdefghijklmnopqrstuvwxyz")
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=len(tokens), max_position_embeddings=16, bos_token_id=0, eos_token_id=1, **small)
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **small).to_dict(),
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), unk_token="<|endoftext|>",
        bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DINOv2 in the layout of the hub's cache."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    cache = tmp_path_factory.mktemp("hub")
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(cache / "models--facebook--dinov2-small" / "snapshots" / "abc")
    return cache


def test_embeddings_have_unit_length_and_tell_images_apart(clip: Path) -> None:
    network = TransformersFeatures(clip)
    features = network.features(pictures(3))
    assert features.shape == (3, 8)
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert not np.allclose(features[0], features[1])
    assert np.array_equal(features, network.features(pictures(3)))


def test_clip_tells_how_well_an_image_follows_its_prompt(clip: Path) -> None:
    found = TransformersFeatures(clip).adherence(pictures(2), ["a cat", "a dog"])
    assert found is not None
    assert found.shape == (2,)
    assert np.abs(found).max() <= 1


def test_a_network_in_the_cache_is_found_and_reads_no_prompts(dino: Path) -> None:
    network = network_here(dino)
    assert network is not None
    assert network.features(pictures(2)).shape == (2, 16)
    assert network.adherence(pictures(2), ["a", "b"]) is None


def test_where_there_is_none_nothing_is_downloaded(tmp_path: Path) -> None:
    assert network_here(tmp_path) is None
    with pytest.raises(DiffoptError, match="no such feature network"):
        network_here(tmp_path, "openai/clip-vit-base-patch32")


def test_the_distance_of_equal_sets_is_zero_and_grows_with_the_shift() -> None:
    features = np.random.default_rng(0).normal(size=(30, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = [kernel_distance(features + shift, features, gaussian_kernel) for shift in (0.0, 0.2, 0.5)]
    assert found[0] == pytest.approx(0.0, abs=1e-9)
    assert found[0] < found[1] < found[2]
