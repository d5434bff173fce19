"""Does the chain depend on its source, and are its two directions transposes of each other?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dynstab.capture.capture import Subject
from dynstab.capture.graph import Graph
from dynstab.capture.verify import perturbed, tolerance
from dynstab.core.report import Check
from dynstab.linear.evaluator import evaluate
from dynstab.linear.operator import JacobianOperator
from dynstab.systems.dependence import Chain
from dynstab.systems.segment import SegmentFunction, relative_change

_MOVES = (1e-2, 1.0, 1e2, 1e4)
"""Of a state, relative to its size: dead units wake at some of them, and what a trace has baked in never does."""


def check_dependence(
    graph: Graph, subject: Subject, chain: Chain, values: dict[Any, Any], functions: Sequence[SegmentFunction]
) -> Check:
    """Moving the source moves the output: a trace that baked its input in would not.

    An output may rest for a reason of its own: a weight of zero, dead units, or a signal that fades below rounding.
    Then every step has to move by itself, with the zeros among the parameters perturbed and far enough to wake units.
    """
    name = "output depends on the source"
    whole = SegmentFunction(chain.source, (chain.sink,), values)
    change = relative_change(whole, tuple(values[n] for n in chain.source), 1e-2)
    if change > 0:
        detail = f"relative change {change:.2g} when the first state moves by 1%"
        return Check(check=name, passed=True, error=None, detail=detail)
    moved = evaluate(graph.module, [*perturbed(list(subject.parameters.values()), 1e-2), *graph.inputs])
    resting = sum(_rests(function, moved) for function in functions)
    said = f"{resting} of {len(functions)} steps" if resting else "every step"
    moves = "rest" if resting else "moves"
    detail = (
        "the output rests when the first state moves by 1% (a weight of zero, dead units, or a signal below rounding); "
        f"each step by itself, parameters perturbed, its state moved further: {said} {moves}"
    )
    return Check(check=name, passed=not resting, error=None, detail=detail)


def _rests(function: SegmentFunction, values: dict[Any, Any]) -> bool:
    own = SegmentFunction(function.source, function.target, values)
    state = tuple(values[node] for node in function.source)
    return all(relative_change(own, state, size) == 0 for size in _MOVES)


def check_adjoint(operators: Sequence[JacobianOperator], precision: torch.dtype) -> Check:
    """<J u, w> = <u, J^T w> for every step, relative to ||J u|| ||w||.

    `precision` is the coarsest dtype in the network (some compute their norms in float32 whatever they are given).
    """
    generator = torch.Generator().manual_seed(3)
    worst = 0.0
    for operator in operators:
        u = torch.randn(operator.samples, operator.cols, 1, generator=generator).to(operator.device, operator.dtype)
        w = torch.randn(operator.samples, operator.rows, 1, generator=generator).to(operator.device, operator.dtype)
        forward, backward = operator.matmat(u).double(), operator.rmatmat(w).double()
        left, right = (forward * w).sum((1, 2)), (u * backward).sum((1, 2))
        scale = forward.norm(dim=1).squeeze(-1) * w.double().norm(dim=1).squeeze(-1)
        gap = ((left - right).abs() / scale.clamp_min(1e-30)).where(scale > 0, (left - right).abs())
        worst = max(worst, float(gap.nan_to_num(0.0).max()))
    limit = tolerance(precision)
    return Check(
        check="adjoint identity", passed=worst <= limit, error=worst, detail=f"{len(operators)} steps, limit {limit:g}"
    )
