"""A stranger's artifact: nothing in it harms or speaks for us."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from commenting import OLD, REPORT, SHA, Bench
from gitops.core import artifacts
from gitops.integrations import cml
from gitops.rendering.markdown import APART, defang
from markdown_it import MarkdownIt
from test_report import candidate, report


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50_000_000)


def a_linked_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


@pytest.mark.parametrize("name", [artifacts.REPORT, artifacts.PULL_REQUEST], ids=str)
@pytest.mark.parametrize("make", [a_link, Path.mkdir, a_large_file, os.mkfifo, a_linked_folder])
def test_only_a_small_regular_file_is_read(bench: Bench, name: Path, make: Callable[[Path], None]) -> None:
    path = bench.folder / "artifact" / name
    path.unlink()
    make(path)
    bench.refused("^error: artifact/reports/")


@pytest.mark.parametrize("claimed", ["13", "0", "-12", "12; 13", "../12", "๑๒", "", "1" * 21])
def test_another_pull_request_cannot_be_named(bench: Bench, claimed: str) -> None:
    bench.server.open_pull(13, "b" * 40)
    bench.leave(REPORT, claimed)
    bench.refused("pull_request.txt")


HOSTILE = """
@everyone @owner/team a@b.example &#64;everyone &commat;everyone @\u200deveryone \u202e@everyone
<!-- hidden --> <img src=x onerror=alert(1)> <script>x</script> <details open> <a href="https://evil.example">x</a> <b/>
![image](https://evil.example/x.png) [link](//evil.example) [x]: https://evil.example [x] [x][x] <https://evil.example>
https://evil.example http://evil.example ftp://evil.example www.evil.example WWW.evil.example
#1 owner/name#1 GH-1 gh-1 &num;1
/merge
  /approve
\u200b/close
\u2028/label bug
]\u200b(https://evil.example)

```mermaid
flowchart LR
  click A href "http:evil.example"
```

````mermaid
xychart-beta
```
````

~~~geojson
{}
~~~
"""


def test_hostile_text_is_only_shown(bench: Bench) -> None:
    spoof = "\n".join(f"{cml.watermark(OLD)}{end}" for end in ("", " "))
    bench.leave(f"{HOSTILE}\n{spoof}\n\n<details>\n\n```\nswallowed?")
    assert bench.run()[0] == 0
    assert bench.run()[0] == 0
    (body,) = bench.posted()
    assert len(cml.WATERMARK.findall(body)) == 1
    shown = body.replace(cml.watermark(SHA), "")
    for sign in ("@", "#1", "&#", "&c", "&n", "<!", "<img", "<s", "<a", "<b", "<http", "://", "www.", "WWW.", "GH-1"):
        assert not re.search(re.escape(sign) + rf"(?!{APART})\w", shown.replace(bench.event["html_url"], "")), sign
    assert not re.search(r"(?m)^\W*?/\w", shown)
    assert "\u202e" not in shown
    assert "\u200d" not in shown
    rendered = MarkdownIt("commonmark").enable("table").render(shown)
    assert re.findall(r'(?:href|src)="([^"]*)"', rendered) == [bench.event["html_url"]]
    assert set(re.findall(r"<(\w+)[^>]*>", rendered)) <= {"p", "a", "code", "pre", "details", "br", "em", "strong"}
    assert re.findall(r'"language-(\w+)">(\S*)', rendered) == [("mermaid", "xychart-beta")]


def test_our_own_report_is_unchanged_by_defanging() -> None:
    text = report.compose(candidate())
    shown = defang(text)
    assert shown.replace(APART, "") == text.replace(APART, "")
    rendered = [
        MarkdownIt("commonmark").enable("table").render(version).replace(APART, "") for version in (text, shown)
    ]
    assert rendered[0] == rendered[1]
    for kept in ("```mermaid\nxychart-beta\n", "```diff\n", "<details><summary>", "| --- |"):
        assert kept in shown
    chart = re.search(r"```mermaid\n.*?```", text, re.DOTALL)
    assert chart is not None
    assert chart[0] in shown
