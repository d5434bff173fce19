"""What differs between reports, as plain data."""

from __future__ import annotations

from typing import Any

from dynstab.core.estimate import Estimate
from dynstab.core.flag import Severity
from dynstab.core.frozen import Frozen
from dynstab.core.report import Report


class StepMatch(Frozen):
    """A step by its name, and its index in each report; None where a report has no such step."""

    name: str
    indices: tuple[int | None, ...]


class Difference(Frozen):
    """One quantity in every report.

    Attributes:
        quantity: its field in the measurements. step: its row among the matched steps, None for the whole network.
        values: one a report. change: last less first, None where one of them is missing or not finite.
        moved: is any change between neighbouring reports beyond their errors? None where nobody can tell: a
            number is missing, has no error, or is a bound.
    """

    quantity: str
    step: int | None = None
    values: tuple[Estimate, ...]
    change: float | None
    moved: bool | None


class FlagPresence(Frozen):
    """A rule, and how severe its worst finding is in each report; None where it found nothing."""

    code: str
    name: str
    severities: tuple[Severity | None, ...]

    @property
    def came(self) -> bool:
        """Not in the first report, but in the last."""
        return self.severities[0] is None and self.severities[-1] is not None

    @property
    def went(self) -> bool:
        """In the first report, but not in the last."""
        return self.severities[0] is not None and self.severities[-1] is None


class Comparison(Frozen):
    """Two or more reports side by side; printing it in a rich console shows the page of `dynstab compare`.

    Attributes:
        names: what the reports are called here, all different. steps: in an order that suits all reports.
        network, differences: of the whole and of the steps that all reports have.
    """

    names: tuple[str, ...]
    reports: tuple[Report, ...]
    steps: tuple[StepMatch, ...]
    network: tuple[Difference, ...]
    differences: tuple[Difference, ...]
    flags: tuple[FlagPresence, ...]

    def to_json(self) -> str:
        """The differences as JSON text, without the reports themselves."""
        return self.model_dump_json(indent=1, by_alias=True, exclude={"reports"})

    def __rich__(self) -> Any:
        from dynstab.render.comparison import comparison_page

        return comparison_page(self)

    def __str__(self) -> str:
        from dynstab.render.comparison import comparison_text

        return comparison_text(self)
