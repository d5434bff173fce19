"""The gain of cotangents from the last state to every state, per input and in logarithms.

Two ways to the same record: exact from the Jacobians where all are formed, else from one backward sweep of
isotropic probes. Both carry logarithms, since a product of 200 steps leaves the range of any number format.

References:
    Halko, Martinsson & Tropp (2011), SIAM Review 53, lemma 4.1 (the randomised upper bound).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, pi, sqrt

import torch
from torch import Tensor

from dynstab.core.estimate import Label
from dynstab.estimators.result import non_finite_samples, rounding
from dynstab.linear.operator import LinearOperator
from dynstab.measures.aggregate import standard_error
from dynstab.measures.probes import gaussian_blocks, pull, squared_norms


@dataclass(frozen=True, kw_only=True)
class FlowProfile:
    """ln of ||J_{l->L}^T c|| / ||c||, float64, for every input and state: (samples, states).

    Attributes:
        log_gain: root mean square over isotropic cotangents, or that of the given one.
        log_error: one standard error of it, or what rounding may have done.
        log_lower, log_upper: bounds over all cotangents; None where unknown.
        label: of the gain. upper_label: of the upper bound.
        products: pulls an input through the whole trajectory; with dense Jacobians those that formed them.
    """

    log_gain: Tensor
    log_error: Tensor
    label: Label
    method: str
    products: int
    log_lower: Tensor | None = None
    log_upper: Tensor | None = None
    lower_method: str = "sigma_min of the propagator, least over inputs"
    upper_label: Label = Label.UPPER
    upper_method: str = "sigma_max of the propagator"


def dense_profile(matrices: Sequence[Tensor], dtype: torch.dtype, cotangent: Tensor | None = None) -> FlowProfile:
    """From the Jacobians of all steps, (samples, rows, cols) in the order in which they act.

    J_{l->L}^T = Q_l T_l with orthonormal Q_l and T_l = R_l ... R_{L-1} from a QR of each step. Norms of T give the
    gain and sigma_max, the norm of its inverse sigma_min, so that neither is lost to a large condition.
    sigma_min is 0 from the first step back at which the Jacobian cannot be told from a singular one.

    Args:
        dtype: in which the Jacobians were computed. cotangent: (samples, size), for the gain of that one alone.
    """
    chain = _FactorChain(matrices[-1], cotangent)
    rows = [chain.logs()]
    for matrix in reversed(matrices):
        chain.pull(matrix, dtype)
        rows.append(chain.logs())
    gain, lower, upper = (torch.stack(parts[::-1], dim=1) for parts in zip(*rows, strict=True))
    steps = torch.arange(len(matrices), -1, -1, dtype=torch.float64)
    return FlowProfile(
        log_gain=gain,
        log_error=(rounding(dtype, 1, max(matrix.shape[1] for matrix in matrices)) * steps).expand_as(gain),
        label=Label.EXACT,
        method="dense propagators" + ("" if cotangent is None else ", given cotangent"),
        products=sum(min(matrix.shape[1:]) for matrix in matrices),
        # Rounding could put the Frobenius mean a hair outside of equal singular values.
        log_lower=torch.minimum(lower, gain),
        log_upper=torch.maximum(upper, gain),
    )


class _FactorChain:
    """T_l and its inverse, rescaled, on the way from the last state back."""

    def __init__(self, last: Tensor, cotangent: Tensor | None) -> None:
        samples, self.size = last.shape[0], last.shape[1]
        identity = torch.eye(self.size, dtype=torch.float64, device=last.device).expand(samples, -1, -1)
        self.frame = self.product = self.inverse = identity
        self.log_scale = torch.zeros(samples, dtype=torch.float64, device=last.device)
        self.log_inverse_scale = torch.zeros_like(self.log_scale)
        self.singular = torch.zeros(samples, dtype=torch.bool, device=last.device)
        self.bad = torch.zeros_like(self.singular)
        self.cotangent = None
        if cotangent is not None:
            given = cotangent.double()
            self.cotangent = (given / given.norm(dim=1, keepdim=True))[:, :, None]

    def pull(self, matrix: Tensor, dtype: torch.dtype) -> None:
        """One step further back."""
        self.bad = self.bad | non_finite_samples(matrix)
        clean = matrix.double().masked_fill(self.bad[:, None, None], 0.0)
        self.frame, factor = torch.linalg.qr(clean.mT @ self.frame)
        self.product, self.log_scale = _rescaled(factor @ self.product, self.log_scale)
        if factor.shape[1] < self.size or factor.shape[1] != factor.shape[2]:
            self.singular = torch.ones_like(self.singular)
            return
        values = torch.linalg.svdvals(factor)
        noise = rounding(dtype, *matrix.shape[1:]) * torch.linalg.matrix_norm(clean)
        self.singular = self.singular | (values[:, -1] <= noise)
        solvable = factor.masked_fill(self.singular[:, None, None], 0.0)
        solvable = solvable + torch.diag_embed(self.singular.double()[:, None].expand(-1, self.size))
        inverse = torch.linalg.solve_triangular(solvable, self.inverse, upper=True, left=False)
        self.inverse, self.log_inverse_scale = _rescaled(inverse, self.log_inverse_scale)

    def logs(self) -> tuple[Tensor, Tensor, Tensor]:
        """ln of the gain, of sigma_min and of sigma_max: (samples,) each; NaN where a Jacobian was not finite."""
        upper = torch.linalg.matrix_norm(self.product, 2).log() + self.log_scale
        lower = -(torch.linalg.matrix_norm(self.inverse, 2).log() + self.log_inverse_scale)
        lower = lower.masked_fill(self.singular, -torch.inf)
        if self.cotangent is None:
            gain = (torch.linalg.matrix_norm(self.product) / sqrt(self.size)).log() + self.log_scale
        else:
            gain = (self.product @ self.cotangent).norm(dim=(1, 2)).log() + self.log_scale
        return gain.masked_fill(self.bad, torch.nan), *(
            bound.masked_fill(self.bad, torch.nan) for bound in (lower, upper)
        )


def _rescaled(matrix: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    size = matrix.abs().amax(dim=(1, 2))
    size = torch.where(size > 0, size, 1.0)
    return matrix / size[:, None, None], log_scale + size.log()


def swept_profile(
    operators: Sequence[LinearOperator],
    probes: int,
    *,
    seed: int,
    chunk_bytes: int,
    cotangent: Tensor | None = None,
    tick: Callable[[], None] = lambda: None,
) -> FlowProfile:
    """From one backward sweep of `probes` Gaussian cotangents through all steps, all inputs together.

    Args:
        cotangent: (samples, size) of the last state, for the gain of that one alone; the probes then
            serve the upper bound.
        tick: called after every step.
    """
    # The last state may be as wide as a vocabulary: its probes are drawn and pulled in blocks.
    blocks = list(_first_pull(operators[-1], probes, seed, chunk_bytes, cotangent))
    columns, starts = (torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))
    logs = [torch.zeros_like(starts)]
    columns, log_norms = _normalised(columns, logs[0])
    logs.append(log_norms)
    tick()
    for operator in reversed(operators[:-1]):
        columns, log_norms = _normalised(pull(operator, columns, chunk_bytes=chunk_bytes), log_norms)
        logs.append(log_norms)
        tick()
    pulled = torch.stack(logs[::-1], dim=1)
    return _profile_of(pulled, starts, probes, operators[-1].dtype, cotangent is not None)


def _first_pull(
    last: LinearOperator, probes: int, seed: int, chunk_bytes: int, cotangent: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Unit cotangents pulled through the last step, and the logarithms of the lengths they had, block by block."""
    blocks = [] if cotangent is None else [_unit_pull(last, cotangent[:, :, None].to(last.dtype))]
    for block in gaussian_blocks(last, probes, seed=seed, chunk_bytes=chunk_bytes):
        blocks.append(_unit_pull(last, block))
    return blocks


