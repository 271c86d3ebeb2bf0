"""The page around its sections: style, a script that sorts and filters, and the policy that lets it load nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping

#: The page needs nothing from elsewhere, and may fetch nothing: what lies in it stays in it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --text: #1f2328; --quiet: #59636e; --page: #fff;
  --main: #c3cad3; --second: #d9730d; --third: #1f6feb; --dot: #1f6feb; --warn: #d9730d;
  --shade0: #1f6feb; --shade1: #d9730d; --shade2: #2da44e; --shade3: #8250df; --shade4: #bf3989; --shade5: #8b949e; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9198a1; --page: #0d1117; --main: #4a535e;
  --third: #58a6ff; --dot: #58a6ff; --shade0: #58a6ff; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0; }
main { max-width: 74rem; margin: 0 auto; padding: 0 1rem 4rem; }
nav { position: sticky; top: 0; z-index: 2; background: var(--page); border-bottom: 1px solid var(--line); }
nav div { max-width: 74rem; margin: 0 auto; padding: .5rem 1rem; display: flex; gap: 1.2rem; flex-wrap: wrap; }
nav a { color: var(--quiet); text-decoration: none; } nav a:hover { color: var(--text); }
h1 { margin: 1.2rem 0 .2rem; font-size: 1.7rem; } h2 { margin: 2.4rem 0 .4rem; scroll-margin-top: 3.2rem; }
h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
p { max-width: 60rem; margin: .4rem 0; } .quiet { color: var(--quiet); }
code { overflow-wrap: anywhere; unicode-bidi: isolate; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; }
th { color: var(--quiet); font-weight: 600; } td.n, th.n { text-align: right; } th[data-sort] { cursor: pointer; }
td .warn { overflow-wrap: anywhere; } .wide { overflow-x: auto; max-height: 36rem; overflow-y: auto; }
.wide thead th { position: sticky; top: 0; background: var(--page); }
.warn { color: var(--warn); font-weight: 600; }
.error { border-left: 4px solid #cf222e; background: var(--soft); padding: .6rem 1rem; margin: 1rem 0; }
.error pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(34rem, 1fr)); gap: 1rem; }
@media (max-width: 40rem) { .cards { grid-template-columns: 1fr; } }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; scroll-margin-top: 4rem; }
.card .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin-top: .5rem; }
@media (max-width: 40rem) { .card .pair { grid-template-columns: 1fr; } }
.card h4 { margin: 0 0 .2rem; font-size: .8rem; font-weight: 600; color: var(--quiet); }
.chart { max-width: 26rem; margin: .6rem 0; } h4 { margin: .8rem 0 .2rem; font-size: .9rem; }
.tag { font-size: .75rem; border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem; color: var(--quiet); }
.controls { display: flex; gap: 1rem; flex-wrap: wrap; margin: .8rem 0; }
.controls input, .controls select { font: inherit; padding: .2rem .4rem; }
svg { width: 100%; height: auto; display: block; overflow: visible; }
svg text { font-size: 10.5px; fill: var(--quiet); }
svg rect.main { fill: var(--main); } svg rect.second, .key .second { fill: var(--second); background: var(--second); }
svg rect.third, .key .third { fill: var(--third); background: var(--third); } .key .main { background: var(--main); }
svg polyline { fill: none; stroke-width: 1.4; } polyline.second { stroke: var(--second); }
polyline.third { stroke: var(--third); }
svg .range { stroke: var(--dot); stroke-width: 2; opacity: .55; } svg .dot { fill: var(--dot); }
svg .mark { stroke: var(--quiet); stroke-dasharray: 3 3; opacity: .7; } svg .cover { fill: transparent; }
.shade0 { fill: var(--shade0); background: var(--shade0); } .shade1 { fill: var(--shade1); background: var(--shade1); }
.shade2 { fill: var(--shade2); background: var(--shade2); } .shade3 { fill: var(--shade3); background: var(--shade3); }
.shade4 { fill: var(--shade4); background: var(--shade4); } .shade5 { fill: var(--shade5); background: var(--shade5); }
.key { display: inline-flex; gap: 1rem; flex-wrap: wrap; font-size: .85rem; color: var(--quiet); }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .35rem; }
"""

#: Sorts the cards and tables by numbers that lie in attributes, and hides cards without the text that is typed.
SCRIPT = """
const cards = document.querySelector('.cards');
const order = document.getElementById('order'), find = document.getElementById('find');
if (cards && order) {
  const place = card => card.dataset[order.value];
  order.onchange = () => cards.append(...[...cards.children].sort((a, b) => place(a) - place(b)));
  find.oninput = () => { for (const card of cards.children)
    card.hidden = !card.querySelector('h3').textContent.toLowerCase().includes(find.value.toLowerCase()); };
}
for (const head of document.querySelectorAll('th[data-sort]')) head.onclick = () => {
  const body = head.closest('table').tBodies[0], at = head.cellIndex, down = head.dataset.sort = -head.dataset.sort;
  const key = row => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const compare = (a, b) => isNaN(a - b) ? a.localeCompare(b) : a - b;
  body.append(...[...body.rows].sort((a, b) => down * compare(key(a), key(b))));
};
"""


def page(title: str, sections: Mapping[str, tuple[str, str]], head: str) -> str:
    """Return the HTML page: `head`, then `sections`, by their ids a heading and a body. All but titles must be HTML."""
    links = "".join(f'<a href="#{name}">{html.escape(heading)}</a>' for name, (heading, _) in sections.items())
    body = "".join(
        f'<h2 id="{name}">{html.escape(heading)}</h2>\n{text}\n' for name, (heading, text) in sections.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        f"<nav><div>{links}</div></nav>\n<main>\n{head}\n{body}</main>\n<script>{SCRIPT}</script>\n</body></html>\n"
    )


def table(header: list[str], rows: list[list[str]], sort: bool = False) -> str:
    """Return a table of cells, which must be HTML; one that begins with `<td` is used as it is."""
    attribute = ' data-sort="1"' if sort else ""
    right = [cell.startswith('<td class="n') for cell in rows[0]] if rows else [False] * len(header)
    sides = ('class="n"' if each else "" for each in right)
    heads = "".join(f"<th {side}{attribute}>{html.escape(name)}</th>" for side, name in zip(sides, header, strict=True))
    lines = ("".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(value: float | None, text: str, warn: bool = False) -> str:
    """Return a cell with a number, by which a table is sorted."""
    key = "" if value is None else f' data-value="{value:g}"'
    return f'<td class="n{" warn" if warn else ""}"{key}>{html.escape(text)}</td>'


def code(text: object) -> str:
    """Return a text as HTML code."""
    return f"<code>{html.escape(str(text))}</code>"


def key(names: list[tuple[str, str]]) -> str:
    """Return the legend of colours: the class of each, and its name."""
    return (
        '<span class="key">'
        + "".join(f'<span><i class="{c}"></i>{html.escape(n)}</span>' for c, n in names)
        + "</span>"
    )
