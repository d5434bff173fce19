"""A report on a training run: the next updates of the weights as a trajectory, and sharpness beside its threshold."""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import dynstab
from dynstab.capture.isolate import random_states_kept
from dynstab.core.config import Config
from dynstab.core.measurements import Lyapunov
from dynstab.core.report import Check, ModelInfo, Provenance, Report
from dynstab.diagnostics import judged
from dynstab.estimators.sharpness import training_stability
from dynstab.measures import measure
from dynstab.systems.describe import system_info
from dynstab.systems.hessian import Loss
from dynstab.systems.optimizers import unwrapped
from dynstab.systems.training import training_trajectory
from dynstab.systems.trajectory import Trajectory
from dynstab.systems.verify import check_adjoint
from dynstab.target import dtype_name


@random_states_kept()
def analyze_training(
    model: nn.Module, loss: Loss, optimizer: Optimizer, *, steps: int = 8, config: Config | None = None
) -> Report:
    """Measure and judge the next updates of a training run; neither model nor optimiser moves.

    The states are the weights (and what the optimiser remembers), the steps its updates on the batch that the
    loss holds: exponents say how fast two runs that differ a little part, per update. Sharpness and threshold
    stand beside them. `config` gives k, seed, effort, select and ignore; the effort is quick where it is None.

    Raises:
        ConfigError: the optimiser is none of SGD, Adam and AdamW, or Adam has taken no step yet.
        InputError: the loss raises, is no scalar, or does not depend on the weights.
    """
    config, started = config or Config(effort="quick", k=4), time.perf_counter()
    dynamics = training_stability(model, loss, optimizer, k=config.k, seed=config.seed)
    trajectory = training_trajectory(model, loss, optimizer, steps)
    measurements = measure(trajectory, config)
    told = {"training": dynamics, "lyapunov": _of_random_directions(measurements.lyapunov)}
    measurements = measurements.model_copy(update=told)
    weights = trajectory.states[0].value[0]
    return judged(
        provenance=Provenance(
            dynstab=dynstab.__version__,
            torch=torch.__version__,
            device=str(weights.device),
            dtype=dtype_name(weights.dtype),
            seed=config.seed,
            config=config,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - started, 3),
            products=sum(step.jacobian.products for step in trajectory.steps) + dynamics.sharpness.products,
            routes=trajectory.routes,
        ),
        model=ModelInfo(
            source=type(model).__name__,
            format="module",
            class_name=type(model).__name__,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            trusted=True,
            dtype=dtype_name(weights.dtype),
        ),
        verification=(
            _same_weights(model, loss, optimizer, trajectory),
            check_adjoint([step.jacobian for step in trajectory.steps], weights.dtype),  # pyright: ignore[reportArgumentType]
        ),
        system=system_info(trajectory, ("the batch of the loss",)),
        measurements=measurements,
    )


def _of_random_directions(lyapunov: Lyapunov) -> Lyapunov:
    """Exponents that say that a few updates do not turn a random frame to the directions that grow fastest."""
    note = ", from random directions: the leading ones may grow faster"
    qr = tuple(each.model_copy(update={"method": f"{each.method}{note}"}) for each in lyapunov.qr)
    return lyapunov.model_copy(update={"qr": qr})


def _same_weights(model: nn.Module, loss: Loss, optimizer: Optimizer, trajectory: Trajectory) -> Check:
    """Whether the optimiser itself, on copies, gets from the first state to the second."""
    twin, mover = copy.deepcopy((model, unwrapped(optimizer)))
    mover.zero_grad()
    with torch.random.fork_rng(), torch.enable_grad():
        loss(twin).backward()
    mover.step()
    moved = [p for group in mover.param_groups for p in group["params"] if p.requires_grad]
    expected = torch.cat([parameter.detach().reshape(-1) for parameter in moved])
    first, second = (state.value[0] for state in trajectory.states[:2])
    error = _distance(second, expected, scale=expected - first)
    return Check(
        check="states equal the optimiser's",
        passed=error < 1e-2,
        error=error,
        detail="the weights after one update equal those that the optimiser itself reaches, relative to the update",
    )


def _distance(found: Tensor, expected: Tensor, *, scale: Tensor) -> float:
    """Relative to the scale; entries that are lost in both are no difference."""
    size = float(scale[scale.isfinite()].double().norm())
    same = (found == expected) | (found.isnan() & expected.isnan())
    apart = float((found - expected)[~same].double().norm())
    return apart / size if size else apart
