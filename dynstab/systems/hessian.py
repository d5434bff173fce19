"""The Hessian of a training loss over a model's parameters, matrix-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from dynstab.capture.capture import one_line
from dynstab.capture.isolate import isolated
from dynstab.core.errors import DynstabError, InputError
from dynstab.linear.operator import LinearOperator

Loss = Callable[[nn.Module], Tensor]
"""The training loss of a model, on a batch that it holds itself: model -> tensor with one entry."""


class HessianOperator(LinearOperator):
    """H = d^2 loss / d theta^2 at the present weights, one symmetric n x n matrix.

    theta is the concatenation of the parameters, flattened. The loss and its gradient are computed
    once and their graph is kept: a product is one more backward pass through it (Pearlmutter 1994).
    The model runs as it is, in train or eval mode; its buffers and the random states are put back.

    Args:
        parameters: of the model, those that move; the rest is constant.
        weights: (n,), what stands for them; None takes their own values.

    Attributes:
        value: the loss. gradient: (n,).

    Raises:
        InputError: the loss raises, is no tensor with one entry, or depends on none of the parameters; or a
            parameter is not the model's.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, parameters: Sequence[Tensor], weights: Tensor | None = None
    ) -> None:
        self._parameters = tuple(parameters)
        if not self._parameters:
            raise InputError("the model has no parameter that requires a gradient", expected="at least one")
        # The graph keeps the buffers that BatchNorm used: it gets its own, for the model's will be put back.
        replaced = {f"model.{name}": buffer.detach().clone() for name, buffer in model.named_buffers()}
        if weights is not None:
            names = _names(model, self._parameters)
            self._parameters = tuple(part.detach().requires_grad_() for part in self._split(weights))
            replaced |= dict(zip(names, self._parameters, strict=True))
        with _differentiable_twice(), isolated(model, training=True):
            subject = _LossOf(model, loss)
            value = functional_call(subject, replaced, ()) if replaced else subject()
            found = torch.autograd.grad(value, self._parameters, create_graph=True, allow_unused=True)
        if all(each is None for each in found):
            raise InputError(
                "the loss depends on none of the parameters",
                expected="a loss of this model, whose parameters the optimizer moves if one is given",
                remedy="compute it with gradients enabled",
            )
        self._gradients = tuple(None if gradient is None else _dense(gradient) for gradient in found)
        self.value, self.gradient = float(value.detach()), self._flat(found)
        self.samples, self.rows, self.cols = 1, len(self.gradient), len(self.gradient)
        self.dtype, self.device = self.gradient.dtype, self.gradient.device

    def matmat(self, columns: Tensor) -> Tensor:
        self.products += columns.shape[2]
        return torch.stack([self._product(column) for column in columns[0].mT], dim=1).unsqueeze(0)

    def rmatmat(self, columns: Tensor) -> Tensor:
        return self.matmat(columns)

    def _product(self, vector: Tensor) -> Tensor:
        moving = self._split(vector)
        # A gradient that is constant in the parameters, as under a loss linear in them, adds nothing.
        pairs = [(g, v) for g, v in zip(self._gradients, moving, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return torch.zeros_like(vector)
        outputs, weights = [g for g, _ in pairs], [v.to(g.dtype) for g, v in pairs]
        with _differentiable_twice():
            return self._flat(
                torch.autograd.grad(outputs, self._parameters, weights, retain_graph=True, allow_unused=True)
            )

    def _split(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split([parameter.numel() for parameter in self._parameters])
        return [part.reshape(p.shape) for part, p in zip(parts, self._parameters, strict=True)]

    def _flat(self, tensors: Sequence[Tensor | None]) -> Tensor:
        filled = (
            torch.zeros_like(p) if tensor is None else _dense(tensor)
            for tensor, p in zip(tensors, self._parameters, strict=True)
        )
        return torch.cat([tensor.detach().reshape(-1) for tensor in filled])


def _dense(gradient: Tensor) -> Tensor:
    """That of an embedding may be sparse."""
    return gradient.to_dense() if gradient.is_sparse else gradient


class ScaledHessian(LinearOperator):
    """S (H + W) S for diagonal S and W: what an optimiser with rates of its own for every weight sees.

    Similar to S^2 (H + W), so with the same eigenvalues, but symmetric.

    Args:
        scale, decay: the diagonals of S and of W, (n,).
    """

    def __init__(self, hessian: HessianOperator, *, scale: Tensor, decay: Tensor) -> None:
        self.hessian, self._scale, self._decay = hessian, scale[None, :, None], decay[None, :, None]
        self.samples, self.rows, self.cols = 1, hessian.rows, hessian.cols
        self.dtype, self.device = hessian.dtype, hessian.device

    def matmat(self, columns: Tensor) -> Tensor:
        scaled = self._scale * columns
        return self._scale * (self.hessian.matmat(scaled) + self._decay * scaled)

    def rmatmat(self, columns: Tensor) -> Tensor:
        return self.matmat(columns)


@contextmanager
def _differentiable_twice() -> Iterator[None]:
    """Settings under which every op has a second derivative: attention by matrix products, no fused recurrence."""
    with (
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=False),
        torch.compiler.set_stance("force_eager"),
    ):
        yield


class _LossOf(nn.Module):
    """The loss as the output of a module, whose parameters `functional_call` can replace."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self) -> Tensor:
        return _loss_of(self.model, self._loss)


def _names(model: nn.Module, parameters: Sequence[Tensor]) -> list[str]:
    """The parameters as `_LossOf` calls them."""
    names = {id(parameter): f"model.{name}" for name, parameter in model.named_parameters()}
    if any(id(parameter) not in names for parameter in parameters):
        raise InputError("the optimizer moves a tensor that is no parameter of the model", expected="the model's own")
    return [names[id(parameter)] for parameter in parameters]


def _loss_of(model: nn.Module, loss: Loss) -> Tensor:
    try:
        value = loss(model)
    except DynstabError:
        raise
    except Exception as error:
        raise InputError(f"the loss raises {one_line(error)}", expected="a function of the model alone") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"the loss returned {got}", expected="a tensor with one entry")
    if not value.requires_grad:
        raise InputError("the loss carries no gradient", remedy="compute it from the model's output, without detach")
    return value.reshape(())
