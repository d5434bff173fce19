"""The probed network: captured once, then linearised at the weights that training has reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dynstab.capture.capture import Subject, one_line, unwrap
from dynstab.capture.isolate import isolated
from dynstab.core.errors import CaptureError, InputError, StateError
from dynstab.linear.evaluator import Evaluator
from dynstab.linear.layout import Layout
from dynstab.linear.plan import Plan
from dynstab.linear.tape import Tape
from dynstab.linear.tape_operator import TapeOperator
from dynstab.measures.tokens import root_mean_square
from dynstab.monitor.distributed import Processes
from dynstab.systems.depth import depth_system

_AS_FORWARD = "give what its forward takes: a tensor, a tuple or a dict of its arguments, or (inputs, targets)"


@dataclass(frozen=True, kw_only=True)
class Linearised:
    """The network at some weights.

    Attributes:
        operators: the Jacobians of its steps. sizes: (inputs, states), float64, the RMS of every state.
    """

    operators: tuple[TapeOperator, ...]
    sizes: Tensor


class ProbedNetwork:
    """A captured network whose weights go on moving.

    Capturing happens once. After that, the values of the graph are computed again with the parameters and
    buffers of the model as they are, found by their names, and the tapes reuse the plans of the first one.
    Half precision is lifted to float32.

    Args:
        args, kwargs: the inputs, which stay the same.

    Attributes:
        states, steps: their names, in order.

    Raises:
        InputError: the model rejects the inputs. CaptureError: it cannot be traced, or only as a chain of blocks.
        StateError: no output depends on the inputs by a derivative.
    """

    def __init__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], processes: Processes, *, seed: int = 0
    ) -> None:
        self._root, self._processes = unwrap(model), processes
        plain = processes.plain(model)
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in plain.parameters())
        dtype = torch.float32 if half else None
        with isolated(plain):
            _check_that_it_runs(Subject(plain, args, kwargs, dtype=dtype, seed=seed))
        try:
            system = depth_system(plain, args, kwargs, dtype=dtype, seed=seed, verify=False)
        except InputError as error:  # the model takes the inputs: it is a block by itself that does not
            raise CaptureError(f"the network cannot be differentiated: {one_line(error)}") from error
        operators = [step.jacobian for step in system.trajectory.steps]
        taped = [operator for operator in operators if isinstance(operator, TapeOperator)]
        if len(taped) < len(operators) or not taped:
            raise CaptureError("no trace follows the network, so its Jacobians cannot be taken again at other weights")
        self.states = tuple(state.name for state in system.trajectory.states)
        self.steps = tuple(step.name for step in system.trajectory.steps)
        self._given = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        self._inputs = system.subject.inputs
        self._formats = {name: (t.shape, t.dtype, t.device) for name, t in system.subject.parameters.items()}
        self._plans: list[tuple[Plan, Layout, Layout]] = [(o.tape.plan, o.source, o.target) for o in taped]
        graph_module = taped[0].tape.plan.source[0].graph.owning_module
        assert graph_module is not None
        self._evaluate = Evaluator(graph_module)

    def feed(self, batch: ProbeBatch) -> bool:
        """Take other inputs from now on, if their shapes and dtypes are those of the first ones."""
        leaves = [leaf for leaf in pytree.tree_leaves((batch.args, batch.kwargs)) if isinstance(leaf, Tensor)]
        alike = [(t.shape, t.dtype) for t in leaves] == [(t.shape, t.dtype) for t in self._given]
        if alike:
            self._inputs = tuple(
                t.to(dtype=old.dtype, device=old.device) for t, old in zip(leaves, self._inputs, strict=True)
            )
        return alike

    def at_present(self) -> Linearised:
        """Values and Jacobians at the present weights.

        Raises:
            CaptureError: parameters have other names or shapes than when the network was captured.
        """
        weights = self._weights()
        values = self._evaluate([*weights, *self._inputs])
        operators = tuple(
            TapeOperator(Tape((), plan.source, plan.target, values, plan=plan), source, target)
            for plan, source, target in self._plans
        )
        tensors = [operators[0].tape.source_values, *(operator.tape.target_values for operator in operators)]
        layouts = [operators[0].source, *(operator.target for operator in operators)]
        columns = [layout.flatten(tuple(t[None] for t in held)) for layout, held in zip(layouts, tensors, strict=True)]
        sizes = torch.stack([root_mean_square(column[:, :, 0]) for column in columns], dim=1)
        return Linearised(operators=operators, sizes=sizes)

    def _weights(self) -> list[Tensor]:
        """In the order in which the graph takes them, in the dtype of the analysis."""
        parameters = dict(self._root.named_parameters())
        held = {**dict(self._root.named_buffers()), **parameters}
        changed = [n for n, (shape, _, _) in self._formats.items() if n not in held or held[n].shape != shape]
        changed += [name for name in parameters if name not in self._formats]
        if changed:
            raise CaptureError(
                f"the model was changed during the run: its parameter {changed[0]} is not what it was",
                remedy="begin a new Monitor for the new model",
            )
        whole = self._processes.whole({name: held[name] for name in self._formats})
        return [whole[n].to(dtype=dtype, device=device) for n, (_, dtype, device) in self._formats.items()]


@dataclass(frozen=True, kw_only=True)
class ProbeBatch:
    """A batch that stays the same.

    Attributes:
        batch: all of it, in the form in which it was given, for the loss.
        args, kwargs: of forward, its first few inputs.
    """

    batch: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, batch: Any, inputs: int) -> ProbeBatch:
        """A copy, since a loader may use its memory again.

        A tensor is forward's argument, a dictionary holds keyword arguments, a tuple or list positional ones.
        What a dictionary names "labels" is left to the loss: the network ends at its predictions.

        Args:
            inputs: how many of the batch are fed, counted along the first dimension of every tensor.

        Raises:
            InputError: a batch of another type, one without a tensor, or without inputs.
        """
        if not isinstance(batch, (Tensor, Mapping, tuple, list)):
            raise InputError(
                f"a probe of type {type(batch).__name__}",
                expected="a tensor, a tuple of positional or a dict of keyword arguments",
            )
        whole = pytree.tree_map(_copied, dict(batch) if isinstance(batch, Mapping) else batch)
        tensors = [leaf for leaf in pytree.tree_leaves(whole) if isinstance(leaf, Tensor)]
        if not tensors:
            raise InputError("a probe that holds no tensor", expected="a batch as the training loop takes it")
        if not any(tensor.numel() for tensor in tensors):
            raise InputError(f"a probe of shape {tuple(tensors[0].shape)}", expected="one input at least")
        few = pytree.tree_map(lambda leaf: leaf[:inputs] if isinstance(leaf, Tensor) and leaf.ndim else leaf, whole)
        if isinstance(few, dict):
            return cls(batch=whole, args=(), kwargs={name: value for name, value in few.items() if name != "labels"})
        return cls(batch=whole, args=(few,) if isinstance(few, Tensor) else tuple(few), kwargs={})

    @property
    def alone(self) -> ProbeBatch | None:
        """Only the first of several positional items: of (inputs, targets), what forward takes."""
        return ProbeBatch(batch=self.batch, args=self.args[:1], kwargs={}) if len(self.args) > 1 else None

    @property
    def inputs(self) -> Any:
        """As `dynstab.analyze` takes them."""
        return self.kwargs or self.args


def _check_that_it_runs(subject: Subject) -> None:
    try:
        subject.run()
    except InputError as error:
        # What it says further is said to those who sit at the command line.
        raise InputError(error.got, remedy=_AS_FORWARD) from error


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def network_of(
    model: nn.Module, batch: ProbeBatch, processes: Processes, *, seed: int = 0
) -> tuple[ProbedNetwork, ProbeBatch]:
    """The captured network, and the batch in the form that forward takes: all of it, or its first item alone.

    Raises:
        InputError, CaptureError, StateError: see `ProbedNetwork`.
    """
    try:
        return ProbedNetwork(model, batch.args, batch.kwargs, processes, seed=seed), batch
    except (InputError, CaptureError, StateError) as error:
        first = batch.alone
        if first is None or not isinstance(error, InputError):
            raise
        try:
            return ProbedNetwork(model, first.args, first.kwargs, processes, seed=seed), first
        except InputError as second:
            raise InputError(
                f"the model takes neither the whole probe ({one_line(error)}) nor its first item ({one_line(second)})",
                expected="the arguments of forward, or (inputs, targets)",
            ) from second
