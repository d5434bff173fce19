"""Rules that only move numbers hold for complex ones: they are affine, and their two directions are transposes."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from rule_cases import CASES
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dynstab.linear.evaluator import evaluate
from dynstab.linear.rules.table import MOVES_NUMBERS
from dynstab.linear.tape import Tape

aten = torch.ops.aten
MOVED = [case for case in CASES if case[0].partition(".")[0] in MOVES_NUMBERS]


def drawn(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def resolve(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def test_every_rule_that_moves_numbers_has_a_case() -> None:
    assert {case[0].partition(".")[0] for case in MOVED} == set(MOVES_NUMBERS)


@pytest.mark.parametrize("case", MOVED, ids=lambda case: case[0])
def test_a_rule_that_moves_numbers_holds_for_complex_ones(case: tuple[Any, ...]) -> None:
    name, *args = case
    kwargs = args.pop() if args and isinstance(args[-1], dict) else {}
    flat, spec = pytree.tree_flatten(tuple(args))
    at = [i for i, value in enumerate(flat) if isinstance(value, Tensor) and value.is_floating_point()]
    flat = [drawn(value.shape, i) if i in at else value for i, value in enumerate(flat)]
    graph = fx.Graph()
    held = [graph.placeholder(f"x{i}") if isinstance(value, Tensor) else value for i, value in enumerate(flat)]
    node = graph.call_function(resolve(name), pytree.tree_unflatten(held, spec), kwargs)
    several = not isinstance(resolve(name)(*pytree.tree_unflatten(flat, spec), **kwargs), Tensor)
    target = graph.call_function(operator.getitem, (node, 0)) if several else node
    graph.output(target)
    module = fx.GraphModule(torch.nn.Module(), graph)

    def run(moving: list[Tensor]) -> Any:
        row = list(flat)
        for place, tensor in zip(at, moving, strict=True):
            row[place] = tensor
        return evaluate(module, [value for value in row if isinstance(value, Tensor)])

    here = [flat[i] for i in at]
    tangents = [drawn(tensor.shape, 10 + i) for i, tensor in enumerate(here)]
    values = run(here)
    tape = Tape(graph.nodes, tuple(held[i] for i in at), (target,), values)
    (pushed,) = tape.push(tuple(tangent[None] for tangent in tangents))
    moved = run([x + t for x, t in zip(here, tangents, strict=True)])[target]
    torch.testing.assert_close(pushed[0], moved - values[target])
    cotangent = drawn(pushed.shape[1:], 20)
    pulled = tape.pull((cotangent[None],))
    ahead = (pushed[0] * cotangent.conj()).real.sum()
    back = sum((t * p[0].conj()).real.sum() for t, p in zip(tangents, pulled, strict=True))
    torch.testing.assert_close(ahead, back)
    assert set(tape.routes) == {"rule"}
