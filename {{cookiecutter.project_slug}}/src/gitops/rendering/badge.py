"""A badge as SVG, which a README can show from a file: no service draws it."""

from __future__ import annotations

from html import escape

#: Width of a character of the font, about, and space beside a text, in pixels.
CHARACTER, SPACE = 6.6, 10


def svg(label: str, value: str, colour: str) -> str:
    """Return a badge with a label on grey and a value on `colour`, a CSS colour."""
    left, right = (round(len(text) * CHARACTER + SPACE) for text in (label, value))
    texts = (
        f'<text x="{centre:g}" y="14" text-anchor="middle">{escape(text)}</text>'
        for text, centre in ((label, left / 2), (value, left + right / 2))
    )
    title = escape(f"{label}: {value}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{title}">'
        f'<title>{title}</title><rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{escape(colour)}"/>'
        f'<g fill="#fff" font-family="Verdana,sans-serif" font-size="11">{"".join(texts)}</g></svg>\n'
    )
