"""`jacobian` and `Linearizer`: any function, any shape, and clear words where there is no Jacobian."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynstab.core.errors import CaptureError, InputError
from dynstab.linear.jacobian import jacobian
from dynstab.linear.linearizer import Linearizer


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


WEIGHT = randn(5, 5, seed=9)


def recurrence(h: Tensor) -> Tensor:
    return WEIGHT @ torch.tanh(h)


def tent(x: Tensor) -> Tensor:
    return 2 * x if x.sum().item() < 0.5 else 2 - 2 * x


def test_dense_is_the_matrix_of_partial_derivatives() -> None:
    h = randn(5)
    J = jacobian(recurrence, h)
    torch.testing.assert_close(J.dense(), WEIGHT * (1 - torch.tanh(h) ** 2))
    assert J.shape == (5, 5)
    assert J.routes == {"rule": 2}


def test_shapes_are_those_of_the_function() -> None:
    torch.manual_seed(0)
    net, x = nn.Conv2d(2, 3, 3).double(), randn(2, 2, 5, 4)
    J = jacobian(net, x)
    assert J.push(randn(7, 2, 2, 5, 4)).shape == (7, 2, 3, 3, 2)
    assert J.pull(randn(7, 2, 3, 3, 2)).shape == (7, 2, 2, 5, 4)
    expected = torch.func.jacrev(net)(x).reshape(36, 80)
    torch.testing.assert_close(J.dense(), expected)


def test_dense_takes_the_shorter_side_to_the_same_matrix() -> None:
    x = randn(6)
    wide = jacobian(lambda x: x[:2].exp() * x.sum(), x)
    tall = jacobian(lambda x: torch.cat([x, x**2, x.sin()]), x)
    torch.testing.assert_close(wide.dense(), torch.func.jacrev(lambda x: x[:2].exp() * x.sum())(x))
    torch.testing.assert_close(tall.dense(), torch.func.jacrev(lambda x: torch.cat([x, x**2, x.sin()]))(x))


def test_a_model_keeps_its_gradients_and_its_mode() -> None:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0)).double().train(), randn(2, 4).requires_grad_()
    jacobian(net, x).push(randn(1, 2, 4))
    assert net.training and x.grad is None and all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_linearizer_follows_the_point() -> None:
    linearize = Linearizer(recurrence, randn(5))
    for seed in range(4):
        h = randn(5, seed=seed)
        y, operator = linearize(h)
        torch.testing.assert_close(y, recurrence(h))
        torch.testing.assert_close(operator.dense()[0], WEIGHT * (1 - torch.tanh(h) ** 2))


def test_a_linearizer_of_several_tensors() -> None:
    def step(h: Tensor, c: Tensor) -> dict[str, Any]:
        return {"h": h * c, "count": torch.tensor(3), "c": c.sin()}

    linearize = Linearizer(step, (randn(3), randn(3, seed=1)))
    h, c = randn(3, seed=2), randn(3, seed=3)
    (first, second), operator = linearize((h, c))
    torch.testing.assert_close(first, h * c)
    torch.testing.assert_close(second, c.sin())
    expected = torch.cat(
        [
            torch.cat([torch.diag(c), torch.diag(h)], 1),
            torch.cat([torch.zeros(3, 3, dtype=h.dtype), torch.diag(c.cos())], 1),
        ]
    )
    torch.testing.assert_close(operator.dense()[0], expected)


@pytest.mark.parametrize("value, slope", [(0.3, 2.0), (0.8, -2.0)])
def test_a_branch_on_values_is_captured_for_each_way_it_takes(value: float, slope: float) -> None:
    linearize = Linearizer(tent, torch.tensor([0.3]))
    y, operator = linearize(torch.tensor([value]))
    torch.testing.assert_close(y, tent(torch.tensor([value])))
    assert operator.dense().tolist() == [[[slope]]]
    assert operator.rmatmat(torch.ones(1, 1, 1)).tolist() == [[[slope]]]
    assert not any(route.startswith("torch.func") for route in operator.routes)


def test_a_branch_that_is_taken_late_has_its_own_derivative_there() -> None:
    def rare(x: Tensor) -> Tensor:
        return x * 2 if x.abs().max().item() < 1e6 else x * 3

    linearize = Linearizer(rare, torch.zeros(3))
    for size, slope in ((1.0, 2.0), (1e7, 3.0), (2.0, 2.0), (3.0, 2.0), (2e7, 3.0)):
        after, operator = linearize(torch.full((3,), size))
        assert isinstance(after, Tensor) and after.tolist() == [slope * size] * 3
        assert operator.dense()[0].equal(slope * torch.eye(3))


def test_a_function_that_changes_is_an_error_and_never_a_wrong_number() -> None:
    slope = [2.0]
    linearize = Linearizer(lambda x: x * slope[0], torch.ones(3))
    linearize(torch.ones(3))
    slope[0] = 3.0
    with pytest.raises(CaptureError, match="call 2"):
        linearize(torch.ones(3))


def test_a_function_that_leaves_torch_in_forward_mode_still_has_both_products() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(ctx: Any, cotangent: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0] * cotangent

    x = randn(4)
    J = jacobian(lambda x: Square.apply(x) if x.sum().item() < 1e9 else x, x)
    torch.testing.assert_close(J.dense(), torch.diag(2 * x))


def test_a_domain_that_the_neighbourhood_leaves_is_no_branch() -> None:
    def f(x: Tensor) -> Tensor:
        if x.min().item() <= 0:
            raise ValueError("only positive numbers")
        return x.log()

    x = torch.tensor([1e-3, 1.0], dtype=torch.float64)
    assert jacobian(f, x).routes == {"rule": 1}


def test_scalars_and_no_tangents_at_all() -> None:
    J = jacobian(lambda x: x.sin() * x, torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(
        J.dense()[0, 0], torch.tensor(0.3).double().cos() * 0.3 + torch.tensor(0.3).double().sin()
    )
    assert jacobian(recurrence, randn(5)).push(torch.zeros(0, 5, dtype=torch.float64)).shape == (0, 5)


@pytest.mark.parametrize(
    "f, x, message",
    [
        (recurrence, torch.arange(5), "int64; expected a floating-point tensor"),
        (recurrence, [1.0], "list; expected a tensor"),
        (recurrence, torch.zeros(0), "no entries"),
        (recurrence, randn(4), "f rejects"),
        (lambda x: 3, randn(4), "returns no floating-point tensor"),
        (lambda x: x.argmax(), randn(4), "returns no floating-point tensor"),
        (lambda x: x.detach() + 1, randn(4), "does not depend on x"),
        (lambda x: torch.ones(3), randn(4), "does not depend on x"),
        (lambda x: (x, x + 1), randn(4), "returns 2 floating-point tensors"),
    ],
)
def test_misuse_says_what_was_got_and_what_is_expected(f: Any, x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        jacobian(f, x)


def test_a_tangent_of_the_wrong_shape_is_named() -> None:
    J = jacobian(recurrence, randn(5))
    with pytest.raises(InputError, match=r"tangents of shape \(5,\); expected \(k, 5\)"):
        J.push(randn(5))
