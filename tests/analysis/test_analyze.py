"""From a model to a report: what a user of the library meets."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import ZOO, mlp, specimen

import dynstab
from dynstab.core.config import Config
from dynstab.core.report import Report

QUICK = Config(effort="quick")


def analyzed(model: nn.Module, inputs: Any, config: Config = QUICK, **options: Any) -> Report:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the models' own
        return dynstab.analyze(model, inputs, config=config, **options)


def deep(gain: float, depth: int = 40, width: int = 64) -> nn.Sequential:
    """ReLU layers whose He initialisation is multiplied by `gain`."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(depth):
            linear = nn.Linear(width, width, bias=False)
            nn.init.normal_(linear.weight, std=gain * math.sqrt(2 / width))
            layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("name", ZOO)
def test_a_real_network_becomes_a_verified_report_that_survives_its_file(name: str, tmp_path: Any) -> None:
    subject = specimen(name)
    report = analyzed(subject.module, subject.kwargs or subject.args)
    assert report.verification and all(check.passed for check in report.verification)
    assert len(report.measurements.steps) == len(report.system.steps) == len(report.system.states) - 1
    assert len(report.measurements.gradient_flow) == len(report.system.states)
    assert all(step.rms_gain.measured for step in report.measurements.steps)
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == report


@pytest.mark.parametrize(("gain", "kind"), [(1.3, "exploding"), (0.7, "vanishing"), (1.0, "stable")])
def test_deep_networks_are_told_apart(gain: float, kind: str) -> None:
    report = analyzed(deep(gain, width=128, depth=30), torch.randn(8, 128), Config(effort="standard"))
    assert report.verdict.kind == kind


def test_the_gradient_gain_is_the_rate_that_the_weights_were_given() -> None:
    report = analyzed(deep(1.2, depth=20, width=128), torch.randn(8, 128), Config(effort="standard"))
    raw = report.measurements.network.raw_log_gradient_gain
    assert raw.value is not None and raw.error is not None
    null = report.measurements.network.null_log_gain
    assert null.value is not None and null.error is not None
    assert abs(raw.value - 20 * math.log(1.2) - null.value) < 4 * math.hypot(raw.error, null.error)


def test_equal_seeds_give_equal_reports() -> None:
    x = torch.randn(4, 12)
    model = mlp()
    first, second = analyzed(model, x), analyzed(model, x)
    assert first.measurements == second.measurements and first.flags == second.flags


def test_the_model_comes_back_as_it_was() -> None:
    model = mlp().train()
    model(torch.randn(3, 12)).sum().backward()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    flags = [p.requires_grad for p in model.parameters()]
    x = torch.randn(4, 12)
    random = torch.get_rng_state()
    analyzed(model, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True) if p.grad is not None)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(module.training for module in model.modules())


