"""Products by one large matrix: joined where they are independent, with the same results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dynstab.capture.joint_products import join_products
from dynstab.capture.straight_line import traced_line

aten = torch.ops.aten
PRODUCTS = (aten.mv.default, aten.mm.default, aten.addmm.default)
SIZE = 400
W = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / SIZE**0.5
OTHER = W.clone()
BIAS = torch.linspace(-1, 1, SIZE, dtype=torch.float64)


def vector_step(h: Tensor, tangents: Tensor) -> tuple[Tensor, ...]:
    x = torch.tanh(h)
    return W @ x, (tangents * (1 - x * x)) @ W.T


def cell_step(h: Tensor, tangents: Tensor) -> tuple[Tensor, ...]:
    after = torch.tanh(torch.addmm(BIAS, h, W.T))
    return after, (tangents @ W.T) * (1 - after * after)


def several(step: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    def run(h: Tensor, tangents: Tensor) -> tuple[Tensor, ...]:
        for _ in range(3):
            h, tangents = step(h, tangents)
        return h, tangents

    return run


def joined(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> int:
    """The products that are left, once the line is seen to give what the function does."""
    line = join_products(traced_line(function, arguments))
    line.graph.lint()
    for found, expected in zip(line(*arguments), function(*arguments), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    return sum(node.target in PRODUCTS for node in line.graph.nodes)


def state(*shape: int) -> Tensor:
    return torch.randn(*shape, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_step_and_its_tangents_take_one_product() -> None:
    assert joined(several(vector_step), state(), state(10)) == 3
    assert joined(several(cell_step), state(1), state(5)) == 3


def test_a_product_that_waits_for_another_is_not_joined_with_it() -> None:
    assert joined(lambda h, v: (W @ (W @ h), v + 1), state(), state(2)) == 2
    assert joined(crossed, state(1), state(1)) == 3


def crossed(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
    """A and b may be joined, and c and d, but not both: b needs d, and c needs a."""
    a = first @ W
    c = torch.tanh(a) @ OTHER
    d = second @ OTHER
    b = torch.tanh(d) @ W
    return a, b, c, d


def test_other_matrices_and_small_ones_are_left_alone() -> None:
    small = torch.eye(20, dtype=torch.float64)
    assert joined(lambda h, v: (h @ W, v @ OTHER), state(1), state(2)) == 2
    assert joined(lambda h, v: (h @ W, v @ W.T), state(1), state(2)) == 2
    few = torch.ones(1, 20, dtype=torch.float64)
    assert joined(lambda h, v: (h @ small, v @ small), few, few) == 2


@pytest.mark.parametrize("k", [3, 10])
def test_a_long_line_stays_in_an_order_that_runs(k: int) -> None:
    assert joined(several(several(vector_step)), state(), state(k)) == 9
