"""The linear tape: the primal runs once, then J and J^T sweep over what it recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dynstab.linear.diagonal import combine, diagonal
from dynstab.linear.fallback import fall_back
from dynstab.linear.plan import Plan, plan_between
from dynstab.linear.record import Record
from dynstab.linear.rules.table import RULES, Call, Diagonal, Factor, Linearisation, Pull, Push, UnsupportedForm


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a sweep does at one op: read registers, push or pull, write registers, free the dead ones."""

    push: Push
    pull: Pull
    route: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    several: bool
    dead: tuple[int, ...]


class Tape:
    """d target / d source of a recorded run, linearised op by op at the first sweep.

    Args:
        nodes: of the graph, in order. source, target: nodes that hold tensors.
        values: what each node was in the recorded run (see `Evaluator`).
        plan: from an earlier run of the same graph between the same nodes, to save its working out.
    """

    def __init__(
        self,
        nodes: Iterable[fx.Node],
        source: tuple[fx.Node, ...],
        target: tuple[fx.Node, ...],
        values: Mapping[fx.Node, Any],
        plan: Plan | None = None,
    ) -> None:
        self.plan = plan_between(nodes, source, target, values) if plan is None else plan
        self.values = values
        self.source_values = tuple(values[node] for node in source)
        self.target_values = tuple(values[node] for node in target)
        self._program: tuple[Instruction, ...] | None = None
        self._routes: dict[str, int] = {}

    @property
    def depends(self) -> bool:
        """Whether any target depends on the source at all."""
        return any(node in self.plan.registers for node in self.plan.target)

    @property
    def routes(self) -> dict[str, int]:
        """How many ops were linearised which way: "rule", or "double backward: aten.foo"."""
        if not self._routes:
            with torch.no_grad():
                counts = Counter(step.route for step in self.instructions())
            absorbed = sum(record.inside for record in self.plan.records)
            self._routes = dict(counts + Counter({"rule": absorbed}))
        return dict(self._routes)

    @torch.no_grad()
    def push(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """J t: (k, *source shape) each -> (k, *target shape) each."""
        return self.run(self.instructions(), tangents)

    @torch.no_grad()
    def run(self, program: Iterable[Instruction], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Push through this program or a variant of it (see `tokens`)."""
        plan = self.plan
        live: list[Any] = [None] * len(plan.registers)
        for node, tangent in zip(plan.source, tangents, strict=True):
            live[plan.registers[node]] = tangent
        for step in program:
            moved = step.push([live[register] for register in step.reads])
            if step.several:
                for register, tangent in zip(step.writes, moved, strict=True):
                    if register >= 0:
                        live[register] = tangent
            else:
                live[step.writes[0]] = moved
            for register in step.dead:
                live[register] = None
        k = tangents[0].shape[0]
        return tuple(
            live[plan.registers[node]] if node in plan.registers else value.new_zeros((k, *value.shape))
            for node, value in zip(plan.target, self.target_values, strict=True)
        )

    @torch.no_grad()
    def pull(self, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """J^T c: (k, *target shape) each -> (k, *source shape) each."""
        plan = self.plan
        sums = _Sums(len(plan.registers))
        for node, cotangent in zip(plan.target, cotangents, strict=True):
            if node in plan.registers:
                sums.add(plan.registers[node], cotangent)
        for step in reversed(self.instructions()):
            arrived = [sums.take(register) for register in step.writes]
            if all(cotangent is None for cotangent in arrived):
                continue
            for register, cotangent in zip(step.reads, step.pull(arrived if step.several else arrived[0]), strict=True):
                sums.add(register, cotangent)
        k = cotangents[0].shape[0]
        results = [sums.take(plan.registers[node]) for node in plan.source]
        return tuple(
            value.new_zeros((k, *value.shape)) if result is None else result
            for result, value in zip(results, self.source_values, strict=True)
        )

    def instructions(self) -> tuple[Instruction, ...]:
        """The linearised ops, one for each of `plan.executed`."""
        if self._program is None:
            self._program = self._linearise()
        return self._program

    def _linearise(self) -> tuple[Instruction, ...]:
        expansions: dict[fx.Node, Mapping[fx.Node, Factor]] = {}
        program = []
        for record in self.plan.records:
            derivative = derive(record, record.call(self.values))
            if isinstance(derivative, Diagonal):
                factors = combine(record, derivative, expansions)
                if record.inside:
                    continue
                shapes = tuple(self.values[root].shape for root in record.roots)
                derivative = diagonal(factors, shapes, self.values[record.result].shape)
            if record.mixed:
                derivative = _cast(derivative, record, self.values)
            program.append(
                Instruction(
                    derivative.push,
                    derivative.pull,
                    derivative.route,
                    record.read_registers,
                    record.written_registers,
                    record.several,
                    record.dead,
                )
            )
        return tuple(program)


def derive(record: Record, call: Call) -> Linearisation | Diagonal:
    """By the table where it covers this form of the op, by torch's own derivatives elsewhere."""
    if record.rule is None:
        return fall_back(call)
    try:
        derivative = RULES[record.rule](call)
    except UnsupportedForm:
        return fall_back(call)
    if isinstance(derivative, Diagonal) and not record.pointwise:
        shapes = tuple(tensor.shape for tensor in call.inputs)
        output = call.output if isinstance(call.output, Tensor) else call.output[0]
        return diagonal(derivative.factors, shapes, output.shape)
    return derivative


class _Sums:
    """Cotangents that arrive at registers from several sides."""

    def __init__(self, count: int) -> None:
        self._held: list[Tensor | None] = [None] * count
        self._own = [False] * count

    def add(self, register: int, cotangent: Tensor) -> None:
        held = self._held[register]
        if held is None:
            self._held[register] = cotangent
        elif self._own[register]:
            held.add_(cotangent)
        else:
            # What arrived first may be shared with another register.
            self._held[register] = held + cotangent
            self._own[register] = True

    def take(self, register: int) -> Tensor | None:
        if register < 0:
            return None
        held, self._held[register] = self._held[register], None
        return held


def _cast(derivative: Linearisation, record: Record, values: Mapping[fx.Node, Any]) -> Linearisation:
    """Tangents in the dtype of their own values, where an op changes dtypes."""
    inputs = [values[node].dtype for node in record.reads]
    outputs = [None if node is None else values[node].dtype for node in record.outputs]

    def push(tangents: Sequence[Tensor]) -> Any:
        moved = derivative.push(tangents)
        if not record.several:
            return moved.to(outputs[0])
        return [m if dtype is None else m.to(dtype) for m, dtype in zip(moved, outputs, strict=True)]

    def pull(cotangent: Any) -> tuple[Tensor, ...]:
        return tuple(c.to(dtype) for c, dtype in zip(derivative.pull(cotangent), inputs, strict=True))

    return Linearisation(push, pull, derivative.route)
