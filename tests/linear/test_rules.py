"""Every rule of the table agrees with autograd on the op itself."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from rule_cases import CASES, randn
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
    if not flat.requires_grad:
        return torch.zeros(flat.numel(), sum(leaf.numel() for leaf in leaves), dtype=torch.float64)
    rows = [
        torch.autograd.grad(flat, leaves, one, retain_graph=True, allow_unused=True, materialize_grads=True)
        for one in torch.eye(flat.numel(), dtype=torch.float64)
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
