"""Numbers for people: three significant digits, and none that the error does not allow."""

from __future__ import annotations

import math
from decimal import Decimal

from dynstab.core.estimate import CONVERGED, Estimate, Label

DIGITS = 3
SMALL = 0.015
MISSING = "–"
UNSETTLED = "†"
MARKS = {
    Label.EXACT: "=",
    Label.CERTIFIED: "∈",
    Label.PROBABILISTIC: "p",
    Label.ESTIMATE: "≈",
    Label.LOWER: "≥",
    Label.UPPER: "≤",
}
MEANINGS = {
    Label.EXACT: "exact up to rounding",
    Label.CERTIFIED: "certified within its error",
    Label.PROBABILISTIC: "bound with a probability",
    Label.ESTIMATE: "estimate ± one standard error (not shown below 1.5%)",
    Label.LOWER: "lower bound",
    Label.UPPER: "upper bound",
}
_NONFINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def number(value: float | None, error: float | None = None) -> str:
    """`value` alone, to three digits or to the digit that `error` reaches; a null is a dash."""
    if value is None:
        return MISSING
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    doubt = float(f"{error:.0e}") if error is not None and _usable(error) else None
    if value == 0 and doubt is None:
        return "0"
    # 9.999e-4 is 1.00e-3, not 10.00e-4.
    rounded = float(f"{value:.{DIGITS - 1}e}")
    last = _last_digit(rounded, doubt)
    leading = _leading(value, doubt, last)
    if not _extreme(leading):
        return _fixed(value, last)
    return _scientific(value, leading, last) if round(value, -last) else "0"


def uncertain(value: float | None, error: float | None, *, always: bool = True) -> str:
    """`value ± error`. Unless `always`, an error below `SMALL` of the value only limits the digits."""
    if value is None or not math.isfinite(value) or not error:
        return number(value)
    if not math.isfinite(error):
        return f"{number(value)} ± {number(error)}"
    error = float(f"{abs(error):.0e}")
    last = _last_digit(value, error)
    leading = _leading(value, error, last)
    if not always and error < SMALL * abs(value):
        return number(value, error)
    if _power(error) < last:
        return f"{number(value)} ± {brief(error)}"
    if not _extreme(leading):
        return f"{_fixed(value, last)} ± {_fixed(error, last)}"
    mantissas = [_scientific(part, leading, last).split("e")[0] for part in (value, error)]
    return f"({mantissas[0]} ± {mantissas[1]})e{leading}"


def brief(error: float) -> str:
    """One digit of an error or a deviation."""
    if not _usable(error):
        return number(error)
    power = _power(float(f"{error:.0e}"))  # 9.6e-7 is 1e-6, not 10e-7
    return _scientific(error, power, power) if _extreme(power) else _fixed(error, power)


def estimate(quantity: Estimate, *, usual: Label | None = None, error: bool = True, always: bool = False) -> str:
    """An Estimate with the mark of its label, except the `usual` one of its column, and a dagger if unsettled."""
    if quantity.value is None:
        return MISSING
    if quantity.label is Label.EXACT and _integral(quantity.value):
        text = _integral(quantity.value)
    elif error:
        text = uncertain(quantity.value, quantity.error, always=always)
    else:
        text = number(quantity.value, quantity.error)
    mark = "" if quantity.label is usual else MARKS[quantity.label]
    return mark + text + (UNSETTLED if quantity.outcome != CONVERGED else "")


def evidence(value: object) -> str:
    """A piece of evidence, non-finite numbers by the names that they have in JSON."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(evidence, value))
    if value is None or isinstance(value, bool):
        return {None: MISSING, True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else _NONFINITE[str(value)]
    return str(value)


def span(values: list[float]) -> str:
    """The range of some numbers: "0.98 to 1.03", or the one number that they share."""
    if any(math.isnan(value) for value in values):
        return "with NaN"
    low, high = (_integral(value) or number(value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def count(quantity: int) -> str:
    """A whole number: 1,234 or 124 M."""
    for unit, name in ((10**9, "G"), (10**6, "M")):
        if quantity >= unit:
            return f"{number(quantity / unit)} {name}"
    return f"{quantity:,}"


def plural(quantity: int, noun: str) -> str:
    """1 step, 1,234 steps."""
    return f"{count(quantity)} {noun}{'' if quantity == 1 else 's'}"


def size(bytes: int) -> str:
    """Memory: 512 B, 1.2 MiB."""
    power = min(4, max(0, bytes.bit_length() - 1) // 10)
    return f"{bytes / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def duration(seconds: float) -> str:
    """A time span: 0.42 s, 2 min 05 s, 1 h 02 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def natural_log(value: float | None) -> float | None:
    """ln of a ratio; 0 is -inf and a null stays a null."""
    if value is None or math.isnan(value):
        return value
    return math.log(value) if value > 0 else -math.inf


def _integral(value: float) -> str:
    """A whole number without a point, "" for any other."""
    return str(int(value)) if math.isfinite(value) and float(value).is_integer() and abs(value) < 1e7 else ""


def _usable(error: float | None) -> bool:
    return error is not None and math.isfinite(error) and error != 0


def _power(value: float | None) -> int:
    """The power of ten of the first digit."""
    return math.floor(math.log10(abs(value))) if value else -400


def _leading(value: float, error: float | None, last: int) -> int:
    """The power of ten of the first digit of what is shown: 9.96 with one digit is 10."""
    return max(_power(round(value, -last)), _power(error))


def _extreme(leading: int) -> bool:
    return leading >= 5 or leading < -3


def _last_digit(value: float, error: float | None) -> int:
    """The power of ten of the last digit shown. Digits before the point are cut by an error alone."""
    leading = max(_power(value), _power(error))
    last = max(leading - DIGITS + 1, _power(error))
    return last if _extreme(leading) or error else min(last, 0)


def _fixed(value: float, last: int) -> str:
    text = f"{round(value, -last):.{max(0, -last)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _scientific(value: float, leading: int, last: int) -> str:
    mantissa = Decimal(value).scaleb(-leading)
    text = f"{mantissa:.{max(0, leading - last)}f}"
    return (text.removeprefix("-") if float(text) == 0 else text) + f"e{leading}"
