"""Differential equations found in models: the solver's own steps, whoever calls it and however."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from dynstab.core.errors import ConfigError, InputError
from dynstab.systems.flow import flow_system, solves_equations
from dynstab.systems.flow_trajectory import FlowTrajectory

torchdiffeq = pytest.importorskip("torchdiffeq", reason="neural ODEs are torchdiffeq's")

F64 = torch.float64
MATRIX = torch.tensor([[-1.0, 2.0, 0.3], [-0.4, -0.5, 0.1], [0.0, 0.7, 0.2]], dtype=F64)


class Field(nn.Module):
    def __init__(self, size: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, size))
        self.scale, self.calls = scale, 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.scale * self.net(x) * torch.cos(t)


class NeuralODE(nn.Module):
    def __init__(self, *, adjoint: bool = False, times: tuple[float, ...] = (0.0, 1.0), scale: float = 1.0, **how: Any):
        super().__init__()
        self.stem, self.field, self.head = nn.Linear(2, 3), Field(scale=scale), nn.Linear(3, 1)
        self.solver = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        self.times, self.how = times, how

    def forward(self, x: Tensor) -> Tensor:
        times = torch.tensor(self.times, dtype=x.dtype)
        return self.head(self.solver(self.field, self.stem(x), times, **self.how)[-1])


class Linear(nn.Module):
    """x' = A x over two units of time."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.matrix, self.how = nn.Parameter(MATRIX), how

    def forward(self, x: Tensor) -> Tensor:
        return torchdiffeq.odeint(
            lambda t, y: y @ self.matrix.T, x, torch.tensor([0.0, 2.0], dtype=x.dtype), **self.how
        )[-1]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def found(model: nn.Module, x: Tensor) -> tuple[FlowTrajectory, dict[str, bool]]:
    system = flow_system(model, (x,))
    assert isinstance(system.trajectory, FlowTrajectory)
    return system.trajectory, {check.check: check.passed for check in system.checks}


FIXED = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}


@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize("adjoint", [False, True])
def test_fixed_steps_are_the_solvers_own_and_their_product_is_autograds_gradient(method, adjoint):
    model = NeuralODE(adjoint=adjoint, method=method, options={"step_size": 0.25}).double()
    trajectory, checks = found(model, torch.randn(4, 2, dtype=F64))
    assert [step.name for step in trajectory.steps][0] == "t 0 to 0.25" and len(trajectory.steps) == 4
    assert len(checks) == 3 and all(checks.values())
    assert trajectory.problem.tableau.order == FIXED[method] and trajectory.problem.adjoint is adjoint
    assert trajectory.samples == 4 and not trajectory.coupled


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "fehlberg2", "adaptive_heun", "dopri8"])
def test_adaptive_steps_are_those_that_the_solver_accepted(method):
    model = NeuralODE(method=method, rtol=1e-5, atol=1e-6, scale=4.0).double()
    trajectory, checks = found(model, torch.randn(4, 2, dtype=F64))
    assert all(checks.values()) and len(checks) == 3
    assert trajectory.solution.outcome == "converged" and trajectory.solution.reached == 1.0
    sizes = [step.size for step in trajectory.solution.steps]
    assert sum(sizes) == pytest.approx(1.0) and trajectory.problem.adaptive
    assert trajectory.solution.evaluations > trajectory.problem.tableau.stages * len(sizes) // 2
    assert any("share the solver's step sizes" in note for note in trajectory.notes)


def test_the_flow_map_of_a_linear_field_is_the_exponential_of_its_matrix():
    trajectory, checks = found(Linear(rtol=1e-9, atol=1e-11), torch.randn(2, 3, dtype=F64))
    expected = torch.as_tensor(scipy.linalg.expm(2 * MATRIX.numpy()))
    assert all(checks.values())
    assert torch.allclose(trajectory.propagator().dense()[0], expected, atol=1e-7)


