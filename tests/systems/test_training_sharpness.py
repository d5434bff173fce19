"""Sharpness against dense Hessians, and the threshold of every optimiser against the optimiser itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from dynstab.core.errors import ConfigError, InputError
from dynstab.core.estimate import Label
from dynstab.estimators.sharpness import SharpnessProbe, leading_eigenvalues, sharpness, training_stability
from dynstab.linear.operator import DenseOperator
from dynstab.systems.optimizers import update_rule

Make = Callable[[list[Tensor]], Optimizer]


class Quadratic(nn.Module):
    """theta -> 1/2 sum_i curvature_i theta_i^2."""

    def __init__(self, curvature: Tensor) -> None:
        super().__init__()
        self.theta, self.curvature = nn.Parameter(torch.ones_like(curvature)), curvature


def bowl(model: nn.Module) -> Tensor:
    assert isinstance(model, Quadratic)
    return 0.5 * (model.curvature * model.theta.square()).sum()


def network(*, seed: int = 0) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(20, 5, dtype=torch.float64), torch.randint(3, (20,))
    return model, lambda module: nn.functional.cross_entropy(module(x), y)


def dense_hessian(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Tensor:
    """By one backward pass a row, apart from the code under test."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(model), parameters, create_graph=True)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    rows = [torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True) for entry in flat]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def test_the_leading_eigenvalues_are_those_of_the_dense_hessian() -> None:
    model, loss = network()
    exact = torch.linalg.eigvalsh(dense_hessian(model, loss)).flip(0)
    for k in (1, 4):
        found = sharpness(model, loss, k, rtol=1e-8)
        assert [value.value for value in found] == pytest.approx(exact[:k].tolist(), rel=1e-8)
        assert all(value.label is Label.CERTIFIED and value.outcome == "converged" for value in found)


def test_the_residual_covers_the_error_and_ritz_values_are_lower_bounds() -> None:
    for seed in range(5):
        model, loss = network(seed=seed)
        exact = torch.linalg.eigvalsh(dense_hessian(model, loss))
        (value,) = sharpness(model, loss, rtol=0.1)
        assert value.value is not None
        assert value.error is not None
        assert value.value <= exact[-1].item() * (1 + 1e-12)
        assert (exact - value.value).abs().min().item() <= value.error


def test_a_basis_that_is_restarted_finds_the_same_eigenvalues() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64)).Q
    values = torch.cat([torch.linspace(0.0, 1.0, 298), torch.tensor([1.02, 1.03])]).double()
    operator = DenseOperator((basis * values) @ basis.mT)
    result, vectors = leading_eigenvalues(operator, 2, rtol=1e-6, budget=1000)
    assert result.products > 60
    assert result.values[0].tolist() == pytest.approx(values[-2:].flip(0).tolist(), abs=1e-10)
    assert (operator.matmat(vectors) - vectors * result.values.unsqueeze(1)).norm() < 1e-4


def test_a_hessian_that_is_negative_everywhere_has_a_negative_sharpness() -> None:
    model = Quadratic(torch.tensor([-1.0, -2.0, -3.0]).double())
    assert [value.value for value in sharpness(model, bowl, 3)] == pytest.approx([-1.0, -2.0, -3.0])


def test_a_warm_start_needs_fewer_products() -> None:
    model, loss = network()
    probe = SharpnessProbe(model, loss, rtol=1e-4)
    cold = probe.eigenvalues()[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-4 * torch.randn_like(parameter))
    warm = probe.eigenvalues()[0]
    assert warm.value == pytest.approx(cold.value, rel=1e-2)
    assert warm.products < cold.products


def test_a_warm_start_sees_another_direction_overtake() -> None:
    model = Quadratic(torch.linspace(0.1, 1.0, 50).double())
    probe = SharpnessProbe(model, bowl, rtol=1e-6)
    assert probe.eigenvalues()[0].value == pytest.approx(1.0)
    model.curvature[3] = 1.5
    assert probe.eigenvalues()[0].value == pytest.approx(1.5)


