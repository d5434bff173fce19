"""Costates of optimal control, and whether the control Hamiltonian is conserved along depth.

With p_l = J_l^T p_{l+1} the Hamiltonian H_l = <p_{l+1}, f_l(h_l)> of a flow that does not depend on time is constant.
A stack with tied weights is explicit Euler of such a flow and keeps it to first order in its step.

References:
    Pontryagin et al. (1962); E (2017), A proposal on machine learning via dynamical systems; Li et al. (2018), JMLR 18.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.estimate import Estimate, Label
from dynstab.estimators.result import Result
from dynstab.measures.aggregate import summarise
from dynstab.measures.blocks import RepeatedBlocks


def hamiltonian_drift(blocks: RepeatedBlocks, cotangent: Tensor | None = None) -> dict[str, object]:
    """hamiltonian and hamiltonian_drift of tied blocks.

    Args:
        cotangent: (samples, size, 1) at the last state of the run, in the order of its first; None is the direction of
            the last update, for which H is not small by accident.
    """
    states = [blocks.columns(blocks.value(block * blocks.period)) for block in range(blocks.count + 1)]
    updates = [(after - before).double() for before, after in zip(states, states[1:], strict=False)]
    costate = states[-1] - states[-2] if cotangent is None else cotangent
    values = []
    for block in reversed(range(blocks.count)):
        values.append((costate.double() * updates[block]).sum(dim=(1, 2)))
        for position in reversed(range(block * blocks.period, (block + 1) * blocks.period)):
            costate = blocks.operator(position).rmatmat(costate)
    history = torch.stack(values[::-1], dim=1)
    end = history[:, -1:].abs()
    if bool((end == 0).any()) or not bool(history.isfinite().all()):
        return {"hamiltonian_drift": Estimate.unmeasured("H is zero or not finite at the last block")}
    relative = history / end
    drift = (relative - relative[:, -1:]).abs().amax(dim=1, keepdim=True)
    noise = 64 * torch.finfo(states[0].dtype).eps * len(blocks.steps) * torch.ones_like(drift)
    result = Result(
        values=drift,
        errors=noise,
        label=Label.EXACT,
        method="last update as costate" if cotangent is None else "cotangent of the loss",
        products=len(blocks.steps),
    )
    return {"hamiltonian": tuple(relative.mean(dim=0).tolist()), "hamiltonian_drift": summarise(result)}
