"""What a tape will do, worked out once from the graph's structure: nothing is computed here."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dynstab.linear.record import Record
from dynstab.linear.regions import distinct, form_regions
from dynstab.linear.rules.table import (
    FIRST_OUTPUT_ONLY,
    MOVES_NUMBERS,
    Slot,
    bind,
    is_constant,
    is_pointwise,
    moves,
    rule_name,
)


@dataclass(frozen=True)
class Plan:
    """The records between source and target in order, and where tangents live meanwhile.

    Attributes:
        registers: node -> number of its tangent, for all nodes that get one.
        peak_bytes: of all live registers together, for one tangent.
    """

    source: tuple[fx.Node, ...]
    target: tuple[fx.Node, ...]
    records: tuple[Record, ...]
    registers: dict[fx.Node, int]
    peak_bytes: int = 0

    @property
    def executed(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if not record.inside)


def plan_between(
    nodes: Iterable[fx.Node], source: tuple[fx.Node, ...], target: tuple[fx.Node, ...], values: Mapping[fx.Node, Any]
) -> Plan:
    """The plan for d target / d source; `values` are looked at for shapes and dtypes only."""
    drafts = _Drafts(list(nodes), source, values)
    target_nodes = tuple(drafts.canonical(node) for node in target)
    records = tuple(drafts.records(target_nodes))
    form_regions(records, set(target_nodes))
    executed = [record for record in records if not record.inside]
    registers = _number(source, target_nodes, executed)
    _assign(executed, registers, {registers[node] for node in target_nodes if node in registers})
    return Plan(source, target_nodes, records, registers, _peak(executed, registers, source, values))


class _Drafts:
    """Which nodes depend on the source through floating data, and the records of those that matter."""

    def __init__(self, nodes: list[fx.Node], source: tuple[fx.Node, ...], values: Mapping[fx.Node, Any]) -> None:
        self.nodes, self.source, self.values = nodes, source, values
        self.aliases: dict[fx.Node, fx.Node] = {}
        self.moving: set[fx.Node] = set(source)
        self.pieces: dict[fx.Node, dict[int, fx.Node]] = defaultdict(dict)
        for node in nodes:
            if node.op == "call_function" and node not in self.moving:
                self._visit(node)

    def canonical(self, node: fx.Node) -> fx.Node:
        return self.aliases.get(node, node)

    def _visit(self, node: fx.Node) -> None:
        value = self.values.get(node)
        if is_piece(node, self.values):
            whole, position = node.args
            if whole in self.moving and moves(value):
                first = self.pieces[whole].setdefault(position, node)  # type: ignore[index, arg-type]
                self.moving.add(node)
                if first is not node:
                    self.aliases[node] = first
        elif not is_constant(node.target) and any(argument in self.moving for argument in node.all_input_nodes):
            floats = moves(value) or (isinstance(value, (tuple, list)) and any(moves(item) for item in value))
            if floats:
                self.moving.add(node)

    def records(self, target: tuple[fx.Node, ...]) -> Iterator[Record]:
        """Of the ops from which the target can be reached."""
        needed = {node for node in target if node in self.moving}
        kept = []
        for node in reversed(self.nodes):
            if node not in needed or node in self.source or node.op != "call_function":
                continue
            if is_piece(node, self.values):
                needed.add(node.args[0])  # type: ignore[arg-type]
                continue
            record = self._record(node, needed)
            needed.update(record.inputs)
            kept.append(record)
        return reversed(kept)

    def _record(self, node: fx.Node, needed: set[fx.Node]) -> Record:
        template = bind(node.target, node.args, node.kwargs)
        live = tuple((name, held) for name, held in template.items() if _holds_node(held))
        slots = tuple(_moving_slots(live, self.moving))
        inputs = tuple(self.canonical(dict(live)[s[0]] if len(s) == 1 else dict(live)[s[0]][s[1]]) for s in slots)
        value = self.values[node]
        several = not isinstance(value, Tensor)
        outputs: tuple[fx.Node | None, ...] = (node,)
        if several:
            pieces = self.pieces[node]
            outputs = tuple(pieces[i] if i in pieces and pieces[i] in needed else None for i in range(len(value)))
        rule = rule_name(node.target)
        tensors = [self.values[held] for held in inputs] + [self.values[out] for out in outputs if out is not None]
        if rule not in MOVES_NUMBERS and any(tensor.is_complex() for tensor in tensors):
            rule = None
        if rule in FIRST_OUTPUT_ONLY and several:
            if any(out is not None for out in outputs[1:]):
                rule = None
            else:
                outputs, several = outputs[:1], False
        mixed = len({tensor.dtype for tensor in tensors}) > 1
        return Record(node, template, live, slots, inputs, outputs, several, rule, is_pointwise(rule, slots), mixed)


def is_piece(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    """Whether a node picks one result of an op with several."""
    return node.target is operator.getitem and not isinstance(values.get(node.args[0]), Tensor)  # type: ignore[arg-type]


def _holds_node(held: Any) -> bool:
    return isinstance(held, fx.Node) or (
        isinstance(held, (tuple, list)) and any(isinstance(item, fx.Node) for item in held)
    )


def _moving_slots(live: tuple[tuple[str, Any], ...], moving: set[fx.Node]) -> Iterator[Slot]:
    for name, held in live:
        if isinstance(held, fx.Node):
            if held in moving:
                yield (name,)
        else:
            yield from ((name, i) for i, item in enumerate(held) if isinstance(item, fx.Node) and item in moving)


def _number(source: tuple[fx.Node, ...], target: tuple[fx.Node, ...], executed: list[Record]) -> dict[fx.Node, int]:
    registers = {node: number for number, node in enumerate(distinct(source))}
    for record in executed:
        for node in record.outputs:
            if node is not None:
                registers.setdefault(node, len(registers))
    return registers


def _assign(executed: list[Record], registers: dict[fx.Node, int], kept: set[int]) -> None:
    """Tell each record its registers, and which of them die with it."""
    last: dict[int, Record] = {}
    for record in executed:
        record.read_registers = tuple(registers[node] for node in record.reads)
        record.written_registers = tuple(-1 if node is None else registers[node] for node in record.outputs)
        for register in (*record.read_registers, *record.written_registers):
            last[register] = record
    for register, record in last.items():
        if register >= 0 and register not in kept:
            record.dead += (register,)


def _peak(
    executed: list[Record],
    registers: dict[fx.Node, int],
    source: tuple[fx.Node, ...],
    values: Mapping[fx.Node, Any],
) -> int:
    """Bytes of the live registers for one tangent at the worst moment, scratch of the op itself included."""
    size = {registers[node]: _bytes(values[node]) for node in registers}
    live = {registers[node] for node in source}
    peak = sum(size[register] for register in live)
    for record in executed:
        made = [register for register in record.written_registers if register >= 0]
        live.update(made)
        scratch = sum(size[r] for r in made) + max((size[r] for r in record.read_registers), default=0)
        peak = max(peak, sum(size[register] for register in live) + scratch)
        live.difference_update(record.dead)
    return peak


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