def frozen_adam(make: type[Adam], second: Tensor, **options: float) -> Make:
    """Adam whose second moment practically stands still, long after its start."""

    def built(parameters: list[Tensor]) -> Optimizer:
        optimizer = make(parameters, betas=(0.9, 1 - 1e-12), eps=0.0, **options)  # type: ignore[arg-type]
        for parameter in parameters:
            optimizer.state[parameter] = {
                "step": torch.tensor(1e15),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": second.clone(),
            }
        return optimizer

    return built


SECOND = torch.tensor([4.0, 1.0, 0.25]).double()
OPTIMIZERS = {
    "gradient descent": lambda p: SGD(p, lr=0.1),
    "gradient descent with decay": lambda p: SGD(p, lr=0.1, weight_decay=3.0),
    "heavy ball": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "dampened": lambda p: SGD(p, lr=0.1, momentum=0.8, dampening=0.5),
    "Nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": frozen_adam(Adam, SECOND, lr=0.1),
    "Adam with decay": frozen_adam(Adam, SECOND, lr=0.1, weight_decay=5.0),
    "AdamW": frozen_adam(AdamW, SECOND, lr=0.1, weight_decay=4.0),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_the_threshold_divides_optimisers_that_stay_from_those_that_diverge(make: Make) -> None:
    """Curvature is set to 1 % below and above the threshold; the optimiser itself is then run."""
    curvature = torch.tensor([1.0, 2.0, 0.7]).double()
    grown = {}
    for side in (0.99, 1.01):
        model = Quadratic(curvature.clone())
        optimizer = make([model.theta])
        scale = _scale_to(model, optimizer, side)
        model.curvature *= scale
        assert training_stability(model, bowl, optimizer, rtol=1e-10).ratio.value == pytest.approx(side, rel=1e-6)
        largest, last = 0.0, math.inf
        for _ in range(3000):
            optimizer.zero_grad()
            bowl(model).backward()
            optimizer.step()
            last = model.theta.detach().abs().max().item()
            # Once it is large, even a second moment that hardly moves gives in.
            largest = max(largest, last)
        grown[side] = largest, last
    assert grown[0.99][0] < 20
    assert grown[0.99][1] < 1e-3
    assert grown[1.01][0] > 100


def _scale_to(model: Quadratic, optimizer: Optimizer, ratio: float) -> float:
    """By what to multiply the curvature so that sharpness / threshold is `ratio`, by bisection on dense eigenvalues."""
    rule = update_rule(optimizer)
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        dense = torch.diag(rule.rates) @ (torch.diag(model.curvature * middle) + torch.diag(rule.decay))
        reached = torch.linalg.eigvals(dense).real.max().item() / rule.threshold
        low, high = (middle, high) if reached < ratio else (low, middle)
    return low


def test_thresholds_are_those_of_the_papers() -> None:
    parameter = [nn.Parameter(torch.ones(3))]
    eta = 0.01
    assert update_rule(SGD(parameter, lr=eta)).threshold == pytest.approx(2 / eta)
    assert update_rule(SGD(parameter, lr=eta, momentum=0.9)).threshold == pytest.approx(3.8 / eta)
    nesterov = update_rule(SGD(parameter, lr=eta, momentum=0.9, nesterov=True))
    assert nesterov.threshold == pytest.approx(3.8 / 2.8 / eta)
    adam = Adam(parameter, lr=eta)
    parameter[0].grad = torch.ones(3)
    adam.step()
    assert update_rule(adam).threshold == pytest.approx(38 / eta)


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: Adam(groups, lr=1e-2, weight_decay=0.1),
        lambda groups: Adam(groups, lr=1e-2, amsgrad=True),
        lambda groups: AdamW(groups, lr=1e-2, weight_decay=0.3),
        lambda groups: RMSprop(groups, lr=1e-2, momentum=0.5, centered=True),
        lambda groups: Adagrad(groups, lr=1e-2, lr_decay=0.1),
        lambda groups: SGD(groups, lr=1e-2, momentum=0.9, weight_decay=0.1),
    ],
    ids=["Adam", "AMSGrad", "AdamW", "RMSprop", "Adagrad", "SGD"],
)
def test_sharpness_under_groups_is_that_of_the_step_the_optimiser_takes(make: Callable[..., Optimizer]) -> None:
    """The rates are read off from the optimiser: by how much a weight moves for a gradient that is a little larger.

    For a first step without momentum's memory, d theta' / d g = -eta * rate (times 1 - beta1 for Adam), at a
    second moment held fixed; compared as the operator rates * (H + decay).
    """
    model, loss = network()
    groups = [
        {"params": list(model[0].parameters()), "lr": 3e-2},  # type: ignore[index]
        {"params": list(model[2].parameters()), "weight_decay": 0.0},  # type: ignore[index]
    ]
    optimizer = make(groups)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    rule = update_rule(optimizer)
    assert rule.learning_rate == 3e-2
    hessian = dense_hessian(model, loss)
    dense = torch.diag(rule.rates) @ (hessian + torch.diag(rule.decay))
    (value,) = sharpness(model, loss, optimizer=optimizer, rtol=1e-9)
    assert value.value == pytest.approx(torch.linalg.eigvals(dense).real.max().item(), rel=1e-6)
    first, second = rule.rates[: 8 * 5 + 8], rule.rates[8 * 5 + 8 :]
    if isinstance(optimizer, SGD):
        assert first.unique().tolist() == [1.0]
        assert second.unique().tolist() == pytest.approx([1 / 3])
    else:
        assert first.std() > 0


