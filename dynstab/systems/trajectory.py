"""The one idea: states x_0 ... x_L and the differentiable steps between them.

Depth of a network, time of a recurrence, accepted steps of an ODE solver, optimiser
steps on the weights: what comes after this module does not know which it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from dynstab.core.report import Check, Choices
from dynstab.linear.layout import Layout
from dynstab.linear.operator import LinearOperator, ProductOperator

Map = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class State:
    """A point of the trajectory.

    Attributes:
        value: its tensors, inputs included. layout: how they become columns.
        token_dim, feature_dim: of its first tensor, where positions share features
            ((B, T, d): 1 and 2; (B, C, H, W): positions are what is left, token_dim None).
    """

    index: int
    name: str
    value: tuple[Tensor, ...]
    layout: Layout
    token_dim: int | None = None
    feature_dim: int | None = None

    @property
    def size(self) -> int:
        return self.layout.size


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A pointwise nonlinearity inside a step.

    Attributes:
        kind: its op, such as "relu". input, output: its values, over all inputs.
        kinks: pre-activations at which its derivative jumps.
        rectifier: its output is zero on a half-line.
    """

    name: str
    kind: str
    input: Tensor
    output: Tensor
    kinks: tuple[float, ...] = ()
    rectifier: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """A map between neighbouring states, linearised at the trajectory.

    Attributes:
        kind: residual (target = coefficient * source + rest), plain, or transition (a change of shape or of stream).
        residual_coefficient: None for a step that is not residual, and where each channel has its own.
        jacobian: d target / d source at the source's value.
        function: the map itself, tensors of the source -> tensors of the target.
        parts: function, of a residual step, as a norm or an activation, then the sum alone, then again such;
            None where the sum is all, or not told apart.
        activations: pointwise nonlinearities with a kink inside it.
        block: what it belongs to ("transformer.h.3"). parameters: those that it uses.
    """

    index: int
    name: str
    kind: Literal["residual", "plain", "transition"]
    source: int
    target: int
    jacobian: LinearOperator
    function: Map
    parts: tuple[Map, Map, Map] | None = None
    residual_coefficient: float | None = None
    activations: tuple[Activation, ...] = ()
    block: str = ""
    parameters: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """States and steps; `steps[l]` maps `states[l]` to `states[l + 1]`.

    Attributes:
        kind: depth, time, flow or training. time_unit: what one step is ("layer", "step", "s").
        samples: independent inputs; 1 where `coupled` says that they influence each other.
        causal: the Jacobians are block lower triangular in the token positions.
        rung, notes, routes, choices: how it was captured, for the report.
        whole: the longer trajectory of which this one is looked at step by step; None where this is all.
        held: over time, every step is the same map: nothing drives it, or always the same input.
    """

    kind: str
    states: tuple[State, ...]
    steps: tuple[Step, ...]
    time_unit: str = "step"
    samples: int = 1
    coupled: bool = False
    causal: bool = False
    rung: str = ""
    notes: tuple[str, ...] = ()
    choices: Choices = Choices()
    routes: dict[str, int] = field(default_factory=dict)
    whole: Trajectory | None = None
    held: bool = False

    def propagator(self, first: int = 0, last: int | None = None) -> ProductOperator:
        """J_{first -> last}; `last` counts states and defaults to the final one."""
        stop = len(self.steps) if last is None else last
        return ProductOperator(tuple(step.jacobian for step in self.steps[first:stop]))


class System(Protocol):
    """A trajectory and how far it was verified to be the model's own."""

    @property
    def trajectory(self) -> Trajectory: ...

    @property
    def checks(self) -> tuple[Check, ...]: ...
