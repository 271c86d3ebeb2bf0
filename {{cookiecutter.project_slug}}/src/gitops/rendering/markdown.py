"""Markdown that GitHub shows: tables, folded details, Mermaid charts. Text from data can neither break nor abuse it.

Column names, class names and error texts come from outside: `plain` takes from them what would be markup, HTML, a
mention of a person or a link to an issue.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

#: Rows a table shows; the rest is counted.
ROWS = 40

#: Characters a cell shows.
CELL = 200

#: Zero-width space, which keeps GitHub from seeing a mention in "@name" or a reference in "#1".
APART = "\u200b"

#: Categories of signs that cannot be seen: control, format (such as right-to-left), ends of lines and paragraphs.
HIDDEN = ("Cc", "Cf", "Zl", "Zp")

#: What text can do on GitHub beyond being shown; `defang` parts each.
ACTIVE = re.compile(
    r"""
    @                                               # mentions, e-mail addresses
    | <(?!/?(?:details|summary)>)                   # HTML but what folds, and comments in it
    | &(?!(?:amp|lt|gt);)                           # entities, which would bring the others back
    | \](?=[(:])                                    # links, images, definitions of links
    | :(?=//) | (?i:www)(?=\.)                      # addresses
    | \#(?=\d) | (?i:gh)-(?=\d)                     # issues
    | ^[^\S\n]*/                                    # commands to bots
    | (?:`{3,}+|~{3,}+)(?![ \t]*(?:\n|$)|(?:diff|text|mermaid\nxychart-beta)\n)  # code that is drawn, with links
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
    """Return Markdown of a stranger that still shows what it says, tables, code and charts of ours, and does no more.

    Without parsing: what another parser would see differently is of no account.
    """
    shown = "".join(sign for sign in text if sign in "\n\t" or unicodedata.category(sign) not in HIDDEN)
    return ACTIVE.sub(lambda match: match[0] + APART, shown)


def code(text: object, limit: int = CELL) -> str:
    """Return `text` as inline code."""
    line = " ".join(str(text).split()).replace("`", "'").replace("|", "¦")
    line = re.sub(r"[<@#](?=\S)", lambda match: match[0] + APART, line)
    return f"`{line[: limit - 1]}…`" if len(line) > limit else f"`{line}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], limit: int = ROWS) -> str:
    """Return a table of cells that are Markdown already; after `limit` rows it says how many are left out."""
    kept = list(rows)
    lines = [header, ["---"] * len(header), *kept[:limit]]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + (f"\n\n… and {len(kept) - limit} more." if len(kept) > limit else "")


def details(summary: str, body: str) -> str:
    """Return `body` folded away behind `summary`."""
    return f"<details><summary>{plain(summary)}</summary>\n\n{body}\n\n</details>"


def fenced(text: str, language: str = "") -> str:
    """Return `text` as a code block that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def line_chart(title: str, x_title: str, x: Sequence[float], lines: Sequence[Sequence[float]], points: int = 60) -> str:
    """Return a Mermaid chart of `lines` over `x`, thinned to `points` (https://mermaid.js.org/syntax/xyChart.html)."""
    step = max(1, -(-len(x) // points))
    shown = [*range(0, len(x) - 1, step), len(x) - 1]
    values = [[line[place] for place in shown] for line in lines]
    low, high = min(map(min, values)), max(map(max, values))
    body = [
        "xychart-beta",
        f'    title "{title}"',
        f'    x-axis "{x_title}" {x[0]:g} --> {x[-1]:g}',
        f"    y-axis {low:.6g} --> {high if high > low else low + 1:.6g}",
        *("    line [" + ", ".join(f"{value:.6g}" for value in line) + "]" for line in values),
    ]
    return fenced("\n".join(body), "mermaid")
