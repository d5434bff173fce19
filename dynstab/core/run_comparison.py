"""What differs between training runs, as plain data."""

from __future__ import annotations

from typing import Any

from dynstab.core.comparison import Difference, FlagPresence
from dynstab.core.flag import Severity
from dynstab.core.frozen import Frozen
from dynstab.core.run import Run


class RunFlag(FlagPresence):
    """A rule over time in each run.

    Attributes:
        steps: the training step of the first finding that was as severe as `severities` says, None where there is none.
        first, first_severities: of the first finding of all, which may have been milder.
    """

    steps: tuple[int | None, ...]
    first: tuple[int | None, ...]
    first_severities: tuple[Severity | None, ...]

    def told(self, index: int) -> str:
        """What it found in a run: "warning at step 220, error at step 224"; "" for nothing."""
        pairs = (self.first_severities[index], self.first[index]), (self.severities[index], self.steps[index])
        return ", ".join(f"{level.value} at step {step}" for level, step in dict.fromkeys(pairs) if level is not None)


class RunComparison(Frozen):
    """Two or more training runs side by side; printing it in a rich console shows the page of `dynstab compare`.

    Attributes:
        names: what the runs are called here, all different.
        tail: first and last training step of the stretch, common to all runs, over which numbers are taken.
        parted: the first common step at which the losses differ; None where they never do, or were not given.
        curves: the curves of `run_series` over the tail: medians, their fluctuation as the error.
        groups: the same for the gradient norm of each group of parameters that all runs have.
    """

    names: tuple[str, ...]
    runs: tuple[Run, ...]
    tail: tuple[int, int] | None
    parted: int | None
    curves: tuple[Difference, ...]
    groups: tuple[Difference, ...]
    flags: tuple[RunFlag, ...]

    def to_json(self) -> str:
        """The differences as JSON text, without the runs themselves."""
        return self.model_dump_json(indent=1, exclude={"runs"})

    def __rich__(self) -> Any:
        from dynstab.render.run.comparison import comparison_page

        return comparison_page(self)

    def __str__(self) -> str:
        from dynstab.render.run.comparison import comparison_text

        return comparison_text(self)
