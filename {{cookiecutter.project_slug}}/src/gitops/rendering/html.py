"""One self-contained HTML file with text and plots: nothing is loaded from elsewhere, so it opens offline."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #8884; padding: .3rem .7rem; text-align: left; }
th { background: #8881; }
pre { overflow-x: auto; background: #8881; padding: 1rem; border-radius: .4rem; font-size: .85rem; }
figure { display: inline-block; margin: .5rem; background: white; border-radius: .4rem; }
figure img { width: 27rem; max-width: 100%; display: block; }
"""

BLUE, ORANGE, GREY = "#1f6feb", "#d9730d", "#8b949e"

#: Colours of a plot's palette: a few, and the shades between each and the background.
COLOURS = 64


def document(title: str, markdown: str, plots: list[tuple[str, Any]]) -> str:
    """Return an HTML page of `markdown`, then `plots`: each a title and a function that draws on matplotlib axes."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    figures = "".join(figure(name, draw) for name, draw in plots)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n<h3>Plots</h3>\n{figures}\n</body></html>\n"
    )


def figure(title: str, draw: Any) -> str:
    """Return an HTML figure with what `draw` draws on matplotlib axes, as an embedded PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=160)
    data = base64.b64encode(_small(image)).decode()
    return f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></figure>\n'


def _small(image: io.BytesIO) -> bytes:
    """Return a PNG with a palette in place of 32 bits a point: a third of the size, and a plot looks the same."""
    from PIL import Image  # matplotlib writes PNGs by it

    small = io.BytesIO()
    Image.open(image).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def verbatim(text: str) -> str:
    """Return a text of a plot in which matplotlib sees no formula: two "$" would begin and end one."""
    return text.replace("$", r"\$")
