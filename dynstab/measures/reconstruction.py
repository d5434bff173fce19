"""How exactly a reversible stack can be run back: its inverse by evaluations of the steps alone.

From y_1 = x_1 + F(x_2), y_2 = x_2 + G(y_1) and the step as a black box, F(0) is the first half of the image of 0,
G(y_1) the second half of the image of (y_1 - F(0), 0), and F(x_2) the first half of the image of (0, x_2).

References:
    Gomez et al. (2017), The reversible residual network: backpropagation without storing activations, NeurIPS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.estimators.halves import Halves
from dynstab.estimators.result import Result
from dynstab.measures.aggregate import summarise
from dynstab.measures.spans import Span
from dynstab.systems.trajectory import State, Trajectory

Inverse = Callable[[Trajectory, Span, Tensor], Tensor | None]


def reconstruction_error(trajectory: Trajectory, reversible: Sequence[Span], inverse: Inverse) -> Estimate:
    """||x - x'|| / ||x|| at the beginning of the longest unbroken run of couplings, run back from its end.

    Args:
        inverse: the columns that a span maps to given ones, such as `additive_inverse`; None where it knows none.
    """
    run = longest_run(reversible)
    if not run:
        return Estimate.unmeasured("no step can be run back")
    start, columns = (columns_of(trajectory.states[at]) for at in (run[0].source, run[-1].target))
    sizes = start.double().norm(dim=1)
    if not bool((sizes > 0).all()):
        return Estimate.unmeasured("the first state is zero, to which no error is relative")
    for span in reversed(run):
        back = inverse(trajectory, span, columns)
        if back is None:
            return Estimate.unmeasured(f"how to run step {span.source} back is not known: its state has no two halves")
        columns = back
    errors = (columns - start).double().norm(dim=1) / sizes
    eps = torch.finfo(start.dtype).eps
    couplings = "1 coupling" if len(run) == 1 else f"{len(run)} couplings"
    result = Result(
        values=errors,
        errors=errors + eps,  # rounding itself: another order of the sums gives another number of this size
        label=Label.ESTIMATE,
        method=f"{couplings} in a row, {str(start.dtype).removeprefix('torch.')}",
    )
    return summarise(result)


def longest_run(spans: Sequence[Span]) -> list[Span]:
    """The longest list of spans in which each begins where the last one ended."""
    runs: list[list[Span]] = [[]]
    for span in spans:
        if runs[-1] and runs[-1][-1].target == span.source:
            runs[-1].append(span)
        else:
            runs.append([span])
    return max(runs, key=len)


def additive_inverse(trajectory: Trajectory, span: Span, image: Tensor) -> Tensor | None:
    """The state that the span maps to `image`, in that order of the halves in which the image comes out best.

    None of a state without halves.
    """
    if span.halves is None:
        return None
    image = in_source_places(span, image)
    tries = [_backwards(trajectory, span, halves, image) for halves in (span.halves, span.halves.swapped())]
    misses = [float((run_forward(trajectory, span, point) - image).norm()) for point in tries]
    return tries[0] if misses[0] <= misses[1] else tries[1]


def _backwards(trajectory: Trajectory, span: Span, halves: Halves, image: Tensor) -> Tensor:
    a, b = halves.first, halves.second
    point = torch.zeros_like(image)
    point[:, a] = image[:, a] - run_forward(trajectory, span, point)[:, a]
    second = image[:, b] - run_forward(trajectory, span, point)[:, b]
    point = torch.zeros_like(image)
    point[:, b] = second
    point[:, a] = image[:, a] - run_forward(trajectory, span, point)[:, a]
    return point


def run_forward(trajectory: Trajectory, span: Span, columns: Tensor) -> Tensor:
    """The span as a map of columns (samples, size, 1), its image in the source's places."""
    value = tuple(tensor[0] for tensor in trajectory.states[span.source].layout.unflatten(columns))
    with torch.no_grad():
        for step in trajectory.steps[span.source : span.target]:
            value = step.function(value)
    image = trajectory.states[span.target].layout.flatten(tuple(tensor[None] for tensor in value))
    return in_source_places(span, image)


def in_source_places(span: Span, image: Tensor) -> Tensor:
    """Columns at the target, listed as the source lists them."""
    return image if span.place is None else image[:, span.place]


def columns_of(state: State) -> Tensor:
    """The state as columns (samples, size, 1)."""
    return state.layout.flatten(tuple(tensor[None] for tensor in state.value))
