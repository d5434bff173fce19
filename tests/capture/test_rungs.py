"""What the lower rungs of tracing and the isolation of a model once let through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from dynstab.capture import capture
from dynstab.capture.isolate import isolated
from dynstab.systems.depth import depth_system


class Looked(nn.Module):
    """Finds its expert by the text of a tensor, which only the plain rung follows, and writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({f"expert_{i}": nn.Linear(4, 4) for i in range(2)})

    def forward(self, x: Tensor) -> Tensor:
        x, result = torch.tanh(x), torch.zeros_like(x)
        for i in torch.arange(2):
            result.index_add_(0, torch.arange(x.shape[0]), self.experts[f"expert_{i}"](x))
        result[:, 0].add_(x[:, 1])
        return result


def test_a_graph_of_the_plain_rung_writes_nothing_in_place() -> None:
    system = depth_system(Looked(), (torch.randn(3, 4),))
    assert system.trajectory.rung == "plain"
    assert all(check.passed for check in system.checks)
    graph, _, _ = capture(Looked(), (torch.randn(3, 4),))
    ops = [node.target for node in graph.module.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    assert ops and not any(op._schema.is_mutable for op in ops)


def test_steps_of_the_plain_rung_can_be_run_again_and_again() -> None:
    trajectory = depth_system(Looked(), (torch.randn(3, 4),)).trajectory
    for step in trajectory.steps:
        given = trajectory.states[step.source].value
        first = [tensor.clone() for tensor in step.function(given)]
        assert all(torch.equal(a, b) for a, b in zip(first, step.function(given), strict=True))


class Reversible(Function):
    """Runs its layers without gradients and gives the gradient itself, as a reversible network does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: nn.ModuleList) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layers = layers
        with torch.no_grad():
            for layer in layers:
                x = x + torch.tanh(layer(x))
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            start = y = x.detach().requires_grad_()
            for layer in ctx.layers:
                y = y + torch.tanh(layer(y))
            return torch.autograd.grad(y, start, grads[0])[0], None


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Reversible.apply(x, self.layers))


def test_no_grad_inside_a_custom_function_holds_nothing_constant() -> None:
    system = depth_system(Checkpointed(), (torch.randn(3, 4),))
    assert [step.kind for step in system.trajectory.steps] == ["residual", "residual", "residual", "plain"]
    assert all(check.passed for check in system.checks)


class Hooking(nn.Module):
    """Installs hooks at its first call and counts on having them once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.log = nn.Linear(4, 4), []

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "hooked"):
            self.layer.register_forward_hook(lambda _m, _i, result: self.log.append(result.shape))
            self.hooked = True
        return self.layer(x)


def test_hooks_and_lists_that_a_forward_filled_are_put_back() -> None:
    model = Hooking()
    for _ in range(2):
        with isolated(model):
            model(torch.randn(2, 4))
            assert len(model.log) == 1
        assert model.log == [] and not model.layer._forward_hooks and not hasattr(model, "hooked")


class Tied(nn.Module):
    """Sends each input through the expert with the larger score, by a gap of a few parts in ten thousand."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.scores = nn.Parameter(torch.tensor([1.0, 1.0 + 3e-5]))

    def forward(self, x: Tensor) -> Tensor:
        parts = [expert(x) for expert in self.experts]
        return parts[int(self.scores.argmax())] + x


def test_a_router_with_a_near_tie_is_checked_beside_the_tie() -> None:
    torch.manual_seed(1)
    checks = depth_system(Tied(), (torch.randn(3, 4),)).checks
    assert all(check.passed for check in checks)
