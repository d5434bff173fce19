"""A network's depth as time: module and inputs -> Trajectory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from dynstab.capture import Graph, capture
from dynstab.capture.capture import Subject, unwrap
from dynstab.capture.isolate import isolated
from dynstab.core.errors import CaptureError, StateError
from dynstab.core.report import Check
from dynstab.linear.evaluator import evaluate
from dynstab.linear.layout import Layout
from dynstab.linear.tape import Tape
from dynstab.linear.tape_operator import TapeOperator
from dynstab.systems.chain import chain_system
from dynstab.systems.complex_states import with_real_states
from dynstab.systems.cuts import find_cuts
from dynstab.systems.dependence import Chain, Values, coarsest_dtype, find_chain, floating, is_mixing, op_name, reach
from dynstab.systems.gradient import check_gradient
from dynstab.systems.kinks import activation_of
from dynstab.systems.plan import PlannedStep, plan_steps
from dynstab.systems.samples import find_layouts, is_causal
from dynstab.systems.segment import SegmentFunction
from dynstab.systems.trajectory import State, Step, Trajectory
from dynstab.systems.verify import check_adjoint, check_dependence


@dataclass(frozen=True, kw_only=True)
class DepthSystem:
    """A captured network: its trajectory and how far the capture was verified.

    Attributes:
        subject: the module with its arguments.
        output: the last state's number among forward's tensors; None where it is none of them.
    """

    subject: Subject
    output: int | None
    trajectory: Trajectory
    checks: tuple[Check, ...]


def depth_system(
    module: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    granularity: str = "step",
    states: tuple[str, ...] = (),
    seed: int = 0,
    linearisation: str = "forward",
    verify: bool = True,
) -> DepthSystem:
    """Capture `module(*args, **kwargs)`, cut it into states, and linearise its steps at them.

    Where no trace gives what eager mode gives, the chain of the longest list of blocks serves.
    `linearisation` "backward" keeps the backward of custom autograd Functions, "forward" differentiates their forward.

    Raises:
        InputError, CaptureError: see `capture`.
        StateError: no output depends on an input by a derivative, or `states` matches nothing.
    """
    try:
        graph, subject, checks = capture(
            module, args, kwargs, dtype=dtype, device=device, seed=seed, own_backward=linearisation == "backward"
        )
        values = evaluate(graph.module, graph.arguments())
        chain = _chain(graph, values)
        if with_real_states(graph, chain, values):
            values = evaluate(graph.module, graph.arguments())
            chain = _chain(graph, values)
    except (CaptureError, StateError) as cause:
        if linearisation == "backward":  # blocks by themselves are differentiated by their forward
            raise
        subject = Subject(unwrap(module), args, kwargs or {}, dtype=dtype, device=device, seed=seed)
        try:
            trajectory, checks = chain_system(subject, batch_size(subject.inputs), cause)
        except RuntimeError as error:  # a block that cannot run by itself: a cache that grows with each call, say
            raise cause from error
        return DepthSystem(subject=subject, output=None, trajectory=trajectory, checks=checks)
    batch = batch_size(graph.inputs)
    planned = plan_steps(chain, find_cuts(chain, values), values, granularity=granularity, states=states, batch=batch)
    trajectory = _assemble(graph, chain, planned, values, _sample_axis(module, values, planned, batch))
    if verify and trajectory.steps:
        with isolated(subject.module):
            found, gap = _verify(graph, subject, chain, trajectory, values)
        checks += found
        choices = graph.choices.model_copy(update={"backward_gap": gap})
        trajectory = replace(trajectory, choices=choices)
    output = next(i for i, node in enumerate(graph.outputs) if node is chain.sink)
    return DepthSystem(subject=subject, output=output, trajectory=trajectory, checks=checks)


def _chain(graph: Graph, values: Values) -> Chain:
    """The chain; where there is none for want of a derivative that a custom backward would give, that is said."""
    functions = ", ".join(graph.choices.functions) if graph.choices.linearisation == "forward" else ""
    remedy = f"--linearisation backward shows what the backward of {functions} says"
    try:
        chain = find_chain(graph, values)
    except StateError as error:
        raise StateError(error.got, expected=error.expected, remedy=remedy) if functions else error from error
    begins = set(reach(graph.module.graph.nodes, graph.input_nodes, values))
    behind = not begins & set(chain.source) and any(floating(values[node]) for node in graph.input_nodes)
    return replace(chain, notes=(*chain.notes, remedy)) if functions and behind else chain


def _sample_axis(
    module: nn.Module, values: Values, planned: list[PlannedStep], batch: int | None
) -> tuple[int, int] | None:
    """(dimension, size) that should count the inputs in the first state; it is tested before it is believed.

    Dimension 0, unless a module says that the sequence comes first and the first state has three dimensions.
    """
    first = values[planned[0].low.live[0]] if planned else None
    sequence_first = any(getattr(submodule, "batch_first", True) is False for submodule in module.modules())
    if sequence_first and first is not None and first.ndim == 3:
        return 1, first.shape[1]
    return None if batch is None else (0, batch)


def batch_size(inputs: Iterable[Tensor]) -> int | None:
    """How many inputs there are, if the tensors among them agree on their first dimension."""
    sizes = {tensor.shape[0] for tensor in inputs if tensor.ndim > 0}
    return sizes.pop() if len(sizes) == 1 else None


def _verify(
    graph: Graph, subject: Subject, chain: Chain, trajectory: Trajectory, values: dict[fx.Node, Any]
) -> tuple[tuple[Check, ...], float | None]:
    """The checks of derivatives, and how far the model's own backward is from the one shown."""
    operators = [step.jacobian for step in trajectory.steps if isinstance(step.jacobian, TapeOperator)]
    functions = [step.function for step in trajectory.steps if isinstance(step.function, SegmentFunction)]
    states = [state.value for state in trajectory.states]
    precision = coarsest_dtype(chain.nodes, values)
    gradient, gap = check_gradient(graph, subject, chain, states, functions, operators, precision)
    dependence = check_dependence(graph, subject, chain, values, functions)
    return (dependence, gradient, check_adjoint(operators, precision)), gap