def test_a_flow_back_in_time_has_the_inverse_map():
    model = NeuralODE(times=(1.0, 0.6, 0.0), rtol=1e-9, atol=1e-11).double()
    x = torch.randn(3, 2, dtype=F64)
    back, checks = found(model, x)
    assert all(checks.values()) and back.solution.steps[0].size < 0 and back.states[-1].name == "t = 0"
    forth = NeuralODE(times=(0.0, 1.0), rtol=1e-9, atol=1e-11).double()
    forth.load_state_dict(model.state_dict())
    # Start the way forth where the way back ended.
    with torch.no_grad():
        end = back.states[-1].value[0]
        forth.stem = nn.Identity()  # type: ignore[assignment]
        there, _ = found(forth, end)
    product = there.propagator().dense() @ back.propagator().dense()
    assert torch.allclose(product, torch.eye(3, dtype=F64).expand(3, 3, 3), atol=1e-6)


def test_a_tuple_state_keeps_its_parts_and_the_exact_trace_follows_the_state():
    class Flow(nn.Module):
        """A continuous normalising flow: the second part of the state is the log-density's change."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

        def field(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                z = state[0] if state[0].requires_grad else state[0].requires_grad_()
                slope = self.net(z)
                parts = [torch.autograd.grad(slope[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2)]
            return slope, -(parts[0] + parts[1])[:, None]

        def forward(self, z: Tensor) -> Tensor:
            times = torch.tensor([0.0, 1.0], dtype=z.dtype)
            return torchdiffeq.odeint(self.field, (z, z.new_zeros(len(z), 1)), times, rtol=1e-6, atol=1e-8)[1][-1]

    trajectory, checks = found(Flow().double(), torch.randn(4, 2, dtype=F64))
    assert all(checks.values())
    assert [tuple(t.shape) for t in trajectory.states[0].value] == [(4, 2), (4, 1)]
    assert trajectory.samples == 4 and trajectory.states[0].size == 3
    jacobian = trajectory.propagator().dense()[0]
    logdet = torch.linalg.slogdet(jacobian[:2, :2]).logabsdet
    change = trajectory.states[-1].value[1][0, 0]
    assert float(logdet + change) == pytest.approx(0.0, abs=1e-5)
    assert float(jacobian[2, :2].abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["cubic", "linear"])
def test_a_controlled_equation_is_followed_along_its_path(kind):
    torchcde = pytest.importorskip("torchcde", reason="neural CDEs are torchcde's")

    class Control(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.start = nn.Linear(4, 8), nn.Linear(2, 4)

        def field(self, t: Tensor, z: Tensor) -> Tensor:
            return self.linear(z).tanh().view(*z.shape[:-1], 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            if kind == "cubic":
                path = torchcde.CubicSpline(torchcde.hermite_cubic_coefficients_with_backward_differences(x))
            else:
                path = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(x))
            z0 = self.start(path.evaluate(path.interval[0]))
            how = {"method": "rk4", "options": {"step_size": 0.5}}
            return torchcde.cdeint(X=path, func=self.field, z0=z0, t=path.interval, adjoint=False, **how)[:, -1]

    trajectory, checks = found(Control().double(), torch.randn(3, 5, 2, dtype=F64).cumsum(1))
    assert all(checks.values()) and len(checks) == 3
    assert len(trajectory.steps) == 8 and trajectory.samples == 3


def test_a_vector_field_alone_is_integrated_over_a_unit_of_time_and_says_so():
    trajectory, checks = found(Field().double(), torch.randn(4, 3, dtype=F64))
    assert all(checks.values()) and (trajectory.problem.start, trajectory.solution.reached) == (0.0, 1.0)
    assert "forward is read as the vector field dx/dt = f(t, x)" in trajectory.notes[0]

    autonomous = nn.Linear(3, 3).double()
    trajectory, checks = found(autonomous, torch.randn(4, 3, dtype=F64))
    assert all(checks.values()) and "dx/dt = f(x)" in trajectory.notes[0]


def test_the_model_comes_back_as_it_was():
    model = NeuralODE(adjoint=True).double()
    before, calls = {k: v.clone() for k, v in model.state_dict().items()}, model.field.calls
    solvers = sys.modules["torchdiffeq._impl.odeint"].SOLVERS
    table = dict(solvers)
    flow_system(model, (torch.randn(4, 2, dtype=F64),))
    assert model.field.calls == calls and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert solvers == table


def test_of_several_integrals_the_one_with_the_most_steps_is_taken():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Field(), Field()

        def forward(self, x: Tensor) -> Tensor:
            times = torch.tensor([0.0, 1.0], dtype=x.dtype)
            x = torchdiffeq.odeint(self.a, x, times, method="euler", options={"step_size": 0.5})[-1]
            return torchdiffeq.odeint(self.b, x, times, method="euler", options={"step_size": 0.2})[-1]

    trajectory, _ = found(Two().double(), torch.randn(2, 3, dtype=F64))
    assert len(trajectory.steps) == 5
    assert any("2 differential equations" in note for note in trajectory.notes)


@pytest.mark.parametrize("how", [{}, {"method": "rk4", "options": {"step_size": 0.1}}])
def test_an_integral_that_an_event_ends_is_read_up_to_there(how: dict[str, Any]):
    class Fall(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            start = torch.zeros((), dtype=x.dtype)
            field = lambda t, y: torch.stack([y[1], -torch.ones_like(y[1])])  # noqa: E731
            return torchdiffeq.odeint_event(field, x, start, event_fn=lambda t, y: y[0], **how)[1][-1]

    trajectory, checks = found(Fall(), torch.tensor([2.0, 0.0], dtype=F64))
    assert trajectory.solution.reached == pytest.approx(2.0, abs=1e-2)
    assert all(checks.values()) and any("an event ends" in note for note in trajectory.notes)
    expected = torch.tensor([[1.0, trajectory.solution.reached], [0.0, 1.0]], dtype=F64)
    assert torch.allclose(trajectory.propagator().dense()[0], expected, atol=1e-6)


def test_a_complex_state_is_refused_in_one_sentence():
    class Turning(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z, times = torch.complex(x, x), torch.tensor([0.0, 1.0], dtype=x.dtype)
            return torchdiffeq.odeint(lambda t, y: 2j * y, z, times, method="rk4")[-1].real

    with pytest.raises(ConfigError, match="complex128; expected a real state; integrate torch.view_as_real"):
        flow_system(Turning(), (torch.randn(2, 3, dtype=F64),))


@pytest.mark.parametrize("how", [{}, {"options": {"step_t": torch.tensor([0.3, 0.7])}}, {"back": True}])
def test_kinks_at_a_loose_tolerance_leave_the_gradient_through_the_solver_that_of_the_steps(how: dict[str, Any]):
    torch.manual_seed(0)
    back = how.pop("back", False)
    model = NeuralODE(times=(1.0, 0.0) if back else (0.0, 1.0), scale=4.0, rtol=1e-2, atol=1e-2, **how)
    model.field.net[1] = nn.ReLU()
    system = flow_system(model, (torch.randn(16, 2),))
    check = next(each for each in system.checks if each.check == "product of the steps equals autograd")
    assert check.passed and check.error < 1e-4, check


def test_an_interpolant_that_is_coarser_than_the_solvers_steps_is_no_other_capture():
    checks = flow_system(NeuralODE(method="dopri8").double(), (torch.randn(4, 2, dtype=F64),)).checks
    assert len(checks) == 3 and all(check.passed for check in checks), checks


def test_an_adjoint_that_takes_too_many_steps_leaves_the_forward_solution(monkeypatch: pytest.MonkeyPatch):
    model = NeuralODE(method="adaptive_heun", rtol=1e-4, atol=1e-5).double()
    x = torch.randn(4, 2, dtype=F64)
    attempts = flow_system(model, (x,)).trajectory.solution
    monkeypatch.setattr("dynstab.systems.flow_watch.MOST_ATTEMPTS", len(attempts.steps) + attempts.rejected + 1)
    model.how |= {"adjoint_rtol": 1e-9, "adjoint_atol": 1e-9}
    model.solver = torchdiffeq.odeint_adjoint
    system = flow_system(model, (x,))
    assert len(system.trajectory.steps) == len(attempts.steps)
    assert isinstance(system.trajectory.gradients, str) and "not enough" in system.trajectory.gradients


def test_more_steps_than_can_be_looked_at_are_taken_several_at_a_time():
    model = Linear(method="euler", options={"step_size": 0.005})
    trajectory, checks = found(model, torch.randn(2, 3, dtype=F64))
    assert len(trajectory.solution.steps) == 400 and len(trajectory.steps) == 200
    assert all(checks.values())
    step = torch.eye(3, dtype=F64) + 0.005 * MATRIX
    assert torch.allclose(trajectory.propagator().dense()[0], torch.linalg.matrix_power(step, 400), atol=1e-10)


class Square(nn.Module):
    """x' = x^2, which blows up at 1 / x(0)."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return torchdiffeq.odeint(lambda t, y: y.square(), x, torch.linspace(0.0, 2.0, 21, dtype=x.dtype), **self.how)[
            -1
        ]


