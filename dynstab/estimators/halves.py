"""The two halves of a state, positions and momenta, and maps written in the places of their source.

A state is in halves where it is two tensors of equal shape, or one tensor with an even number of features,
whose first half pairs with the second. On the halves acts W = [[0, I], [-I, 0]].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.estimators.reordered import Reordered
from dynstab.linear.layout import Layout
from dynstab.linear.operator import LinearOperator


@dataclass(frozen=True, kw_only=True, eq=False)
class Halves:
    """Rows of a column (samples, size, k) that belong to the first and to the second half: (size / 2,) each."""

    first: Tensor
    second: Tensor

    def swapped(self) -> Halves:
        return Halves(first=self.second, second=self.first)

    def rotate(self, columns: Tensor) -> Tensor:
        """W X."""
        turned = torch.empty_like(columns)
        turned[:, self.first], turned[:, self.second] = columns[:, self.second], -columns[:, self.first]
        return turned


def halves_of(layout: Layout, feature_dim: int | None) -> Halves | None:
    """The halves of a state of that layout, None where it has none.

    Args:
        feature_dim: the dimension that is cut in two, of a state of one tensor; the last where None.
    """
    shapes = layout.shapes
    if len(shapes) == 2 and shapes[0] == shapes[1]:
        parts = [torch.zeros(shapes[0]), torch.ones(shapes[1])]
    elif len(shapes) == 1 and shapes[0]:
        dim = len(shapes[0]) - 1 if feature_dim is None else feature_dim
        size = shapes[0][dim]
        if size % 2 or (layout.samples > 1 and layout.sample_dims[0] == dim):
            return None
        side = [size if i == dim else 1 for i in range(len(shapes[0]))]
        parts = [(torch.arange(size) >= size // 2).double().reshape(side).expand(shapes[0])]
    else:
        return None
    upper = layout.flatten(tuple(part[None] for part in parts))[0, :, 0] > 0
    return Halves(first=(~upper).nonzero()[:, 0], second=upper.nonzero()[:, 0])


def in_place(operator: LinearOperator, source: Halves, target: Halves, probe: Tensor) -> Reordered:
    """J with its rows where the source has them, so that J - I is the Jacobian of the update.

    A state of two tensors may list them in another order after a step than before: the halves of the
    target are taken in that order in which the map is nearer to the identity.

    Args:
        probe: columns (samples, size, k) to tell by.
    """
    image = operator.matmat(probe)
    places = [_places(source, each) for each in (target, target.swapped())]
    near, far = (float((image[:, place] - probe).norm()) for place in places)
    return Reordered(operator, rows=places[0] if near <= far else places[1])


def _places(source: Halves, target: Halves) -> Tensor:
    """Where the target lists what the source lists at each position."""
    place = torch.empty(2 * len(source.first), dtype=torch.long)
    place[source.first], place[source.second] = target.first, target.second
    return place
