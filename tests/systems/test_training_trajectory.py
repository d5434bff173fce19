"""The optimiser's map on the weights, against torch's own optimisers, dense Hessians and roots of polynomials."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from dynstab.core.config import Config
from dynstab.core.errors import ConfigError, InputError
from dynstab.measures import measure
from dynstab.systems.training import UpdateJacobian, training_trajectory
from dynstab.systems.trajectory import Trajectory

OPTIMIZERS = {
    "gradient descent": lambda p: SGD(p, lr=0.3, weight_decay=0.01),
    "heavy ball": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    "Nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda p: Adam(p, lr=0.01, weight_decay=0.1),
    "AdamW": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
}


def network() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(2, (20,))
    return model, lambda module: nn.functional.cross_entropy(module(x), y)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def train(model: nn.Module, loss: Callable[[nn.Module], Tensor], optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("before", [0, 3])
def test_the_states_are_the_weights_that_the_optimiser_reaches(make: Callable[..., Optimizer], before: int) -> None:
    model, loss = network()
    optimizer = make(model.parameters())
    train(model, loss, optimizer, before)
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    trajectory = training_trajectory(model, loss, optimizer, steps=4)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, kept[0][name])
    assert optimizer.state_dict()["param_groups"] == kept[1]["param_groups"]
    train(model, loss, optimizer, 4)
    assert torch.allclose(trajectory.states[-1].value[0], weights(model), atol=1e-14)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_the_jacobian_is_the_derivative_of_the_update(make: Callable[..., Optimizer]) -> None:
    """By torch.func through the loss as a function of a flat vector: no Hessian-vector product is shared."""
    model, loss = network()
    optimizer = make(model.parameters())
    train(model, loss, optimizer, 2)
    trajectory = training_trajectory(model, loss, optimizer, steps=1)
    step, (before, after) = trajectory.steps[0], units_of(trajectory)
    state = tuple((torch.cat(trajectory.states[0].value) / before).split(len(trajectory.states[0].value[0])))
    names, shapes = zip(*[(name, p.shape) for name, p in model.named_parameters()], strict=True)
    x, y = _batch(loss)

    def flat_loss(theta: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes])
        swapped = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, swapped, (x,)), y)

    hessian = torch.func.hessian(flat_loss)(state[0])
    expected = _by_hand(optimizer, state, torch.func.grad(flat_loss)(state[0]), hessian)
    expected = after[:, None] * expected / before
    dense = step.jacobian.dense()[0]
    assert torch.allclose(dense, expected, atol=1e-10 * float(expected.abs().max()))
    identity = torch.eye(len(dense), dtype=dense.dtype).unsqueeze(0)
    assert torch.allclose(step.jacobian.rmatmat(identity)[0].mT, dense, atol=1e-10 * float(dense.abs().max()))


def units_of(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """What multiplies every entry of the first state and of the second."""
    jacobian = trajectory.steps[0].jacobian
    assert isinstance(jacobian, UpdateJacobian)
    before, after = (torch.cat([torch.ones_like(trajectory.states[0].value[0]), *scale]) for scale in jacobian.scales)
    return before, after


def _batch(loss: Callable[[nn.Module], Tensor]) -> tuple[Tensor, Tensor]:
    x, y = (cell.cell_contents for cell in loss.__closure__ or ())
    return x, y


def _by_hand(optimizer: Optimizer, state: tuple[Tensor, ...], gradient: Tensor, hessian: Tensor) -> Tensor:
    """The Jacobian written out in blocks."""
    group = optimizer.param_groups[0]
    eye, eta, decay = torch.eye(len(hessian), dtype=hessian.dtype), group["lr"], group["weight_decay"]
    curved = hessian + (0 if group.get("decoupled_weight_decay") else decay) * eye
    if isinstance(optimizer, SGD):
        b, kept = group["momentum"], 1 - group["dampening"]
        if not b:
            return eye - eta * curved
        if group["nesterov"]:
            return torch.cat(
                [torch.cat([eye - eta * (1 + b) * curved, -eta * b * b * eye], 1), torch.cat([curved, b * eye], 1)]
            )
        return torch.cat(
            [torch.cat([eye - eta * kept * curved, -eta * b * eye], 1), torch.cat([kept * curved, b * eye], 1)]
        )
    (b1, b2), eps = group["betas"], group["eps"]
    time = float(next(iter(optimizer.state.values()))["step"]) + 1
    theta, first, second = state
    seen = gradient if group.get("decoupled_weight_decay") else gradient + decay * theta
    m, v = b1 * first + (1 - b1) * seen, b2 * second + (1 - b2) * seen.square()
    c1, c2 = 1 - b1**time, 1 - b2**time
    root = (v / c2).sqrt()
    by_m, by_v = -eta / c1 / (root + eps), eta * m / c1 / (root + eps) ** 2 / (2 * root * c2)
    m_by_g, v_by_g = (1 - b1) * curved, torch.diag(2 * (1 - b2) * seen) @ curved
    shrunk = (1 - eta * decay if group.get("decoupled_weight_decay") else 1.0) * eye
    rows = [
        [shrunk + torch.diag(by_m) @ m_by_g + torch.diag(by_v) @ v_by_g, torch.diag(by_m) * b1, torch.diag(by_v) * b2],
        [m_by_g, b1 * eye, 0 * eye],
        [v_by_g, 0 * eye, b2 * eye],
    ]
    return torch.cat([torch.cat(row, 1) for row in rows])


class Quadratic(nn.Module):
    def __init__(self, curvature: Tensor) -> None:
        super().__init__()
        self.theta, self.curvature = nn.Parameter(torch.ones_like(curvature)), curvature


def bowl(model: nn.Module) -> Tensor:
    assert isinstance(model, Quadratic)
    return 0.5 * (model.curvature * model.theta.square()).sum()


def test_exponents_of_gradient_descent_on_a_bowl_are_logarithms_of_one_minus_eta_lambda() -> None:
    model = Quadratic(torch.tensor([25.0, 4.0, 1.0]).double())
    trajectory = training_trajectory(model, bowl, SGD([model.theta], lr=0.1), steps=20)
    found = measure(trajectory, Config(k=3)).lyapunov
    exact = sorted((math.log(abs(1 - 0.1 * c)) for c in (25.0, 4.0, 1.0)), reverse=True)
    assert [value.value for value in found.finite_time] == pytest.approx(exact, abs=1e-9)
    assert found.sum.value == pytest.approx(sum(exact), abs=1e-9)


@pytest.mark.parametrize("curvature", [1.0, 37.9, 38.1])
def test_multipliers_of_heavy_ball_are_the_roots_of_its_polynomial(curvature: float) -> None:
    """z^2 - (1 + b - eta lambda) z + b: of modulus sqrt(b) below the threshold 3.8 / eta, one beyond -1 above it."""
    b, eta = 0.9, 0.1
    model = Quadratic(torch.tensor([curvature], dtype=torch.float64))
    trajectory = training_trajectory(model, bowl, SGD([model.theta], lr=eta, momentum=b), steps=10)
    middle = 1 + b - eta * curvature
    root = complex(middle**2 - 4 * b) ** 0.5
    exact = sorted(abs((middle + sign * root) / 2) for sign in (1, -1))
    found = torch.linalg.eigvals(trajectory.steps[3].jacobian.dense()[0]).abs()
    assert sorted(found.tolist()) == pytest.approx(exact, abs=1e-9)
    assert (exact[1] > 1) == (curvature > 38)
    assert measure(trajectory, Config(k=2)).lyapunov.sum.value == pytest.approx(math.log(b), abs=1e-9)


def test_heavy_ball_is_measured_in_units_of_the_weights() -> None:
    """(theta, eta velocity): [[1 - eta lambda, -b], [eta lambda, b]] for every curvature lambda."""
    curvature, eta, b = torch.tensor([3000.0, 400.0, 0.01]).double(), 1e-3, 0.9
    model = Quadratic(curvature)
    trajectory = training_trajectory(model, bowl, SGD([model.theta], lr=eta, momentum=b), steps=6)
    blocks = [torch.tensor([[1 - h, -b], [h, b]], dtype=torch.float64) for h in (eta * curvature).tolist()]
    steps = torch.cat([torch.linalg.svdvals(block) for block in blocks])
    whole = torch.cat([torch.linalg.svdvals(torch.linalg.matrix_power(block, 6)) for block in blocks])
    found = measure(trajectory, Config(k=6))
    assert found.steps[2].largest_singular_value.value == pytest.approx(float(steps.max()), rel=1e-9)
    exponents = [value.value for value in found.lyapunov.finite_time]
    assert exponents == pytest.approx((whole.log() / 6).sort(descending=True).values.tolist(), abs=1e-9)


@pytest.mark.parametrize("sharp", [1.0, 1e6])
def test_adam_is_measured_in_units_of_the_weights(sharp: float) -> None:
    """Against the map written out again, differentiated whole, in theta, eta m / (c1 P) and eta v / (c2 P^2)."""
    eta, b1, b2, eps = 1e-3, 0.9, 0.999, 1e-8
    model = Quadratic(sharp * torch.tensor([3.0, 0.5, 0.01]).double())
    optimizer = Adam([model.theta], lr=eta, betas=(b1, b2), eps=eps)
    train(model, bowl, optimizer, 30)
    state = optimizer.state[model.theta]
    start = torch.stack([model.theta.detach(), state["exp_avg"], state["exp_avg_sq"]])

    def update(tensors: Tensor, time: int) -> Tensor:
        theta, first, second = tensors
        gradient = model.curvature * theta
        first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
        return torch.stack([theta - eta * first / (1 - b1**time) / root(second, time), first, second])

    def root(second: Tensor, time: int) -> Tensor:
        return (second / (1 - b2**time)).sqrt() + eps

    def units(tensors: Tensor, time: int) -> Tensor:
        size = root(tensors[2], time)
        return torch.stack(
            [torch.ones(3).double(), eta / size / (1 - b1**time), eta / size**2 / (1 - b2**time)]
        ).flatten()

    product, point, largest = torch.eye(9).double(), start, []
    for time in range(31, 37):
        plain, behind = torch.func.jacrev(update)(point, time).reshape(9, 9), update(point, time)
        scaled = units(behind, time)[:, None] * plain / units(point, time - 1)
        product, point = scaled @ product, behind
        largest.append(float(torch.linalg.svdvals(scaled)[0]))
    found = measure(training_trajectory(model, bowl, optimizer, steps=6), Config(k=4))
    assert [step.largest_singular_value.value for step in found.steps] == pytest.approx(largest, rel=1e-7)
    exact = torch.linalg.svdvals(product)[:4].log() / 6
    assert [value.value for value in found.lyapunov.finite_time] == pytest.approx(exact.tolist(), abs=1e-7)
    # By units alone d theta / d v is of the order eta / v: 5 for the smallest gradients here, 1e12 in real networks.
    assert max(largest) < 3


def test_gradient_descent_is_an_euler_step_of_the_gradient_flow() -> None:
    model, loss = network()
    trajectory = training_trajectory(model, loss, SGD(model.parameters(), lr=0.3), steps=2)
    assert [step.kind for step in trajectory.steps] == ["residual", "residual"]
    (spectrum,) = torch.linalg.eigvals(trajectory.steps[0].jacobian.dense()).real.unbind()
    found = measure(trajectory, Config(k=2)).steps[0]
    assert found.spectral_abscissa.value == pytest.approx(spectrum.max().item() - 1, abs=1e-8)


def test_a_weight_without_a_gradient_rests_under_adam() -> None:
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.tensor([[1.0, 2.0, 0.0]]).double()
    trajectory = training_trajectory(model, lambda module: module(x).square().sum(), Adam(model.parameters()), steps=2)
    dense = trajectory.steps[0].jacobian.dense()[0]
    assert bool(dense.isfinite().all())
    assert dense[2, 2] == 1.0


def test_misuse_gets_a_sentence() -> None:
    model, loss = network()
    with pytest.raises(ConfigError, match="RMSprop"):
        training_trajectory(model, loss, RMSprop(model.parameters()))
    with pytest.raises(ConfigError, match="amsgrad"):
        training_trajectory(model, loss, Adam(model.parameters(), amsgrad=True))
    for steps in (0, 1.5, "two"):
        with pytest.raises(ConfigError, match=f"steps={steps!r}; expected a whole number"):
            training_trajectory(model, loss, SGD(model.parameters(), lr=0.1), steps=steps)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="no parameter of the model"):
        training_trajectory(model, loss, SGD(network()[0].parameters(), lr=0.1))
    with pytest.raises(ConfigError, match="differ in nesterov"):
        first, *rest = model.parameters()
        groups = [{"params": [first], "nesterov": True}, {"params": rest}]
        training_trajectory(model, loss, SGD(groups, lr=0.1, momentum=0.9))
