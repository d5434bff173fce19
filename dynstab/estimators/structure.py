"""What a step preserves: by how much its Jacobian misses a structure, from products alone.

Each defect is a ratio of Frobenius norms, taken on columns X: exact where X is the identity, an estimate where
its entries are standard normal, since E ||C x||^2 = ||C||_F^2.

References:
    Hairer, Lubich & Wanner (2006), Geometric numerical integration, ch. VI; Chang et al. (2018), Reversible
    architectures for arbitrarily deep residual neural networks, AAAI; Chang et al. (2019), AntisymmetricRNN,
    ICLR; Gomez et al. (2017), The reversible residual network, NeurIPS; Galimberti et al. (2023), Hamiltonian
    deep neural networks, IEEE TAC 68.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.halves import Halves
from dynstab.estimators.result import Result
from dynstab.linear.operator import LinearOperator

_RIDGE = 1e-12  # of a least-squares fit that leaves a common factor free
ROUNDING = 64.0  # of eps: sums over a few thousand products in the analysis's own dtype
_UNDECIDED = 1e-2  # where rounding alone allows a larger defect, none can be told from another


@dataclass(frozen=True, kw_only=True, eq=False)
class Probes:
    """Columns (samples, size, k) on which defects are taken; `exact` where they are the identity."""

    columns: Tensor
    exact: bool

    def result(self, values: Tensor, noise: Tensor, products: int) -> Result:
        """Defects (samples,): with exact columns within `noise`, else with the scatter of k probes."""
        count = self.columns.shape[2]
        return Result(
            values=values.double()[:, None],
            errors=(noise if self.exact else noise + values / (2 * count) ** 0.5).double()[:, None],
            label=Label.EXACT if self.exact else Label.ESTIMATE,
            method="dense Jacobian" if self.exact else f"{count} Gaussian probes",
            products=products * count,
        )


def identity_probes(operator: LinearOperator) -> Probes:
    """All columns: defects are exact."""
    eye = torch.eye(operator.cols, dtype=operator.dtype, device=operator.device)
    return Probes(columns=eye.expand(operator.samples, -1, -1), exact=True)


def symplectic_defect(operator: LinearOperator, halves: Halves, probes: Probes) -> Result:
    """||J^T W J - W||_F / ||W||_F, (samples, 1), for J in place; two products a column.

    The order of the halves is a matter of writing: J^T W J = -W counts as symplectic too.
    """
    images = operator.matmat(probes.columns)
    back, wanted = operator.rmatmat(halves.rotate(images)), halves.rotate(probes.columns)
    size = _norm(wanted)
    values = torch.minimum(_norm(back - wanted), _norm(back + wanted)) / size
    return probes.result(values, noise_of(operator) * (1 + _norm(back) / size), 2)


def hamiltonian_defect(operator: LinearOperator, halves: Halves, probes: Probes, *, identity: float = 1.0) -> Result:
    """||W A - (W A)^T||_F / (2 ||A||_F) of the field A, (samples, 1), in [0, 1]; two products a column.

    A = J - I; with identity=0 the operator is the field itself.
    """
    update = operator.matmat(probes.columns) - identity * probes.columns
    turned = halves.rotate(probes.columns)
    crossed = halves.rotate(update) + operator.rmatmat(turned) - identity * turned
    return _of_update(operator, probes, crossed / 2, update, identity)


def antisymmetric_defect(operator: LinearOperator, probes: Probes, *, identity: float = 1.0) -> Result:
    """||S - c I||_F / ||A - c I||_F, (samples, 1), in [0, 1], S the symmetric part of A; two products a column.

    c = tr S / d: a damping -c I keeps the field antisymmetric in all that turns. A as in `hamiltonian_defect`.
    """
    columns = probes.columns
    update = operator.matmat(columns) - identity * columns
    symmetric = (update + operator.rmatmat(columns) - identity * columns) / 2
    damping = (symmetric * columns).sum(dim=(1, 2)) / columns.square().sum(dim=(1, 2))
    damped = damping[:, None, None] * columns
    return _of_update(operator, probes, symmetric - damped, update - damped, identity)


def scaled_antisymmetric_defect(matrices: Tensor) -> Result:
    """The least of `antisymmetric_defect` over D^-1 A with a positive diagonal D, for matrices J (samples, d, d).

    A layer act(K h + b) with K antisymmetric has the field's Jacobian A = D K, D = diag(act'). Where K is
    antisymmetric, |a_ij| / |a_ji| = d_i / d_j: D follows from a weighted least-squares fit of the logarithms.
    """
    dtype, size = matrices.dtype, matrices.shape[1]
    identity = torch.eye(size, dtype=torch.float64, device=matrices.device)
    field = matrices.double() - identity
    weights = (field * field.mT).abs().sqrt()
    weights = weights - torch.diag_embed(weights.diagonal(dim1=1, dim2=2))
    ratios = torch.where(weights > 0, (field / field.mT).abs().log(), 0.0)
    ridge = _RIDGE * weights.amax(dim=(1, 2), keepdim=True) * identity
    laplacian = torch.diag_embed(weights.sum(dim=2)) - weights + ridge
    # A Jacobian that is not finite has no structure; LAPACK would refuse it aloud.
    system, right = (
        part.nan_to_num(0.0, 0.0, 0.0) for part in (laplacian, (weights * ratios).sum(dim=2, keepdim=True))
    )
    logs = torch.linalg.lstsq(system, right).solution[:, :, 0]
    logs = (logs - logs.mean(dim=1, keepdim=True)).nan_to_num(0.0).clamp(-30, 30)
    scaled = field * (-logs).exp()[:, :, None]
    symmetric = (scaled + scaled.mT) / 2
    damping = symmetric.diagonal(dim1=1, dim2=2).mean(dim=1)
    miss = torch.linalg.matrix_norm(symmetric - damping[:, None, None] * identity)
    total = torch.linalg.matrix_norm(scaled - damping[:, None, None] * identity)
    # Rounding of the entries of J, as seen through the scaling.
    noise = ROUNDING * torch.finfo(dtype).eps * (1 + (-logs).exp().square().mean(dim=1).sqrt() * size**0.5 / total)
    noise = noise + size * _RIDGE
    probes = Probes(columns=identity.expand(len(matrices), -1, -1), exact=True)
    return probes.result(torch.where(total > 0, miss / total, 1.0), noise.where(total > 0, 0.0), 0)


def coupling_defect(operator: LinearOperator, halves: Halves, probes: Probes) -> Result:
    """How far J is from an additive coupling, relative to J, (samples, 1); three products a column.

    y_1 = x_1 + F(x_2), y_2 = x_2 + G(y_1) has J = [[I, B], [C, I + C B]], so that J (v, 0) begins with v and
    J (0, w) = (c, w + C c). Both orders of the halves are tried, and F or G may be 0. Such a step has
    det J = 1 and is inverted by evaluating F and G, whatever they are.
    """
    first, second = (_part(probes.columns, half) for half in (halves.first, halves.second))
    images = operator.matmat(torch.cat([first, second], dim=2))
    of_first, of_second = images.split(first.shape[2], dim=2)
    misses = []
    for a, b, v, w, image_v, image_w in (
        (halves.first, halves.second, first, second, of_first, of_second),
        (halves.second, halves.first, second, first, of_second, of_first),
    ):
        through = operator.matmat(_part(image_w, a))
        beside = image_w[:, b] - w[:, b] - through[:, b]
        misses.append(torch.hypot(_norm(image_v[:, a] - v[:, a]), _norm(beside)))
    size = _norm(images)
    values = torch.minimum(*misses) / size
    return probes.result(values, torch.full_like(values, noise_of(operator)) * (1 + size / _norm(probes.columns)), 3)


def noise_of(operator: LinearOperator) -> float:
    """Relative to a product with J, what rounding may be of it."""
    return ROUNDING * torch.finfo(operator.dtype).eps


def is_kept(result: Result) -> bool:
    """No larger than rounding makes it, at every input. Probes miss by a factor of order 1, never by orders."""
    return bool((result.values <= result.errors.clamp(max=_UNDECIDED)).all())


def is_permutation(operator: LinearOperator, columns: Tensor) -> bool:
    """Whether J only moves entries about or turns their signs: it keeps everything without meaning to."""
    if not operator.square:
        return False
    images, before = operator.matmat(columns).abs().sort(dim=1).values, columns.abs().sort(dim=1).values
    return bool(((images - before).abs() <= noise_of(operator) * before.amax()).all())


def _of_update(operator: LinearOperator, probes: Probes, miss: Tensor, update: Tensor, identity: float) -> Result:
    size = _norm(update)
    safe = torch.where(size > 0, size, 1.0)
    # No update at all has no structure.
    values = torch.where(size > 0, _norm(miss) / safe, 1.0)
    noise = torch.where(size > 0, noise_of(operator) * (identity * _norm(probes.columns) + size) / safe, 0.0)
    return probes.result(values, noise, 2)


def _part(columns: Tensor, rows: Tensor) -> Tensor:
    """The same columns with zeros outside of `rows`."""
    part = torch.zeros_like(columns)
    part[:, rows] = columns[:, rows]
    return part


def _norm(columns: Tensor) -> Tensor:
    return torch.linalg.vector_norm(columns, dim=(1, 2), dtype=torch.float64)
