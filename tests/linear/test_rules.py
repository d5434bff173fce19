"""Every rule of the table agrees with autograd on the op itself."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dynstab.linear.evaluator import evaluate
from dynstab.linear.rules import RULES
from dynstab.linear.rules.table import FIRST_OUTPUT_ONLY, rule_name
from dynstab.linear.tape import Tape

aten = torch.ops.aten
TOLERANCE = 1e-10

# Ops that only one device or backend runs: they share the rule, and the argument names, of a twin that is tested.
DEVICE_ONLY = {
    "cudnn_batch_norm": "native_batch_norm",
}


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def positive(*shape: int) -> Tensor:
    """Entries in (0.1, 0.9): inside the domain of logit, acos, log and sqrt."""
    return 0.1 + 0.8 * torch.rand(*shape, dtype=torch.float64, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(0)
# Parameters of a case do not move.
FIXED = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), requires_grad=False)
INDEX = torch.tensor([2, 0, 0, 1])
MASK = torch.tensor([[True, False, True, True], [False, True, False, True], [True, True, False, False]])

UNIT_INTERVAL = """abs acos asin asinh atan celu cos cosh deg2rad digamma elu erf erfc erfinv exp exp2 expm1 frac gelu
hardshrink hardsigmoid hardswish hardtanh i0 leaky_relu lgamma log log10 log1p log2 logit mish nan_to_num neg rad2deg
reciprocal relu relu6 rsqrt selu sgn sigmoid silu sin sinc sinh softplus softshrink sqrt square special_entr
special_erfcx special_ndtr special_log_ndtr tan tanh atanh angle clone alias contiguous positive lift_fresh
lift_fresh_copy"""
BOTH_SIGNS = "abs elu gelu leaky_relu relu relu6 hardtanh hardswish mish silu softplus selu celu hardshrink"
TWO_TENSORS = "atan2 copysign.Tensor fmax fmin hypot logaddexp logaddexp2 maximum max.other minimum min.other"


def pointwise_cases() -> Iterator[tuple[Any, ...]]:
    for name in UNIT_INTERVAL.split():
        yield name, positive(3, 4)
    for name in BOTH_SIGNS.split():
        yield name, randn(3, 4)
    for name in TWO_TENSORS.split():
        yield name, randn(3, 4), randn(4)
    yield "acosh", 1 + positive(3, 4)
    yield "clamp", randn(3, 4), -0.5, 0.5
    yield "clamp.Tensor", randn(3, 4), -positive(4), positive(3, 1)
    yield "clamp_min", randn(3, 4), 0.2
    yield "clamp_max", randn(3, 4), 0.2
    yield "threshold", randn(3, 4), 0.2, 5.0
    yield "gelu", randn(3, 4), {"approximate": "tanh"}
    yield "_prelu_kernel", randn(3, 4), randn(1, 4)
    yield "addcdiv", randn(3, 4), randn(4), positive(3, 1), {"value": 2.0}
    yield "addcmul", randn(3, 4), randn(4), positive(3, 1), {"value": 2.0}
    yield "float_power.Tensor_Scalar", positive(3, 4), 1.5
    yield "pow.Tensor_Scalar", randn(3, 4), 3
    yield "pow.Tensor_Tensor", positive(3, 4), randn(4)
    yield "pow.Scalar", 2.0, randn(3, 4)
    yield "fmod.Tensor", 5 * randn(3, 4), 1 + positive(4)
    yield "remainder.Tensor", 5 * randn(3, 4), 1 + positive(4)
    yield "lerp.Tensor", randn(3, 4), randn(4), randn(3, 1)
    yield "special_xlog1py", randn(3, 4), positive(4)
    yield "xlogy.Tensor", randn(3, 4), positive(4)
    yield "add.Tensor", randn(3, 4), randn(4), {"alpha": 3}
    yield "add.Tensor", randn(4), randn(2, 1, 4)
    yield "add.Scalar", randn(3, 4), 2.0
    yield "sub.Tensor", randn(3, 1), randn(4), {"alpha": 3}
    yield "rsub.Scalar", randn(3, 4), 2.0, 3.0
    yield "rsub.Tensor", randn(3, 4), randn(4), {"alpha": 3}
    yield "mul.Tensor", randn(3, 4), randn(3, 1)
    yield "mul.Scalar", randn(3, 4), 2
    yield "div.Tensor", randn(3, 1), positive(4)
    yield "div.Scalar", randn(3, 1), 4
    yield "true_divide.Tensor", randn(3), positive(3)
    yield "copy", randn(3, 4), randn(4)
    yield "where.self", MASK, randn(3, 4), randn(4)
    yield "where.ScalarOther", MASK, randn(3, 4), 2.0
    yield "where.ScalarSelf", MASK, 2.0, randn(3, 4)
    yield "masked_fill.Scalar", randn(3, 4), MASK, -1e4
    yield "masked_fill.Tensor", randn(3, 4), MASK, randn(1)[0]


def view_cases() -> Iterator[tuple[Any, ...]]:
    for name in ("view", "_unsafe_view", "reshape", "view_copy"):
        yield name, randn(3, 4), [2, 6]
    yield "_reshape_alias", randn(3, 4), [2, 6], [6, 1]
    yield "flatten.using_ints", randn(2, 3, 4), 1
    yield "unflatten.int", randn(2, 6), 1, [2, 3]
    yield "squeeze.dim", randn(2, 1, 3), 1
    yield "squeeze", randn(2, 1, 3)
    yield "unsqueeze", randn(2, 3), -1
    yield "expand", randn(3, 1), [2, 3, 4]
    yield "expand_copy", randn(3, 1), [3, 4]
    yield "broadcast_to", randn(4), [3, 4]
    yield "permute", randn(2, 3, 4), [2, 0, -2]
    yield "transpose.int", randn(2, 3, 4), -1, 0
    yield "swapaxes", randn(2, 3, 4), 0, 1
    yield "movedim.int", randn(2, 3, 4), 0, -1
    for name in ("t", "numpy_T", "mT"):
        yield name, randn(3, 4)
    yield "select.int", randn(2, 3, 4), -2, -1
    yield "slice.Tensor", randn(7, 2), 0, 1, -1, 2
    yield "narrow", randn(7, 2), 0, 2, 3
    yield "split.Tensor", randn(2, 7), 3, -1
    yield "unsafe_split.Tensor", randn(2, 7), 3, -1
    yield "split_copy.Tensor", randn(2, 7), 3, -1
    yield "split_with_sizes", randn(7, 2), [1, 4, 2]
    yield "chunk", randn(7, 2), 3
    yield "unsafe_chunk", randn(7, 2), 3
    yield "tensor_split.sections", randn(7, 2), 3
    yield "unbind.int", randn(3, 2), 1
    yield "cat", [randn(2, 3), randn(2, 1), randn(2, 3)], -1
    yield "cat", [torch.zeros(0, dtype=torch.float64), randn(2, 3)]
    yield "stack", [randn(2, 3), randn(2, 3)], -1
    yield "_to_copy", randn(2, 3), {"dtype": torch.float64}
    yield "to.dtype", randn(2, 3), torch.float64
    yield "glu", randn(2, 6), -1


def product_cases() -> Iterator[tuple[Any, ...]]:
    yield "mm", randn(2, 3), randn(3, 4)
    yield "mv", randn(2, 3), randn(3)
    yield "dot", randn(3), randn(3)
    yield "vdot", randn(3), randn(3)
    yield "outer", randn(3), randn(2)
    yield "ger", randn(3), randn(2)
    yield "bmm", randn(2, 3, 4), randn(2, 4, 5)
    yield "addmm", randn(4), randn(2, 3), randn(3, 4), {"alpha": 2.0, "beta": 3.0}
    yield "baddbmm", randn(2, 1, 5), randn(2, 3, 4), randn(2, 4, 5), {"alpha": 2.0, "beta": 3.0}
    yield "addmv", randn(2), randn(2, 3), randn(3), {"alpha": 2.0, "beta": 3.0}
    yield "linear", randn(2, 3, 4), randn(5, 4), randn(5)
    yield "linear", randn(4), randn(5, 4)
    yield "matmul", randn(2, 1, 3, 4), randn(5, 4, 2)
    yield "matmul", randn(3), randn(2, 3, 4)
    yield "matmul", randn(2, 3, 4), randn(4)
    yield "matmul", randn(3), randn(3)


def normalisation_cases() -> Iterator[tuple[Any, ...]]:
    yield "native_layer_norm", randn(2, 3, 4), [3, 4], randn(3, 4), randn(3, 4), 1e-5
    yield "native_layer_norm", randn(2, 3, 4), [4], None, None, 1e-5
    yield "native_group_norm", randn(2, 6, 3, 2), randn(6), randn(6), 2, 6, 6, 3, 1e-5
    yield "native_batch_norm", randn(4, 3, 2), randn(3), randn(3), None, None, True, 0.1, 1e-5
    statistics = (FIXED, torch.nn.Parameter(FIXED.square() + 0.5, requires_grad=False))
    yield "native_batch_norm", randn(4, 3, 2), randn(3), randn(3), *statistics, False, 0.1, 1e-5
    yield "_native_batch_norm_legit.no_stats", randn(4, 3), None, None, True, 0.1, 1e-5
    yield "_native_batch_norm_legit", randn(4, 3), randn(3), randn(3), *statistics, True, 0.1, 1e-5
    yield "_native_batch_norm_legit_functional", randn(4, 3), randn(3), randn(3), *statistics, True, 0.1, 1e-5
    yield "_native_batch_norm_legit_no_training", randn(4, 3, 2), randn(3), randn(3), *statistics, 0.1, 1e-5
    for name in ("_softmax", "_log_softmax"):
        yield name, randn(2, 3, 4), 1, False
    for name in ("softmax.int", "log_softmax.int"):
        yield name, randn(2, 3), -1
    yield "_safe_softmax", torch.where(MASK, randn(3, 4), -torch.inf), 1



def reduction_cases() -> Iterator[tuple[Any, ...]]:
    yield "sum.dim_IntList", randn(2, 3, 4), [0, -1], True
    yield "sum", randn(2, 3)
    yield "mean.dim", randn(2, 3, 4), [1]
    yield "mean", randn(2, 3)
    for name in ("amax", "amin"):
        yield name, randn(2, 3, 4), [-1]
    yield "logsumexp", randn(2, 3, 4), [0, 1], True
    yield "linalg_vector_norm", randn(2, 3), 2, [1]
    yield "norm.ScalarOpt_dim", randn(2, 3), 2, [1]
    for name in ("max", "min", "median", "prod", "nansum"):
        yield name, randn(3, 4)
    for name in ("max.dim", "min.dim", "median.dim", "kthvalue", "mode", "cummax", "cummin"):
        yield (name, randn(3, 4), *((2,) if name == "kthvalue" else ()), 1)
    yield "prod.dim_int", randn(3, 4), 1
    yield "std.correction", randn(3, 4), [1]
    yield "var.correction", randn(3, 4), [0], {"correction": 0, "keepdim": True}
    yield "cumsum", randn(3, 4), 1
    yield "topk", randn(3, 4), 2
    yield "sort", randn(3, 4), 0, True
    yield "sort.stable", randn(3, 4), {"stable": True}


def convolution_cases() -> Iterator[tuple[Any, ...]]:
    yield "convolution", randn(2, 4, 7), randn(6, 2, 3), randn(6), [2], [1], [1], False, [0], 2
    yield "convolution", randn(2, 2, 5, 5), randn(3, 2, 3, 3), None, [1, 2], [1, 0], [1, 1], False, [0, 0], 1
    yield "convolution", randn(2, 4, 3, 3), randn(4, 1, 2, 2), randn(2), [2, 2], [0, 1], [1, 1], True, [1, 1], 2
    yield "convolution", randn(1, 2, 3, 3, 3), randn(2, 2, 2, 2, 2), None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1
    flags = (False, False, False, False)
    yield "_convolution", randn(2, 2, 5), randn(3, 2, 3), None, [1], [2], [2], False, [0], 1, *flags
    yield "avg_pool1d", randn(2, 3, 6), [2]
    yield "avg_pool2d", randn(2, 3, 5, 5), [2, 2], [1, 1], [1, 1]
    yield "avg_pool2d", randn(3, 4, 4), [2, 2]
    yield "avg_pool3d", randn(2, 1, 4, 4, 4), [2, 2, 2]
    yield "_adaptive_avg_pool2d", randn(2, 3, 5, 4), [2, 3]
    yield "_adaptive_avg_pool3d", randn(2, 1, 4, 4, 5), [2, 2, 2]
    yield "adaptive_avg_pool1d", randn(2, 3, 5), [2]
    yield "adaptive_avg_pool2d", randn(2, 3, 5, 4), [2, 3]
    yield "adaptive_avg_pool3d", randn(2, 1, 4, 4, 5), [2, 2, 2]
    yield "col2im", randn(2, 12, 4), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]
    yield "im2col", randn(2, 3, 4, 4), [2, 2], [1, 1], [0, 0], [2, 2]
    for name in ("upsample_bicubic2d", "upsample_bilinear2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"):
        yield name, randn(2, 2, 3, 4), [5, 7], False
    yield "upsample_linear1d", randn(2, 2, 3), [5], True
    yield "upsample_trilinear3d", randn(1, 2, 3, 2, 2), [4, 3, 3], False
    yield "upsample_nearest1d", randn(2, 2, 3), [5]
    yield "upsample_nearest2d", randn(2, 2, 3, 4), [5, 7]
    yield "_upsample_nearest_exact2d", randn(2, 2, 3, 4), [5, 7]
    yield "upsample_nearest3d", randn(1, 2, 3, 2, 2), [4, 3, 3]
    yield "max_pool2d_with_indices", randn(2, 2, 5, 5), [3, 3], [2, 2], [1, 1]
    yield "max_pool3d_with_indices", randn(1, 2, 4, 4, 4), [2, 2, 2]
    yield "adaptive_max_pool2d", randn(2, 2, 5, 4), [2, 2]
    yield "adaptive_max_pool3d", randn(1, 2, 4, 4, 4), [2, 2, 2]


def movement_cases() -> Iterator[tuple[Any, ...]]:
    yield "as_strided", randn(3, 4).t(), [2, 2], [1, 4], 1
    yield "as_strided_copy", randn(3, 4), [2, 2], [4, 1], 1
    yield "channel_shuffle", randn(1, 4, 2, 2), 2
    yield "diag_embed", randn(2, 3)
    yield "diagonal", randn(3, 4), 1
    yield "diagonal_scatter", randn(3, 4), randn(3)
    yield "flip", randn(3, 4), [0, 1]
    yield "roll", randn(3, 4), [1, -1], [0, 1]
    yield "rot90", randn(3, 4)
    yield "tril", randn(3, 4), 1
    yield "triu", randn(3, 4)
    yield "repeat", randn(3, 4), [2, 1, 2]
    yield "unfold", randn(3, 5), 1, 3, 1
    yield "take", randn(3, 4), INDEX
    yield "gather", randn(3, 4), 0, torch.tensor([[0, 2, 1, 1]])
    yield "index_select", randn(3, 4), 0, INDEX
    yield "index.Tensor", randn(3, 4), [INDEX, None]
    yield "_unsafe_index.Tensor", randn(3, 4), [None, INDEX]
    yield "masked_select", randn(3, 4), MASK
    yield "masked_scatter", randn(3, 4), MASK, randn(8)
    yield "select_scatter", randn(3, 4), randn(4), 0, 1
    yield "slice_scatter", randn(5, 4), randn(2, 4), 0, 1, 3
    yield "scatter.src", randn(3, 4), 0, torch.tensor([[0, 2, 1, 1]]), randn(1, 4)
    yield "scatter.value", randn(3, 4), 0, torch.tensor([[0, 2, 1, 1]]), 2.0
    yield "scatter_add", randn(3, 4), 0, torch.tensor([[0, 2, 1], [0, 0, 1]]), randn(2, 3)
    yield "index_add", randn(3, 4), 0, INDEX, randn(4, 4), {"alpha": 2.0}
    yield "index_fill.int_Scalar", randn(3, 4), 0, torch.tensor([1]), 2.0
    yield "fill.Scalar", randn(3, 4), 2.0
    yield "index_put", randn(3, 4), [torch.tensor([2, 0])], randn(2, 4)
    yield "_unsafe_index_put", randn(3, 4), [torch.tensor([2, 0])], randn(2, 4)
    yield "constant_pad_nd", randn(3, 4), [1, 2, -1, 0], 7.0
    yield "pixel_shuffle", randn(1, 4, 2, 2), 2
    yield "pixel_unshuffle", randn(1, 1, 4, 4), 2
    yield "embedding", randn(5, 3), torch.tensor([[0, 2], [2, 4]])
    for kind in ("reflection", "replication"):
        yield f"{kind}_pad1d", randn(2, 3, 5), [1, 2]
        yield f"{kind}_pad2d", randn(2, 3, 5, 4), [1, 2, 0, 1]
        yield f"{kind}_pad3d", randn(2, 1, 4, 4, 4), [1, 1, 0, 1, 1, 0]


CASES = [
    *pointwise_cases(),
    *view_cases(),
    *product_cases(),
    *normalisation_cases(),
    *reduction_cases(),
    *convolution_cases(),
    *movement_cases(),
]


def resolve(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


@dataclass(frozen=True)
class Recorded:
    """A graph of one op in which every floating-point tensor of `args` moves, but for parameters."""

    tape: Tape
    moving: tuple[Tensor, ...]
    function: Callable[..., tuple[Tensor, ...]]


def record(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recorded:
    op = resolve(name)
    flat, spec = pytree.tree_flatten(args)
    graph = fx.Graph()
    held = [graph.placeholder(f"x{i}") if isinstance(value, Tensor) else value for i, value in enumerate(flat)]
    node = graph.call_function(op, pytree.tree_unflatten(held, spec), kwargs)
    outputs, result = (node,), op(*args, **kwargs)
    if not isinstance(result, Tensor):
        several = 1 if rule_name(op) in FIRST_OUTPUT_ONLY else len(result)
        outputs = tuple(graph.call_function(operator.getitem, (node, i)) for i in range(several))
    graph.output(outputs)
    module = fx.GraphModule(torch.nn.Module(), graph)
    values = evaluate(module, [value for value in flat if isinstance(value, Tensor)])
    at = [i for i, value in enumerate(flat) if _moves(value)]

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        row = list(flat)
        for i, tensor in zip(at, inputs, strict=True):
            row[i] = tensor
        if name == "copy":  # which autograd knows in place only
            return (torch.empty_like(row[0]).copy_(row[1]),)
        return module(*(value for value in row if isinstance(value, Tensor)))

    tape = Tape(values, tuple(held[i] for i in at), outputs, values)
    return Recorded(tape, tuple(flat[i] for i in at), function)


def _moves(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not isinstance(value, torch.nn.Parameter)


def dense(function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> Tensor:
    """The Jacobian row by row, from one backward pass of the op for each entry of the output."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    flat = torch.cat([out.reshape(-1) for out in function(*leaves)])
    rows = [
        torch.autograd.grad(entry, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        if entry.requires_grad
        else [torch.zeros_like(leaf) for leaf in leaves]
        for entry in flat
    ]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def columns(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(tensor.shape[0], -1) for tensor in tensors], dim=1)


