"""Where a Lyapunov function falls: along trajectories, and out to which of its level sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from dynstab.core.errors import InputError
from dynstab.core.estimate import Estimate, Label
from dynstab.estimators.metric import root

_GRID = 96  # radii on a ray
_ROUNDS, _BISECTIONS = 6, 40
_NEAREST = 1e-3  # of the reach: nearer, rounding decides over the sign of the change


@dataclass(frozen=True, kw_only=True, eq=False)
class Decrease:
    """V and its change under the system, at many points at a time.

    Attributes:
        function: a step, or the field, of one state. point: x*. value: a V that was given. metric: P where none was.
    """

    function: Callable[[Tensor], Tensor]
    point: Tensor
    value: Callable[[Tensor], Tensor] | None
    metric: Tensor | None
    continuous: bool

    @cached_property
    def least(self) -> float:
        """V(x*): a V that was given may have any."""
        return 0.0 if self.value is None else float(self._values(self.point[None]))

    @property
    def noise(self) -> float:
        """How near V(x*) rounding decides whether V falls."""
        return torch.finfo(self.point.dtype).eps ** 0.5 * abs(self.least)

    def v(self, points: Tensor) -> Tensor:
        """V(x) - V(x*) for points (m, *shape): (m,) float64."""
        if self.metric is not None:
            away = (points - self.point).flatten(1).double().cpu()
            return ((away @ self.metric) * away).sum(dim=1)
        return self._values(points) - self.least

    def _values(self, points: Tensor) -> Tensor:
        assert self.value is not None
        values = _each(self.value, points)
        if values.shape[0] != values.numel():
            raise InputError("V does not return one number", expected="a tensor of one entry for one state")
        return values.detach().double().reshape(-1).cpu()

    def change(self, points: Tensor) -> Tensor:
        """V(f(x)) - V(x) of a map, dV/dt of a field, (m,) float64; +inf where the system leaves the numbers."""
        images = self.images(points)
        if not self.continuous:
            change = self.v(images) - self.v(points)
        elif self.metric is not None:
            away, speed = ((x.flatten(1).double().cpu()) for x in (points - self.point, images))
            change = 2 * ((away @ self.metric) * speed).sum(dim=1)
        else:
            change = (self._slopes(points).double() * images.double()).flatten(1).sum(dim=1).cpu()
        return change.nan_to_num(nan=inf, posinf=inf)

    def images(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            return _each(self.function, points)

    def _slopes(self, points: Tensor) -> Tensor:
        """dV/dx of a V that was given: one backward pass, since V of one point depends on no other."""
        assert self.value is not None
        with torch.enable_grad():
            leaves = points.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(_each(self.value, leaves).sum(), leaves)
        return slopes

    def along(self, starts: Tensor, steps: int, dt: float) -> tuple[Estimate, Estimate]:
        """The share of steps in which V does not fall, and of trajectories that have one, with standard errors.

        A step counts until V is so near its least that rounding decides. Not measured where V is not least at x*, and
        where RK4 makes V rise from points at which it falls.
        """
        points, before = starts, self.v(starts)
        floor = self.noise + 1e3 * torch.finfo(starts.dtype).eps ** 2 * float(before.nan_to_num(0.0, 0.0).amax())
        if below := int((before < -floor).sum()):
            return _neither(f"V is below V(x*) at {below} of {len(starts)} starts")
        counted = bad = torch.zeros(len(starts), dtype=torch.float64)
        against = 0
        for _ in range(steps):
            following = self._advance(points, dt)
            after = self.v(following).nan_to_num(nan=inf, posinf=inf)
            moving = (before > floor) & before.isfinite()
            rises = moving & ~(after < before)
            if self.continuous and bool(rises.any()):
                against += int((rises & (self.change(points) < 0)).sum())
            counted, bad, before, points = counted + moving, bad + rises, after, following
        method = f"{len(starts)} trajectories of {steps} steps"
        if not bool(counted.any()):
            return _neither("every trajectory starts at the fixed point")
        if 2 * against > bad.sum():
            return _neither(f"dt={dt:g} is too long for RK4: V rises from points where it falls; take a smaller dt")
        shares = (bad / counted.clamp(min=1))[counted > 0]
        return _share(bad.sum() / counted.sum(), shares, method), _share((bad > 0).double().mean(), bad > 0, method)

    def _advance(self, points: Tensor, dt: float) -> Tensor:
        """One step of the map, or of RK4."""
        if not self.continuous:
            return self.images(points)
        k1 = self.images(points)
        k2 = self.images(points + dt / 2 * k1)
        k3 = self.images(points + dt / 2 * k2)
        k4 = self.images(points + dt * k3)
        return points + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def first_violation(decrease: Decrease, *, reach: float, rays: int, seed: int) -> Estimate:
    """The least V at which a point was found where V does not fall, from above: the level set may be smaller still.

    Random rays from x* in the metric of P, the first violation on each by a grid and bisection, then more rays about
    the best one.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    size, best, level, tried = decrease.point.numel(), None, inf, 0
    for round_ in range(_ROUNDS):
        noise = torch.randn(rays, size, generator=generator, dtype=torch.float64)
        directions = noise if best is None else best + 0.5**round_ * noise / size**0.5
        if round_ == 0 and rays > 1:
            directions[1] = -directions[0]
        if decrease.metric is not None and best is None:
            directions = torch.linalg.solve_triangular(root(decrease.metric), directions.T, upper=True).T
        directions = directions / directions.norm(dim=1, keepdim=True)
        tried += rays
        found, at = _along_rays(decrease, directions, reach)
        if found < level:
            level, best = found, directions[at]
    method = f"rays to distance {reach:.3g} from the fixed point, {tried} of them"
    if level < -decrease.noise:
        return Estimate.unmeasured("V does not fall at a point where it is below V(x*)")
    if level == inf:
        return Estimate(value=inf, error=0.0, method=f"no violation on {method}", label=Label.UPPER)
    return Estimate(value=level, error=0.0, method=f"nearest violation on {method}", label=Label.UPPER)


