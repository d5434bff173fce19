"""The public `lyapunov_function`: a certificate of stability of a fixed point, tried on the system itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nan, sqrt

import torch
from torch import Tensor

from dynstab.core.errors import InputError
from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.estimators import dense
from dynstab.estimators.fixed_point import FixedPoint, fixed_point
from dynstab.estimators.level_set import Decrease, first_violation
from dynstab.estimators.lyapunov_arguments import check_arguments, check_autonomous
from dynstab.estimators.metric import lyapunov_matrix, metric_gain, metric_logarithmic_norm, root

_NONE = Estimate.unmeasured("not measured")


@dataclass(frozen=True, kw_only=True, eq=False)
class LyapunovFunction:
    """V around a fixed point, and how it fares along the system.

    Attributes:
        fixed_point: x*. residual: ||f(x*) - x*||, or ||f(x*)|| of a field.
        stable: None where x* was not found, or where rounding hides the answer.
        P: V(x) = (x - x*)^T P (x - x*), float64 (n, n); None for a V that was given, or where there is none.
        spectral: the spectral radius of the step at x*, or the abscissa max Re lambda of a field.
        contraction: the gain of the step at x* in the norm of P (below 1), or the logarithmic norm (below 0).
        violations: share of the steps of the trajectories in which V does not fall.
        trajectories_violating: share of the trajectories with such a step.
        level: the largest c such that V falls everywhere in {V < c}: from above, by the smallest
            violation that a search along rays found; infinite where it found none.
        reach: how far from x* the rays and starts went, Euclidean.
        outcome: "converged", or in words what is the matter.
    """

    fixed_point: Tensor
    residual: float
    stable: bool | None
    P: Tensor | None
    continuous: bool
    reach: float
    spectral: Estimate = _NONE
    contraction: Estimate = _NONE
    violations: Estimate = _NONE
    trajectories_violating: Estimate = _NONE
    level: Estimate = _NONE
    outcome: str = CONVERGED

    def __str__(self) -> str:
        rows = [
            ("outcome", self.outcome),
            ("abscissa" if self.continuous else "spectral radius", _shown(self.spectral)),
            ("contraction in the metric", _shown(self.contraction)),
            ("steps in which V does not fall", _shown(self.violations)),
            ("trajectories with such a step", _shown(self.trajectories_violating)),
            ("level without violation, at most", _shown(self.level)),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(["Lyapunov function", *(f"  {name:<{width}}  {text}" for name, text in rows)])


def lyapunov_function(
    system: Callable[..., Tensor],
    near: Tensor,
    *,
    steps: int | None = None,
    time: float | None = None,
    dt: float = 0.01,
    q: Tensor | None = None,
    V: Callable[[Tensor], Tensor] | None = None,  # noqa: N803  the field's own letter
    starts: Tensor | None = None,
    reach: float | None = None,
    samples: int = 64,
    seed: int = 0,
) -> LyapunovFunction:
    """A Lyapunov function of the fixed point near a guess, and where it holds.

    V(x) = (x - x*)^T P (x - x*) with P from the Lyapunov equation at x*; then V is followed along trajectories, and the
    nearest point at which it does not fall is searched along rays.

    Args:
        system: with `time` a vector field f(t, x), which must not depend on t; else a step x -> f(x).
        near: x*, or a guess from which Newton's iteration finds it; of any shape.
        steps: of each trajectory of a map, 100 by default. time: of each trajectory of a field. dt: its RK4 step.
        q: (n, n), symmetric and positive definite, the decrease asked for; None is the identity.
        V: another function of one state, smallest at x*; nothing is solved then.
        starts: (m, *shape), of the trajectories; drawn within `reach` of x* by default.
        reach: Euclidean distance from x* to search, by default twice the larger of sqrt(n) and ||x*||.
        samples: how many rays, and starts where none are given.

    Raises:
        InputError: the system does not map a state to its like, a field depends on t, or V does not give one number.
        ConfigError: `q`, `steps`, `time`, `dt`, `reach` or `samples` cannot be served, or the state has more than 2048
            entries.

    References:
        Khalil (2002), Nonlinear systems, ch. 4 and 8.
    """
    check_arguments(near, steps, time, dt, q, reach, samples)
    continuous = time is not None
    if time is not None:
        check_autonomous(system, near, time)
    function = (lambda x: system(0.0, x)) if continuous else system
    point = fixed_point(function, near, field=continuous)
    size, distance = near.numel(), float(point.state.double().norm())
    reach = 2 * max(sqrt(size), distance) if reach is None else reach
    if not point.found:
        reason = f"no fixed point found near the guess: residual {point.residual:.1e} after Newton's iteration"
        return _unfound(point, continuous, reach, reason)
    spectral = _spectral(point, continuous)
    p = lyapunov_matrix(point.jacobian, q, continuous=continuous)
    if p is None and V is None:
        return _unfound(point, continuous, reach, _without_metric(spectral, continuous), spectral)
    decrease = Decrease(
        function=function, point=point.state, value=V, metric=p if V is None else None, continuous=continuous
    )
    points = _starts(point.state, starts, reach, samples, seed)
    count = round((time or 0.0) / dt) if continuous else steps or 100
    share, trajectories = decrease.along(points, count, dt)
    contraction = _contraction(point, p, continuous) if p is not None else Estimate.unmeasured("no P exists")
    return LyapunovFunction(
        fixed_point=point.state,
        residual=point.residual,
        stable=None if p is None and _below(spectral, continuous) else p is not None,
        P=p if V is None else None,
        continuous=continuous,
        reach=reach,
        spectral=spectral,
        contraction=contraction,
        violations=share,
        trajectories_violating=trajectories,
        level=first_violation(decrease, reach=reach, rays=samples, seed=seed),
        outcome=CONVERGED
        if p is not None
        else "not asymptotically stable in its linearisation; the given V is tried all the same",
    )


def _contraction(point: FixedPoint, p: Tensor, continuous: bool) -> Estimate:
    value = (metric_logarithmic_norm if continuous else metric_gain)(point.jacobian, p)
    upper = root(p)
    condition = float(torch.linalg.cond(upper))
    unit = "1/time" if continuous else "1"
    method = "logarithmic norm in the metric of P" if continuous else "largest singular value in the metric of P"
    noise = torch.finfo(point.state.dtype).eps * len(p) * condition * max(1.0, abs(value))
    return Estimate(value=value, error=noise, unit=unit, method=method, label=Label.EXACT)


def _spectral(point: FixedPoint, continuous: bool) -> Estimate:
    """The radius or the abscissa; near a defective eigenvalue its error is a root of the rounding."""
    found = dense.eigenvalues(point.jacobian.to(point.state.dtype)[None])
    found = dense.spectral_abscissa(found, identity=0.0) if continuous else dense.spectral_radius(found)
    value, error = float(found.values[0, 0]), float(found.errors[0, 0])
    return Estimate(value=value, error=error, method=f"{found.method} at the fixed point", label=found.label)


def _below(spectral: Estimate, continuous: bool) -> bool:
    """Whether the eigenvalues as computed are those of a stable point."""
    return (spectral.value or 0.0) < (0.0 if continuous else 1.0)


def _without_metric(spectral: Estimate, continuous: bool) -> str:
    """Why there is no P."""
    name, limit = ("max Re lambda =", 0) if continuous else ("spectral radius", 1)
    if _below(spectral, continuous):
        return f"no P to rounding: {name} {_shown(spectral)} is below {limit}, but the point is too sensitive"
    return f"not asymptotically stable: {name} {spectral.value:.4g} is not below {limit}; no P exists"


def _starts(center: Tensor, given: Tensor | None, reach: float, samples: int, seed: int) -> Tensor:
    """Uniform in the ball around x*, or the user's own."""
    if given is not None:
        if given.shape[1:] != center.shape:
            raise InputError(
                f"starts of shape {tuple(given.shape)}", expected=f"(m, {', '.join(map(str, center.shape))})"
            )
        return given.to(center)
    generator = torch.Generator().manual_seed(seed)
    rays = torch.randn(samples, center.numel(), generator=generator, dtype=torch.float64)
    radii = reach * torch.rand(samples, 1, generator=generator, dtype=torch.float64) ** (1 / center.numel())
    offsets = (radii * rays / rays.norm(dim=1, keepdim=True)).reshape(samples, *center.shape)
    return center + offsets.to(center)


def _unfound(
    point: FixedPoint, continuous: bool, reach: float, reason: str, spectral: Estimate | None = None
) -> LyapunovFunction:
    missing = Estimate.unmeasured(reason)
    return LyapunovFunction(
        fixed_point=point.state,
        residual=point.residual,
        stable=None if spectral is None or _below(spectral, continuous) else False,
        P=None,
        continuous=continuous,
        reach=reach,
        spectral=spectral or missing,
        contraction=missing,
        violations=missing,
        trajectories_violating=missing,
        level=missing,
        outcome=reason,
    )


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"- ({estimate.outcome})"
    doubt = "" if estimate.error is None or estimate.error in (0.0, nan, inf) else f" ± {estimate.error:.1g}"
    return f"{estimate.value:.6g}{doubt} ({estimate.label})"
