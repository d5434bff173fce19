"""What a stranger may bring that cannot be analysed, or not in one way alone: each gets one clear answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

import dynstab
from dynstab.cli import app
from dynstab.core.report import Report

WIDTH = 6


class Calls(nn.Module):
    """A layer, then whatever function it is given."""

    def __init__(self, body: Callable[[Tensor], Any]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner, self.outer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.body = body

    def forward(self, x: Tensor) -> Any:
        return self.body(self.inner(x))


class Between(Calls):
    """The same with a layer after it."""

    def forward(self, x: Tensor) -> Any:
        return self.outer(self.body(torch.tanh(self.inner(x))))


def analyzed(model: Any, x: Any = None, **options: Any) -> Report:
    inputs = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1)) if x is None else x
    return dynstab.analyze(model, inputs, config=dynstab.Config(effort="quick", k=2, **options))


def raising(_: Tensor) -> Tensor:
    raise ValueError("needs a graph\nwith edges")


def leaving(_: Tensor) -> Tensor:
    raise SystemExit(3)


REFUSED: dict[str, Callable[[], tuple[nn.Module, Any, tuple[str, ...]]]] = {
    "raises in forward": lambda: (Calls(raising), None, ("ValueError: needs a graph with edges", "(4, 6) float32")),
    "leaves Python": lambda: (Calls(leaving), None, ("SystemExit",)),
    "returns nothing": lambda: (Calls(lambda x: None), None, ("returns NoneType", "floating-point")),
    "returns words": lambda: (Calls(lambda x: "seven"), None, ("returns str", "floating-point")),
    "returns whole numbers": lambda: (
        Calls(lambda x: x.argmax(-1)),
        None,
        ("a tensor of torch.int64", "floating-point"),
    ),
    "no forward": lambda: (nn.ModuleList([nn.Linear(6, 6)]), None, ("ModuleList", "forward")),
    "words for numbers": lambda: (nn.Embedding(5, 4), torch.randn(3, 2), ("indices", "randint")),
    "whole numbers for floats": lambda: (
        Calls(torch.tanh),
        torch.ones(4, 6, dtype=torch.int64),
        ("weights are float32",),
    ),
    "double for single": lambda: (Calls(torch.tanh), torch.ones(4, 6, dtype=torch.float64), ("weights are float32",)),
    "nested input": lambda: (
        Calls(torch.tanh),
        torch.nested.nested_tensor([torch.ones(2, 6), torch.ones(3, 6)]),
        ("input 1 is a nested tensor", "to_padded_tensor"),
    ),
    "sparse input": lambda: (Calls(torch.tanh), torch.eye(6).to_sparse(), ("sparse_coo", "to_dense")),
    "compressed input": lambda: (
        Calls(torch.tanh),
        {"x": torch.eye(6).to_sparse_csr()},
        ("'x'", "sparse_csr", "to_dense"),
    ),
    "input without values": lambda: (Calls(torch.tanh), torch.ones(4, 6, device="meta"), ("input 1", "meta device")),
    "weights without values": lambda: (
        nn.Linear(6, 6, device="meta"),
        None,
        ("weight of Linear", "meta", "load_state_dict"),
    ),
    "unborn layer": lambda: (nn.Sequential(nn.LazyLinear(6)), None, ("lazy layers", "call it once")),
    "empty input": lambda: (Calls(torch.tanh), torch.ones(0, 6), ("no number",)),
    "no features": lambda: (Calls(torch.tanh), torch.ones(4, 0), ("no number",)),
    "quantised layers": lambda: (
        torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 6)), {nn.Linear}, dtype=torch.qint8),
        None,
        ("quantised layer", "before quantisation"),
    ),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, on nested tensors and on quantisation
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_analysed_is_answered_in_one_sentence(name: str) -> None:
    model, x, words = REFUSED[name]()
    with pytest.raises(dynstab.DynstabError) as caught:
        analyzed(model, x)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    assert all(word in message for word in words), message


def test_a_function_is_no_model() -> None:
    with pytest.raises(dynstab.DynstabError, match=r"type function.*torch\.nn\.Module"):
        analyzed(raising)


def test_sparse_weights_are_named() -> None:
    model = Calls(torch.tanh)
    model.register_buffer("edges", torch.eye(6).to_sparse())
    with pytest.raises(dynstab.DynstabError, match=r"edges of Calls is a sparse tensor.*to_dense"):
        analyzed(model)


def test_inputs_elsewhere_than_the_model_are_refused_and_scalars_are_not() -> None:
    from dynstab.loading.admissible import refuse_devices

    model = nn.Linear(2, 2, device="meta")  # stands for another device than the CPU
    refuse_devices(model, [("the input 't'", torch.tensor(1.0))])
    with pytest.raises(dynstab.DynstabError, match=r"the input 'x' is on cpu, the model on meta.*--device"):
        refuse_devices(model, [("the input 'x'", torch.ones(2))])


class Free(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(2 * x) * 3


def test_a_model_without_parameters_gets_a_verified_report() -> None:
    report = analyzed(Free())
    assert report.model.parameters == 0 and report.system.steps
    assert all(check.passed for check in report.verification)


def test_branches_on_values_are_analysed_along_the_path_taken_and_the_report_says_where() -> None:
    def body(x: Tensor) -> Tensor:
        for _ in range(1 + int(x.detach().abs().sum()) % 3):
            x = torch.tanh(x)
        return x * 2 if bool(x.sum() > 100) else x * 3

    report = analyzed(Calls(body))
    assert all(check.passed for check in report.verification)
    assert len(report.system.choices.branches) == 2
    assert all(place.startswith("test_bad_models.py:") for place in report.system.choices.branches)
    assert any("path taken" in note for note in report.system.notes)
    assert [flag.severity for flag in report.flags if flag.name == "path-taken"] == ["info"]


def test_branches_on_weights_shapes_and_constants_are_no_branches_on_values() -> None:
    model = Calls(lambda x: x)

    def body(x: Tensor) -> Tensor:
        mask = torch.zeros_like(x)
        if bool(model.inner.weight.sum() > 1e9) or bool(mask.any()) or len(x) > 100:
            return x
        return torch.tanh(x)

    model.body = body
    report = analyzed(model)
    assert report.system.choices.branches == () and not report.system.notes


def test_a_value_that_becomes_a_factor_is_no_straight_line_and_the_refusal_names_the_place() -> None:
    with pytest.raises(dynstab.DynstabError, match=r"cannot be traced.*Python numbers \(test_bad_models\.py:\d+\)"):
        analyzed(Calls(lambda x: x * float(x.detach().abs().sum())))


def generators() -> tuple[Any, ...]:
    """The states of Python's, NumPy's and torch's own generators."""
    _, numbers, position, *_ = numpy.random.get_state()
    return random.getstate(), list(numbers), position, torch.get_rng_state().tolist()


