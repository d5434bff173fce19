"""Eigenvalues of small matrices with their condition numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.linalg
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Eigensystem:
    """Of (samples, d, d): complex128 values (samples, d), unit right vectors (samples, d, d) and condition
    numbers 1/|x^H y| (samples, d) of the values, infinite where they are defective."""

    values: Tensor
    vectors: Tensor
    conditions: Tensor


def eigensystem(matrices: Tensor) -> Eigensystem:
    """By LAPACK on the CPU, which gives left and right vectors in one run; NaN where it does not converge."""
    found = [_one(matrix) for matrix in matrices.double().cpu().numpy()]
    parts = zip(*found, strict=True)
    values, vectors, conditions = (torch.as_tensor(np.stack(part)).to(matrices.device) for part in parts)
    return Eigensystem(values=values, vectors=vectors, conditions=conditions)


def _one(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        # The stub's union of tuples depends on flags that it cannot see.
        values, left, right = cast(tuple[np.ndarray, ...], scipy.linalg.eig(matrix, left=True, right=True))
    except np.linalg.LinAlgError:
        size = len(matrix)
        return np.full(size, np.nan + 0j), np.full((size, size), np.nan + 0j), np.full(size, np.inf)
    overlap = np.abs((left.conj() * right).sum(axis=0))
    with np.errstate(divide="ignore"):
        return values.astype(complex), right.astype(complex), 1 / overlap
