"""Numbers as people read them: fractions by their leading digits, amounts whole, with separators of thousands.

Only the standard library is imported.
"""

from __future__ import annotations

#: From here on a number is shown whole, and a difference from here on.
LARGE, LARGE_DIFFERENCE = 10_000, 1000


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits; a large one as a whole number."""
    return f"{value:.{digits}g}" if abs(value) < LARGE else f"{value:,.0f}"


def decimals(value: float) -> str:
    """Return a number with four decimals; a large one as a whole number."""
    return signed(value).removeprefix("+")


def signed(value: float, form: str = "+.4f") -> str:
    """Return a difference with its sign, in a format of Python's; a large one as a whole number."""
    return f"{value:{form}}" if abs(value) < LARGE_DIFFERENCE else f"{value:+,.0f}"