class Noisy(nn.Module):
    """Draws at every call, in eval mode too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.9 * x + 0.1 * torch.randn_like(x)


@pytest.mark.parametrize("system", ["depth", "time"])
def test_random_states_are_kept_around_a_forward_that_draws(system: Any) -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), Noisy()) if system == "depth" else Noisy(), torch.randn(4, 3)
    random = torch.get_rng_state()
    dynstab.analyze(model, x, config=dynstab.Config(effort="quick", system=system))
    assert torch.equal(torch.get_rng_state(), random)


def test_an_attracting_cycle_is_stable() -> None:
    class Logistic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3.2 * x * (1 - x)

    report = dynstab.analyze(Logistic(), torch.tensor([0.3]), config=dynstab.Config(effort="quick", system="time"))
    assert report.verdict.kind == "stable" and "cycle of period 2" in report.verdict.summary
    assert not {"vanishing-gradient", "exploding-gradient"} & {flag.name for flag in report.flags}


def test_batch_norms_without_statistics_are_named() -> None:
    fresh, seen = mlp(), mlp().train()
    seen(torch.randn(8, 12))
    assert any("never seen a batch" in note for note in analyzed(fresh, torch.randn(3, 12)).system.notes)
    assert not analyzed(seen.eval(), torch.randn(3, 12)).system.notes


def test_inputs_are_made_up_where_none_are_given_and_the_report_says_so() -> None:
    report = analyzed(mlp(), None)
    assert "made up" in report.system.inputs[0] and report.provenance.samples == 8


def test_half_precision_is_analysed_in_single_and_judged_by_its_own_range() -> None:
    model = deep(1.0, depth=4).to(torch.bfloat16)
    report = analyzed(model, torch.randn(4, 64))
    assert (report.provenance.dtype, report.model.dtype) == ("float32", "bfloat16")
    assert next(model.parameters()).dtype == torch.bfloat16


def test_double_precision_can_be_asked_for() -> None:
    report = analyzed(deep(1.0, depth=4), torch.randn(4, 64), Config(effort="quick", dtype="float64"))
    assert report.provenance.dtype == "float64"


def test_only_as_many_inputs_as_asked_for_are_used() -> None:
    report = analyzed(deep(1.0, depth=3), torch.randn(9, 64), Config(effort="quick", samples=5))
    assert report.provenance.samples == 5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_give_a_report_that_names_where(value: float) -> None:
    model = deep(1.0, depth=6)
    with torch.no_grad():
        model[4].weight[0, 0] = value
    report = analyzed(model, torch.randn(4, 64), Config(effort="standard"))
    flag = next(flag for flag in report.flags if flag.name == "non-finite")
    assert flag.severity == "error" and "4" in flag.where
    assert report.verdict.kind in ("exploding", "inconclusive")


def test_a_network_without_an_input_gradient_gives_a_report_that_says_so() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach() * 2

    report = analyzed(Cut(), torch.randn(4, 3))
    assert report.system.steps == () and report.verdict.kind == "inconclusive"
    assert any("derivative" in note for note in report.system.notes)
    assert report.flags


def test_a_loss_gives_its_own_gradient() -> None:
    model, x = deep(1.0, depth=5, width=32), torch.randn(8, 32)
    report = analyzed(model, x, loss=lambda output: (output**2).mean())
    leaf = x.clone().requires_grad_()
    output = model(leaf)
    output.retain_grad()
    (output**2).mean().backward()
    assert leaf.grad is not None and output.grad is not None
    expected = (leaf.grad.norm(dim=1) / output.grad.norm(dim=1)).log().mean()
    measured = report.measurements.network.raw_log_gradient_gain.value
    assert measured == pytest.approx(float(expected), rel=1e-4)


def test_an_interrupt_leaves_a_partial_report() -> None:
    class Impatient:
        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Any:
            if name == "singular values":
                raise KeyboardInterrupt
            yield self

        def advance(self, count: int = 1) -> None: ...

    report = analyzed(deep(1.0, depth=5), torch.randn(8, 64), progress=Impatient())
    assert report.provenance.interrupted and "singular values" in report.measurements.partial
    assert report.measurements.gradient_flow[0].gain.measured


def test_an_identity_has_nothing_wrong_with_it() -> None:
    report = analyzed(nn.Identity(), torch.randn(4, 3))
    assert report.verdict.kind in ("stable", "inconclusive")


def test_inspection_names_the_steps_without_measuring() -> None:
    inspection = dynstab.inspect(deep(1.0, depth=3), torch.randn(2, 64))
    assert [step.index for step in inspection.system.steps] == [0, 1, 2]
    assert inspection.cost.products > 0 and inspection.cost.seconds > 0
    assert "ReLU" in str(inspection) or "Linear" in str(inspection)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "tpu"}, "device"),
        ({"states": ("nowhere.*",)}, "no state on the chain"),
    ],
)
def test_options_that_cannot_be_served_are_answered_in_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(dynstab.DynstabError, match=words):
        analyzed(deep(1.0, depth=2), torch.randn(2, 64), Config(**options))


@pytest.mark.parametrize("inputs", [torch.randn(2, 7), "text", (), {"y": torch.randn(2, 64)}])
def test_inputs_that_do_not_fit_are_answered_in_one_sentence(inputs: Any) -> None:
    with pytest.raises(dynstab.DynstabError) as caught:
        analyzed(deep(1.0, depth=2), inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_what_the_cpu_measures() -> None:
    model, x = deep(1.1, depth=6), torch.randn(8, 64)
    cpu, gpu = (analyzed(model, x, Config(device=device)) for device in ("cpu", "cuda"))
    for a, b in zip(cpu.measurements.steps, gpu.measurements.steps, strict=True):
        assert a.largest_singular_value.value == pytest.approx(b.largest_singular_value.value, rel=1e-4)