def split_case(case: tuple[Any, ...]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    name, *args = case
    kwargs = args.pop() if args and isinstance(args[-1], dict) else {}
    return name, tuple(args), kwargs


def label(case: tuple[Any, ...]) -> str:
    return case[0]


def check(recorded: Recorded) -> None:
    """Push, pull and the adjoint identity, relative to the largest entry of the Jacobian."""
    tape, k = recorded.tape, 3
    jacobian = dense(recorded.function, recorded.moving)
    tangents = tuple(randn(k, *tensor.shape) for tensor in recorded.moving)
    cotangents = tuple(randn(k, *tensor.shape) for tensor in tape.target_values)
    pushed, pulled = tape.push(tangents), tape.pull(cotangents)
    assert [t.shape[1:] for t in pushed] == [t.shape for t in tape.target_values]
    assert [t.shape[1:] for t in pulled] == [t.shape for t in recorded.moving]
    scale = 1.0 + jacobian.abs().max()
    exact = {"rtol": 0.0, "atol": TOLERANCE}
    torch.testing.assert_close(columns(pushed) / scale, columns(tangents) @ jacobian.T / scale, **exact)
    torch.testing.assert_close(columns(pulled) / scale, columns(cotangents) @ jacobian / scale, **exact)
    left, right = (columns(pushed) * columns(cotangents)).sum(), (columns(tangents) * columns(pulled)).sum()
    assert abs(left - right) <= TOLERANCE * scale * (1 + abs(left))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_push_and_pull_of_a_rule_are_the_jacobian_of_its_op(case: tuple[Any, ...]) -> None:
    recorded = record(*split_case(case))
    check(recorded)
    assert set(recorded.tape.routes) == {"rule"}


@pytest.mark.parametrize("case", [case for case in CASES if sum(map(_moves, pytree.tree_leaves(case))) > 1], ids=label)
def test_each_argument_may_move_alone(case: tuple[Any, ...]) -> None:
    name, args, kwargs = split_case(case)
    flat, spec = pytree.tree_flatten(args)
    for alone in (i for i, value in enumerate(flat) if _moves(value) and value.numel()):
        frozen = [
            torch.nn.Parameter(value, requires_grad=False) if _moves(value) and i != alone else value
            for i, value in enumerate(flat)
        ]
        check(record(name, pytree.tree_unflatten(frozen, spec), kwargs))


def test_dropout_is_linear_with_the_mask_that_was_drawn() -> None:
    x, tangents = randn(50), randn(2, 50)
    torch.manual_seed(0)
    tape = record("native_dropout", (x, 0.4, True), {}).tape
    (output,) = tape.target_values
    torch.testing.assert_close(tape.push((tangents,))[0], tangents * output / x)
    assert 0 < (output == 0).sum() < 50


def test_grouped_product_is_one_product_for_each_group() -> None:
    a, b = randn(5, 8).float(), randn(2, 8, 4).float()
    tape = record("_grouped_mm", (a, b, torch.tensor([2, 5], dtype=torch.int32)), {}).tape
    da, db = randn(3, 5, 8).float(), randn(3, 2, 8, 4).float()
    expected = torch.cat((da[:, :2] @ b[0] + a[:2] @ db[:, 0], da[:, 2:] @ b[1] + a[2:] @ db[:, 1]), dim=1)
    (pushed,) = tape.push((da, db))
    torch.testing.assert_close(pushed, expected)
    cotangent = randn(3, 5, 4).float()
    ca, cb = tape.pull((cotangent,))
    torch.testing.assert_close((pushed * cotangent).sum(), (da * ca).sum() + (db * cb).sum())


def test_every_rule_has_a_case() -> None:
    tested = {rule_name(resolve(case[0])) for case in CASES} | {"native_dropout", "_grouped_mm"}
    assert set(RULES) - tested - set(DEVICE_ONLY) == set()


@pytest.mark.parametrize("name", DEVICE_ONLY)
def test_ops_of_a_device_share_the_rule_and_the_arguments_of_a_twin(name: str) -> None:
    twin = DEVICE_ONLY[name]
    assert RULES[name] is RULES[twin]
    own = {argument.name for argument in resolve(name)._schema.arguments}
    assert own >= {"input", "weight", "bias", "running_mean", "running_var", "training", "epsilon"}