@pytest.mark.parametrize(
    ("how", "words"),
    [({}, "stopped at t = "), ({"method": "rk4"}, "the state became infinite or NaN: stopped at t = ")],
)
def test_a_blow_up_is_named_and_what_came_before_is_kept(how, words):
    trajectory, _ = found(Square(**how), torch.tensor([[1.0], [0.5]], dtype=F64))
    assert words in trajectory.solution.outcome and trajectory.solution.reached < 2.0
    assert all(bool(t.isfinite().all()) for state in trajectory.states for t in state.value)
    assert isinstance(trajectory.gradients, str)


@pytest.mark.parametrize("watched", [True, False])
def test_a_field_that_becomes_nan_is_not_called_a_small_step(watched: bool):
    class Root(nn.Module):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.sqrt(0.5 - t) + 0 * x

    class Solve(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torchdiffeq.odeint(Root(), x, torch.tensor([0.0, 1.0], dtype=x.dtype))[-1]

    trajectory, _ = found(Solve() if watched else Root(), torch.ones(2, 1, dtype=F64))
    assert trajectory.solution.outcome.startswith("the field became infinite or NaN")


def test_a_stiff_equation_that_exhausts_its_steps_is_named(monkeypatch):
    monkeypatch.setattr("dynstab.systems.flow_watch.MOST_ATTEMPTS", 60)

    class Stiff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            times = torch.tensor([0.0, 1.0], dtype=x.dtype)
            return torchdiffeq.odeint(lambda t, y: -1e4 * (y - torch.cos(t)), x, times)[-1]

    trajectory, checks = found(Stiff(), torch.ones(2, 1, dtype=F64))
    assert all(checks.values())
    assert trajectory.solution.outcome.startswith("the 60 attempts that dynstab follows were not enough: stopped at t")


def test_a_model_is_a_flow_where_it_calls_a_solver():
    x = torch.randn(4, 2)
    assert solves_equations(NeuralODE(), (x,), {})
    assert not solves_equations(nn.Linear(2, 2), (x,), {})
    assert not solves_equations(NeuralODE(), (torch.randn(4, 7),), {})


def test_what_is_no_flow_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="solves no differential equation"):
        flow_system(nn.Linear(2, 3), (torch.randn(4, 2),))
    with pytest.raises(InputError, match="the model rejects the input"):
        flow_system(NeuralODE(), (torch.randn(4, 7),))


@pytest.mark.parametrize("time", [torch.tensor(0.5), 0.0])
def test_a_field_given_its_time_too_is_read_from_its_state(time: Any) -> None:
    class Decay(nn.Module):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return -x

    x = torch.ones(2, 3, dtype=torch.float64)
    found = flow_system(Decay(), (time, x)).trajectory
    assert torch.allclose(found.states[-1].value[0], torch.full_like(x, math.exp(-1)), atol=1e-4)
