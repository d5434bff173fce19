"""The tape of a whole function is its Jacobian, and its plan does no more than it must."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dynstab.capture.capture import capture_function
from dynstab.linear.evaluator import Evaluator, evaluate
from dynstab.linear.tape import Tape

aten = torch.ops.aten


def tape_of(f: Callable[..., Tensor], *inputs: Tensor) -> Tape:
    graph = capture_function(f, inputs)
    values = evaluate(graph.module, graph.arguments())
    return Tape(graph.module.graph.nodes, tuple(graph.input_nodes), graph.outputs, values)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Attention(nn.Module):
    """A causal pre-norm block written with the fused attention of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


def gelu_by_hand(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))


def gated(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return F.silu(a) * b + x.mean(-1, keepdim=True)


def rms_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * torch.arange(1.0, 7.0, dtype=x.dtype)


def mixed_signs(x: Tensor) -> Tensor:
    return torch.where(x > 0, x.sin(), x * x.flip(0)) + x.masked_fill(x > 1, 0.0).cumsum(-1)


def recurrent(x: Tensor) -> Tensor:
    return GRU(x)[0]


def network(*layers: nn.Module, training: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double().train(training)


GRU = nn.GRU(3, 4).double()
CONVOLUTIONAL = (nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2))
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "mlp": (network(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(-1)), randn(2, 6)),
    "convolutional, fixed statistics": (network(*CONVOLUTIONAL, nn.Flatten(), nn.Linear(16, 3)), randn(2, 2, 4, 4)),
    "convolutional, of the batch": (network(*CONVOLUTIONAL, training=True), randn(3, 2, 4, 4)),
    "transposed convolution": (network(nn.ConvTranspose2d(2, 3, 2, stride=2), nn.GroupNorm(3, 3)), randn(2, 2, 3, 3)),
    "attention": (network(Attention(), Attention()), randn(2, 4, 8)),
    "recurrent": (recurrent, randn(5, 2, 3)),
    "a chain of pointwise ops": (gelu_by_hand, randn(2, 6)),
    "two roots": (gated, randn(2, 6)),
    "broadcast roots": (rms_norm, randn(2, 6)),
    "branches": (mixed_signs, randn(3, 6)),
    "sort": (lambda x: x.sort(-1).values[..., 1:].prod(-1), randn(2, 6)),
    "norms": (lambda x: x / x.norm(dim=-1, keepdim=True) + torch.logsumexp(x, 0) + x.var(), randn(2, 6)),
    "einsum": (lambda x: torch.einsum("bi,bj->ij", x, x.exp()), randn(2, 6)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tape_equals_autograd(name: str) -> None:
    f, x = FUNCTIONS[name]
    tape = tape_of(f, x)
    dense = torch.autograd.functional.jacobian(lambda x: f(x), x).reshape(-1, x.numel())
    (pushed,) = tape.push((torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape),))
    (pulled,) = tape.pull((torch.eye(dense.shape[0], dtype=x.dtype).reshape(-1, *tape.target_values[0].shape),))
    scale = dense.abs().max()
    torch.testing.assert_close(pushed.reshape(x.numel(), -1).T / scale, dense / scale, rtol=0, atol=1e-10)
    torch.testing.assert_close(pulled.reshape(dense.shape[0], -1) / scale, dense / scale, rtol=0, atol=1e-10)
    assert set(tape.routes) == {"rule"}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-6), (torch.bfloat16, 5e-2)])
def test_lower_precision_tangents_agree_and_keep_their_dtype(dtype: torch.dtype, tolerance: float) -> None:
    net, x = FUNCTIONS["mlp"]
    tangents = randn(3, *x.shape, seed=1)
    graph = capture_function(net, (x,))

    def push(dtype: torch.dtype) -> Tensor:
        values = evaluate(graph.module, [tensor.to(dtype) for tensor in graph.arguments()])
        tape = Tape(graph.module.graph.nodes, tuple(graph.input_nodes), graph.outputs, values)
        return tape.push((tangents.to(dtype),))[0]

    exact, lower = push(torch.float64), push(dtype)
    assert lower.dtype == dtype
    assert (lower.double() - exact).norm() <= tolerance * exact.norm()


def test_float32_attention_agrees_with_float64() -> None:
    f, x = FUNCTIONS["attention"]
    tangents = randn(3, *x.shape, seed=1)
    (exact,) = tape_of(f, x).push((tangents,))
    (single,) = tape_of(copy.deepcopy(f).float(), x.float()).push((tangents.float(),))  # type: ignore[attr-defined]
    assert (single.double() - exact).norm() <= 3e-6 * exact.norm()


