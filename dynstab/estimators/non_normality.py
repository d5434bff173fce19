"""How much a dense matrix can amplify although its eigenvalues say decay.

Henrici's departure from normality sqrt(||A||_F^2 - sum |lambda|^2) / ||A||_F is 0 for a normal matrix and
at most 1. The Kreiss constant K = sup over |z| > 1 of (|z| - 1) ||(zI - A)^-1|| bounds the transient growth,
K <= sup_k ||A^k|| <= e d K; it is infinite where the spectral radius passes 1.

References:
    Henrici (1962), Numer. Math. 4; Kreiss (1962), BIT 2; Trefethen & Embree (2005), Spectra and Pseudospectra, ch. 14.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import pi

import torch
from scipy.linalg import schur
from scipy.optimize import minimize
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.dense import spectral_radius
from dynstab.estimators.result import Result, blank, non_finite_samples, rounding


def henrici_departure(matrices: Tensor, eigenvalues: Result) -> Result:
    """sqrt(max(0, ||A||_F^2 - sum |lambda|^2)) / ||A||_F, (samples, 1), in [0, 1]; 0 for the zero matrix."""
    square = matrices.double().square().sum(dim=(1, 2))[:, None]
    excess = (square - eigenvalues.values.abs().square().sum(dim=1, keepdim=True)).clamp(min=0)
    values = torch.where(square > 0, excess / square, 0.0).sqrt()
    # The difference of the squares is known to rounding * ||A||_F^2; its root is much less certain near 0.
    noise = rounding(matrices.dtype, *matrices.shape[1:])
    errors = (values.square() + noise).sqrt() - values
    return blank(_derived(eigenvalues, values, errors, "Henrici departure"), non_finite_samples(matrices))


def transient_growth(matrices: Tensor, *, powers: int = 64) -> Result:
    """max over 1 <= k <= powers of ||A^k||, (samples, 1), a lower bound of the supremum over all k.

    +inf where the powers overflow.
    """
    bad = non_finite_samples(matrices)
    clean = matrices.double().masked_fill(bad[:, None, None], 0.0)
    best = torch.tensor([_largest_power(matrix, powers) for matrix in clean], dtype=torch.float64).to(clean.device)
    result = Result(
        values=best[:, None],
        errors=(rounding(matrices.dtype, *matrices.shape[1:]) * best)[:, None],
        label=Label.LOWER,
        method=f"norms of the first {powers} powers",
    )
    return blank(result, bad)


def _largest_power(matrix: Tensor, powers: int) -> float:
    """max ||A^k||: the Frobenius norm is cheap and never smaller, so that few powers need a decomposition."""
    sizes = [float(torch.linalg.matrix_norm(power)) for power in _powers(matrix, powers)]
    if len(sizes) < powers:
        return torch.inf
    largest = sizes.index(max(sizes)) + 1
    best = float(torch.linalg.matrix_norm(torch.linalg.matrix_power(matrix, largest), 2))
    for size, power in zip(sizes, _powers(matrix, powers), strict=True):
        if size > best:
            best = max(best, float(torch.linalg.matrix_norm(power, 2)))
    return best


def _powers(matrix: Tensor, count: int) -> Iterator[Tensor]:
    """A, A^2, ... up to the `count`-th, or to the last one that does not overflow."""
    power = matrix
    for _ in range(count):
        if not bool(power.isfinite().all()):
            return
        yield power
        power = power @ matrix


def kreiss_constant(matrices: Tensor, eigenvalues: Result, *, angles: int = 24, radii: int = 9) -> Result:
    """A lower bound of the Kreiss constant, (samples, 1), at least 1 (its limit as |z| grows).

    The largest value on a grid around the unit circle and along the angles of the outer eigenvalues,
    improved by a local search. +inf where the spectral radius exceeds 1 beyond its rounding.
    """
    radius = spectral_radius(eigenvalues)
    unstable = (radius.values - radius.errors)[:, 0] > 1
    bad = non_finite_samples(matrices)
    best = torch.ones(len(matrices), dtype=torch.float64).masked_fill(unstable.cpu(), torch.inf)
    for index in (~unstable & ~bad).nonzero()[:, 0].tolist():
        best[index] = _kreiss_search(matrices[index].double().cpu(), eigenvalues.values[index].cpu(), angles, radii)
    result = Result(
        values=best[:, None].to(matrices.device),
        errors=torch.zeros_like(best)[:, None].to(matrices.device),
        label=Label.LOWER,
        method=f"Kreiss constant, grid of {angles} angles x {radii} radii and local search",
        products=eigenvalues.products,
    )
    return blank(result, bad)


def _kreiss_search(matrix: Tensor, roots: Tensor, angles: int, radii: int) -> float:
    triangular = torch.as_tensor(schur(matrix.numpy(), output="complex")[0])
    outer = roots[roots.abs().argsort(descending=True)][:8].angle().abs()
    arguments = torch.cat([torch.linspace(0, pi, angles, dtype=torch.float64), outer]).unique()
    excess = torch.logspace(-3, 0.5, radii, dtype=torch.float64)
    grid = torch.polar(1 + excess[:, None], arguments.expand(radii, -1)).flatten()
    heights = torch.cat([_height(triangular, part) for part in grid.split(16)])

    def negative(point: list[float]) -> float:
        z = torch.polar(*torch.tensor([[1 + 10 ** point[0]], [point[1]]], dtype=torch.float64))
        return -float(_height(triangular, z))

    top = grid[heights.argmax()]
    start = [float((top.abs() - 1).log10()), float(top.angle())]
    found = minimize(negative, start, method="Nelder-Mead", options={"maxfev": 80, "xatol": 1e-4, "fatol": 1e-6})
    return max(1.0, float(heights.max()), -float(found.fun))


def _height(triangular: Tensor, points: Tensor, *, iterations: int = 6) -> Tensor:
    """(|z| - 1) ||(zI - T)^-1|| at each point, from below: inverse power iterations on two vectors."""
    size = len(triangular)
    shifted = points[:, None, None] * torch.eye(size, dtype=torch.complex128) - triangular
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(points), size, min(2, size), generator=generator, dtype=torch.complex128)
    norm = torch.zeros(len(points), dtype=torch.float64)
    for _ in range(iterations):
        x = x / x.norm(dim=1, keepdim=True)
        image = torch.linalg.solve_triangular(shifted, x, upper=True)
        norm = torch.maximum(norm, image.norm(dim=1).amax(dim=1).nan_to_num(nan=0.0))
        x = torch.linalg.solve_triangular(shifted.mH, image, upper=False)
    return (points.abs() - 1) * norm


def _derived(source: Result, values: Tensor, errors: Tensor, what: str) -> Result:
    return Result(
        values=values,
        errors=errors,
        label=source.label,
        method=f"{what} from {source.method}",
        products=source.products,
        outcome=source.outcome,
    )
