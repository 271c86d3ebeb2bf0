"""A stranger's artifact: nothing in it harms or speaks for us."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from commenting import OLD, SHA, Bench
from gitops.core import artifacts
from gitops.integrations import cml, github_artifacts
from gitops.rendering.markdown import APART, PALETTE, defang
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


@pytest.mark.parametrize("make", [a_link, Path.mkdir, a_large_file, os.mkfifo, a_linked_folder])
def test_only_a_small_regular_file_is_read(bench: Bench, make: Callable[[Path], None]) -> None:
    """Of a folder that somebody gives by hand."""
    path = bench.folder / artifacts.REPORT
    path.parent.mkdir()
    make(path)
    bench.refused("^error: reports/report.md", "--pull-request", "12")


NAME = artifacts.REPORT.as_posix()


def member(name: str = NAME, mode: int = 0, packing: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr, made.compress_type = mode << 16, packing
    return made


REFUSED: dict[str, tuple[dict[str | zipfile.ZipInfo, str | bytes], str]] = {
    "a bomb": ({NAME: b"0" * 30_000_000}, "at most 1,000,000 bytes"),
    "one byte too many": ({NAME: b"0" * 1_000_001}, "at most 1,000,000 bytes"),
    "a link": ({member(mode=stat.S_IFLNK | 0o777): "/etc/passwd"}, "a regular file"),
    "a pipe": ({member(mode=stat.S_IFIFO | 0o666): ""}, "a regular file"),
    "two of a name": ({member(): "one", member(): "two"}, "a file twice"),
    "another packing": ({member(packing=zipfile.ZIP_LZMA): "x"}, "a regular file"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", REFUSED)
def test_an_artifact_is_refused(bench: Bench, what: str) -> None:
    files, why = REFUSED[what]
    bench.leave(None)
    bench.pack(files)
    bench.refused(why)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"PK\x03\x04" * 100, b"x" * 1000])
def test_an_artifact_that_is_no_archive_is_refused(bench: Bench, content: bytes) -> None:
    bench.server.artifacts.clear()
    bench.server.store("report", content, run=77)
    bench.refused("cannot be unpacked")


def test_an_encrypted_or_damaged_file_is_refused(bench: Bench) -> None:
    (place,) = bench.server.storage
    good = bench.server.storage[place]
    entry = good.index(b"PK\x01\x02")
    bench.server.storage[place] = good[: entry + 8] + bytes([good[entry + 8] | 1]) + good[entry + 9 :]
    bench.refused("a regular file")
    start = good.index(NAME.encode()) + len(NAME)
    bench.server.storage[place] = good[:start] + b"\xff" * 8 + good[start + 8 :]
    bench.refused("cannot be unpacked")


def test_an_artifact_has_a_largest_size(bench: Bench) -> None:
    bench.monkeypatch.setattr(github_artifacts, "PACKED", 100)
    bench.refused("is larger than")


def test_nothing_of_an_artifact_is_written(bench: Bench) -> None:
    """Other files, and their paths, are of no account."""
    outside = bench.folder / "outside"
    before = sorted(bench.folder.rglob("*"))
    bench.leave(None)
    bench.pack({NAME: "## Fine\n", "../../outside": "x", str(outside): "x", "reports/": "", "reports/x.html": "<b>"})
    assert bench.run()[0] == 0
    assert "## Fine" in bench.posted()[0]
    assert sorted(bench.folder.rglob("*")) == sorted([*before, bench.folder / "event.json"])


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

```mermaid
%%{init: {"securityLevel": "loose"}}%%
xychart-beta
```

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
        assert not re.search(re.escape(sign) + rf"(?!{APART})\w", shown.replace(bench.run_of_ci["html_url"], "")), sign
    assert not re.search(r"(?m)^\W*?/\w", shown)
    assert "\u202e" not in shown
    assert "\u200d" not in shown
    rendered = MarkdownIt("commonmark").enable("table").render(shown)
    assert re.findall(r'(?:href|src)="([^"]*)"', rendered) == [bench.run_of_ci["html_url"]]
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
    for kept in (f"```mermaid\n{PALETTE}\nxychart-beta\n", "```diff\n", "<details><summary>", "| --- |"):
        assert kept in shown
    chart = re.search(r"```mermaid\n.*?```", text, re.DOTALL)
    assert chart is not None
    assert chart[0] in shown
