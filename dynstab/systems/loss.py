"""The cotangent that a loss sends into the last state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynstab.capture.capture import Subject, one_line
from dynstab.capture.isolate import isolated
from dynstab.capture.leaves import tensor_leaves
from dynstab.capture.trace import tracing_context
from dynstab.core.errors import InputError


def loss_cotangent(subject: Subject, output: int, loss: Callable[[Any], Tensor]) -> tuple[Tensor, ...]:
    """d loss / d output, for a loss of what forward returns; `output` numbers the tensor among its leaves.

    Raises:
        InputError: the loss raises, is no scalar, or does not depend on that output.
    """
    with torch.enable_grad(), tracing_context(), isolated(subject.module):
        result = subject.forward(subject.differentiable(), subject.inputs)
        leaf = [tensor for _, tensor in tensor_leaves(result)][output]
        try:
            value = loss(result)
        except Exception as error:
            raise InputError(
                f"the loss rejects the model's output: {one_line(error)}",
                expected="a function of what forward returns",
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise InputError(f"the loss returned {_kind(value)}", expected="a tensor with one entry")
        (gradient,) = torch.autograd.grad(value.reshape(()), [leaf], allow_unused=True)
    if gradient is None:
        raise InputError("the loss does not depend on the output that the analysis follows")
    return (gradient.detach(),)


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
