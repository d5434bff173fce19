"""Residual stacks whose flow is known: tied ones, split ones, and ones that sample nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.network_flow import NetworkFlow
from dynstab.estimators.reordered import Reordered
from dynstab.linear.operator import DenseOperator
from dynstab.measures.splitting import commutator

F64 = torch.float64


class Tied(nn.Module):
    """`depth` Euler steps of h' = f(h) over one unit of time."""

    def __init__(self, depth: int, field: nn.Module) -> None:
        super().__init__()
        self.depth, self.field = depth, field

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.depth):
            x = x + self.field(x) / self.depth
        return x


class Split(nn.Module):
    """Blocks of two sub-steps, x + s A x and then x + s B x, the second through a hidden layer as an MLP has it."""

    def __init__(self, first: Tensor, second: Tensor, *, scale: float = 0.1, depth: int = 4) -> None:
        super().__init__()
        self.first = nn.ParameterList([nn.Parameter(first.clone()) for _ in range(depth)])
        hidden = torch.cat([second, torch.zeros(2, len(second)).to(second)])
        self.second = nn.ParameterList([nn.Parameter(hidden.clone()) for _ in range(depth)])
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        for a, b in zip(self.first, self.second, strict=True):
            x = x + self.scale * (x @ a.T)
            x = x + self.scale * (x @ b.T)[:, : len(a)]
        return x


def flow_of(model: nn.Module, **options: object) -> NetworkFlow:
    size = next(model.parameters()).shape[-1]
    x = torch.randn(8, size, generator=torch.Generator().manual_seed(3), dtype=next(model.parameters()).dtype)
    flow = dynstab.analyze(
        model, x, config=dynstab.Config.model_validate({"k": 2, **options})
    ).measurements.network_flow
    assert flow is not None
    return flow


def tanh_field(size: int = 6) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(size, size), nn.Tanh()).double()


def changes(flow: NetworkFlow) -> dict[str, tuple[float, float]]:
    return {e.name: (e.state_change.value or 0.0, e.gain_change.value or 0.0) for e in flow.integrators}


def test_the_midpoint_rule_changes_a_tied_stack_to_first_order_in_the_step() -> None:
    coarse, fine = (changes(flow_of(Tied(depth, tanh_field()))) for depth in (8, 16))
    for name in ("half steps", "midpoint", "RK4"):
        assert coarse[name][0] / fine[name][0] == pytest.approx(2.0, rel=0.1)
    # Two half steps take away half of Euler's error, to first order.
    assert fine["half steps"][0] / fine["RK4"][0] == pytest.approx(0.5, rel=0.05)


def test_other_integrators_meet_the_matrix_exponential() -> None:
    field = nn.Linear(3, 3, bias=False).double()
    matrix = torch.tensor([[-0.5, 1.0, 0.0], [-1.0, -0.5, 0.2], [0.0, 0.0, -0.3]], dtype=F64)
    with torch.no_grad():
        field.weight.copy_(matrix)
    depth = 8
    flow = flow_of(Tied(depth, field), effort="thorough")
    euler = torch.linalg.matrix_power(torch.eye(3, dtype=F64) + matrix / depth, depth)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=F64)
    own = x @ euler.T
    moved = (own - x).norm(dim=1)
    found = changes(flow)
    # RK4 is the exponential to 1e-6 here, so that the gap is known; the implicit midpoint rule is a Cayley transform.
    exact = ((x @ torch.linalg.matrix_exp(matrix).T - own).norm(dim=1) / moved).mean()
    assert found["RK4"][0] == pytest.approx(float(exact), rel=1e-4)
    eye, half = torch.eye(3, dtype=F64), matrix / (2 * depth)
    cayley = torch.linalg.matrix_power(torch.linalg.solve(eye - half, eye + half), depth)
    assert found["implicit midpoint"][0] == pytest.approx(
        float(((x @ cayley.T - own).norm(dim=1) / moved).mean()), rel=1e-6
    )


def test_a_gain_changes_by_what_the_integrator_does_to_it() -> None:
    field = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        field.weight.copy_(-2 * torch.eye(4))
    depth = 8
    h = 2 / depth
    flow = flow_of(Tied(depth, field))
    euler, midpoint = depth * math.log(1 - h), depth * math.log(1 - h + h * h / 2)
    assert changes(flow)["midpoint"][1] == pytest.approx(midpoint - euler, abs=1e-9)


