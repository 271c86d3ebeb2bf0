"""Small charts as inline SVG: a hundred of them take milliseconds, and follow the page's light or dark colours.

Every text is escaped: labels are values of the table.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

#: Width of a chart; of its labels; height of a row of bars; characters of a label.
WIDTH, LABELS, ROW, LABEL = 340, 118, 17, 20

#: A bin's label, its fraction of the rows, low, middle and high, and a text for those who hover.
Dot = tuple[str, float, tuple[float, float, float] | None, str]

#: Classes of colours in the page's style: of splits in their order, and of classes of the target.
SPLITS = ("main", "second", "third")
SHADES = 6


def shorten(text: str, limit: int = LABEL) -> str:
    """Return a text on one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def histogram(labels: Sequence[str], series: Sequence[Sequence[float]], names: Sequence[str], height: int = 165) -> str:
    """Return bars of the first of some series of fractions, and each other one as a line of steps over them."""
    top, bars = max((max(each, default=0) for each in series), default=0) or 1, max(1, len(labels))
    step, base = WIDTH / bars, height - 16
    parts = []
    for at, (label, fraction) in enumerate(zip(labels, series[0], strict=True)):
        size = fraction / top * (base - 6)
        hover = f"{label}: " + ", ".join(f"{name} {each[at]:.1%}" for name, each in zip(names, series, strict=True))
        shape = f'x="{at * step:.1f}" y="{base - size:.1f}" width="{step - 1:.1f}" height="{size:.1f}"'
        parts.append(f'<rect class="main" {shape}><title>{html.escape(hover)}</title></rect>')
    for name, each in zip(SPLITS[1:], series[1:], strict=False):
        points = [
            f"{x * step:.1f},{base - each[at] / top * (base - 6):.1f}" for at in range(bars) for x in (at, at + 1)
        ]
        parts.append(f'<polyline class="{name}" points="{" ".join(points)}"/>')
    if labels:
        parts.append(text(0, height - 3, shorten(labels[0].partition(" – ")[0])))
        parts.append(text(WIDTH, height - 3, shorten(labels[-1].rpartition(" – ")[2]), "end"))
    return _svg(height, parts)


def bars(labels: Sequence[str], series: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Return a row for each label, with a bar for each series of fractions."""
    top = max((max(each, default=0) for each in series), default=0) or 1
    thick, parts = (ROW - 4) / max(1, len(series)), []
    for row, label in enumerate(labels):
        parts.append(_label(row, label))
        for at, (name, each) in enumerate(zip(names, series, strict=True)):
            size, y = each[row] / top * (WIDTH - LABELS - 50), row * ROW + 2 + at * thick
            shape = f'x="{LABELS}" y="{y:.1f}" width="{max(size, 0.5):.1f}" height="{thick - 0.5:.1f}"'
            hover = html.escape(f"{label}: {name} {each[row]:.2%}")
            parts.append(f'<rect class="{SPLITS[min(at, 2)]}" {shape}><title>{hover}</title></rect>')
        parts.append(text(WIDTH, row * ROW + 13, f"{series[0][row]:.1%}", "end"))
    return _svg(len(labels) * ROW + 4, parts)


def dots(
    rows: Sequence[Dot],
    ends: tuple[float, float],
    mark: float,
    write: Callable[[float], str],
) -> str:
    """Return a row for each bin.

    `ends` are those of the axis, which `write` labels; `mark` is where a line crosses all rows.
    """
    low, high = ends
    start, width = LABELS + 52, WIDTH - LABELS - 60
    scale = width / ((high - low) or 1)

    def place(value: float) -> float:
        return start + (min(max(value, low), high) - low) * scale

    height, parts = len(rows) * ROW, []
    parts.append(f'<line class="mark" x1="{place(mark):.1f}" x2="{place(mark):.1f}" y1="0" y2="{height}"/>')
    for row, (label, fraction, values, hover) in enumerate(rows):
        y = row * ROW + 9
        parts += [
            _label(row, label),
            f'<rect class="main" x="{LABELS}" y="{y - 5}" width="{fraction * 46:.1f}" height="9"/>',
        ]
        if values:
            ends_, middle = (place(values[0]), place(values[2])), place(values[1])
            parts.append(f'<line class="range" x1="{ends_[0]:.1f}" x2="{ends_[1]:.1f}" y1="{y}" y2="{y}"/>')
            parts.append(f'<circle class="dot" cx="{middle:.1f}" cy="{y}" r="3.2"/>')
        cover = f'<rect class="cover" x="0" y="{row * ROW}" width="{WIDTH}" height="{ROW}">'
        parts.append(f"{cover}<title>{html.escape(hover)}</title></rect>")
    parts += [text(start, height + 10, write(low)), text(start + width, height + 10, write(high), "end")]
    if start + 45 < place(mark) < start + width - 45:
        parts.append(text(place(mark), height + 10, write(mark), "middle"))
    return _svg(height + 14, parts)


def stacks(rows: Sequence[tuple[str, float, Sequence[float], str]]) -> str:
    """Return a row for each bin: label, fraction of the rows, the fraction of each class, and a text to hover."""
    start, width, parts = LABELS + 52, WIDTH - LABELS - 54, []
    for row, (label, fraction, fractions, hover) in enumerate(rows):
        y, x = row * ROW + 3, float(start)
        parts += [
            _label(row, label),
            f'<rect class="main" x="{LABELS}" y="{y + 1}" width="{fraction * 46:.1f}" height="9"/>',
        ]
        for at, each in enumerate(fractions):
            shape = f'x="{x:.1f}" y="{y}" width="{each * width:.1f}" height="{ROW - 5}"'
            parts.append(f'<rect class="shade{min(at, SHADES - 1)}" {shape}><title>{html.escape(hover)}</title></rect>')
            x += each * width
    return _svg(len(rows) * ROW + 4, parts)


def text(x: float, y: float, content: str, anchor: str = "start") -> str:
    """Return a text at a place."""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{html.escape(content)}</text>'


def _label(row: int, label: str) -> str:
    return text(LABELS - 6, row * ROW + 13, shorten(label), "end")


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>'
