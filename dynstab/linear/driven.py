"""A driven map, (state, input) -> state: its values and its Jacobians along one sequence after another.

The map is captured once with the input as context, so that a step costs one run of a straight-line graph; its
tape is linearised only where it is asked for. A map that branches on values has a graph for each way it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from dynstab.core.errors import DynstabError, InputError, first_line
from dynstab.linear.captured import CapturedMap
from dynstab.linear.family import MapFamily
from dynstab.linear.function_operator import FunctionOperator
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator, RelaidOperator
from dynstab.linear.tape_operator import TapeOperator

Tensors = tuple[Tensor, ...]
DrivenStep = Callable[[Tensors, Tensors], Tensors]


class DrivenMap:
    """`step(state, inputs)` of tensors, captured at an example.

    Attributes:
        layout: of the state, as one sample.
        depends: whether the next state depends on the state by a derivative; taken for granted without a graph.
        reason: why there is no single graph; empty where there is.

    Raises:
        InputError: the step rejects the example, or does not map a state to its like.
    """

    def __init__(self, step: DrivenStep, state: Tensors, inputs: Tensors) -> None:
        self.step, self.reason = step, ""
        self.layout = Layout(shapes=tuple(tensor.shape for tensor in state))
        with torch.no_grad():
            _check(step, state, inputs)
        self.depends = True
        self._graph: CapturedMap | None = None
        self._family: MapFamily | None = None

        def flat(*tensors: Tensor) -> Tensors:
            return step(tensors[: len(state)], tensors[len(state) :])

        try:
            graph = CapturedMap(flat, (*state, *inputs), moving=len(state))
            self.depends = graph.tape(graph.values((*state, *inputs))).depends
            self._graph = graph
            if graph.branches:
                self.forget(f"the step branches on values ({', '.join(graph.branches[:3])})")
        except DynstabError as error:
            self.reason = first_line(error).split(";")[0][:120]

    @property
    def captured(self) -> bool:
        return self._graph is not None

    @property
    def rung(self) -> str:
        """In words, how its steps are linearised."""
        if self.captured:
            return "one step, captured"
        return "one step, captured for each way it takes" if self._family else "one step, by torch.func"

    def forget(self, reason: str) -> None:
        """Compare every step with the function from here on: its graph was found to be another one."""
        self._graph, self._family, self.reason = None, MapFamily(self.step), reason

    @torch.no_grad()
    def __call__(self, state: Tensors, inputs: Tensors) -> Tensors:
        """The next state."""
        if self._graph is None:
            return self.step(state, inputs)
        return self._graph.outputs(self._graph.values((*state, *inputs)))

    @torch.no_grad()
    def values(self, state: Tensors, inputs: Tensors) -> dict[fx.Node, Any]:
        """What every node of the graph is in one step, in order; nothing without a graph."""
        return {} if self._graph is None else self._graph.values((*state, *inputs))

    def jacobian(self, state: Tensors, inputs: Tensors) -> JacobianOperator:
        """d step(state, inputs) / d state, the inputs held."""
        if self._graph is not None:
            return TapeOperator(self._graph.tape(self._graph.values((*state, *inputs))), self.layout, self.layout)
        if self._family is not None:
            return self._family(state, inputs)[1]

        def held(*tensors: Tensor) -> Tensors:
            return self.step(tensors, inputs)

        return FunctionOperator(held, state, state, self.reason)


class RecomputedOperator(JacobianOperator):
    """The Jacobian of a driven map at one point, linearised anew whenever it is used.

    A sequence of thousands of steps holds its states alone; a tape would hold every intermediate value.
    """

    def __init__(self, driven: DrivenMap, state: Tensors, inputs: Tensors, layout: Layout) -> None:
        super().__init__(layout, layout, state[0].dtype, state[0].device)
        self._driven, self._state, self._inputs = driven, state, inputs

    @property
    def routes(self) -> dict[str, int]:
        return self._fresh().routes

    def _fresh(self) -> JacobianOperator:
        return RelaidOperator(self._driven.jacobian(self._state, self._inputs), self.source, self.target)

    def push_tensors(self, tangents: Tensors) -> Tensors:
        self.products += self.samples * tangents[0].shape[0]
        return self._fresh().push_tensors(tangents)

    def pull_tensors(self, cotangents: Tensors) -> Tensors:
        self.products += self.samples * cotangents[0].shape[0]
        return self._fresh().pull_tensors(cotangents)


def _check(step: DrivenStep, state: Tensors, inputs: Tensors) -> None:
    try:
        after = step(state, inputs)
    except DynstabError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (*state, *inputs))
        raise InputError(
            f"the step rejects a state and an input of shapes {shapes} ({type(error).__name__}: {first_line(error)})",
            expected="a step that takes them",
        ) from error
    got = [(tuple(tensor.shape), tensor.dtype) for tensor in after]
    expected = [(tuple(tensor.shape), tensor.dtype) for tensor in state]
    if got != expected:
        raise InputError(
            f"the step maps a state {_words(expected)} to {_words(got)}",
            expected="a map from states to states of the same shapes and dtypes",
        )


def _words(tensors: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in tensors)