def _along_rays(decrease: Decrease, directions: Tensor, reach: float) -> tuple[float, int]:
    """The least V at a first violation of any of the rays, and which ray that is."""
    grid = torch.logspace(0, 1, _GRID, base=1 / _NEAREST, dtype=torch.float64) * _NEAREST * reach
    changes = torch.stack([decrease.change(_points(decrease, directions, radius)) for radius in grid])
    rising = changes >= 0
    hit = rising.any(dim=0)
    if not bool(hit.any()):
        return inf, 0
    first = rising.int().argmax(dim=0)
    high, low = grid[first], grid[(first - 1).clamp(min=0)]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        rises = decrease.change(_points(decrease, directions, middle[:, None])) >= 0
        high, low = torch.where(rises, middle, high), torch.where(rises, low, middle)
    values = decrease.v(_points(decrease, directions, high[:, None])).where(hit, inf)
    return float(values.min()), int(values.argmin())


def _points(decrease: Decrease, directions: Tensor, radius: Tensor) -> Tensor:
    center = decrease.point
    return center + (radius * directions).reshape(len(directions), *center.shape).to(center)


def _each(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The function of every point, at once where vmap can, else one by one."""
    try:
        return torch.func.vmap(function)(points)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return torch.stack([function(point) for point in points])


def _neither(reason: str) -> tuple[Estimate, Estimate]:
    return Estimate.unmeasured(reason), Estimate.unmeasured(reason)


def _share(value: Tensor, parts: Tensor, method: str) -> Estimate:
    """A mean with its standard error over trajectories, which do not depend on each other; their steps do."""
    count = len(parts)
    # With none or all of m found, (m + 2) in the denominator keeps a doubt (Agresti & Coull 1998).
    least = 1 / (count + 2)
    error = max(float(parts.double().std()) / count**0.5, least) if count > 1 else 1.0
    return Estimate(value=float(value), error=error, method=method, label=Label.ESTIMATE, samples=count)
