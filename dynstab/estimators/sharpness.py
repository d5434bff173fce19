"""Sharpness: the leading eigenvalues of a loss's Hessian, and where they stand beside the optimiser's threshold.

Block Lanczos with full reorthogonalisation, restarted with the leading Ritz vectors where the basis gets
long. A Ritz value is a lower bound of lambda_max, and an eigenvalue lies within its residual: that
one larger was missed is unlikely from a random start, but not excluded.

References:
    Wu & Simon (2000), Thick-restart Lanczos method, SIMAX 22; Cohen et al. (2021, 2022), see `systems.optimizers`.
"""

from __future__ import annotations

from math import isfinite, nan

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynstab.core.errors import ConfigError
from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.core.training_dynamics import TrainingDynamics
from dynstab.estimators.adapters import workable
from dynstab.estimators.krylov import KrylovSpace
from dynstab.estimators.orthogonal import gaussian_probes, orthonormalise
from dynstab.estimators.result import NON_FINITE, Result, blank
from dynstab.estimators.summary import to_estimates
from dynstab.linear.operator import LinearOperator
from dynstab.systems.hessian import HessianOperator, Loss, ScaledHessian
from dynstab.systems.optimizers import UpdateRule, update_rule

_LONGEST = 24
"""Columns of a basis before it is restarted: two of them a column, of the size of the weights."""

_STIR = 0.2
"""Length of the random part of a warm start: another direction may have become the sharpest."""


def sharpness(
    model: nn.Module, loss: Loss, k: int = 1, *, optimizer: Optimizer | None = None, rtol: float = 1e-2, seed: int = 0
) -> tuple[Estimate, ...]:
    """The `k` largest eigenvalues of the Hessian of a loss over the parameters, descending.

    Args:
        model: as it is, in train or eval mode; it comes back as it was, gradients and buffers too.
        loss: model -> tensor with one entry, on a batch that it holds: `lambda m: cross_entropy(m(x), y)`.
        optimizer: where given, of the Hessian as this optimiser sees it, P^-1 H, with its weight decay.
        rtol: relative to the largest, at which Lanczos stops.

    Returns:
        Estimates, certified: an eigenvalue lies within `error` of each, and none above is below its value.

    Raises:
        InputError: the loss raises, is no scalar, or does not depend on the parameters.
        ConfigError: `k` is no count of eigenvalues, `rtol` no tolerance, or the optimizer is not known.
    """
    return SharpnessProbe(model, loss, optimizer, k=k, rtol=rtol, seed=seed).eigenvalues()


def training_stability(
    model: nn.Module, loss: Loss, optimizer: Optimizer, *, k: int = 1, rtol: float = 1e-2, seed: int = 0
) -> TrainingDynamics:
    """Where a training run stands: its sharpness beside the threshold of its optimiser.

    Takes SGD (with momentum, dampening, Nesterov), Adam, AdamW, RMSprop and Adagrad, groups with rates and
    decays of their own included. Printed, the result is a sentence.

    Args: as for `sharpness`.

    Raises:
        InputError: as for `sharpness`. ConfigError: the optimiser's threshold is not known, or not yet.
    """
    return SharpnessProbe(model, loss, optimizer, k=k, rtol=rtol, seed=seed).stability()


