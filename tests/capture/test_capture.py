"""A captured graph computes what the model computes, follows its parameters, and leaves the model alone."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dynstab.capture import capture, capture_function
from dynstab.core.errors import CaptureError, InputError


class Pair(NamedTuple):
    left: Tensor
    right: dict[str, Tensor]


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor, *, scale: Tensor) -> Pair:
        return Pair(self.linear(x), {"scaled": x * scale})


class Stateful(nn.Module):
    """Counts calls, keeps an attribute, moves a buffer, draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 3), 0
        self.register_buffer("mean", torch.zeros(3))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x
        self.mean += x.detach().mean(0)
        return self.linear(x) + 0.1 * torch.randn_like(x)


def test_nested_outputs_are_found_with_their_paths() -> None:
    graph, _, checks = capture(Nested(), (torch.randn(2, 3),), {"scale": torch.tensor(2.0)})
    assert graph.output_paths == ("left", "right.scaled")
    assert graph.input_names == ("x", "scale")
    assert all(check.passed for check in checks)


def test_the_graph_follows_an_update_of_the_parameters() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), torch.randn(5, 3)
    graph, _, _ = capture(model, (x,))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(graph.call()[0], model(x))


def test_the_model_comes_back_as_it_was() -> None:
    model, x = nn.Sequential(Stateful(), nn.BatchNorm1d(3), nn.Dropout(0.5)), torch.randn(4, 3)
    model.train()
    model[2].eval()
    model(x).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    calls, last, random = model[0].calls, model[0].last, torch.get_rng_state()
    capture(model, (torch.randn(4, 3),))
    assert torch.equal(torch.get_rng_state(), random) is False  # randn above
    random = torch.get_rng_state()
    capture(model, (x,))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True) if p.grad is not None)
    assert model[0].calls == calls and model[0].last is last
    assert [m.training for m in model] == [True, True, False]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_random_ops_are_replayed() -> None:
    graph, _, _ = capture(Stateful(), (torch.randn(4, 3),))
    assert torch.equal(graph.call()[0], graph.call()[0])
    assert "random ops" in graph.notes[0]


def test_functional_dropout_stays_a_function_of_its_input() -> None:
    def function(x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)

    x = torch.ones(64)
    graph = capture_function(function, (x,))
    torch.testing.assert_close(graph.call([3 * x])[0], 3 * graph.call()[0])


def test_a_compiled_module_is_captured_behind_its_wrapper() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    graph, _, _ = capture(torch.compile(model), (torch.randn(2, 3),))  # type: ignore[arg-type]
    assert list(graph.parameters) == ["0.weight", "0.bias"]


def test_nodes_know_the_module_they_ran_in() -> None:
    graph, _, _ = capture(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), (torch.randn(2, 3),))
    paths = [node.meta["path"] for node in graph.module.graph.nodes if node.op == "call_function"]
    assert set(paths) == {"0", "1"}


def test_lifted_precision_leaves_the_module_in_its_own() -> None:
    model = nn.Linear(3, 3).to(torch.bfloat16)
    graph, _, _ = capture(model, (torch.randn(2, 3),), dtype=torch.float32)
    assert graph.call()[0].dtype == torch.float32
    assert model.weight.dtype == torch.bfloat16


def test_a_branch_on_data_is_followed_along_the_path_taken() -> None:
    def function(x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x * 3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = capture_function(function, (torch.ones(3),))
    torch.testing.assert_close(graph.call()[0], 2 * torch.ones(3))


@pytest.mark.parametrize(
    ("forward", "error", "words"),
    [
        (lambda x: x @ torch.zeros(7, 7), InputError, "rejects the input"),
        (lambda x: x.shape, CaptureError, "no floating-point tensor"),
        (lambda x: x.argmax(), CaptureError, "no floating-point tensor"),
        (lambda x: 1 / 0, InputError, "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_captured_is_answered_in_one_sentence(forward: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        capture_function(forward, (torch.randn(3, 3),))
    assert "\n" not in str(caught.value)


def test_a_graph_that_bakes_its_parameters_in_is_refused() -> None:
    from dynstab.capture.capture import Subject
    from dynstab.capture.graph import Graph
    from dynstab.capture.verify import check_live_parameters

    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    graph, _, _ = capture(model, (x,))
    nodes = {node.op: node for node in graph.module.graph.nodes}
    baked = graph.call()[0]
    graph.module.register_buffer("baked", baked)
    with graph.module.graph.inserting_before(nodes["output"]):
        constant = graph.module.graph.get_attr("baked")
    nodes["output"].args = ([constant],)
    graph.module.recompile()
    assert isinstance(graph, Graph)
    assert not check_live_parameters(graph, Subject(model, (x,), {})).passed
