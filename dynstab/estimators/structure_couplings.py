"""Coupling steps of normalising flows: which entries they pass on, which they scale, and their determinant.

A coupling keeps a part x_P of its input, up to the order and to constant factors D_1, and maps each of the other
entries by a scale and a shift that x_P alone sets: y_U = exp(s(x_P)) x_Q + t(x_P). Its Jacobian is
[[D_1, 0], [C, D_2]] up to the order of rows and columns, D_1 and D_2 diagonal, so that
ln |det J| = sum ln |D_1| + sum ln |D_2|, and its inverse needs s and t, never theirs. Three products read D_1, and
three more, of the other columns, D_2: the image of (1 + j / n)_j tells in each row that has a single entry where it
stands.

References:
    Dinh, Sohl-Dickstein & Bengio (2017), Density estimation using Real NVP, ICLR; Kingma & Dhariwal (2018), Glow,
    NeurIPS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.result import Result
from dynstab.estimators.structure import ROUNDING, Probes, noise_of
from dynstab.linear.operator import LinearOperator

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """Where D_1 and D_2 stand: row i holds its entry in column `source[i]`.

    Attributes:
        passed: (n,) bool, the rows of D_1, which nothing else enters. source: (n,), a permutation.
    """

    passed: Tensor
    source: Tensor

    @property
    def elementwise(self) -> bool:
        """Nothing enters anything else: a scaled permutation."""
        return bool(self.passed.all())

    @property
    def kept(self) -> Tensor:
        """(n,) bool, the columns of x_P."""
        kept = torch.zeros_like(self.passed)
        kept[self.source[self.passed]] = True
        return kept

    def same(self, other: Pattern) -> bool:
        return bool((self.passed == other.passed).all()) and bool((self.source == other.source).all())


@dataclass(frozen=True, kw_only=True, eq=False)
class Coupling:
    """A pattern and its entries, `scales` (samples, n): D_1 in the rows passed on, D_2 in the others."""

    pattern: Pattern
    scales: Tensor

    def log_determinant(self) -> Result:
        """ln |det J| (samples, 1), the sum of the logarithms of the scales."""
        logs = self.scales.double().abs().log()
        noise = 4 * torch.finfo(self.scales.dtype).eps * (1 + logs.abs())  # exp(s) is as exact as s
        return Result(
            values=logs.sum(dim=1, keepdim=True),
            errors=noise.sum(dim=1, keepdim=True),
            label=Label.EXACT,
            method="scales of a coupling",
            products=6,
        )


def read_coupling(operator: LinearOperator, probe: Tensor) -> Coupling | None:
    """The coupling that J may belong to; None where it has no such pattern, or not the same one at all inputs.

    Args:
        probe: a normal column (samples, n, 1), which confirms what was read.
    """
    size = operator.cols
    if not operator.square or size < 2 or 8 * noise_of(operator) * size > 1:  # beyond it, codes cannot be told apart
        return None
    code = 1 + torch.arange(size, dtype=operator.dtype, device=operator.device) / size
    columns = torch.stack([torch.ones_like(code), code], dim=1).expand(operator.samples, -1, -1)
    columns = torch.cat([columns, probe], dim=2)
    images = operator.matmat(columns)
    passed, source = _single_entries(images, columns, noise_of(operator))
    scales = images[:, :, 0]
    if passed.any() and not passed.all():
        kept = Pattern(passed=passed, source=source).kept
        others = operator.matmat(columns.masked_fill(kept[:, None], 0.0))
        single, behind = _single_entries(others, columns, noise_of(operator))
        source, scales = torch.where(passed, source, behind), torch.where(passed, scales, others[:, :, 0])
        whole = bool((single | passed).all())
    else:
        whole = bool(passed.all())
    if not whole or not bool((source.sort().values == torch.arange(size, device=source.device)).all()):
        return None
    return Coupling(pattern=Pattern(passed=passed, source=source), scales=scales)


def pattern_defect(operator: LinearOperator, pattern: Pattern, probes: Probes) -> Result:
    """The share of J, (samples, 1), that stands where a coupling of that pattern has zeros; two products a column."""
    columns = probes.columns
    images = operator.matmat(columns)
    beside = operator.matmat(columns.masked_fill(pattern.kept[:, None], 0.0))
    rows = torch.where(pattern.passed[:, None], images, beside)
    carried = columns[:, pattern.source]
    scale = (rows * carried).sum(dim=2, keepdim=True) / carried.square().sum(dim=2, keepdim=True)
    miss = _norm(rows - scale * carried)[:, 0]
    if not probes.exact:  # the fit of the scale takes one of the k degrees of freedom
        miss = miss * (columns.shape[2] / (columns.shape[2] - 1)) ** 0.5
    values = miss / _norm(images)[:, 0]
    return probes.result(values, torch.full_like(values, 2 * noise_of(operator)), 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class FiniteMove:
    """What a step that has the pattern of a coupling does over a finite move of its input.

    Attributes:
        defect: by how much it is not linear where a coupling is, relative to the move of its image, (samples, 1).
        affine: moving x_P changes the scale of x_Q.
    """

    defect: Result
    affine: bool


def finite_move(coupling: Coupling, function: Map, point: Tensor, offset: Tensor) -> FiniteMove:
    """Compare a step with the coupling read off its Jacobian over a finite move, in four evaluations.

    A coupling passes x_P on linearly, whatever x_Q does, and y_U follows x_Q linearly while x_P stays. A spline or
    another monotone map of x_Q has the same pattern, and misses.

    Args:
        function: the step, columns (samples, n, 1) to columns. point, offset: (samples, n, 1).
    """
    passed, source = coupling.pattern.passed[:, None], coupling.pattern.source
    among = offset.masked_fill(coupling.pattern.kept[:, None], 0.0)
    start, within, beyond, both = (function(point + each) for each in (0 * offset, among, offset - among, offset))
    wanted = coupling.scales[:, :, None] * offset[:, source]
    ahead = torch.where(passed, both - start, within - start)
    aside = torch.where(passed, wanted, both - beyond)
    reach = coupling.scales[:, :, None].abs() * (point.abs() + offset.abs())[:, source]
    images = torch.stack([start, within, beyond, both])
    slack = _noise(point) * (images.abs().amax(dim=0) + reach)
    size = _norm(both - start)
    defect = Result(
        values=_norm(ahead - wanted) / size,
        errors=_norm(slack) / size,
        label=Label.ESTIMATE,
        method="a finite move of the input",
    )
    affine = bool(((aside - wanted).abs() > slack).any())
    return FiniteMove(defect=defect, affine=affine)


def is_linear(operator: LinearOperator, function: Map, point: Tensor, offset: Tensor) -> bool:
    """Whether a step moves as its Jacobian says over a finite move: two evaluations and a product."""
    start, end, wanted = function(point), function(point + offset), operator.matmat(offset)
    reach = start.abs() + end.abs() + wanted.abs()
    return bool(((end - start - wanted).abs() <= _noise(point) * reach.amax(dim=1, keepdim=True)).all())


def run_back(coupling: Coupling, function: Map, image: Tensor) -> Tensor:
    """The input of a coupling, (samples, n, 1), from its image: four evaluations, no activation of the way forward.

    x_P = (y_K - b) / D_1 with b the image of 0; the shift is the image of (x_P, 0), the scale what (x_P, 1) adds to
    it. One Newton step takes away what the difference of the two lost to rounding.
    """
    passed, source = coupling.pattern.passed, coupling.pattern.source
    kept, scaled = source[passed], source[~passed]
    point = torch.zeros_like(image)
    point[:, kept] = ((image - function(point)) / coupling.scales[:, :, None])[:, passed]
    shift = function(point)
    ones = torch.zeros_like(image)
    ones[:, scaled] = 1.0
    scale = function(point + ones) - shift
    point[:, scaled] = ((image - shift) / scale)[:, ~passed]
    left = (image - function(point)) / scale
    point[:, scaled] += left[:, ~passed]
    return point


def _single_entries(images: Tensor, columns: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Rows of J that hold one entry at every input, and its column: (n,) each, from the images (samples, n, 3) of
    ones, codes and a probe."""
    size, scale = columns.shape[1], images[:, :, :1]
    place = ((images[:, :, 1:2] / scale - 1) * size).round().nan_to_num(0.0, 0.0, 0.0).clamp(0, size - 1).long()
    expected = columns.gather(1, place.expand_as(images))
    fits = (images - scale * expected).abs() <= 2 * noise * scale.abs() * (1 + expected.abs())
    single = (fits.all(dim=2) & (scale[:, :, 0] != 0)).all(dim=0)
    place = place[:, :, 0]
    return single & (place == place[0]).all(dim=0), place[0]


def _noise(point: Tensor) -> float:
    return ROUNDING * torch.finfo(point.dtype).eps


def _norm(columns: Tensor) -> Tensor:
    """Of all columns together, (samples, 1)."""
    return torch.linalg.vector_norm(columns, dim=(1, 2), dtype=torch.float64)[:, None]
