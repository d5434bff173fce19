"""A trajectory in the words of the report."""

from __future__ import annotations

from collections.abc import Iterator

from dynstab.core.report import Choices, StateInfo, StepInfo, SystemInfo
from dynstab.systems.trajectory import State, Step, Trajectory


def system_info(trajectory: Trajectory, inputs: tuple[str, ...], notes: tuple[str, ...] = ()) -> SystemInfo:
    """What the report says of a trajectory; `inputs` and `notes` come from loading."""
    return SystemInfo(
        kind=trajectory.kind,
        time_unit=trajectory.time_unit,
        inputs=inputs,
        states=tuple(_state(state) for state in trajectory.states),
        steps=tuple(_step(step) for step in trajectory.steps),
        rung=trajectory.rung,
        notes=(*notes, *trajectory.notes, *_settled(trajectory.choices)),
        choices=trajectory.choices,
    )


def _settled(choices: Choices) -> Iterator[str]:
    """One sentence on each choice that was made."""
    if choices.branches:
        yield (
            f"forward turns values that depend on the input into Python numbers ({_few(choices.branches)}): "
            "this is the path taken at these inputs"
        )
    if choices.functions:
        shown = "the derivative of their forward" if choices.linearisation == "forward" else "their own backward"
        yield f"custom autograd Functions are called ({_few(choices.functions)}): shown is {shown}"


def _few(words: tuple[str, ...]) -> str:
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more


def _state(state: State) -> StateInfo:
    shape = tuple(state.value[0].shape)
    tokens = None if state.token_dim is None else shape[state.token_dim]
    return StateInfo(index=state.index, name=state.name, shape=shape, size=state.size, tokens=tokens)


def _step(step: Step) -> StepInfo:
    return StepInfo(
        index=step.index,
        name=step.name,
        kind=step.kind,
        source=step.source,
        target=step.target,
        residual_coefficient=step.residual_coefficient,
        block=step.block,
        parameters=sum(parameter.numel() for parameter in step.parameters),
    )
