"""A differential equation along its solver's steps: numbers whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from dynstab.core.config import Config
from dynstab.core.estimate import Label
from dynstab.core.measurements import Measurements
from dynstab.measures import measure
from dynstab.systems.flow import flow_system

torchdiffeq = pytest.importorskip("torchdiffeq", reason="neural ODEs are torchdiffeq's")

F64 = torch.float64
MATRIX = torch.tensor([[-1.0, 2.0, 0.3], [-0.4, -0.5, 0.1], [0.0, 0.7, 0.2]], dtype=F64)


class Solved(nn.Module):
    """x' = f(t, x) for a plain function."""

    def __init__(self, field: Any, end: float = 1.0, *, adjoint: bool = False, start: float = 0.0, **how: Any) -> None:
        super().__init__()
        self.field = field if isinstance(field, nn.Module) else None
        self.function, self.interval, self.how, self.adjoint = field, (start, end), how, adjoint

    def forward(self, x: Tensor) -> Tensor:
        times = torch.tensor(self.interval, dtype=x.dtype)
        solver = torchdiffeq.odeint_adjoint if self.adjoint else torchdiffeq.odeint
        return solver(self.function, x, times, **self.how)[-1]


class Field(nn.Module):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, size))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return 3 * self.net(x)


def measured(model: nn.Module, x: Tensor, effort: Any = "standard") -> Measurements:
    found = measure(flow_system(model, (x,)).trajectory, Config(effort=effort, system="flow"))
    assert found.flow is not None
    return found


def linear(t: Tensor, x: Tensor) -> Tensor:
    return x @ MATRIX.T


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(1))


def test_exponents_of_a_linear_flow_are_the_singular_values_of_the_exponential():
    found = measured(Solved(linear, end=2.0, rtol=1e-9, atol=1e-11), randn(2, 3))
    expected = torch.as_tensor(scipy.linalg.svdvals(scipy.linalg.expm(2 * MATRIX.numpy()))).log() / 2
    assert [e.value for e in found.flow.exponents] == pytest.approx(expected.tolist(), abs=1e-7)
    assert found.flow.exponents[0].unit == "nat/time"
    sigma = [e.value for e in found.network.largest_singular_values]
    assert sigma == pytest.approx((2 * expected).exp().tolist(), abs=1e-6)


def test_the_field_of_a_linear_flow_is_its_matrix():
    flow = measured(Solved(linear, method="rk4", options={"step_size": 0.25}), randn(2, 3)).flow
    values = torch.linalg.eigvals(MATRIX)
    assert len(flow.steps) == 4 and flow.evaluations == 16 and (flow.accepted, flow.rejected) == (4, 0)
    for step in flow.steps:
        assert step.abscissa.value == pytest.approx(float(values.real.max()))
        assert step.trace.value == pytest.approx(float(MATRIX.trace()))
        assert step.trace.label is Label.EXACT
        expected = torch.linalg.eigvalsh((MATRIX + MATRIX.T) / 2).max()
        assert step.logarithmic_norm.value == pytest.approx(float(expected))
        got = {complex(*pair) for pair in step.spectrum}
        assert all(min(abs(z - 0.25 * v) for z in got) < 1e-12 for v in values.tolist())


def test_the_logarithmic_norm_bounds_the_growth_of_the_flow():
    found = measured(Solved(Field().double(), rtol=1e-8, atol=1e-10), randn(3, 4))
    bound, sigma = found.flow.log_norm_bound, found.network.largest_singular_values[0]
    assert math.log(sigma.value) <= bound.value + bound.error + 1e-6


def test_the_trace_along_the_solution_is_the_logarithm_of_the_determinant():
    flow = measured(Solved(Field().double(), rtol=1e-8, atol=1e-10), randn(3, 4)).flow
    assert flow.determinant_gap.value <= flow.trace_integral.error + 1e-6
    assert flow.determinant_gap.value < 1e-3 * max(1.0, abs(flow.trace_integral.value))


def test_a_flow_back_in_time_expands_what_it_contracts_forwards():
    forwards = measured(Solved(linear, rtol=1e-9, atol=1e-11), randn(2, 3)).flow
    back = measured(Solved(linear, start=1.0, end=0.0, rtol=1e-9, atol=1e-11), randn(2, 3)).flow
    assert back.trace_integral.value == pytest.approx(-forwards.trace_integral.value, abs=1e-6)
    assert back.exponents[0].value == pytest.approx(-forwards.exponents[-1].value, abs=1e-6)
    assert back.steps[0].size < 0 and back.reached == 0.0


@pytest.mark.parametrize(("method", "modulus"), [("euler", math.sqrt(1.09)), ("midpoint", abs(0.955 + 0.3j))])
def test_an_oscillator_grows_by_the_stability_function(method, modulus):
    spin = torch.tensor([[0.0, 3.0], [-3.0, 0.0]], dtype=F64)
    model = Solved(lambda t, x: x @ spin.T, end=1.0, method=method, options={"step_size": 0.1})
    found = measured(model, randn(2, 2))
    assert found.flow.steps[3].neutral_amplification.value == pytest.approx(modulus, abs=1e-12)
    assert found.flow.exponents[0].value == pytest.approx(10 * math.log(modulus), abs=1e-9)


