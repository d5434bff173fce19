"""Small charts from characters: sparklines, a column chart, a bar to either side of zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"
Values = Sequence[float | None]


def finite(values: Values) -> list[float]:
    """The numbers among `values`."""
    return [value for value in values if value is not None and math.isfinite(value)]


def fit(values: Values, width: int, repeat: int = 1) -> list[float | None]:
    """`values` on at most `width` columns: each `repeat` times, or where that is too wide, the extreme of each bin."""
    if len(values) * repeat <= width:
        return [value for value in values for _ in range(repeat)]
    numbers = sorted(finite(values))
    middle = numbers[len(numbers) // 2] if numbers else 0.0
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [max(values[a:b], key=lambda v: _oddity(v, middle)) for a, b in zip(edges, edges[1:], strict=False)]


def spark(values: Values, low: float, high: float) -> str:
    """One character a value, its height between `low` and `high`."""
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    marks = []
    for value in values:
        special = _special(value)
        # A bit below a half rounds up too: a constant in the middle of its range must not flicker by rounding errors.
        level = 0 if special else min(len(LEVELS) - 1, max(0, math.floor((_known(value) - low) * scale + 0.55)))
        marks.append(special or LEVELS[level])
    return "".join(marks)


def chart(values: Values, *, rows: int, least: float) -> list[tuple[float, str]]:
    """Columns that stand on zero or hang from it, as rows from the top, each with the value at its far edge.

    Args:
        rows: about how many rows. least: the span that the rows cover at least.
    """
    numbers = finite(values)
    high, low = max([0.0, *numbers]), min([0.0, *numbers])
    if high - low < least:
        share = high / (high - low) if high > low else 1.0
        high, low = share * least, (share - 1) * least
    above = max(1, round(rows * high / (high - low))) if high > 0 else 0
    below = max(1, rows - above) if low < 0 else 0
    unit = max(high / above if above else 0.0, -low / below if below else 0.0)
    bands = [*range(above - 1, -1, -1), *range(-1, -below - 1, -1)]
    home = 0 if above else -1
    return [(unit * (band + 1 if band >= 0 else band), _row(values, band, unit, home)) for band in bands]


def diverging(value: float | None, scale: float, half: int) -> str:
    """A bar of `2 half + 1` characters: to the right of its middle for positive values, to the left for negative."""
    special = _special(value)
    if special:
        return " " * half + special + " " * half
    size = min(2 * half, round(2 * half * abs(_known(value)) / scale))
    full, odd = divmod(size, 2)
    if _known(value) < 0:
        return ("▐" * odd + "█" * full).rjust(half) + "│" + " " * half
    return " " * half + "│" + ("█" * full + "▌" * odd).ljust(half)


def _row(values: Values, band: int, unit: float, home: int) -> str:
    """What lies between `band` and `band + 1` units; what is not a number stands in the band `home`."""
    marks = []
    for value in values:
        special = _special(value)
        if special:
            marks.append(special if band == home else " ")
        elif band >= 0:
            filled = math.ceil(8 * min(1.0, _known(value) / unit - band))
            marks.append(LEVELS[filled - 1] if filled > 0 else " ")
        else:
            filled = min(1.0, -_known(value) / unit + band + 1)
            marks.append("█" if filled > 0.75 else "▀" if filled > 0.25 else "▔" if filled > 0 else " ")
    return "".join(marks)


def _special(value: float | None) -> str:
    if value is None:
        return " "
    if math.isnan(value):
        return "×"
    return "" if math.isfinite(value) else "↑" if value > 0 else "↓"


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


def _oddity(value: float | None, middle: float) -> float:
    if value is None:
        return -1.0
    return math.inf if not math.isfinite(value) else abs(value - middle)
