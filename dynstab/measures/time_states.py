"""What becomes of the states of a recurrence: whether they stay finite and bounded, rest or return."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate
from dynstab.estimators.recurrence import Recurrence
from dynstab.systems.trajectory import Trajectory


def columns_of(whole: Trajectory) -> list[Tensor]:
    """The states as vectors, (samples, size) each."""
    return [state.layout.flatten(tuple(t[None] for t in state.value))[:, :, 0] for state in whole.states]


def outcome_of(columns: list[Tensor], leading: Tensor, whole: Trajectory) -> str:
    """What became of the states of all inputs: of a driven recurrence only that they diverged."""
    watch = Recurrence(columns[0], len(columns[0]))
    for state in columns[1:]:
        watch.see(state)
    told = [
        watch.outcome(value, row, linearised=lambda: whole.steps[-1].jacobian)
        for row, value in enumerate(leading.tolist())
    ]
    fell = watch.fallen.tolist()
    if not whole.held:
        told = [each if fallen else None for each, fallen in zip(told, fell, strict=True)]
    for row in (row for row, fallen in enumerate(fell) if fallen):
        told[row] = watch.never_finite(row) or f"diverged at {whole.states[int(watch.diverged[row])].name}"
    others = "finite until then" if any(fell) else "go on"
    counts = {each: told.count(each) for each in dict.fromkeys(told)}
    if list(counts) == [None]:
        return CONVERGED
    if len(counts) == 1:
        return next(iter(counts)) or CONVERGED
    return "; ".join(f"{amount} of {len(told)} inputs: {each or others}" for each, amount in counts.items())


def size_growth(columns: list[Tensor]) -> Estimate:
    """The rate at which states grow from one half of the steps to the other, mean over inputs.

    A run ends at a state that is not finite, which is left out: until then it grew.
    """
    finite = columns if bool(columns[-1].isfinite().all()) else columns[:-1]
    if not finite:
        return Estimate.unmeasured("no state is finite", unit="nat/step")
    sizes = torch.stack([state.double().norm(dim=1) for state in finite], dim=1)
    half = sizes.shape[1] // 2
    if not half or not bool((sizes > 0).all()) or not bool(sizes.isfinite().all()):
        return Estimate.unmeasured("some state is zero or not finite", unit="nat/step")
    early, late = (part.log().mean(dim=1) for part in (sizes[:, :half], sizes[:, -half:]))
    rates = (late - early) / (sizes.shape[1] - half)
    scatter = float(rates.std()) if len(rates) > 1 else None
    method = "ln of the states' norms, mean over either half"
    return Estimate(value=float(rates.mean()), method=method, spread=scatter, samples=len(rates), unit="nat/step")
