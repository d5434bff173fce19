"""Covariant Lyapunov vectors: the directions that the tangent dynamics carries into each other.

A frame walks forth, J_t Q_t = Q_{t+1} R_{t+1}, until its spans have turned into those of the leading directions.
A vector inside, v_i(t) = Q_t c_i(t), is covariant where c_i(t) = R_{t+1}^-1 c_i(t+1): walked back from any
upper triangular C at the far end, the columns turn into the covariant vectors, because what grows slowest forth
grows fastest back. Angles between them need the triangular factors alone: Q_t keeps inner products.

References:
    Ginelli et al. (2007), Phys. Rev. Lett. 99, 130601; Kuptsov & Parlitz (2012), J. Nonlinear Sci. 22.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED
from dynstab.estimators.adapters import workable
from dynstab.estimators.orthogonal import orthonormalise, random_frame
from dynstab.linear.operator import LinearOperator


@dataclass(frozen=True, kw_only=True)
class CovariantVectors:
    """At `times` states between the two transients, in the order of time; NaN where a direction is lost.

    Attributes:
        coefficients: (samples, times, k, k) float64, upper triangular with unit columns: v_i = Q c_i.
        frames: (samples, times, size, k), the Q; None where they were not kept.
        growth: (samples, k) float64, mean ln of how much a step stretches each vector, in nat per step.
        outcome: "converged", or why there are no such vectors.
    """

    coefficients: Tensor
    frames: Tensor | None
    growth: Tensor
    outcome: str

    @property
    def vectors(self) -> Tensor:
        """(samples, times, size, k), unit columns, fastest growing first.

        Raises:
            ValueError: the frames were not kept.
        """
        if self.frames is None:
            raise ValueError("the frames were not kept: only angles are known")
        return self.frames.double() @ self.coefficients

    def angles(self) -> Tensor:
        """Between each pair of vectors, (samples, times, k, k), radians in [0, pi/2]."""
        cosines = self.coefficients.mT @ self.coefficients
        size = self.coefficients.shape[-1]
        angles = cosines.abs().clamp(max=1.0).acos()
        return angles.masked_fill(torch.eye(size, dtype=torch.bool, device=angles.device), 0.0)

    def splitting(self, leading: int) -> Tensor:
        """The smallest angle between the span of the first `leading` vectors and that of the others, (samples, times).

        Zero is a tangency: directions that grow and directions that shrink cannot be told apart there.

        Raises:
            ValueError: one of the two spans is empty.
        """
        if not 0 < leading < self.coefficients.shape[-1]:
            raise ValueError(f"a splitting after {leading} of {self.coefficients.shape[-1]} vectors")
        lost = self.coefficients.isnan().flatten(2).any(dim=2)
        clean = self.coefficients.masked_fill(lost[..., None, None], 0.0)
        basis = torch.linalg.qr(clean[..., leading:]).Q
        # The sine is known where the angle is small, which is where it matters.
        sines = torch.linalg.svdvals(basis[..., leading:, :]).amin(dim=-1)
        return sines.clamp(max=1.0).asin().masked_fill(lost, torch.nan)


def covariant_vectors(
    operators: Sequence[LinearOperator],
    k: int,
    *,
    lead_in: int,
    lead_out: int,
    keep_frames: bool = False,
    seed: int = 0,
) -> CovariantVectors:
    """The covariant vectors of the `k` leading exponents along a chain, given in the order in which it acts.

    Args:
        lead_in, lead_out: steps at the beginning and at the end in which the frame and the coefficients settle;
            a gap between two exponents of g nat per step leaves e^(-g lead).

    Raises:
        ValueError: no step is left between them, or the operators are not square.
    """
    kept = len(operators) - lead_in - lead_out
    if kept < 1 or lead_in < 0 or lead_out < 0:
        raise ValueError(f"{len(operators)} steps leave none between {lead_in} and {lead_out}")
    if not all(operator.square for operator in operators):
        raise ValueError("covariant vectors need square steps")
    first = workable(operators[0])
    width = min(k, first.cols)
    frame = random_frame(first.samples, first.cols, width, seed=seed, dtype=first.dtype, device=first.device)
    factors: list[Tensor] = []
    frames: list[Tensor] = []
    for time, operator in enumerate(operators):
        if keep_frames and lead_in <= time < lead_in + kept:
            frames.append(frame)
        frame, factor = orthonormalise(operator.matmat(frame.to(operator.dtype)).to(frame.dtype))
        if time >= lead_in:
            factors.append(factor)
    coefficients, growth = _back(factors, kept)
    whole = bool(coefficients.isfinite().all())
    return CovariantVectors(
        coefficients=coefficients,
        frames=torch.stack(frames, dim=1) if frames else None,
        growth=growth,
        outcome=CONVERGED if whole else "a direction is lost: an exponent of -infinity has no covariant vector",
    )


def _back(factors: list[Tensor], kept: int) -> tuple[Tensor, Tensor]:
    """Coefficients at the first `kept` states, and the mean logarithm of the stretching between them."""
    samples, k = factors[0].shape[0], factors[0].shape[2]
    identity = torch.eye(k, dtype=torch.float64, device=factors[0].device)
    # Any upper triangular start serves but one that already is special, as the identity is for commuting steps.
    current = _unit((identity + torch.ones_like(identity).triu()).expand(samples, k, k))
    found: list[Tensor] = []
    total = torch.zeros(samples, k, dtype=torch.float64, device=current.device)
    for time in reversed(range(len(factors))):
        factor = factors[time].triu()
        lost = torch.diagonal(factor, dim1=1, dim2=2).abs().amin(dim=1) <= torch.finfo(torch.float64).tiny
        solvable = torch.where(lost[:, None, None], identity, factor)
        back = torch.linalg.solve_triangular(solvable, current, upper=True)
        back = back.masked_fill(lost[:, None, None], torch.nan)
        if time < kept:
            total = total - torch.linalg.vector_norm(back, dim=1).log()
        current = _unit(back)
        if time < kept:
            found.append(current)
    return torch.stack(found[::-1], dim=1), total / kept


def _unit(columns: Tensor) -> Tensor:
    return columns / torch.linalg.vector_norm(columns, dim=1, keepdim=True)