def test_the_model_comes_back_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 2))
    x, y = torch.randn(16, 4), torch.randint(2, (16,))
    optimizer = AdamW(model.parameters())
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    training_stability(model, lambda module: nn.functional.cross_entropy(module(x), y), optimizer)
    assert model.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.equal(parameter.grad, gradient)


def test_attention_has_a_second_derivative() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 3, 8)
    (value,) = sharpness(model, lambda module: module(x).square().mean())
    assert value.outcome == "converged"


def test_where_a_run_stands_is_said_in_a_sentence() -> None:
    for ratio, words in ((0.5, "stable"), (1.0, "at the edge"), (2.0, "beyond")):
        model = Quadratic(torch.tensor([20.0 * ratio, 1.0]).double())
        found = training_stability(model, bowl, SGD([model.theta], lr=0.1))
        assert found.stands == words
        assert f"ratio {found.ratio.value:.3g}" in str(found)
        assert "gradient descent, learning rate 0.1" in str(found)


def test_a_rate_of_zero_is_stable_and_weights_that_are_nan_are_unknown() -> None:
    model = Quadratic(torch.ones(3).double())
    assert training_stability(model, bowl, SGD([model.theta], lr=0.0)).stands == "stable"
    model.curvature[1] = math.nan
    found = training_stability(model, bowl, SGD([model.theta], lr=0.1))
    assert found.stands == "unknown"
    assert "non-finite" in found.sharpness.outcome


def test_a_loss_that_is_lost_has_no_sharpness_even_where_its_products_are_finite() -> None:
    """Under a target of NaN the loss and its gradient are NaN, and the Hessian of a linear model is what it was."""
    model, targets = nn.Linear(3, 1), torch.tensor([[1.0], [math.nan]])
    found = training_stability(
        model, lambda module: nn.functional.mse_loss(module(torch.ones(2, 3)), targets), SGD(model.parameters(), lr=0.1)
    )
    assert found.stands == "unknown"
    assert "the loss is nan" in str(found)


def test_a_weight_that_no_gradient_has_reached_rests_under_adam() -> None:
    """A head that the training does not use, as a pooler often is, must not hide the sharpness of the others."""
    found = []
    for unused in ([], [nn.Parameter(torch.ones(2))]):
        model, loss = network()
        model.unused = nn.ParameterList(unused)
        model.forward = nn.Sequential(*list(model)[:3]).forward  # pyright: ignore[reportArgumentType]
        optimizer = Adam(model.parameters(), lr=1e-3)
        loss(model).backward()
        optimizer.step()
        found.append(training_stability(model, loss, optimizer).sharpness.value)
    assert found[0] == found[1]


