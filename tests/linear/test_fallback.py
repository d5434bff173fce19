"""Ops without a rule: each route gives the same Jacobian, and says which it was."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from dynstab.core.errors import DynstabError
from dynstab.linear.evaluator import evaluate
from dynstab.linear.tape import Tape

aten = torch.ops.aten


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_op(op: Any, x: Tensor, *rest: Any) -> Tape:
    graph = fx.Graph()
    source = graph.placeholder("x")
    target = graph.call_function(op, (source, *rest))
    graph.output((target,))
    return Tape(graph.nodes, (source,), (target,), evaluate(fx.GraphModule(nn.Module(), graph), [x]))


class SquareForward(torch.autograd.Function):
    """x^2 with a forward mode, and a backward that cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * cotangent

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * tangent


def forward_square(x: Tensor) -> Tensor:
    return SquareForward.apply(x)


def numpy_square(x: Tensor) -> Tensor:
    """An op that torch cannot see into."""
    return torch.from_numpy(x.detach().numpy() ** 2)


def backward_only_square(x: Tensor) -> Tensor:
    return BackwardOnly.apply(x)


class BackwardOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * cotangent


def test_double_backward_serves_both_directions() -> None:
    x, moving = randn(2, 5), randn(3, 2, 5, seed=1)
    tape = one_op(aten.logcumsumexp.default, x, 1)
    expected = torch.func.vmap(lambda t: torch.func.jvp(lambda x: x.logcumsumexp(1), (x,), (t,))[1])(moving)
    torch.testing.assert_close(tape.push((moving,))[0], expected)
    cotangents = randn(3, 2, 5, seed=2)
    (pulled,) = tape.pull((cotangents,))
    torch.testing.assert_close((pulled * moving).sum(), (expected * cotangents).sum())
    assert tape.routes == {"double backward: aten.logcumsumexp": 1}


def test_an_output_that_autograd_holds_constant_does_not_move() -> None:
    graph = fx.Graph()
    source = graph.placeholder("x")
    normed = graph.call_function(aten.native_layer_norm.default, (source, [5], None, None, 1e-5))
    inverse = graph.call_function(operator.getitem, (normed, 2))
    graph.output((inverse,))
    values = evaluate(fx.GraphModule(nn.Module(), graph), [randn(2, 5)])
    tape = Tape(graph.nodes, (source,), (inverse,), values)
    assert not tape.push((randn(1, 2, 5),))[0].any()
    assert not tape.pull((randn(1, 2, 1),))[0].any()


@pytest.mark.parametrize(
    "op, route, tolerance",
    [
        (forward_square, "forward mode: forward_square", 1e-12),
        (backward_only_square, "transposition: backward_only_square", 1e-12),
    ],
)
def test_an_op_with_one_derivative_each_way(op: Any, route: str, tolerance: float) -> None:
    x, moving = randn(5), randn(3, 5, seed=1)
    tape = one_op(op, x)
    torch.testing.assert_close(tape.push((moving,))[0], 2 * x * moving, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(tape.pull((moving,))[0], 2 * x * moving)
    assert tape.routes == {route: 1}


def test_differences_give_the_push_of_an_op_without_any_derivative_and_no_pull() -> None:
    x, moving = randn(5), randn(3, 5, seed=1)
    tape = one_op(numpy_square, x)
    torch.testing.assert_close(tape.push((moving,))[0], 2 * x * moving, rtol=1e-8, atol=1e-8)
    with pytest.raises(DynstabError, match="numpy_square has no backward"):
        tape.pull((moving,))


def test_complex_values_are_linearised_as_real_maps() -> None:
    x, moving = randn(8), randn(3, 8, seed=1)
    graph = fx.Graph()
    source = graph.placeholder("x")
    spectrum = graph.call_function(aten._fft_r2c.default, (source, [0], 0, True))
    target = graph.call_function(aten.abs.default, (spectrum,))
    graph.output((target,))
    tape = Tape(graph.nodes, (source,), (target,), evaluate(fx.GraphModule(nn.Module(), graph), [x]))
    dense = torch.autograd.functional.jacobian(lambda x: torch.fft.rfft(x).abs(), x)
    torch.testing.assert_close(tape.push((moving,))[0], moving @ dense.T)
    cotangents = randn(3, 5, seed=2)
    torch.testing.assert_close(tape.pull((cotangents,))[0], cotangents @ dense)
