"""Numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PLAIN_POWERS = (-3, 4)
"""Powers of ten that are written out on a logarithmic axis."""


def counted(value: float, what: str = "") -> str:
    """A count with a thin space between thousands: ``counted(1000, "step")`` is ``1 000 steps``."""
    number = f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{number} {what}{'' if value == 1 else 's'}" if what else number


def short(value: float) -> str:
    """A measured number with about four digits, for people."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) < 1e7 and (abs(value) >= 1e4 or value == int(value)):
        return counted(value).replace("-", "\N{MINUS SIGN}")
    return _with_power(f"{value:.4g}")


def spent(seconds: float) -> str:
    """A duration in a unit that fits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs" if seconds else "0"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def percent(part: float, whole: float) -> str:
    """A share in percent."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f} %" if share == 0 or share >= 10 else f"{share:.1f} %"


def power_label(value: float) -> str:
    """A power of ten, on a logarithmic axis."""
    power = round(math.log10(value)) if value > 0 else 0
    if PLAIN_POWERS[0] <= power <= PLAIN_POWERS[1]:
        return f"{value:g}"
    return "10" + str(power).translate(SUPERSCRIPT)


def tick_label(value: float, ticks: Iterable[float]) -> str:
    """A tick on a linear axis, as short as it can be and still be told from the other ticks."""
    gap = min((abs(b - a) for a, b in pairwise(ticks)), default=0.0)
    if abs(value) < gap / 1e3:
        return "0"
    digits = 1
    while digits < 12 and abs(float(f"{value:.{digits}g}") - value) > gap / 1e3:
        digits += 1
    text = f"{value:.{digits}g}"
    if 1e-4 <= abs(value) < 1e7 and "e" in text:
        text = counted(value) if abs(value) >= 1e4 and gap >= 1 else f"{float(text):.12g}"
    return _with_power(text)


def _with_power(text: str) -> str:
    """``-2e-08`` as it is written by hand."""
    mantissa, _, power = text.partition("e")
    if power:
        mantissa = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}·10"
    return mantissa.replace("-", "\N{MINUS SIGN}") + (str(int(power)).translate(SUPERSCRIPT) if power else "")
