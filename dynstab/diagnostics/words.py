"""Numbers and places as words, for sentences that a person reads."""

from __future__ import annotations

import math
from collections.abc import Sequence


def factor(log: float) -> str:
    """A gain from its natural logarithm: 9.2 -> "e^9.2 (a factor 9.9e3)"."""
    return f"e^{number(log)} (a factor {magnitude(log)})"


def change(log: float) -> str:
    """What a quantity does whose gain has this logarithm: 9.2 -> "grow by e^9.2 (a factor 9.9e3)"."""
    if log == math.inf:
        return "grow without bound"
    if log == -math.inf:
        return "shrink to exactly zero"
    return f"{'grow' if log > 0 else 'shrink'} by {factor(abs(log))}"


def magnitude(log: float) -> str:
    """exp(log) to two digits, also where that would overflow: 4.8 -> "120", 1000 -> "1e434"."""
    if abs(log) < 700:
        return _rounded(math.exp(log), digits=2, longest=1000)
    exponent = log / math.log(10)
    return f"1e{exponent:.0f}" if math.isfinite(exponent) else number(exponent)


def number(value: float) -> str:
    """Three significant digits, whole numbers in full: 34.651 -> "34.7", 65504 -> "65504", 6.1e-5 -> "6.1e-5"."""
    if not math.isfinite(value):
        return {math.inf: "infinity", -math.inf: "-infinity"}.get(value, "NaN")
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return _rounded(value, digits=3, longest=1e5)


def _rounded(value: float, *, digits: int, longest: float) -> str:
    """`digits` significant ones, as a power of ten from `longest` on and below a thousandth."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    rounded = float(f"{value:.{digits - 1}e}")
    if value == 0 or 1e-3 <= abs(rounded) < longest:
        return f"{rounded:.15g}"
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def percent(share: float) -> str:
    """0.123 -> "12 %", 0.0012 -> "0.12 %"."""
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"


def spans(indices: Sequence[int]) -> str:
    """(3, 4, 5, 9) -> "steps 3-5, 9"; (3,) -> "step 3"; at most four spans are written out."""
    if not indices:
        return "network"
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:4]]
    more = f" and {count(len(runs) - 4, 'more range')}" if len(runs) > 4 else ""
    return f"{'step' if len(set(indices)) == 1 else 'steps'} {', '.join(texts)}{more}"


def count(amount: int, noun: str) -> str:
    """(1, "step") -> "1 step"; (3, "step") -> "3 steps"."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def also(amount: int) -> str:
    """A remark that a finding is not the only one: "" for 1, " (12 steps like this)" for 12."""
    return f" ({amount} steps like this)" if amount > 1 else ""


def share(value: float) -> str:
    """A part of something for people: "8.2 % of" below one, "3.5 times" from there on."""
    return f"{number(100 * value)} % of" if value < 1 else f"{number(value)} times"
