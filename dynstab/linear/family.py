"""A family of maps x -> f(x; p) and their Jacobians in x, from as few captures as f allows.

The steps of a solver are one map at many times and step sizes, a vector field is one map at many times. A
captured graph serves every member of the family along which f takes the same way; where it takes another (a
control path goes into its next piece) it is captured again, and where it cannot be captured autograd records each run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from dynstab.core.errors import DynstabError
from dynstab.linear.agreement import close, nearby
from dynstab.linear.captured import CapturedMap
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.recorded_operator import RecordedOperator
from dynstab.linear.tape import Tape
from dynstab.linear.tape_operator import TapeOperator

Tensors = tuple[Tensor, ...]
_MOST_CAPTURED = 8


class MapFamily:
    """`family(x, p)` gives f(x, p) and the operator of df/dx there.

    Args:
        f: of the tensors of a state and those of a parameter; pure. Shapes and dtypes are those of the first call.
    """

    def __init__(self, f: Callable[[Tensors, Tensors], Tensors]) -> None:
        self._f = f
        self._captured: list[_Captured] = []
        self._refusal = ""

    @torch.no_grad()
    def __call__(self, x: Tensors, p: Tensors) -> tuple[Tensors, JacobianOperator]:
        expected = self._f(x, p)
        tapes = (captured.tape(x, p, expected) for captured in reversed(self._captured))
        tape = next((tape for tape in tapes if tape is not None), None)
        if tape is None and not self._refusal:
            tape = self._capture(x, p, expected)
        if tape is None:
            return expected, RecordedOperator(lambda *moving: self._f(moving, p), x, self._refusal)
        return expected, TapeOperator(tape, _layout(x), _layout(expected))

    def _capture(self, x: Tensors, p: Tensors, expected: Tensors) -> Tape | None:
        try:
            captured = _Captured(self._f, x, p)
        except DynstabError as error:
            self._refusal = str(error).split(";")[0][:120]
            return None
        if not captured.follows(self._f, x, p):
            self._refusal = "its graph does not follow the state"
            return None
        self._captured = [*self._captured[-_MOST_CAPTURED:], captured]
        return captured.tape(x, p, expected)


class _Captured:
    def __init__(self, f: Callable[[Tensors, Tensors], Tensors], x: Tensors, p: Tensors) -> None:
        count = len(x)
        self._map = CapturedMap(lambda *tensors: f(tensors[:count], tensors[count:]), (*x, *p), moving=count)

    def tape(self, x: Tensors, p: Tensors, expected: Tensors) -> Tape | None:
        """The recorded run at x and p; None where it does not give what f gives."""
        values = self._values(x, p, expected)
        return None if values is None else self._map.tape(values)

    def follows(self, f: Callable[[Tensors, Tensors], Tensors], x: Tensors, p: Tensors) -> bool:
        """Whether graph and f agree near x, and in a gradient at x.

        A gradient that f takes inside itself stands in its graph as a constant, or cut off from the state.
        """
        if any(self._values(near, p, f(near, p)) is None for near in nearby(x, (1e-2, -1e-2))):
            return False
        generator = torch.Generator().manual_seed(0)
        expected = f(x, p)
        tape = self.tape(x, p, expected)
        cotangents = [torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in expected]
        return tape is not None and _same_gradient(
            tape.pull([cotangent[None] for cotangent in cotangents]), _by_autograd(f, x, p, cotangents)
        )

    def _values(self, x: Tensors, p: Tensors, expected: Tensors) -> dict[fx.Node, Any] | None:
        try:
            values = self._map.values((*x, *p))
        except RuntimeError:  # a shape or an index that was right for another member
            return None
        found = self._map.outputs(values)
        alike = len(found) == len(expected) and all(close(a, b) for a, b in zip(found, expected, strict=True))
        return values if alike else None


def _by_autograd(f: Callable[[Tensors, Tensors], Tensors], x: Tensors, p: Tensors, cotangents: list[Tensor]) -> Tensors:
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar", UserWarning)
        leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in x)
        pairs = [(y, c) for y, c in zip(f(leaves, p), cotangents, strict=True) if y.requires_grad]
        if not pairs:
            return tuple(torch.zeros_like(tensor) for tensor in x)
        outputs, given = zip(*pairs, strict=True)
        return torch.autograd.grad(outputs, leaves, given, allow_unused=True, materialize_grads=True)


def _same_gradient(pulled: Tensors, expected: Tensors) -> bool:
    got = torch.cat([tensor[0].flatten() for tensor in pulled])
    wanted = torch.cat([tensor.flatten() for tensor in expected])
    return float((got - wanted).norm()) <= 1e3 * torch.finfo(got.dtype).eps * float(wanted.norm())


def _layout(tensors: Tensors) -> Layout:
    return Layout(shapes=tuple(tensor.shape for tensor in tensors))