def _assemble(
    graph: Graph, chain: Chain, planned: list[PlannedStep], values: Values, axis: tuple[int, int] | None
) -> Trajectory:
    cuts = [planned[0].low, *(step.high for step in planned)] if planned else []
    tensors = [tuple(values[node] for node in cut.live) for cut in cuts]
    active = set(chain.nodes)
    tapes = [Tape([n for n in step.nodes if n in active], step.low.live, step.high.live, values) for step in planned]
    pushes = [tape.push for tape in tapes]
    layouts, coupled = find_layouts(tensors, pushes, axis)
    positions = [
        _positions(chain, cut.position, value, layout)
        for cut, value, layout in zip(cuts, tensors, layouts, strict=True)
    ]
    token_dims = [token for token, _ in positions]
    states = tuple(
        State(
            index=i,
            name=_source_name(chain, cuts[0].live) if i == 0 else planned[i - 1].name,
            value=tensors[i],
            layout=layouts[i],
            token_dim=positions[i][0],
            feature_dim=positions[i][1],
        )
        for i in range(len(cuts))
    )
    return Trajectory(
        kind="depth",
        time_unit="step",
        states=states,
        steps=tuple(_step(i, step, tapes[i], states, graph, values) for i, step in enumerate(planned)),
        samples=layouts[0].samples if layouts else 1,
        coupled=coupled,
        causal=bool(planned) and is_causal(tensors, pushes, token_dims),
        rung=graph.rung,
        notes=(*graph.notes, *chain.notes),
        choices=graph.choices,
        routes=dict(sum((Counter(tape.routes) for tape in tapes), Counter())),
    )


def _step(index: int, step: PlannedStep, tape: Tape, states: tuple[State, ...], graph: Graph, values: Values) -> Step:
    source, target = states[index], states[index + 1]
    same = [t.shape for t in source.value] == [t.shape for t in target.value]
    function = SegmentFunction(step.low.live, step.high.live, values)
    learned = graph.parameter_nodes
    used = dict.fromkeys(a for node in function.nodes for a in _upstream(node, learned))
    return Step(
        index=index,
        name=step.name,
        kind="transition" if not same else "plain" if step.alpha is None else "residual",
        source=index,
        target=index + 1,
        jacobian=TapeOperator(tape, source.layout, target.layout),
        function=function,
        parts=_parts(step, values),
        residual_coefficient=step.alpha if same and isinstance(step.alpha, float) else None,
        activations=tuple(found for node in step.nodes if (found := activation_of(node, values))),
        block=step.block,
        parameters=tuple(graph.parameters[learned[node]] for node in used),
    )


def _parts(step: PlannedStep, values: Values) -> tuple[SegmentFunction, SegmentFunction, SegmentFunction] | None:
    """What is before its residual sum, the sum, and what is behind, where states are one tensor and there is such."""
    cuts = () if step.update is None else (step.low, *step.update, step.high)
    if not cuts or any(len(cut.live) > 1 for cut in cuts):
        return None
    before, update, after = (SegmentFunction(a.live, b.live, values) for a, b in zip(cuts, cuts[1:], strict=False))
    return before, update, after


def _upstream(node: fx.Node, learned: Mapping[fx.Node, str]) -> list[fx.Node]:
    """Parameters that a node takes, directly or through ops on parameters alone (a transpose, a cast)."""
    found: list[fx.Node] = []
    stack = [a for a in node.all_input_nodes if op_name(a) in ("", "t", "transpose", "_to_copy", "view", "permute")]
    while stack:
        argument = stack.pop()
        if argument in learned:
            found.append(argument)
        elif argument.op == "call_function" and len(argument.all_input_nodes) == 1:
            stack.extend(a for a in argument.all_input_nodes if op_name(a) in ("", "t", "transpose", "_to_copy"))
    return found


def _source_name(chain: Chain, live: tuple[fx.Node, ...]) -> str:
    if live[0].op == "placeholder":
        return "input"
    return live[-1].meta.get("path") or chain.source[0].meta.get("path") or "input"


def _positions(chain: Chain, position: int, value: tuple[Tensor, ...], layout: Layout) -> tuple[int | None, int | None]:
    """(token dimension, feature dimension) of a state's first tensor.

    Channels come first where the last matrix product before the state was a convolution (or
    there was none and the tensor looks like an image), last otherwise.
    """
    ndim = value[0].ndim
    inputs = layout.sample_dims[0] if layout.samples > 1 else 0
    rest = [dim for dim in range(ndim) if dim != inputs]
    products = [node for node in chain.nodes[: position + 1] if is_mixing(node)]
    convolutional = "conv" in op_name(products[-1]) if products else ndim >= 4
    if not rest:
        return None, None
    feature = rest[0] if convolutional else rest[-1]
    return (next(dim for dim in rest if dim != feature) if ndim == 3 else None), feature
