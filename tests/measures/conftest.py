"""Trajectories made of matrices that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dynstab.linear.layout import Layout
from dynstab.linear.operator import DenseOperator
from dynstab.measures.effort import EFFORTS
from dynstab.systems.trajectory import State, Step, Trajectory

Chain = Callable[..., Trajectory]


def state(index: int, value: Tensor, **dims: int | None) -> State:
    """A state of `len(value)` independent inputs."""
    layout = Layout(shapes=(value.shape,), samples=value.shape[0], sample_dims=(0,))
    return State(index=index, name=f"x{index}", value=(value,), layout=layout, **dims)


def linear_chain(
    matrices: Sequence[Tensor],
    start: Tensor | None = None,
    *,
    residual: bool = False,
    kind: str = "depth",
    **fields: object,
) -> Trajectory:
    """x_{l+1} = J_l x_l for matrices (samples, rows, cols), every step residual with coefficient 1 or plain."""
    samples, _, cols = matrices[0].shape
    if start is None:
        start = torch.randn(samples, cols, generator=torch.Generator().manual_seed(0), dtype=matrices[0].dtype)
    states, steps = [state(0, start)], []
    for index, matrix in enumerate(matrices):
        following = (matrix @ states[-1].value[0][:, :, None])[:, :, 0]
        states.append(state(index + 1, following))
        step = Step(
            index=index,
            name=f"step {index}",
            kind="residual" if residual else "plain",
            source=index,
            target=index + 1,
            jacobian=DenseOperator(matrix),
            function=lambda value, matrix=matrix: ((matrix @ value[0][:, :, None])[:, :, 0],),
            residual_coefficient=1.0 if residual else None,
            parameters=(matrix,),
        )
        steps.append(step)
    return Trajectory(kind=kind, states=tuple(states), steps=tuple(steps), samples=samples, **fields)


@pytest.fixture(scope="session")
def chain() -> Chain:
    return linear_chain


@pytest.fixture(scope="session")
def make_state() -> Callable[..., State]:
    return state


@pytest.fixture
def matrix_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Jacobian is formed, however small."""
    for name, effort in EFFORTS.items():
        monkeypatch.setitem(EFFORTS, name, replace(effort, dense_size=0))
