"""What `dynstab inspect` shows: the system that was found and what measuring it would cost."""

from __future__ import annotations

from typing import Any

from dynstab.core.frozen import Frozen
from dynstab.core.report import Check, ModelInfo, SystemInfo


class Cost(Frozen):
    """An estimate made from one timed product.

    Attributes:
        products: with the Jacobians of single steps, all inputs counted, as in the report's provenance.
        seconds_per_product: of one tangent of one input through one step, mean over the steps.
        seconds: of all products; the decompositions of dense Jacobians come on top.
        bytes_per_tangent: memory that one tangent of all inputs takes. recorded_bytes: of the recorded run.
    """

    products: int
    seconds_per_product: float
    seconds: float
    bytes_per_tangent: int
    recorded_bytes: int


class Inspection(Frozen):
    """A system before it is measured; printing it in a rich console shows a table."""

    model: ModelInfo
    system: SystemInfo
    verification: tuple[Check, ...]
    routes: dict[str, int] = {}
    effort: str
    cost: Cost

    def __rich__(self) -> Any:
        from dynstab.render.inspection import inspection_page

        return inspection_page(self)

    def __str__(self) -> str:
        from dynstab.render.inspection import inspection_text

        return inspection_text(self)
