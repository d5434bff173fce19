"""Networks as trajectories: states, steps, names, and derivatives that are autograd's."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import HUGGING_FACE, ZOO, Specimen, specimen

from dynstab.core.config import Config
from dynstab.core.errors import CaptureError, StateError
from dynstab.linear.operator import JacobianOperator
from dynstab.measures.cost import estimate_cost
from dynstab.systems.depth import DepthSystem, depth_system


def captured(subject: Specimen, **options: Any) -> DepthSystem:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the models' own
        return depth_system(subject.module, subject.args, subject.kwargs, **options)


@pytest.mark.parametrize("name", ZOO)
def test_every_check_of_the_capture_holds(name: str) -> None:
    system = captured(specimen(name))
    failed = [check for check in system.checks if not check.passed]
    assert len(system.checks) == 6 and not failed
    assert system.trajectory.samples == len(next(iter([*specimen(name).args, *specimen(name).kwargs.values()]))) or (
        name == "TransformerEncoder, sequence first" and system.trajectory.samples == 2
    )


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "BERT", "ViT", "Mixtral", "TransformerEncoder"])
def test_a_transformer_block_is_two_residual_steps(name: str) -> None:
    subject = specimen(name)
    trajectory = captured(subject).trajectory
    residual = [step for step in trajectory.steps if step.kind == "residual"]
    assert len(residual) == 2 * (subject.blocks or 0)
    assert all(step.residual_coefficient == 1.0 for step in residual)


def test_a_resnet_has_one_step_a_block() -> None:
    trajectory = captured(specimen("ResNet-18")).trajectory
    assert [step.kind for step in trajectory.steps] == [
        "transition", "residual", "residual", "transition", "residual", "transition", "residual", "transition",
        "residual", "transition",
    ]  # fmt: skip
    assert trajectory.steps[1].name.startswith("layer1.0 [")


@pytest.mark.parametrize("name", ["GPT-2", "MLP", "U-Net", "T5"])
def test_the_product_of_the_steps_is_the_networks_jacobian(name: str) -> None:
    subject = specimen(name)
    system = captured(subject, dtype=torch.float64)
    trajectory = system.trajectory
    source, target = trajectory.states[0], trajectory.states[-1]

    def network(*tensors: Tensor) -> Tensor:
        for step in trajectory.steps:
            tensors = step.function(tensors)
        return tensors[0]

    tangents = tuple(torch.randn_like(t) for t in source.value)
    value, expected = torch.func.jvp(network, source.value, tangents)
    torch.testing.assert_close(value, target.value[0])
    moving = tuple(t.unsqueeze(0) for t in tangents)
    for step in trajectory.steps:
        assert isinstance(step.jacobian, JacobianOperator)
        moving = step.jacobian.push_tensors(moving)
    # T5 and GPT-2 compute parts in float32 whatever they are given.
    exact = 1e-10 if name in ("MLP", "U-Net") else 1e-5
    torch.testing.assert_close(moving[0][0], expected, rtol=exact, atol=exact * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["GPT-2", "TransformerEncoder", "T5"])
def test_granularity_only_moves_the_boundaries(name: str) -> None:
    systems = [captured(specimen(name), granularity=grain).trajectory for grain in ("fine", "step", "block")]
    counts = [len(trajectory.steps) for trajectory in systems]
    assert counts[0] >= counts[1] >= counts[2]
    tangent = torch.randn(2, systems[0].states[0].size, 3)
    fine, step, block = (trajectory.propagator().matmat(tangent) for trajectory in systems)
    torch.testing.assert_close(fine, step)
    torch.testing.assert_close(block, step)


def test_a_block_is_one_step_at_that_grain() -> None:
    blocks = captured(specimen("GPT-2"), granularity="block").trajectory
    assert [step.block for step in blocks.steps[:2]] == ["transformer.h.0", "transformer.h.1"]


def test_states_can_be_named() -> None:
    trajectory = captured(specimen("GPT-2"), states=("transformer.h.*",)).trajectory
    assert len(trajectory.steps) == 3
    with pytest.raises(StateError, match="no state on the chain"):
        captured(specimen("GPT-2"), states=("nothing.*",))


@pytest.mark.parametrize(("name", "causal"), [("GPT-2", True), ("Mamba", True), ("ViT", False), ("BERT", False)])
def test_causality_is_found(name: str, causal: bool) -> None:
    assert captured(specimen(name)).trajectory.causal is causal


def test_inputs_that_influence_each_other_are_one_state() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x - x.mean(0))

    trajectory = captured(Specimen(Centred(), (torch.randn(4, 3),))).trajectory
    assert trajectory.coupled and trajectory.samples == 1 and trajectory.states[0].size == 12


def test_shared_weights_are_told_apart_by_number() -> None:
    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = x + torch.tanh(self.cell(x))
            return x

    trajectory = captured(Specimen(Looped(), (torch.randn(2, 4),))).trajectory
    assert [step.name for step in trajectory.steps] == ["cell", "cell #2", "cell #3"]
    assert all(step.kind == "residual" for step in trajectory.steps)


@pytest.mark.parametrize(
    ("update", "alpha"),
    [
        (lambda x, f: x + f, 1.0),
        (lambda x, f: 0.5 * x + f, 0.5),
        (lambda x, f: f - 2 * x, -2.0),
        (lambda x, f: (x + f) / 4, 0.25),
        (lambda x, f: x.view(2, 2, 2).reshape(2, 4) + f, 1.0),
        (lambda x, f: f, None),
        (lambda x, f: x * f, None),
        (lambda x, f: x.flip(1) + f, None),
    ],
)
def test_the_residual_coefficient_is_read_off_the_graph(update: Any, alpha: float | None) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return update(x, torch.tanh(self.f(x)))

    (step,) = captured(Specimen(Block(), (torch.randn(2, 4),))).trajectory.steps
    assert step.residual_coefficient == alpha


def test_a_network_cut_off_from_its_input_says_so() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach() * 2

    with pytest.raises(StateError, match="no floating-point output depends"):
        captured(Specimen(Cut(), (torch.randn(2, 4),)))


def test_a_stop_gradient_is_respected_as_autograd_does() -> None:
    class Stopped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                frozen = self.f(x)
            return x + torch.tanh(self.f(x)) + frozen + x.detach() ** 2

    system = captured(Specimen(Stopped(), (torch.randn(2, 4),)))
    assert all(check.passed for check in system.checks)


def test_hugging_face_models_return_dicts_and_caches() -> None:
    for name in HUGGING_FACE:
        states = captured(specimen(name), verify=False).trajectory.states
        assert states[-1].value[0].is_floating_point()


class Untraceable(nn.Module):
    """Leaves torch on the way to its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tensor(x.detach().tolist())
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_what_no_trace_can_follow_is_a_chain_of_its_blocks() -> None:
    model, x = Untraceable(), torch.randn(5, 4)
    system = captured(Specimen(model, (x,)))
    trajectory = system.trajectory
    assert trajectory.rung == "module chain" and trajectory.samples == 5
    assert [step.name for step in trajectory.steps] == ["blocks.0", "blocks.1", "blocks.2"]
    assert len(system.checks) == 3 and all(check.passed for check in system.checks)
    expected = torch.func.vmap(torch.func.jacrev(nn.Sequential(*model.blocks)))(x)
    before = trajectory.steps[0].jacobian.products
    torch.testing.assert_close(trajectory.propagator().dense(), expected)
    assert trajectory.steps[0].jacobian.products - before == 5 * 4