@pytest.mark.parametrize(
    ("draw", "word"),
    [
        (lambda x: torch.randn_like(x), "random ops"),
        (lambda x: nn.functional.dropout(x, 0.5, training=True), "random ops"),
        (lambda x: float(numpy.random.rand()), "NumPy"),
        (lambda x: random.random(), "Python"),
    ],
)
def test_draws_in_eval_mode_are_frozen_and_the_report_says_so(draw: Callable[[Tensor], Any], word: str) -> None:
    states = generators()
    report = analyzed(Calls(lambda x: torch.tanh(x) + draw(x)))
    assert all(check.passed for check in report.verification)
    assert any(word in note and "seed" in note for note in report.system.notes)
    assert states == generators()
    again = analyzed(Calls(lambda x: torch.tanh(x) + draw(x)))
    assert again.measurements == report.measurements


def test_runs_that_never_repeat_are_refused_with_their_difference() -> None:
    generator = numpy.random.default_rng()
    with pytest.raises(dynstab.DynstabError, match="two runs at the same input differ"):
        analyzed(Calls(lambda x: torch.tanh(x) * generator.random()))


def test_inputs_that_forward_writes_into_stay_as_they_were() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.mul_(2))

    x = torch.randn(4, WIDTH)
    before = x.clone()
    report = analyzed(Writes(), x)
    assert torch.equal(x, before) and all(check.passed for check in report.verification)


class Rounded(Function):
    """Straight-through: rounds, and lets the gradient pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(64 * x) / 64

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Reversed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -0.5 * gradient


class Clipped(Function):
    """A surrogate gradient that cannot be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 0.5)


