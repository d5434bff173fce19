"""A state as one matrix an input: positions that share features, in rows."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.systems.trajectory import State


def columns_of(state: State) -> Tensor:
    """All entries of a state, (samples, size)."""
    return state.layout.flatten(tuple(tensor[None] for tensor in state.value))[:, :, 0]


def rms(state: State) -> Tensor:
    """Root mean square of the entries, (samples,), float64."""
    return root_mean_square(columns_of(state))


def root_mean_square(columns: Tensor) -> Tensor:
    """(samples, size) -> (samples,), float64."""
    return torch.linalg.vector_norm(columns, dim=1, dtype=torch.float64) / max(1, columns.shape[1]) ** 0.5


def token_matrix(state: State) -> Tensor | None:
    """(samples, positions, features) of the first tensor; None where no positions share features.

    Where the inputs influence each other (one sample), their positions count together.
    """
    if state.feature_dim is None or not state.value or state.value[0].ndim < 3:
        return None
    tensor, feature = state.value[0], state.feature_dim
    if state.layout.samples == 1:
        matrix = tensor.movedim(feature, -1).flatten(0, -2).unsqueeze(0)
    else:
        sample = state.layout.sample_dims[0]
        if sample == feature:
            return None
        matrix = tensor.movedim((sample, feature), (0, -1)).flatten(1, -2)
    return matrix if matrix.shape[1] > 1 else None


def shape_of_tokens(state: State) -> tuple[int, int]:
    """(positions, features) for one input; one position where no positions share features."""
    matrix = token_matrix(state)
    return (1, state.size) if matrix is None else (matrix.shape[1], matrix.shape[2])