class SharpnessProbe:
    """Sharpness again and again along a run: each time starts from the eigenvectors found last.

    Args: as for `sharpness`; `budget` limits the products with the Hessian of one measurement, for each of the `k`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: Optimizer | None = None,
        *,
        k: int = 1,
        rtol: float = 1e-2,
        budget: int = 100,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigError(f"a model of type {type(model).__name__}", expected="the torch.nn.Module that is trained")
        if not isinstance(k, int) or k < 1:
            raise ConfigError(f"k={k!r}", expected="a whole number of eigenvalues, one at least")
        if not isinstance(rtol, (int, float)) or not 0 <= rtol < 1:
            raise ConfigError(f"rtol={rtol!r}", expected="a number from 0 up to below 1")
        self._model, self._loss, self._optimizer = model, loss, optimizer
        self._k, self._rtol, self._budget, self._seed = k, rtol, budget, seed
        self._vectors: Tensor | None = None

    def eigenvalues(self) -> tuple[Estimate, ...]:
        """The leading eigenvalues at the present weights, descending."""
        rule = update_rule(self._optimizer) if self._optimizer is not None else None
        return self._measure(rule)[0]

    def stability(self) -> TrainingDynamics:
        """The same beside the threshold of the optimiser at its present state."""
        if self._optimizer is None:
            raise ConfigError("no optimizer", expected="the one that trains the model")
        rule = update_rule(self._optimizer)
        values, loss = self._measure(rule)
        threshold = Estimate(
            value=rule.threshold, error=0.0, method=f"linear stability of {rule.name}", label=Label.EXACT
        )
        return TrainingDynamics(
            optimizer=rule.name,
            learning_rate=rule.learning_rate,
            loss=loss,
            preconditioned=rule.preconditioned,
            sharpness=values[0],
            threshold=threshold,
            ratio=_over(values[0], rule.threshold),
            eigenvalues=values,
        )

    def _measure(self, rule: UpdateRule | None) -> tuple[tuple[Estimate, ...], float]:
        trained = tuple(p for p in self._model.parameters() if p.requires_grad) if rule is None else rule.parameters
        hessian = HessianOperator(self._model, self._loss, trained)
        if not isfinite(hessian.value):
            # Where the loss is lost its curvature is, even if products with it stay finite, as under a target of NaN.
            lost = Estimate(value=nan, method="none", outcome=f"{NON_FINITE}: the loss is {hessian.value}")
            return (lost,) * min(self._k, hessian.cols), hessian.value
        seen = hessian if rule is None else ScaledHessian(hessian, scale=rule.rates.sqrt(), decay=rule.decay)
        result, self._vectors = leading_eigenvalues(
            seen, self._k, start=self._vectors, rtol=self._rtol, budget=self._budget * self._k, seed=self._seed
        )
        return to_estimates(result), hessian.value


def leading_eigenvalues(
    operator: LinearOperator,
    k: int = 1,
    *,
    start: Tensor | None = None,
    rtol: float = 1e-2,
    budget: int = 100,
    seed: int = 0,
) -> tuple[Result, Tensor]:
    """The `k` largest eigenvalues of a symmetric operator, (1, k) descending, and their Ritz vectors (1, n, k).

    Args:
        start: Ritz vectors of a like operator. budget: products at most.
    """
    operator = workable(operator)
    k = min(k, operator.cols)
    space = KrylovSpace(operator, operator.matmat, cost=1, width=k, seed=seed)
    if start is not None and start.shape == space.next.shape and bool(start.isfinite().all()):
        noise = gaussian_probes(1, operator.cols, k, seed=seed, dtype=start.dtype, device=start.device)
        space.next = orthonormalise(start + _STIR * noise / operator.cols**0.5)[0]
    while True:
        space.expand()
        values, inside, errors = _leading(space, k)
        size = torch.maximum(values.abs().amax(dim=1), space.norm * torch.finfo(space.norm.dtype).eps)
        done = values.shape[1] == k and bool((errors <= rtol * size[:, None] + space.noise[:, None]).all())
        if done or space.exhausted or bool(space.bad.any()) or space.products + k > budget:
            break
        if space.basis.shape[2] + k > max(_LONGEST, 4 * k):
            _, kept, _ = _leading(space, k + 4)
            space.basis, space.images = space.basis @ kept, space.images @ kept
    result = Result(
        values=values,
        errors=errors + space.noise[:, None],
        label=Label.CERTIFIED,
        method=f"block Lanczos on Hessian-vector products, block {k}",
        products=space.products,
        outcome=CONVERGED if done or space.exhausted else f"budget of {budget} products reached",
    )
    return blank(result, space.bad), space.basis @ inside


def _leading(space: KrylovSpace, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading Ritz values (1, k) float64, their coordinates in the basis (1, j, k), and their residuals (1, k)."""
    projected = (space.basis.mT @ space.images).double()
    # A zero column of the basis is no direction: park its eigenvalue below all others.
    missing = (space.basis == 0).all(dim=1).double()
    projected = projected - torch.diag_embed(missing * (1 + space.norm[:, None]))
    values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    chosen = values.shape[1] - 1 - torch.arange(min(k, values.shape[1]), device=values.device)
    values, inside = values[:, chosen], vectors[:, :, chosen].to(space.basis.dtype)
    wrong = space.images @ inside - (space.basis @ inside) * values[:, None, :].to(space.basis.dtype)
    return values, inside, wrong.double().norm(dim=1)


def _over(value: Estimate, threshold: float) -> Estimate:
    """value / threshold with its error."""
    if value.value is None:
        return value
    error = None if value.error is None else value.error / threshold
    return value.model_copy(update={"value": value.value / threshold, "error": error})
