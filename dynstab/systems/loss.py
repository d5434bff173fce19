"""The cotangent that a loss sends into the last state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynstab.capture.capture import one_line
from dynstab.capture.isolate import isolated
from dynstab.capture.leaves import tensor_leaves
from dynstab.capture.trace import tracing_context
from dynstab.core.errors import InputError
from dynstab.systems.depth import DepthSystem


def loss_cotangent(system: DepthSystem, loss: Callable[[Any], Tensor]) -> tuple[Tensor, ...]:
    """d loss / d last state, for a loss of what forward returns.

    Raises:
        InputError: the loss raises, is no scalar, or does not depend on the last state, or that is no output.
    """
    subject, output = system.subject, system.output
    if output is None:
        raise InputError(
            "a loss of an output that the analysis does not reach",
            expected="a model whose output is the last state",
            remedy="leave --loss out: only blocks are analysed",
        )
    with torch.enable_grad(), tracing_context(), isolated(subject.module):
        result = subject.forward(subject.differentiable(), subject.inputs)
        leaf = [tensor for _, tensor in tensor_leaves(result)][output]
        try:
            value = loss(result)
        except Exception as error:
            raise InputError(
                f"the loss rejects the model's output: {one_line(error)}",
                expected="a function of what forward returns",
                remedy="call it on model(input) yourself to see where it fails",
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise InputError(
                f"the loss returned {_kind(value)}",
                expected="a tensor with one entry",
                remedy="reduce it, as by .mean()",
            )
        (gradient,) = torch.autograd.grad(value.reshape(()), [leaf], allow_unused=True)
    if gradient is None:
        raise InputError(
            "the loss does not depend on the output that the analysis follows",
            expected="a loss of the model's main output, with a gradient",
            remedy="compute it without detach, from the tensor that the last step returns",
        )
    return (gradient.detach(),)


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