def test_frozen_groups_are_left_out_of_threshold_and_rate() -> None:
    model, loss = network()
    first, *rest = model.parameters()
    groups = [{"params": [first], "momentum": 0.5, "lr": 7.0}, {"params": rest}]
    optimizer = SGD(groups, lr=0.1, momentum=0.9)
    first.requires_grad_(False)
    found = training_stability(model, loss, optimizer)
    assert found.learning_rate == 0.1
    assert found.threshold.value == pytest.approx(3.8 / 0.1)


def test_momentum_that_is_dampened_by_one_lets_no_gradient_through() -> None:
    parameter = [nn.Parameter(torch.ones(3))]
    assert update_rule(SGD(parameter, lr=0.1, momentum=0.9, dampening=1.0)).threshold == math.inf


def test_misuse_gets_a_sentence() -> None:
    model, loss = network()
    with pytest.raises(InputError, match="tensor of shape"):
        sharpness(model, lambda module: module(torch.ones(2, 5).double()))
    with pytest.raises(InputError, match="raises"):
        sharpness(model, lambda module: module(torch.ones(2, 7).double()).sum())
    with pytest.raises(InputError, match="no gradient"):
        sharpness(model, lambda module: loss(module).detach())
    with pytest.raises(InputError, match="no parameter"):
        sharpness(nn.ReLU(), lambda module: module(torch.ones(1)).sum())
    for k in (0, 1.5, "three"):
        with pytest.raises(ConfigError, match=f"k={k!r}; expected a whole number"):
            sharpness(model, loss, k)  # pyright: ignore[reportArgumentType]
    for rtol in (-1.0, math.nan, "small"):
        with pytest.raises(ConfigError, match=f"rtol={rtol!r}"):
            sharpness(model, loss, rtol=rtol)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="a model of type str"):
        sharpness("model", loss)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="whose parameters the optimizer moves"):
        training_stability(model, loss, SGD(network()[0].parameters(), lr=0.1))
    with pytest.raises(ConfigError, match="NAdam is not known"):
        training_stability(model, loss, NAdam(model.parameters()))
    with pytest.raises(ConfigError, match="Adam has taken no step yet"):
        training_stability(model, loss, Adam(model.parameters()))
    with pytest.raises(ConfigError, match="different momentum"):
        groups = [{"params": [p], "momentum": 0.5 + 0.1 * i} for i, p in enumerate(model.parameters())]
        training_stability(model, loss, SGD(groups, lr=0.1))
    with pytest.raises(ConfigError, match="maximize"):
        training_stability(model, loss, SGD(model.parameters(), lr=0.1, maximize=True))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embedding(tokens)))


def test_an_embedding_with_sparse_gradients_has_the_sharpness_of_a_dense_one() -> None:
    tokens, found = torch.randint(7, (20,), generator=torch.Generator().manual_seed(0)), []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(7, 5, sparse=sparse), nn.Tanh(), nn.Linear(5, 2)).double()
        found.append(sharpness(model, lambda module: module(tokens).square().mean(), rtol=1e-6)[0].value)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_weights_that_are_used_twice_are_one_direction() -> None:
    torch.manual_seed(0)
    model, tokens, targets = Tied().double(), torch.randint(7, (20,)), torch.randint(7, (20,))

    def loss(module: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(module(tokens), targets)

    exact = torch.linalg.eigvalsh(dense_hessian(model, loss))[-1].item()
    assert sharpness(model, loss, rtol=1e-8)[0].value == pytest.approx(exact, rel=1e-8)


def test_compiled_checkpointed_and_recurrent_models_have_the_sharpness_of_the_plain_one() -> None:
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(0)
    x, model = torch.randn(16, 6), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    plain = sharpness(model, lambda module: module(x).square().mean())[0].value
    compiled = torch.compile(model, backend="aot_eager")
    compiled(x).sum().backward()
    assert sharpness(compiled, lambda module: module(x).square().mean())[0].value == pytest.approx(plain, rel=1e-4)  # type: ignore[arg-type]
    again = sharpness(model, lambda module: checkpoint(module, x, use_reentrant=False).square().mean())[0].value  # type: ignore[union-attr]
    assert again == pytest.approx(plain, rel=1e-4)
    with torch.no_grad():
        (recurrent,) = sharpness(nn.GRU(6, 4), lambda module: module(x)[0].square().mean())
    assert recurrent.outcome == "converged"