def _unit_pull(operator: LinearOperator, columns: Tensor) -> tuple[Tensor, Tensor]:
    length = squared_norms(columns).sqrt()
    return operator.rmatmat(columns / length[:, None, :].to(columns.dtype)), length.log()


def _normalised(columns: Tensor, log_norms: Tensor) -> tuple[Tensor, Tensor]:
    """Unit columns; their lengths go into the logarithms. A zero column stays zero, with -inf."""
    length = squared_norms(columns).sqrt()
    unit = columns / torch.where(length == 0, 1.0, length)[:, None, :].to(columns.dtype)
    return unit, log_norms + length.log()


def _profile_of(pulled: Tensor, starts: Tensor, probes: int, dtype: torch.dtype, given: bool) -> FlowProfile:
    """From ln of the lengths, (samples, states, probes), the given cotangent first."""
    gains = pulled[:, :, -probes:]
    log_gain = (torch.logsumexp(2 * gains, dim=2) - log(probes)) / 2
    if given:
        steps = torch.arange(pulled.shape[1] - 1, -1, -1, dtype=torch.float64)
        log_gain, log_error = pulled[:, :, 0], (64 * torch.finfo(dtype).eps * steps).expand(pulled.shape[:2])
    else:
        relative = (2 * (gains - log_gain[:, :, None])).exp().nan_to_num(nan=0.0)
        log_error = standard_error(relative.flatten(0, 1)).reshape(log_gain.shape) / 2
    upper = (gains + starts[:, None, -probes:]).amax(dim=2) + log(10 * sqrt(2 / pi))
    upper[:, -1] = 0.0  # The last state is where the cotangents are: the identity needs no probes.
    return FlowProfile(
        log_gain=log_gain,
        log_error=log_error,
        label=Label.EXACT if given else Label.ESTIMATE,
        method="given cotangent" if given else f"backward sweep of {probes} isotropic cotangents an input",
        products=probes + given,
        log_upper=upper,
        upper_label=Label.PROBABILISTIC,
        upper_method=f"randomised norm bound, {probes} Gaussian probes, fails with probability 1e-{probes} an input",
    )
