"""Markdown for GitHub: tables, folded details, Mermaid charts. Text from data can neither break nor abuse it.

Column names, class names and error messages come from outside: `plain` disables markup, HTML, mentions of people and
references to issues in them. Only the standard library is used.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gitops.core import figures

#: Rows that a table shows; the rest is counted.
ROWS = 40

#: Characters that a cell shows.
CELL = 200

#: Zero-width space, which keeps GitHub from seeing a mention in "@name" or a reference in "#1".
APART = "\u200b"

#: Unicode categories of invisible characters: control, format (such as right-to-left), line and paragraph separators.
HIDDEN = ("Cc", "Cf", "Zl", "Zp")

#: Colours of a chart's lines, in their order; Mermaid's own first one is hardly seen on white.
COLOURS = {"blue": "dodgerblue", "orange": "darkorange", "grey": "gray", "green": "mediumseagreen", "pink": "hotpink"}

#: The line with which a chart begins, to have these colours (https://mermaid.js.org/config/directives.html).
PALETTE = f'%%{{init: {{"themeVariables": {{"xyChart": {{"plotColorPalette": "{", ".join(COLOURS.values())}"}}}}}}}}%%'

#: Syntax that does more on GitHub than show text; `defang` breaks each match with a zero-width space.
ACTIVE = re.compile(
    rf"""
    @                                               # mentions, e-mail addresses
    | <(?!/?(?:details|summary)>)                   # HTML and comments, except folding
    | &(?!(?:amp|lt|gt);)                           # entities, which could spell any of the rest
    | \](?=[(:])                                    # links, images, definitions of links
    | :(?=//) | (?i:www)(?=\.)                      # addresses
    | \#(?=\d) | (?i:gh)-(?=\d)                     # issues
    | ^[^\S\n]*/                                    # commands to bots
    | (?:`{{3,}}+|~{{3,}}+)(?![ \t]*(?:\n|$)             # code that GitHub renders, with links
        | (?:diff|text|mermaid\n(?:{re.escape(PALETTE)}\n)?xychart-beta)\n)
    """,
    re.MULTILINE | re.VERBOSE,
)


def plain(text: object, limit: int = CELL) -> str:
    """Return `text` on one line, shortened to `limit` characters, without effect as Markdown, HTML or mention."""
    line = " ".join(str(text).split())
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", line)
    return re.sub(r"([@#])(?=\w)|(?<=\w)(:)(?=//)", lambda match: match[0] + APART, line)


def defang(text: str) -> str:
    """Return untrusted Markdown such that it shows its text, tables, code and charts, and does nothing else.

    It works on the text without parsing Markdown, so it does not depend on how GitHub's parser reads it.
    """
    shown = "".join(
        character for character in text if character in "\n\t" or unicodedata.category(character) not in HIDDEN
    )
    return ACTIVE.sub(lambda match: match[0] + APART, shown)


def code(text: object, limit: int = CELL) -> str:
    """Return `text` as inline code."""
    line = " ".join(str(text).split()).replace("`", "'").replace("|", "¦")
    line = re.sub(r"[<@#](?=\S)", lambda match: match[0] + APART, line)
    return f"`{line[: limit - 1]}…`" if len(line) > limit else f"`{line}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], limit: int = ROWS) -> str:
    """Return a table of cells, which must be Markdown; after `limit` rows it says how many more there are."""
    kept = list(rows)
    lines = [header, ["---"] * len(header), *kept[:limit]]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + (f"\n\n… and {len(kept) - limit} more." if len(kept) > limit else "")


def interval(value: float, low: float, high: float) -> str:
    """Return a metric with its 95 % interval."""
    return f"**{figures.number(value)}** ({figures.number(low)} to {figures.number(high)})"


def measured(score: Mapping[str, Any]) -> str:
    """Return a metric of metrics.json with its interval, and the interval's coverage where it is not as it says."""
    text = interval(score["value"], score["low"], score["high"])
    if score["low"] == score["high"]:
        return f"**{figures.number(score['value'])}** (no interval: equal in every resample)"
    if "coverage" not in score:
        return text
    known = score["coverage"]
    return f"{text[:-1]}; {'coverage not measured' if known is None else f'{100 * known:.0f} % measured'})"


def number(value: Any) -> str:
    """Return a number with four significant digits, any other value as `plain`, and None as an empty text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return figures.number(value)
    return plain("" if value is None else value)


def changes(changed: Mapping[str, tuple[Any, Any]]) -> list[list[str]]:
    """Return a table's row for each changed setting: name, old value, new value; a dash for None."""
    return [[code(name), *(code("–" if value is None else value) for value in pair)] for name, pair in changed.items()]


def details(summary: str, body: str) -> str:
    """Return `body` folded under `summary`."""
    return f"<details><summary>{plain(summary)}</summary>\n\n{body}\n\n</details>"


def fenced(text: str, language: str = "") -> str:
    """Return `text` as a code block that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def coloured(names: Iterable[str]) -> str:
    """Return the names of a chart's lines, which must be Markdown, each with its colour."""
    return ", ".join(f"{name} in {colour}" for name, colour in zip(names, COLOURS, strict=False))


def line_chart(title: str, x_title: str, x: Sequence[float], lines: Sequence[Sequence[float]], points: int = 60) -> str:
    """Return a Mermaid chart of `lines` over `x`, thinned to `points` (https://mermaid.js.org/syntax/xyChart.html)."""
    step = max(1, -(-len(x) // points))
    shown = [*range(0, len(x) - 1, step), len(x) - 1]
    values = [[line[index] for index in shown] for line in lines]
    low, high = min(map(min, values)), max(map(max, values))
    body = [
        PALETTE,
        "xychart-beta",
        f'    title "{title}"',
        f'    x-axis "{x_title}" {x[0]:g} --> {x[-1]:g}',
        f"    y-axis {low:.6g} --> {high if high > low else low + 1:.6g}",
        *("    line [" + ", ".join(f"{value:.6g}" for value in line) + "]" for line in values),
    ]
    return fenced("\n".join(body), "mermaid")
