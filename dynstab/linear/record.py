"""One op on the way from source to target, as a tape will run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from dynstab.linear.rules.table import Call, Slot


@dataclass(slots=True)
class Record:
    """One op that carries tangents.

    Attributes:
        node: the recorded call. template: its arguments by name, `live` those that are nodes.
        slots, inputs: its moving arguments, and the nodes that hold them.
        outputs: the nodes that hold its results, by position (None: nobody uses it).
        several: tangents of the result are a sequence. rule: its key in the table, None for the fallback.
        pointwise: its rule answers with a `Diagonal`. mixed: dtypes of inputs and result differ.
        through: of a pointwise op, which inputs are replaced by the roots behind them.
        roots: of a pointwise op, the nodes whose tangents it multiplies. inside: it gets no tangent.
        expanded: a later record looks through this one at its roots.
        read_registers, written_registers: where a sweep finds and leaves tangents (-1: nowhere).
        dead: the registers that nothing reads afterwards.
    """

    node: fx.Node
    template: dict[str, Any]
    live: tuple[tuple[str, Any], ...]
    slots: tuple[Slot, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node | None, ...]
    several: bool
    rule: str | None
    pointwise: bool
    mixed: bool
    through: tuple[bool, ...] = ()
    roots: tuple[fx.Node, ...] = ()
    inside: bool = False
    expanded: bool = False
    read_registers: tuple[int, ...] = ()
    written_registers: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()

    @property
    def result(self) -> fx.Node:
        """The node of the result of an op that has one."""
        node = self.outputs[0]
        assert node is not None
        return node

    @property
    def reads(self) -> tuple[fx.Node, ...]:
        """Whose tangents a sweep reads here."""
        return self.roots if self.pointwise else self.inputs

    def call(self, values: Mapping[fx.Node, Any]) -> Call:
        arguments = dict(self.template)
        for name, held in self.live:
            arguments[name] = (
                values[held]
                if isinstance(held, fx.Node)
                else [values[item] if isinstance(item, fx.Node) else item for item in held]
            )
        return Call(self.node.target, arguments, self.slots, values[self.node])
