"""What an HTML page consists of, for tests that put hostile texts into it. Only the standard library is imported."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

#: Texts that are markup, script, or the end of what is around them, for whoever writes them out as they are.
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' onfocus='alert(1)",
    "</title></svg></style></template><script>alert(2)</script>",
    "</code></td></table><iframe src=javascript:alert(1)>",
    "&lt;b&gt;{{7*7}}${7*7}",
    "=HYPERLINK(1)\u202e\u2028",
]


class Elements(HTMLParser):
    """Counts the elements of a page and its attributes, and keeps its text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data
