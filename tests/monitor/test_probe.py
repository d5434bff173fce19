"""What a probe measures, against a full analysis of the same network, and what it costs in captures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dynstab
from dynstab.core.errors import CaptureError, InputError
from dynstab.core.run import Probe
from dynstab.monitor.distributed import Processes
from dynstab.monitor.pace import Pace
from dynstab.monitor.probe import Prober


def residual(depth: int = 6, width: int = 24) -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.tanh(self.inner(x))

    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(depth)), nn.Linear(width, 5)).double()


def prober(model: nn.Module, batch: Any, **options: Any) -> Prober:
    return Prober(model, batch, Processes(model), **{"k": 3, "inputs": 2, **options})


def measured(probing: Prober, step: int = 0, *, sharpness: bool = False) -> Probe:
    found = probing.measure(step, 0.0, sharpness=sharpness)
    assert found is not None
    return found


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_exponents_gains_and_flow_are_those_of_the_analysis(inputs: Tensor) -> None:
    model = residual()
    probe = measured(prober(model, inputs))
    report = dynstab.analyze(model, inputs, config=dynstab.Config(k=3))
    found = report.measurements
    assert probe.outcome == "converged"
    expected = [exponent.value for exponent in found.lyapunov.finite_time[:2]]
    assert probe.exponents[:2] == pytest.approx(expected, abs=5e-3)
    # A few isotropic directions stand for all.
    gains = [math.log(step.relative_gain.value or math.nan) for step in found.steps]
    assert probe.step_gains == pytest.approx(gains, abs=0.4)
    flow = [math.log(state.relative_gain.value or math.nan) for state in found.gradient_flow]
    assert probe.gradient_flow == pytest.approx(flow, abs=0.4)
    assert probe.gradient_flow[-1] == pytest.approx(0.0, abs=1e-9)


def test_exponents_never_pass_the_true_ones(inputs: Tensor) -> None:
    model = residual()
    true = dynstab.analyze(model, inputs, config=dynstab.Config(k=3)).measurements.lyapunov.finite_time
    for exponent, bound in zip(measured(prober(model, inputs)).exponents, true, strict=True):
        assert bound.value is not None
        assert exponent <= bound.value + 1e-9


def test_an_orthogonal_network_has_zero_exponents_and_gains() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.utils.parametrizations.orthogonal(nn.Linear(8, 8, bias=False)) for _ in range(5)))
    probe = measured(prober(model, torch.randn(2, 8), k=2))
    assert probe.exponents == pytest.approx((0.0, 0.0), abs=1e-5)
    assert probe.step_gains == pytest.approx((0.0,) * 5, abs=1e-5)


def test_a_probe_follows_the_weights_without_another_capture(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = residual()
    probing = prober(model, inputs)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was captured again")

    monkeypatch.setattr("dynstab.systems.depth.capture", forbidden)
    before = measured(probing)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = measured(probing, 1)
    monkeypatch.undo()
    fresh = measured(prober(model, inputs))
    assert after.exponents[0] > before.exponents[0] + 0.05
    assert after.exponents[:2] == pytest.approx(fresh.exponents[:2], abs=5e-3)
    assert after.step_gains == pytest.approx(fresh.step_gains, abs=1e-9)


def test_directions_that_are_carried_over_make_later_probes_sharper(inputs: Tensor) -> None:
    probing = prober(residual(), inputs)
    readings = [measured(probing, step).exponents[2] for step in range(6)]
    assert readings == sorted(readings)
    assert readings[-1] >= readings[0]


def test_weights_that_are_not_finite_are_an_outcome(inputs: Tensor) -> None:
    model = residual()
    probing = prober(model, inputs)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    probe = measured(probing)
    assert "non-finite" in probe.outcome
    assert math.isnan(probe.exponents[0])
    with torch.no_grad():
        next(model.parameters()).fill_(0.1)
    assert math.isfinite(measured(probing).exponents[0])


def test_a_model_that_was_changed_is_an_outcome_that_says_where(inputs: Tensor) -> None:
    model = residual()
    probing = prober(model, inputs)
    model[2] = nn.Linear(24, 24).double()  # type: ignore[operator]
    assert "the model was changed during the run" in measured(probing).outcome


def test_another_batch_of_the_same_shape_is_probed_without_another_capture(inputs: Tensor) -> None:
    model = residual()
    probing = prober(model, inputs)
    network = probing._network
    probing.feed(inputs + 1)
    assert probing._network is network
    assert measured(probing).step_gains == pytest.approx(measured(prober(model, inputs + 1)).step_gains, abs=1e-9)


def test_another_batch_of_another_shape_is_captured_again() -> None:
    model = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Conv1d(2, 2, 3, padding=1))
    probing = prober(model, torch.randn(2, 2, 8))
    probing.feed(torch.randn(2, 2, 12))
    assert math.isfinite(measured(probing).exponents[0])
    with pytest.raises(InputError, match="the model rejects"):
        probing.feed(torch.randn(2, 3, 8))
    assert math.isfinite(measured(probing).exponents[0])


def test_of_inputs_and_targets_the_inputs_are_fed(inputs: Tensor) -> None:
    model = residual()
    pair = prober(model, (inputs, torch.tensor([0, 1])))
    assert measured(pair).step_gains == measured(prober(model, inputs)).step_gains


def test_keyword_arguments_are_fed_by_name(inputs: Tensor) -> None:
    model = residual()
    assert measured(prober(model, {"input": inputs})).step_gains == measured(prober(model, inputs)).step_gains


def test_labels_are_left_to_the_loss(inputs: Tensor) -> None:
    model = residual()
    probing = prober(model, {"input": inputs, "labels": torch.tensor([0, 1])})
    assert measured(probing).step_gains == measured(prober(model, inputs)).step_gains
    assert "labels" in probing.batch.batch


def test_a_batch_that_the_loader_writes_over_is_probed_as_it_was(inputs: Tensor) -> None:
    model, batch = residual(), inputs.clone()
    probing = prober(model, batch)
    batch.fill_(100.0)
    assert measured(probing).step_gains == measured(prober(model, inputs)).step_gains


@pytest.mark.parametrize("batch", [3.0, "text", (1, 2), None])
def test_a_batch_without_a_tensor_is_refused(batch: Any) -> None:
    with pytest.raises(InputError, match="probe"):
        prober(residual(), batch)


def test_half_precision_is_probed_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4))).to(torch.bfloat16)
    inputs = torch.randn(2, 8, dtype=torch.bfloat16)
    probing = prober(model, inputs)
    twin = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    twin.load_state_dict(model.state_dict())
    assert measured(probing).exponents == pytest.approx(measured(prober(twin, inputs.float())).exponents, rel=1e-5)


def test_a_network_that_no_trace_follows_is_refused() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
                if float(x.abs().sum()) > 1e9:
                    return x
                x = torch.from_numpy(x.detach().numpy()) + x - x.detach()
            return x

    with pytest.raises(CaptureError):
        prober(Branching(), torch.randn(2, 4))


def test_the_sharpness_comes_with_the_threshold_of_the_optimizer() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False).double()
    inputs = torch.randn(40, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    probing = prober(model, inputs, inputs=40, loss=lambda m, x: m(x).square().mean() / 2, optimizer=optimizer, k=1)
    probe = measured(probing, sharpness=True)
    assert probe.sharpness is not None and probe.sharpness.value is not None
    curvature = float(torch.linalg.eigvalsh(inputs.T @ inputs / 40)[-1])
    assert probe.sharpness.value == pytest.approx(curvature, rel=0.05)
    assert probe.threshold == pytest.approx(3.8 / 0.1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: torch.optim.NAdam(p), "the threshold of NAdam is not known"),
        (lambda p: torch.optim.LBFGS(p), "the threshold of LBFGS is not known"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "SGD with maximize=True"),
    ],
    ids=["NAdam", "LBFGS", "maximising"],
)
def test_beside_an_optimizer_without_a_threshold_stands_the_sharpness_of_the_loss(
    make: Callable[..., torch.optim.Optimizer], why: str, inputs: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    model, loss = residual(), lambda m, x: m(x).square().mean()
    plain, beside = (
        measured(prober(model, inputs, loss=loss, optimizer=optimizer), sharpness=True)
        for optimizer in (None, make(model.parameters()))
    )
    assert beside.sharpness == plain.sharpness
    assert beside.threshold is None
    assert caplog.text.count(f"the sharpness is that of the loss alone, beside no threshold: {why}") == 1


def test_a_loss_of_the_model_alone_is_told_what_it_is_called_with(inputs: Tensor) -> None:
    probe = measured(prober(residual(), inputs, loss=lambda m: m(inputs).sum()), sharpness=True)
    assert probe.sharpness is not None
    assert "loss_fn raises TypeError" in probe.sharpness.outcome
    assert "a function of the model and the probe" in probe.sharpness.outcome


def test_a_loss_that_fails_is_an_outcome_of_the_sharpness_alone(inputs: Tensor) -> None:
    def broken(_model: nn.Module, _batch: Any) -> Tensor:
        raise ValueError("no such target")

    probe = measured(prober(residual(), inputs, loss=broken), sharpness=True)
    assert probe.sharpness is not None and probe.sharpness.value is None
    assert "no such target" in probe.sharpness.outcome
    assert probe.outcome == "converged"


def test_the_loss_sees_the_whole_batch() -> None:
    model = residual()
    inputs, targets = torch.randn(2, 24, dtype=torch.float64), torch.tensor([0, 1])
    probing = prober(model, (inputs, targets), loss=lambda m, b: cross_entropy(m(b[0]), b[1]))
    found = measured(probing, sharpness=True).sharpness
    assert found is not None and found.value is not None and found.value > 0


def test_probes_wait_until_they_are_paid_off() -> None:
    pace = Pace(10, 0.01, lambda seconds: seconds)
    assert pace.due(0, 0.0)
    pace.done(0, 1.0, 1.0)  # to be paid off at second 101, at one second a step
    due = [step for step in range(1, 200) if pace.due(step, 1.0 + step)]
    assert due[0] == 100


def test_probes_without_a_limit_come_every_so_many_steps() -> None:
    pace, due = Pace(10, None, lambda seconds: seconds), []
    for step in range(0, 60, 3):
        if pace.due(step, 0.0):
            due.append(step)
            pace.done(step, 0.0, 1e9)
    assert due == [0, 12, 24, 36, 48]


def test_pace_zero_is_never() -> None:
    assert not Pace(0, None, lambda seconds: seconds).due(0, 0.0)
