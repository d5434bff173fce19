"""Inputs from a Hugging Face configuration: by the argument names of forward, tried until the model accepts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynstab.core.errors import InputError
from dynstab.loading import Inputs, LoadedModel, infer_inputs


class Configured(nn.Module):
    """A module with a configuration and a main input."""

    def __init__(self, main: str, **config: Any) -> None:
        super().__init__()
        self.main_input_name, self.config = main, SimpleNamespace(model_type="small", **config)
        self.embedding = nn.Embedding(7, 4)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def made(module: nn.Module) -> Inputs:
    return infer_inputs(LoadedModel(module=module, source="small", format="module"), samples=3)


class Text(Configured):
    def forward(self, input_ids: Tensor) -> Tensor:
        return self.embedding(input_ids)


def test_tokens_stay_below_the_rows_of_the_embedding() -> None:
    tokens = made(Text("input_ids", vocab_size=1000)).kwargs["input_ids"]
    assert tokens.shape == (3, 16) and tokens.max() < 7
    assert made(Text("input_ids")).kwargs["input_ids"].max() < 7


class Clip(Configured):
    def forward(self, pixel_values: Tensor) -> Tensor:
        batch, frames, channels, height, width = pixel_values.shape
        return pixel_values.reshape(batch, frames, channels * height * width)


def test_a_model_of_clips_gets_frames() -> None:
    nested = SimpleNamespace(model_type="vision", image_size=8, num_channels=2, num_frames=5)
    assert made(Clip("pixel_values", vision_config=nested)).kwargs["pixel_values"].shape == (3, 5, 2, 8, 8)


class Packed(Configured):
    def forward(self, hidden_states: Tensor, grid_thw: Tensor) -> Tensor:
        patches = int(grid_thw.prod(-1).sum())
        return hidden_states.reshape(patches, 3 * 2 * 4 * 4)


def test_packed_patches_agree_with_their_grid() -> None:
    kwargs = made(Packed("hidden_states", patch_size=4, in_channels=3, temporal_patch_size=2)).kwargs
    assert kwargs["grid_thw"].shape == (3, 3) and len(kwargs["hidden_states"]) == int(kwargs["grid_thw"].prod(-1).sum())


class Masked(Configured):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, bbox: Tensor) -> Tensor:
        return self.embedding(input_ids) * attention_mask.unsqueeze(-1) + bbox.sum(-1, keepdim=True)


def test_what_forward_insists_on_comes_along() -> None:
    kwargs = made(Masked("input_ids")).kwargs
    assert torch.equal(kwargs["attention_mask"], torch.ones(3, 16, dtype=torch.int64))
    assert kwargs["bbox"].shape == (3, 16, 4)


class Picky(Configured):
    def forward(self, input_ids: Tensor) -> Tensor:
        raise ValueError(f"no answer to {input_ids.ndim} dimensions of {input_ids.dtype}")


def test_the_message_quotes_the_answer_to_the_likeliest_input() -> None:
    with pytest.raises(
        InputError, match="the answer to the first was: ValueError: no answer to 2 dimensions of torch.int64"
    ):
        made(Picky("input_ids"))
