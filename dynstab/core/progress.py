"""How far the work is: what measures report to, and the reporter that says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """A piece of work under way."""

    def advance(self, count: int = 1) -> None:
        """`count` more of its units are done."""
        ...


class Progress(Protocol):
    """Told of every stage of an analysis.

    >>> with progress.stage("singular values", total=24) as stage:
    ...     for step in steps:
    ...         measure(step)
    ...         stage.advance()
    """

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Enter a stage; `total` is its number of units, None where that is not known. Stages may nest."""
        ...


class NullProgress:
    """Says nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        yield self

    def advance(self, count: int = 1) -> None:
        """Nothing is shown, so nothing is counted."""