def test_a_decay_beyond_the_region_is_seen_to_grow():
    """h lambda = -3 under rk4: R(-3) = 1 - 3 + 4.5 - 4.5 + 3.375 = 1.375."""
    flow = measured(Solved(lambda t, x: -30 * x, method="rk4", options={"step_size": 0.1}), randn(2, 1)).flow
    assert flow.steps[0].neutral_amplification.value == pytest.approx(1.375)
    assert flow.stiffness.value == pytest.approx(30.0) and flow.stiffness_ratio.value == pytest.approx(1.0)
    assert flow.real_limit == pytest.approx(2.785293563)


def test_local_errors_are_those_of_the_solver():
    """One step of Euler on x' = x is off by e^h - 1 - h, relative to 1 + h."""
    flow = measured(Solved(lambda t, x: x, method="euler", options={"step_size": 0.1}), randn(2, 1)).flow
    expected = (math.exp(0.1) - 1.1) / 1.1
    assert flow.steps[0].local_error.value == pytest.approx(expected, rel=0.1)
    assert flow.solution_error.value == pytest.approx(1 - 1.1**10 / math.e, rel=1e-6)


def test_the_tolerance_is_kept_at_every_accepted_step():
    flow = measured(Solved(Field().double(), end=4.0, rtol=1e-5, atol=1e-6), randn(3, 4)).flow
    assert all(step.tolerance_ratio.value <= 1 + 1e-9 for step in flow.steps)
    assert flow.rtol == 1e-5 and flow.adaptive and flow.order == 5


def test_the_adjoints_gap_falls_with_the_tolerance():
    gaps = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        model = Solved(Field().double(), end=2.0, adjoint=True, rtol=tolerance, atol=tolerance)
        flow = measured(model, randn(3, 4), "quick").flow
        gaps.append(flow.adjoint_gap.value)
        assert flow.adjoint
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2] and gaps[2] < 1e-4


def test_the_adjoints_gap_falls_with_the_order_of_a_fixed_step():
    """Euler forwards and Euler on the adjoint equation differ by O(h)."""
    coarse, fine = (
        measured(
            Solved(Field().double(), adjoint=True, method="euler", options={"step_size": size}), randn(3, 4), "quick"
        ).flow.adjoint_gap.value
        for size in (0.05, 0.025)
    )
    assert coarse / fine == pytest.approx(2.0, abs=0.3)


def test_a_contraction_cannot_be_undone():
    gentle, strong = (
        measured(Solved(lambda t, x, rate=rate: -rate * x), torch.ones(2, 1), "quick").flow.reversal_error.value
        for rate in (1.0, 15.0)
    )
    assert gentle < 1e-4 < strong


def test_a_large_state_is_measured_without_its_jacobian():
    torch.manual_seed(0)
    matrix = (torch.randn(200, 200) / 200**0.5 - 2 * torch.eye(200)).float()
    model = Solved(lambda t, x: x @ matrix.T, method="rk4", options={"step_size": 0.25})
    flow = measured(model, torch.randn(2, 200), "quick").flow
    assert flow.steps[0].trace.label is Label.ESTIMATE
    assert flow.steps[0].trace.value == pytest.approx(float(matrix.trace()), abs=5 * flow.steps[0].trace.error + 1e-3)
    assert not flow.steps[0].abscissa.measured and "needs effort" in flow.steps[0].abscissa.outcome


def test_the_trace_is_integrated_where_several_solver_steps_make_one():
    model = Solved(lambda t, x: torch.cos(t) * x, end=2.0, method="euler", options={"step_size": 0.004})
    flow = measured(model, torch.ones(2, 3, dtype=F64)).flow
    assert flow.accepted == 500 and len(flow.steps) < 200
    assert flow.trace_integral.value == pytest.approx(3 * math.sin(2.0), abs=1e-3)
    assert abs(flow.trace_integral.value - 3 * math.sin(2.0)) <= flow.trace_integral.error
    assert flow.log_norm_bound.value == pytest.approx(math.sin(2.0), abs=1e-3)


def test_a_map_that_does_not_follow_a_stiff_decay_is_told_from_its_field():
    model = Solved(lambda t, x: -2000 * (x - torch.cos(t)), rtol=1e-4, atol=1e-6)
    flow = measured(model, torch.ones(1, 1, dtype=F64)).flow
    assert flow.trace_integral.value == pytest.approx(-2000, rel=1e-6)
    assert flow.exponents[0].value > -1000 and flow.determinant_gap.value > 1000


def test_why_gradients_cannot_be_compared_is_said_in_words():
    flow = measured(Solved(lambda t, x: -2000 * (x - torch.cos(t)), rtol=1e-4, atol=1e-6), randn(1, 1), "quick").flow
    assert flow.adjoint_gap.outcome in (
        "the adjoint equation cannot be solved: the step size underflowed",
        "the adjoint equation cannot be solved: the state became infinite or NaN",
    )


def test_an_unfinished_solution_gives_no_numbers_about_its_end():
    flow = measured(Solved(lambda t, x: x.square(), end=2.0), torch.ones(2, 1, dtype=F64)).flow
    assert flow.reached < 1.01 and "stopped at t" in flow.outcome
    for quantity in (flow.solution_error, flow.reversal_error, flow.adjoint_gap):
        assert not quantity.measured
