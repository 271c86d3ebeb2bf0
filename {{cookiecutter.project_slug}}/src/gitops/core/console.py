"""Text from outside, such as names, reasons and error messages of other programs, made safe to print.

A terminal obeys control characters. A GitHub runner obeys workflow commands in whatever a step prints: a line that
begins with `::`, or `##[` anywhere in it. Only the standard library is imported.
"""

from __future__ import annotations

import re


def printable(text: object) -> str:
    """Return `text` without control and invisible characters or workflow commands; line breaks are kept."""
    return "\n".join(_harmless(line) for line in str(text).split("\n"))


def one_line(text: object, limit: int = 500) -> str:
    """Return `text` as `printable` does, on one line of at most `limit` characters."""
    return printable(" ".join(str(text).split()))[:limit]


def _harmless(line: str) -> str:
    shown = "".join(character for character in line.replace("\t", " ") if character.isprintable())
    return re.sub(r"^( *):(?=:)", r"\1: ", shown).replace("##[", "## [")