def test_the_control_hamiltonian_of_a_tied_stack_is_kept_to_first_order_in_the_step() -> None:
    drifts = []
    for depth in (8, 16, 32):
        drift = flow_of(Tied(depth, tanh_field())).hamiltonian_drift
        assert drift.value is not None
        drifts.append(drift.value)
    assert drifts[0] / drifts[1] == pytest.approx(2.0, rel=0.15)
    assert drifts[1] / drifts[2] == pytest.approx(2.0, rel=0.1)


def test_weights_that_are_not_tied_have_no_conserved_hamiltonian() -> None:
    torch.manual_seed(6)
    untied = Split(torch.randn(4, 4), torch.randn(4, 4))
    assert flow_of(untied).hamiltonian_drift.measured  # copies of the same weights are as good as tied
    with torch.no_grad():
        untied.first[1].mul_(2)
    drift = flow_of(untied).hamiltonian_drift
    assert not drift.measured
    assert "not tied" in drift.outcome


def test_sub_steps_that_commute_have_no_commutator_and_no_order() -> None:
    a, b = torch.diag(torch.tensor([1.0, -2.0, 0.5, 1.5])), torch.diag(torch.tensor([0.3, 0.7, -1.0, 2.0]))
    flow = flow_of(Split(a, b).double())
    assert (flow.period, flow.blocks) == (2, 4)
    assert flow.commutator.value == pytest.approx(0.0, abs=1e-12)
    assert flow.order_change.value == pytest.approx(0.0, abs=1e-10)
    assert flow.parallel_change.value is not None
    assert flow.parallel_change.value > 1e-3


def test_the_commutator_is_that_of_the_matrices_and_of_the_order_of_the_step() -> None:
    torch.manual_seed(5)
    a, b, s = torch.randn(4, 4, dtype=F64), torch.randn(4, 4, dtype=F64), 0.1
    expected = s * torch.linalg.matrix_norm(b @ a - a @ b) / torch.linalg.matrix_norm(a + b)
    eye = torch.eye(4, dtype=F64)
    found = commutator(DenseOperator(eye + s * a), DenseOperator(eye + s * b), eye[None])
    assert found.value == pytest.approx(expected.item())
    sampled = flow_of(Split(a, b, scale=s).double()).commutator
    assert sampled.value == pytest.approx(expected.item(), rel=0.5)
    smaller = flow_of(Split(a, b, scale=s / 4).double()).commutator
    assert smaller.value is not None
    assert sampled.value is not None
    assert sampled.value / smaller.value == pytest.approx(4.0, rel=1e-6)


def test_the_implied_step_of_scaled_orthogonal_branches_is_their_scale() -> None:
    class Rotating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weights = nn.ParameterList(
                [nn.Parameter(torch.linalg.qr(torch.randn(8, 8, dtype=F64)).Q) for _ in range(6)]
            )

        def forward(self, x: Tensor) -> Tensor:
            for weight in self.weights:
                x = x + 0.2 * (x @ weight.T)
            return x

    flow = flow_of(Rotating())
    assert flow.implied_step.value == pytest.approx(0.2, rel=1e-6)
    assert flow.depth_time.value == pytest.approx(1.2, rel=1e-6)


def test_networks_without_residual_steps_are_no_flows_and_short_ones_say_what_is_missing() -> None:
    plain = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    assert dynstab.analyze(plain, torch.randn(4, 6)).measurements.network_flow is None
    short = flow_of(Tied(2, tanh_field()))
    assert short.implied_step.measured
    assert short.blocks == 0
    assert "four residual blocks" in short.commutator.outcome


def test_a_coarse_tied_stack_is_flagged_and_a_fine_one_is_not() -> None:
    names = {}
    for depth in (8, 64):
        field = nn.Linear(4, 4, bias=False).double()
        with torch.no_grad():
            field.weight.copy_(torch.tensor([[0, 2, 0, 0], [-2, 0, 0, 0], [0, 0, 0, 1], [0, 0, -1, 0]]))
        report = dynstab.analyze(Tied(depth, field), torch.randn(4, 4, dtype=F64), config=dynstab.Config(k=2))
        names[depth] = {flag.name for flag in report.flags}
        if depth == 8:
            text = str(report)
            assert "As a flow" in text
            assert "midpoint" in text
    assert "coarse-depth-step" in names[8]
    assert "coarse-depth-step" not in names[64]


def test_a_reordered_operator_is_the_permuted_matrix() -> None:
    matrix = torch.randn(1, 4, 4, dtype=F64)
    rows, cols = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 3, 0])
    operator = Reordered(DenseOperator(matrix), rows, cols)
    expected = matrix[:, rows][:, :, cols]
    assert torch.equal(operator.matmat(torch.eye(4, dtype=F64)[None]), expected)
    assert torch.equal(operator.rmatmat(torch.eye(4, dtype=F64)[None]), expected.mT)