def test_a_cast_inside_keeps_every_tangent_in_the_dtype_of_its_value() -> None:
    x = randn(2, 6).float()
    tape = tape_of(lambda x: torch.softmax(x * 2, -1, dtype=torch.float64).float() * x, x)
    (pushed,), (pulled,) = tape.push((torch.ones(1, 2, 6),)), tape.pull((torch.ones(1, 2, 6),))
    assert pushed.dtype == pulled.dtype == torch.float32
    p = torch.softmax(x * 2, -1)
    torch.testing.assert_close(pushed[0], p)  # a shift of all entries leaves the softmax as it is


def test_chain_of_pointwise_ops_costs_one_multiplication() -> None:
    tape = tape_of(gelu_by_hand, randn(2, 6))
    assert len(tape.plan.records) == 8
    assert len(tape.plan.executed) == 1


def test_ops_off_the_way_from_source_to_target_are_not_linearised() -> None:
    def f(x: Tensor) -> Tensor:
        x.exp().sum()
        return x.sin() * torch.arange(6.0).cos()

    assert len(tape_of(f, randn(6)).plan.records) == 2


def test_source_that_is_also_a_target_passes_through() -> None:
    x = randn(4)
    graph = capture_function(lambda x: x.sin(), (x,))
    values = evaluate(graph.module, graph.arguments())
    (source,), (target,) = graph.input_nodes, graph.outputs
    tape = Tape(graph.module.graph.nodes, (source,), (source, target), values)
    tangents = randn(2, 4, seed=1)
    same, moved = tape.push((tangents,))
    torch.testing.assert_close(same, tangents)
    torch.testing.assert_close(moved, tangents * x.cos())
    torch.testing.assert_close(tape.pull((tangents, tangents))[0], tangents * (1 + x.cos()))


def test_several_sources_are_independent_even_where_one_depends_on_another() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    y = graph.call_function(aten.sin.default, (x,))
    z = graph.call_function(aten.mul.Tensor, (x, y))
    graph.output((z,))
    values = evaluate(fx.GraphModule(nn.Module(), graph), [randn(4)])
    tape = Tape(graph.nodes, (x, y), (z,), values)
    dx, dy = randn(2, 4, seed=1), randn(2, 4, seed=2)
    torch.testing.assert_close(tape.push((dx, dy))[0], dx * values[y] + dy * values[x])


def test_a_target_out_of_reach_does_not_move() -> None:
    tape = tape_of(lambda x: x.detach() * 2, randn(4))
    assert not tape.depends
    assert not tape.push((randn(2, 4),))[0].any()
    assert not tape.pull((randn(2, 4),))[0].any()


def test_unused_results_of_an_op_receive_no_cotangent() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    pieces = graph.call_function(aten.split.Tensor, (x, 2))
    second = graph.call_function(operator.getitem, (pieces, 1))
    again = graph.call_function(operator.getitem, (pieces, 1))
    total = graph.call_function(aten.add.Tensor, (second, again))
    graph.output((total,))
    values = evaluate(fx.GraphModule(nn.Module(), graph), [randn(6)])
    tape = Tape(graph.nodes, (x,), (total,), values)
    assert tape.pull((torch.ones(1, 2, dtype=torch.float64),))[0].tolist() == [[0.0, 0.0, 2.0, 2.0, 0.0, 0.0]]


def test_sweeps_leave_their_arguments_alone() -> None:
    f, x = FUNCTIONS["attention"]
    tape = tape_of(f, x)
    tangents = randn(3, *x.shape)
    kept = tangents.clone()
    tape.push((tangents,))
    tape.pull((tangents,))
    torch.testing.assert_close(tangents, kept, rtol=0, atol=0)


def test_a_plan_serves_every_run_of_its_graph() -> None:
    f, x = FUNCTIONS["two roots"]
    graph = capture_function(f, (x,))
    evaluator = Evaluator(graph.module)
    source, target = tuple(graph.input_nodes), graph.outputs
    first = Tape(evaluator.nodes, source, target, evaluator(graph.arguments()))
    other, tangents = randn(2, 6, seed=5), randn(1, 2, 6, seed=6)
    second = Tape(evaluator.nodes, source, target, evaluator([other]), first.plan)
    expected = torch.func.jvp(f, (other,), (tangents[0],))[1]
    torch.testing.assert_close(second.push((tangents,))[0][0], expected)


def test_peak_counts_what_is_alive_at_once() -> None:
    width, depth = 100, 20
    net = network(*[layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())])
    peak = tape_of(net, randn(1, width)).plan.peak_bytes
    assert 2 * width * 8 <= peak <= 6 * width * 8
