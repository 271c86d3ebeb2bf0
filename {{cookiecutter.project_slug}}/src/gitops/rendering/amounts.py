"""Amounts of money, or of any other unit, as people write them: rounded, with thousands separators.

A unit and other names come from outside: in Markdown they go through `plain`, and what is returned here is Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping

from gitops.rendering.markdown import plain

#: From here on an amount is whole; below it has four significant digits.
WHOLE = 100

#: A value with its 95 % interval.
Score = Mapping[str, float]


def amount(value: float) -> str:
    """Return an amount without its unit."""
    text = f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:.4g}"
    return "0" if float(text.replace(",", "")) == 0 else text


def signed(value: float) -> str:
    """Return an amount with its sign, as a difference has it."""
    return f"+{amount(value)}" if value > 0 else amount(value)


def interval(score: Score) -> str:
    """Return the 95 % interval of an amount; what every row earns alike has none."""
    if score["low"] == score["high"]:
        return "always the same"
    return f"{amount(score['low'])} to {amount(score['high'])}"


def more(gain: Score, unit: str) -> str:
    """Return a gain in words that "than" or "as" follows: how much more or less a month."""
    if gain["value"] == 0:
        return "**as much a month** as"
    words = "more" if gain["value"] > 0 else "less"
    return f"**{amount(abs(gain['value']))} {plain(unit)} a month {words}** than"


def sign(gain: Score) -> str:
    """Return whether a gain is sure: 🟢 more, 🔴 less, ⚪ its interval holds 0."""
    return "🟢" if gain["low"] > 0 else "🔴" if gain["high"] < 0 else "⚪"
