"""A problem and its solution -> Trajectory: states at the accepted steps, the flow map of each step between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dynstab.linear.family import MapFamily
from dynstab.linear.layout import Layout
from dynstab.linear.operator import JacobianOperator, LinearOperator, RelaidOperator
from dynstab.linear.runge_kutta import Tensors, runge_kutta_step
from dynstab.systems.flow_points import FieldPoint, field_point
from dynstab.systems.flow_problem import Gradients, Problem, Solution, SolvedStep, Source, step_of
from dynstab.systems.samples import find_layouts
from dynstab.systems.trajectory import State, Step, Trajectory

MOST_STEPS = 200
"""Steps of a trajectory; where the solver took more, several of its steps make one."""


@dataclass(frozen=True, kw_only=True)
class FlowTrajectory(Trajectory):
    """A trajectory along a solver's steps.

    Attributes:
        problem, solution: what was solved. points: the field along the way, one a step of the trajectory, and at
            the last state (`final`). gradients: see `Problem`, or in words why there are none.
        source: leads to the problem again.
    """

    problem: Problem
    solution: Solution
    points: tuple[FieldPoint, ...]
    final: JacobianOperator
    source: Source
    gradients: Gradients | str


class ComposedOperator(JacobianOperator):
    """Several steps as one."""

    def __init__(self, operators: Sequence[JacobianOperator]) -> None:
        first = operators[0]
        super().__init__(first.source, operators[-1].target, first.dtype, first.device)
        self.operators = tuple(operators)

    @property
    def routes(self) -> dict[str, int]:
        return dict(sum((Counter(operator.routes) for operator in self.operators), Counter()))

    def push_tensors(self, tangents: Tensors) -> Tensors:
        for operator in self.operators:
            tangents = operator.push_tensors(tangents)
        return tangents

    def pull_tensors(self, cotangents: Tensors) -> Tensors:
        for operator in reversed(self.operators):
            cotangents = operator.pull_tensors(cotangents)
        return cotangents


def first_of(operator: LinearOperator) -> JacobianOperator:
    """A single solver step's operator: the first one, where a step is made of several."""
    while isinstance(operator, RelaidOperator):
        operator = operator.operator
    assert isinstance(operator, JacobianOperator)
    return operator.operators[0] if isinstance(operator, ComposedOperator) else operator


def flow_trajectory(problem: Problem, solution: Solution, source: Source, *, compare: bool = True) -> FlowTrajectory:
    """The trajectory of a solution; its graphs are captured here, while the field lives.

    `compare`: take the gradients by the adjoint equation and through the solver.
    """
    groups = _groups(solution.steps)
    flow_map = MapFamily(lambda x, p: runge_kutta_step(problem.field, problem.tableau, x, *p))
    field = MapFamily(lambda x, p: problem.field(p[0], x))
    operators = [_operator(flow_map, group) for group in groups]
    states = [*(group[0].state for group in groups), solution.last]
    layouts, coupled = _layouts(states, operators, _axis(problem.initial))
    merged = len(groups) < len(solution.steps)
    points = tuple(
        field_point(problem, field, group[0], layout, merged) for group, layout in zip(groups, layouts, strict=False)
    )
    end = solution.last[0].new_tensor(solution.reached)
    final = RelaidOperator(field(solution.last, (end,))[1], layouts[-1], layouts[-1])
    routes: Counter[str] = sum((Counter(each.routes) for each in operators), Counter())
    return FlowTrajectory(
        kind="flow",
        time_unit="time",
        states=tuple(
            State(index=i, name=f"t = {time:.4g}", value=value, layout=layout, feature_dim=_feature(value[0], layout))
            for i, (time, value, layout) in enumerate(zip(_times(groups, solution), states, layouts, strict=True))
        ),
        steps=tuple(_step(i, problem, group, operators[i], layouts) for i, group in enumerate(groups)),
        samples=layouts[0].samples,
        coupled=coupled,
        rung="solver steps",
        notes=(*problem.notes, *_notes(problem, solution, groups, layouts[0].samples)),
        routes=dict(routes),
        problem=problem,
        solution=solution,
        points=points,
        final=final,
        source=source,
        gradients=_gradients(problem, solution) if compare else "not compared here",
    )


def _gradients(problem: Problem, solution: Solution) -> Gradients | str:
    if problem.gradients is None:
        return "needs torchdiffeq: pip install dynstab[ode]"
    if solution.answer is None:
        return "the equation was not solved to its end"
    try:
        return problem.gradients()
    except RuntimeError as error:  # a field that autograd cannot follow, say: then there is nothing to compare
        return str(error)


def _layouts(
    states: list[Tensors], operators: list[JacobianOperator], axis: tuple[int, int] | None
) -> tuple[list[Layout], bool]:
    if operators or axis is None:
        return find_layouts(states, [each.push_tensors for each in operators], axis)
    # Before any step, nothing can have mixed the inputs.
    (state,), (dim, samples) = states, axis
    return [Layout(shapes=tuple(t.shape for t in state), samples=samples, sample_dims=(dim,) * len(state))], False


def _groups(steps: tuple[SolvedStep, ...]) -> list[tuple[SolvedStep, ...]]:
    length = max(1, -(-len(steps) // MOST_STEPS))
    return [steps[start : start + length] for start in range(0, len(steps), length)]


def _times(groups: list[tuple[SolvedStep, ...]], solution: Solution) -> list[float]:
    return [*(group[0].start for group in groups), solution.reached]


def _operator(flow_map: MapFamily, group: tuple[SolvedStep, ...]) -> JacobianOperator:
    operators = [flow_map(step.state, (step.times, step.length))[1] for step in group]
    return operators[0] if len(operators) == 1 else ComposedOperator(operators)


def _axis(initial: Tensors) -> tuple[int, int] | None:
    sizes = {tensor.shape[0] for tensor in initial if tensor.ndim > 1}
    alike = len(sizes) == 1 and all(tensor.ndim > 0 and tensor.shape[0] in sizes for tensor in initial)
    return (0, sizes.pop()) if alike else None


def _feature(tensor: Tensor, layout: Layout) -> int | None:
    rest = [dim for dim in range(tensor.ndim) if layout.samples == 1 or dim != 0]
    return (rest[0] if tensor.ndim >= 4 else rest[-1]) if rest else None


def _step(
    index: int,
    problem: Problem,
    group: tuple[SolvedStep, ...],
    operator: JacobianOperator,
    layouts: list[Layout],
) -> Step:
    def function(state: Tensors) -> Tensors:
        for step in group:
            state = step_of(problem, step, state)
        return state

    end = group[-1].start + group[-1].size
    return Step(
        index=index,
        name=f"t {group[0].start:.4g} to {end:.4g}",
        kind="plain",
        source=index,
        target=index + 1,
        jacobian=RelaidOperator(operator, layouts[index], layouts[index + 1]),
        function=function,
        block=problem.solver,
    )


def _notes(problem: Problem, solution: Solution, groups: list[tuple[SolvedStep, ...]], samples: int) -> list[str]:
    notes = [f"only the integral is analysed ({problem.source}, {problem.solver}), not what comes before and after it"]
    if problem.source == "dynstab":
        notes = []
    if len(groups) < len(solution.steps):
        most = max(map(len, groups))
        notes.append(f"{len(solution.steps)} solver steps: up to {most} of them make one step here")
    if problem.adaptive and samples > 1:
        notes.append("the inputs share the solver's step sizes, which are held: with other inputs it takes other steps")
    return notes
