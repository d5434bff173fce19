"""What another integrator would make of the same field, of which the network is explicit Euler with step 1.

The field at block l is f_l(h) = F_l(h) - h, and between two blocks their interpolation
f(l + s, h) = (1 - s) f_l(h) + s f_{l+1}(h). Where the answer changes much, the network is no sample of that flow.

References:
    Hairer, Norsett & Wanner (1993), Solving ordinary differential equations I, ch. II; Sander, Ablin & Peyre
    (2022), Do residual neural networks discretize neural ODEs?, NeurIPS.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.core.network_flow import IntegratorChange
from dynstab.estimators.result import Result
from dynstab.measures.aggregate import summarise
from dynstab.measures.blocks import RepeatedBlocks, Value, plus

Field = Callable[[float, Value], Value]
Advance = Callable[[Field, int, Value], Value]
_ITERATIONS = 10


def _euler(field: Field, time: int, h: Value) -> Value:
    return plus(h, field(time, h))


def _half_steps(field: Field, time: int, h: Value) -> Value:
    middle = plus(h, field(time, h), 0.5)
    return plus(middle, field(time + 0.5, middle), 0.5)


def _midpoint(field: Field, time: int, h: Value) -> Value:
    return plus(h, field(time + 0.5, plus(h, field(time, h), 0.5)))


def _rk4(field: Field, time: int, h: Value) -> Value:
    k1 = field(time, h)
    k2 = field(time + 0.5, plus(h, k1, 0.5))
    k3 = field(time + 0.5, plus(h, k2, 0.5))
    k4 = field(time + 1, plus(h, k3))
    for k, weight in ((k1, 1 / 6), (k2, 1 / 3), (k3, 1 / 3), (k4, 1 / 6)):
        h = plus(h, k, weight)
    return h


def _implicit_midpoint(field: Field, time: int, h: Value) -> Value:
    """By fixed-point iterations, which converge where half the field's Lipschitz constant is below 1."""
    k = field(time, h)
    for _ in range(_ITERATIONS):
        k = field(time + 0.5, plus(h, k, 0.5))
    return plus(h, k)


STANDARD: dict[str, tuple[int, Advance]] = {
    "half steps": (2, _half_steps),
    "midpoint": (2, _midpoint),
    "RK4": (4, _rk4),
}
"""Name -> (evaluations of the field in a step, the step)."""

IMPLICIT: dict[str, tuple[int, Advance]] = {"implicit midpoint": (1 + _ITERATIONS, _implicit_midpoint)}


def integrator_changes(
    blocks: RepeatedBlocks, schemes: dict[str, tuple[int, Advance]], cotangents: Tensor
) -> tuple[IntegratorChange, ...]:
    """For each scheme what it changes in the last state of the run and in the gain of cotangents.

    Args:
        cotangents: (samples, size, 1) at the end of the run.
    """
    start, end = blocks.columns(blocks.value(0)), blocks.columns(blocks.value(len(blocks.steps)))
    moved = torch.linalg.vector_norm(end - start, dim=(1, 2), dtype=torch.float64)
    own = _log_gain(blocks, _euler, _states(blocks, _euler), cotangents)
    changes = []
    for name, (evaluations, advance) in schemes.items():
        states = _states(blocks, advance)
        gap = torch.linalg.vector_norm(blocks.columns(states[-1]) - end, dim=(1, 2), dtype=torch.float64)
        other = _log_gain(blocks, advance, states, cotangents)
        changes.append(
            IntegratorChange(
                name=name,
                evaluations=evaluations,
                state_change=relative_change(gap, moved, end),
                gain_change=other if isinstance(other, Estimate) else _gain_change(other, own),
            )
        )
    return tuple(changes)


def relative_change(gap: Tensor, moved: Tensor, end: Tensor) -> Estimate:
    """gap / moved, (samples,), mean over inputs, with the rounding of the states `end` that they are differences of."""
    if bool((moved == 0).any()):
        return Estimate.unmeasured("the run does not change its state")
    noise = 64 * torch.finfo(end.dtype).eps * torch.linalg.vector_norm(end, dim=(1, 2), dtype=torch.float64)
    values, errors = gap / moved, noise / moved
    return summarise(
        Result(values=values[:, None], errors=errors[:, None], label=Label.EXACT, method="stack run again")
    )


def _field(blocks: RepeatedBlocks) -> Field:
    last = blocks.count - 1

    def field(time: float, h: Value) -> Value:
        block, share = min(int(time), last), time % 1
        here = blocks.block_update(block, h)
        if not share or block == last:
            return here
        there = blocks.block_update(block + 1, h)
        return tuple((1 - share) * a + share * b for a, b in zip(here, there, strict=True))

    return field


def _states(blocks: RepeatedBlocks, advance: Advance) -> list[Value]:
    field, states = _field(blocks), [blocks.value(0)]
    with torch.no_grad():
        for block in range(blocks.count):
            states.append(advance(field, block, states[-1]))
    return states


def _log_gain(blocks: RepeatedBlocks, advance: Advance, states: list[Value], cotangents: Tensor) -> Tensor | Estimate:
    """ln ||Phi'^T c|| / ||c|| per input, float64, or why there is none; one block's graph is held at a time."""
    field, layout = _field(blocks), blocks.first.layout
    pulled = tuple(tensor[0] for tensor in layout.unflatten(cotangents))
    for block in reversed(range(blocks.count)):
        with torch.enable_grad():
            leaves = tuple(tensor.detach().requires_grad_() for tensor in states[block])
            try:
                pulled = torch.autograd.grad(advance(field, block, leaves), leaves, pulled)
            except (RuntimeError, NotImplementedError) as error:
                return Estimate.unmeasured(f"autograd: {str(error).splitlines()[0][:80]}", unit="nat")
    before, after = (
        torch.linalg.vector_norm(columns, dim=(1, 2), dtype=torch.float64)
        for columns in (cotangents, blocks.columns(pulled))
    )
    return (after / before).log()


def _gain_change(other: Tensor, own: Tensor | Estimate) -> Estimate:
    if isinstance(own, Estimate):
        return own
    values = (other - own)[:, None]
    result = Result(
        values=values, errors=torch.full_like(values, torch.nan), label=Label.ESTIMATE, method="one cotangent an input"
    )
    estimate = summarise(result, unit="nat")
    error = None if estimate.spread is None else estimate.spread / len(values) ** 0.5
    return estimate.model_copy(update={"error": error})
