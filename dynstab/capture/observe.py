"""One eager run that is watched: what a graph of it could not say of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from dynstab.capture.functions import noted
from dynstab.capture.random import drawn_outside_torch
from dynstab.capture.reads import ValueReads
from dynstab.core.errors import InputError
from dynstab.core.report import Choices

if TYPE_CHECKING:
    from dynstab.capture.subject import Subject


def observe(subject: Subject) -> tuple[list[Tensor], Choices, tuple[str, ...]]:
    """The outputs of one eager run, what has to be settled about it, and notes for the report."""
    branches: tuple[str, ...] = ()
    with noted() as functions:
        try:
            with ValueReads(subject.inputs) as reads:
                outputs = subject.run()
            branches = tuple(reads.places)
        except InputError:  # an op that no dispatch mode may watch: the model accepted this input before
            outputs = subject.run()
        drawn = drawn_outside_torch(subject.seed)
    notes = (f"draws of {' and '.join(drawn)} replayed with seed {subject.seed}",) if drawn else ()
    choices = Choices(
        branches=branches,
        functions=tuple(functions),
        linearisation="backward" if subject.own_backward else "forward",
    )
    return [tensor.clone() for tensor in outputs], choices, notes