def test_a_chain_of_blocks_has_a_cost_as_any_other_system() -> None:
    trajectory = captured(Specimen(Untraceable(), (torch.randn(5, 4),))).trajectory
    cost = estimate_cost(trajectory, Config())
    assert cost.seconds_per_product > 1e-7 and cost.bytes_per_tangent >= 5 * 4 * 4


def test_what_cannot_even_be_chained_is_refused() -> None:
    class Opaque(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor((2 * x).tolist()) + 0 * x

    with pytest.raises(CaptureError, match="inputs are live failed"):
        captured(Specimen(Opaque(), (torch.randn(2, 4),)))


def test_a_gradient_that_vanishes_below_the_normal_range_is_no_failed_check() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*(layer for _ in range(170) for layer in (nn.Linear(16, 16), nn.Tanh())))
    inputs = torch.randn(8, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(inputs).sum(), inputs)
    assert 0 < gradient.abs().max() < torch.finfo(torch.float32).tiny
    system = captured(Specimen(network, (inputs.detach(),)))
    assert [check.check for check in system.checks if not check.passed] == []


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_inputs_are_independent_whatever_their_values(value: float) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
    with torch.no_grad():
        next(network.parameters())[0, 0] = value
    trajectory = captured(Specimen(network, (torch.zeros(3, 4) if value == 0 else torch.randn(3, 4),))).trajectory
    assert (trajectory.samples, trajectory.coupled) == (3, False)
