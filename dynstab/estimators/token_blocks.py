"""Eigenvalues and determinant from diagonal blocks.

A causal transformer's Jacobian is block lower triangular in the tokens: its eigenvalues are the union
of those of the T diagonal blocks of d x d, and its determinant is the product of theirs.

References:
    Golub & Van Loan (2013), Matrix Computations, section 7.1 (block triangular matrices).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.dense import SINGULAR_TO_ROUNDING, dense_spectrum, eigenvalues
from dynstab.estimators.result import Result


def block_eigenvalues(blocks: Tensor, *, products: int = 0) -> Result:
    """Eigenvalues of the block triangular matrix with these diagonal blocks, by descending modulus.

    Args:
        blocks: (samples, T, d, d).

    Returns:
        complex128 values (samples, T * d); exact where the matrix is block triangular.

    Raises:
        ValueError: the blocks are not square.
    """
    samples, tokens, flat = _flat(blocks)
    found = eigenvalues(flat, products=products)
    values, errors = found.values.reshape(samples, -1), found.errors.reshape(samples, -1)
    order = values.abs().nan_to_num(nan=-1.0).argsort(dim=1, descending=True)
    return Result(
        values=values.gather(1, order),
        errors=errors.gather(1, order),
        label=Label.EXACT,
        method=f"eigenvalues of {tokens} diagonal blocks of width {blocks.shape[-1]}",
        products=products,
        outcome=found.outcome.replace("inputs", "blocks"),
    )


def block_log_determinant(blocks: Tensor, *, products: int = 0) -> Result:
    """ln |det|, (samples, 1), of the block triangular matrix with these diagonal blocks (samples, T, d, d).

    -inf where a block as stored is singular; an upper bound where one only is to the rounding of its dtype.

    Raises:
        ValueError: the blocks are not square.
    """
    samples, tokens, flat = _flat(blocks)
    each = dense_spectrum(flat, products=products).log_determinant
    assert each is not None
    note = "" if each.label is Label.EXACT else f", {SINGULAR_TO_ROUNDING.replace('input', 'block')}"
    return Result(
        values=each.values.reshape(samples, tokens).sum(dim=1, keepdim=True),
        errors=each.errors.reshape(samples, tokens).sum(dim=1, keepdim=True),
        label=each.label,
        method=f"determinants of {tokens} diagonal blocks of width {blocks.shape[-1]}{note}",
        products=products,
        outcome=each.outcome.replace("inputs", "blocks"),
    )


def _flat(blocks: Tensor) -> tuple[int, int, Tensor]:
    samples, tokens, rows, cols = blocks.shape
    if rows != cols:
        raise ValueError(f"eigenvalues need square blocks, got {rows} x {cols}")
    return samples, tokens, torch.flatten(blocks, 0, 1)
