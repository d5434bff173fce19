"""One straight line for a map and its tangents, against torch.func; and families of maps, however they behave."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynstab.core.errors import CaptureError
from dynstab.linear.family import MapFamily
from dynstab.linear.recorded_operator import RecordedOperator
from dynstab.linear.tangent_program import TangentProgram

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def ring(x: Tensor, t: Tensor) -> Tensor:
    return (x.roll(-1) - x.roll(2)) * x.roll(1) * torch.cos(t) - x


MATRIX = randn(3, 3, seed=1)
MODULE = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).double()
MAPS = {
    "ring": (ring, randn(7)),
    "stack": (lambda x, t: torch.stack([x[0] * x[1], t - x[0], x.sum()]), randn(3)),
    "matrix": (lambda x, t: torch.tanh(x @ MATRIX) + t, randn(2, 3)),
    "module": (lambda x, t: MODULE(x) * t, randn(5, 4)),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_program_gives_the_map_and_its_jacobian(name):
    f, x = MAPS[name]
    t = torch.tensor(0.3, dtype=F64)
    program = TangentProgram(f, (x, t), 3)
    for seed in range(5):
        x, t, tangents = randn(*x.shape, seed=seed), randn(1, seed=seed)[0], randn(3, *x.shape, seed=seed + 9)
        after, moved = program(x, t, tangents)
        expected = torch.stack([torch.func.jvp(lambda x, t=t: f(x, t), (x,), (v,))[1] for v in tangents])
        assert torch.allclose(after, f(x, t)) and torch.allclose(moved, expected, atol=1e-12)
    assert not moved.requires_grad


def test_a_branch_on_values_is_refused_and_not_followed_blindly():
    with pytest.raises(CaptureError, match=r"branches on values \(test_tangent_program.py:\d+\)"):
        TangentProgram(lambda x: x if x[0] > 0 else -2 * x, (torch.ones(2, dtype=F64),), 1)


def test_a_family_is_captured_once_for_all_its_members():
    calls = []

    def f(x: tuple[Tensor, ...], p: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        calls.append(p)
        return (torch.tanh(x[0]) * p[0],)

    family = MapFamily(f)
    family((randn(3),), (randn(1),))
    captured = len(calls)
    for seed in range(4):
        x, p = randn(3, seed=seed), randn(1, seed=seed)
        (after,), operator = family((x,), (p,))
        assert torch.allclose(operator.dense()[0], torch.diag(p / x.cosh().square()))
        assert torch.allclose(after, torch.tanh(x) * p)
    assert len(calls) == captured + 4


def test_a_member_that_takes_another_way_is_captured_anew():
    def f(x: tuple[Tensor, ...], p: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (x[0] * (2.0 if float(p[0]) > 0 else 3.0),)

    family, x = MapFamily(f), (randn(2),)
    for sign, slope in ((1.0, 2.0), (-1.0, 3.0), (1.0, 2.0)):
        _, operator = family(x, (torch.tensor(sign, dtype=F64),))
        assert torch.allclose(operator.dense()[0], slope * torch.eye(2, dtype=F64))


def test_a_gradient_taken_inside_the_function_keeps_its_own_derivative():
    """f = d/dx sum(tanh x) = 1 - tanh^2 x, with Jacobian -2 tanh x (1 - tanh^2 x): a trace holds it constant."""

    def f(x: tuple[Tensor, ...], _: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            y = x[0] if x[0].requires_grad else x[0].requires_grad_()
            return torch.autograd.grad(y.tanh().sum(), y, create_graph=True)

    x = randn(3)
    _, operator = MapFamily(f)((x.clone(),), (torch.zeros((), dtype=F64),))
    assert torch.allclose(operator.dense()[0].detach(), torch.diag(-2 * x.tanh() * (1 - x.tanh().square())))
    assert any("autograd" in route for route in operator.routes)


def test_a_recorded_run_is_linear_and_its_own_adjoint():
    x, fixed = randn(3), randn(2, 3, seed=1)
    operator = RecordedOperator(lambda x: (fixed @ x.sin(), x.square()), (x,), "test")
    expected = torch.cat([fixed * x.cos(), torch.diag(2 * x)])
    pushed = operator.matmat(torch.eye(3, dtype=F64)[None])[0]
    pulled = operator.rmatmat(torch.eye(5, dtype=F64)[None])[0]
    assert torch.allclose(pushed, expected) and torch.allclose(pulled, expected.T)
