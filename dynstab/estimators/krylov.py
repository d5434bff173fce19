"""A block Krylov space of a square operator: what Arnoldi and Lanczos share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dynstab.estimators.adapters import rounding_of
from dynstab.estimators.orthogonal import complete, extend, random_frame
from dynstab.estimators.result import non_finite_samples
from dynstab.linear.operator import LinearOperator


class KrylovSpace:
    """The growing orthonormal basis V and its images S V.

    Args:
        operator: J, square. image: columns (samples, size, k) -> S times them; `cost` products a column.
        width: columns that are added at a time, random ones at first.

    Attributes:
        basis, images: (samples, size, j); zero columns of the basis stand for no direction.
        norm: (samples,), float64, the longest image seen: a lower bound of ||S||.
        bad: (samples,), where an image was not finite. products: spent, per sample.
        exhausted: the basis fills the space, or an invariant part of it.
    """

    def __init__(
        self, operator: LinearOperator, image: Callable[[Tensor], Tensor], *, cost: int, width: int, seed: int
    ) -> None:
        self.operator, self.image, self.cost = operator, image, cost
        self.next = random_frame(
            operator.samples, operator.cols, width, seed=seed, dtype=operator.dtype, device=operator.device
        )
        self.basis = self.images = self.next[:, :, :0]
        self.bad = torch.zeros(operator.samples, dtype=torch.bool, device=operator.device)
        self.norm = torch.zeros(operator.samples, dtype=torch.float64, device=operator.device)
        self.products, self.exhausted = 0, False

    @property
    def noise(self) -> Tensor:
        """(samples,): what rounding does to an eigenvalue."""
        return 16 * rounding_of(self.operator) * self.norm

    def expand(self) -> None:
        """Add a block and its image."""
        image = self.image(self.next)
        self.bad = self.bad | non_finite_samples(image)
        image = image.masked_fill(self.bad[:, None, None], 0.0)
        self.norm = torch.maximum(self.norm, image.double().norm(dim=1).amax(dim=1))
        self.basis = torch.cat([self.basis, self.next], dim=2)
        self.images = torch.cat([self.images, image], dim=2)
        self.products += self.cost * self.next.shape[2]
        fresh, _ = extend(self.basis, image, scale=self.norm)
        self.next = complete(self.basis, fresh, seed=self.products)
        self.exhausted = not bool((self.next[~self.bad] != 0).any())
