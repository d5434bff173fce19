"""A function and its Jacobian at one point after another, from one capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynstab.capture.leaves import tensor_leaves
from dynstab.core.errors import CaptureError, DynstabError, InputError
from dynstab.linear.agreement import close, nearby
from dynstab.linear.captured import CapturedMap, is_floating
from dynstab.linear.family import MapFamily
from dynstab.linear.function_operator import FunctionOperator, Tensors
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator
from dynstab.linear.tape_operator import TapeOperator

Point = Tensor | tuple[Tensor, ...]


class Linearizer:
    """f and its Jacobian at one point after another, captured once.

    `linearizer(x)` gives f(x) and the operator of df/dx there. A captured graph is a straight line. Where f
    branches on values there is one for each way that it takes, compared with f at every point; where it
    cannot be captured its Jacobian is taken by torch.func, and `operator.routes` says so. f is pure and may be
    called any number of times: it is compared with its graph near the example and at calls 1, 2, 4, 8, ...

    Args:
        f: a function or a module, of one tensor or several; returns a tensor, or a structure
            whose floating-point tensors, in order, are the output.
        example: its argument, or a tuple of them; shapes and dtypes are fixed from here on.

    Raises:
        InputError: no floating-point argument, f rejects the example or returns no floating-point
            tensor, or nothing that it returns depends on the example.
        CaptureError: at a call, f took another way than its graph.
    """

    def __init__(self, f: Callable[..., Any], example: Point) -> None:
        inputs = _checked(example)
        self._f, self._calls, self._reason = f, 0, ""
        self._function = _Flat(f)
        try:
            with torch.no_grad():
                outputs = self._function(*inputs)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"f rejects a tensor of shape {tuple(inputs[0].shape)} ({type(error).__name__}: {error})",
                expected="a function of the tensors given",
            ) from error
        self._source = Layout(shapes=tuple(tensor.shape for tensor in inputs))
        self._target = Layout(shapes=tuple(tensor.shape for tensor in outputs))
        self._captured = self._capture(inputs)
        self._check_dependence(inputs, outputs)
        self._family: MapFamily | None = None
        if self._captured is not None and (self._captured.branches or not self._agrees_around(inputs)):
            self._family = MapFamily(lambda x, _: self._function(*x))

    def __call__(self, x: Point) -> tuple[Point, JacobianOperator]:
        """f(x) and df/dx, for x of the example's shape and dtype."""
        inputs = (x,) if isinstance(x, Tensor) else tuple(x)
        if self._family is not None:
            outputs, operator = self._family(inputs, ())
            return self._point(outputs), operator
        if self._captured is None:
            with torch.no_grad():
                outputs = self._function(*inputs)
            return self._point(outputs), FunctionOperator(self._function, inputs, outputs, self._reason)
        self._calls += 1
        if self._calls & (self._calls - 1) == 0 and not self._agrees(inputs):
            raise CaptureError(
                f"f took another way at call {self._calls} than the one that was captured",
                expected="a function without branches on values",
                remedy="write the branch with torch.where",
            )
        values = self._captured.values(inputs)
        tape = self._captured.tape(values)
        return self._point(tape.target_values), TapeOperator(tape, self._source, self._target)

    def _point(self, tensors: Tensors) -> Point:
        return tensors[0] if len(tensors) == 1 else tensors

    def _capture(self, inputs: Tensors) -> CapturedMap | None:
        try:
            return CapturedMap(self._f, inputs)
        except DynstabError as error:
            self._reason = str(error).split(";")[0][:120]
            return None

    def _check_dependence(self, inputs: Tensors, outputs: Tensors) -> None:
        if self._captured is not None:
            depends = self._captured.tape(self._captured.values(inputs)).depends
        else:
            leaves = tuple(tensor.detach().requires_grad_() for tensor in inputs)
            with torch.enable_grad():
                depends = any(tensor.requires_grad for tensor in self._function(*leaves))
        if not depends:
            raise InputError(
                "what f returns does not depend on x by a derivative",
                expected="a differentiable function of x",
                remedy="look for .detach(), torch.no_grad() or integer operations in f",
            )

    def _agrees_around(self, inputs: Tensors) -> bool:
        return all(self._agrees(point) for point in nearby(inputs) if self._defined(point))

    @torch.no_grad()
    def _defined(self, inputs: Tensors) -> bool:
        """Whether a point lies in f's domain; what f raises outside of it is f's own affair."""
        try:
            return bool(self._function(*inputs))
        except Exception:
            return False

    @torch.no_grad()
    def _agrees(self, inputs: Tensors) -> bool:
        assert self._captured is not None
        expected = self._function(*inputs)
        found = self._captured.outputs(self._captured.values(inputs))
        return all(close(a, b) for a, b in zip(found, expected, strict=True))


class _Flat:
    """f as a function from tensors to its floating-point tensors."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self._f = f

    def __call__(self, *inputs: Tensor) -> Tensors:
        outputs = tuple(tensor for _, tensor in tensor_leaves(self._f(*inputs)) if is_floating(tensor))
        if not outputs:
            raise InputError("f returns no floating-point tensor", expected="a tensor, or a structure that holds one")
        return outputs


def _checked(example: Point) -> Tensors:
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    for tensor in inputs:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = str(tensor.dtype).removeprefix("torch.") if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(
                f"x is of type {got}", expected="a floating-point tensor", remedy="convert it with x.float()"
            )
    if not inputs or not any(tensor.numel() for tensor in inputs):
        raise InputError("x has no entries", expected="a tensor with at least one entry")
    return tuple(tensor.detach() for tensor in inputs)