class InNumpy(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(numpy.tanh(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Bounded(Function):
    """Clips the gradient: no linear map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(-0.01, 0.01)


class Honest(Function):
    """A backward that is the derivative of its forward, in the newer style."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0]


reverse = Reversed.apply  # bound before anything is watched, as users do


@pytest.mark.parametrize("apply", [Rounded.apply, reverse, Clipped.apply, InNumpy.apply, Honest.apply])
def test_with_linearisation_backward_the_steps_are_what_training_sees(apply: Callable[[Tensor], Tensor]) -> None:
    report = analyzed(Between(apply), linearisation="backward")
    assert all(check.passed for check in report.verification), report.verification
    assert report.system.choices.linearisation == "backward" and report.system.choices.backward_gap is None
    assert len(report.system.steps) >= 2
    (flag,) = (flag for flag in report.flags if flag.name == "custom-backward")
    assert flag.severity == "info"


@pytest.mark.parametrize(("apply", "gap"), [(reverse, 3.0), (Bounded.apply, None), (Clipped.apply, None)])
def test_by_default_the_forward_is_differentiated_and_the_gap_to_the_backward_is_told(
    apply: Callable[[Tensor], Tensor], gap: float | None
) -> None:
    report = analyzed(Between(apply))
    assert all(check.passed for check in report.verification), report.verification
    found = report.system.choices.backward_gap
    assert found is not None and found > 0.01
    # Minus one half is shown as one: the difference is three times the model's own gradient.
    assert gap is None or found == pytest.approx(gap, rel=1e-4)
    (flag,) = (flag for flag in report.flags if flag.name == "custom-backward")
    assert flag.severity == "warning" and "--linearisation backward" in flag.advice[0]


def test_a_backward_that_is_the_derivative_is_no_finding() -> None:
    report = analyzed(Between(Honest.apply))
    assert report.system.choices.functions == ("Honest",) and report.system.choices.backward_gap is None
    assert not any(flag.name == "custom-backward" for flag in report.flags)


def test_the_two_linearisations_of_gradient_reversal_are_minus_one_half_apart() -> None:
    model = Between(reverse)
    x = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    matrices = []
    for own_backward in (False, True):
        from dynstab.systems.depth import depth_system

        system = depth_system(model, (x,), linearisation="backward" if own_backward else "forward")
        matrices.append(system.trajectory.propagator().dense()[0])
    torch.testing.assert_close(matrices[1], -0.5 * matrices[0])


def test_rounding_holds_what_comes_before_constant_unless_the_backward_is_followed() -> None:
    forward, backward = (analyzed(Between(Rounded.apply), linearisation=way) for way in ("forward", "backward"))
    assert len(forward.system.steps) < len(backward.system.steps)
    assert any("--linearisation backward" in note for note in forward.system.notes)


def test_a_forward_that_cannot_be_traced_points_to_its_backward() -> None:
    with pytest.raises(dynstab.DynstabError, match="--linearisation backward keeps InNumpy whole"):
        analyzed(Between(InNumpy.apply))


def test_a_backward_that_is_not_linear_has_no_jacobian() -> None:
    with pytest.raises(dynstab.DynstabError, match=r"Bounded\.apply has no derivative.*--linearisation forward"):
        analyzed(Between(Bounded.apply), linearisation="backward")


COMMANDS: dict[str, tuple[str, tuple[str, ...], int, tuple[str, ...]]] = {
    "raises": ("def forward(self, x): raise ValueError('no\\nway')", (), 2, ("ValueError: no way",)),
    "nothing": ("def forward(self, x): return None", (), 2, ("returns NoneType",)),
    "branch": (
        "def forward(self, x): return torch.tanh(x) if x.sum() > 1e9 else self.layer(x)",
        (),
        0,
        ("path-taken", "path taken at these inputs"),
    ),
    "noise": ("def forward(self, x): return self.layer(x) + torch.randn_like(x)", (), 0, ("random ops replayed",)),
    "gate, forward": (
        "def forward(self, x): return self.layer(Gate.apply(self.layer(x)))",
        (),
        0,
        ("custom-backward",),
    ),
    "gate, backward": (
        "def forward(self, x): return self.layer(Gate.apply(self.layer(x)))",
        ("--linearisation", "backward"),
        0,
        ("custom-backward", "backward of Gate"),
    ),
    "no such linearisation": (
        "def forward(self, x): return self.layer(x)",
        ("--linearisation", "sideways"),
        2,
        ("sideways",),
    ),
}
SOURCE = """
import torch
from torch import nn

class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, g): return 2 * g

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
    {forward}
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_gives_the_same_answers(name: str, tmp_path: Path) -> None:
    forward, options, code, words = COMMANDS[name]
    (tmp_path / "net.py").write_text(SOURCE.format(forward=forward))
    arguments = ["analyze", f"{tmp_path / 'net.py'}:Net", "--input", "randn:4,6", "--effort", "quick", "-k", "2"]
    result = CliRunner().invoke(app, [*arguments, *options], prog_name="dynstab")
    assert result.exit_code == code, result.output
    text = " ".join((result.stdout if code == 0 else result.stderr).split())
    assert all(word in text for word in words), text
    assert "Traceback" not in result.output
