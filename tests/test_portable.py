"""What people type works with macOS's own sed and make: BSD's tools, and GNU make 3.81 of 2006.

The Makefiles were also run with that version of make itself: help, setup, gate, and what reaches a recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import ROOT

#: What only GNU's tools have, each with a command that shows it and one that is right.
GNU = {
    r"\bsed (-\w+ )*-i(?!\.\w)": ("sed -i 's/a/b/' x", "sed -i.bak 's/a/b/' x && rm x.bak"),
    r"\bsed (-\w+ )*-r\b": ("sed -r 's/a+/b/' x", "sed -E 's/a+/b/' x"),
    r"\bgrep (-\w+ )*-\w*P": ("grep -oP 'a' x", "grep -oE 'a' x"),
    r"\breadlink -f": ("readlink -f x", "readlink x"),
    r"\bdate (-d|--date)": ("date -d yesterday", "date -u +%F"),
    r"\bstat (-c|--format)": ("stat -c %s x", "wc -c x"),
    r"\bxargs (-\w+ )*-r\b": ("xargs -r rm", "xargs rm"),
    r"\bbase64 (-w|--wrap)": ("base64 -w0 x", "base64 < x"),
    r"\bmktemp (-p|--tmpdir)": ("mktemp -p x", "mktemp"),
    r"\bhead -n ?-\d": ("head -n -1 x", "head -n 1 x"),
    r"\b(cp|mv|rm|ln|mkdir|touch|chmod|ls) (-\w+ )*--\w": ("cp --parents a b", "cp -R a b"),
    r"(?:^|[\s;&|(`])timeout \d": ("timeout 5 x", "x"),
}

#: What make has learned since 3.81: https://git.savannah.gnu.org/cgit/make.git/tree/NEWS
NEWER_MAKE = {
    r"(?m)^[\w.-]+ *(!=|::=|:::=)": ("A != ls", "A := $(shell ls)"),
    r"\$\((file|guile|let|intcmp) ": ("$(file > x,y)", "$(shell cat x)"),
    r"(?m)^\.(ONESHELL|RECIPEPREFIX|EXTRA_PREREQS|NOTINTERMEDIATE|WAIT)\b": (".ONESHELL:", ".PHONY: a"),
    r"(?m)^(undefine|private|override undefine) ": ("undefine A", "A :="),
    r"(?m)^define \S+ *[:?+]?=": ("define A =", "define A"),
    r"(?m)^[^#\t\n]*&:": ("a b &: c", "a b: c"),
    r"(?m)^(un)?export \S+ *::?:=": ("export A ::= b", "export A := b"),
}


def commands() -> Iterator[tuple[Path, str]]:
    """Yield the commands of the documents, a line each, and those that the demo and the end-to-end run show."""
    project = ROOT / "{{cookiecutter.project_slug}}"
    documents = [*ROOT.glob("*.md"), ROOT / "k8s/README.md", project / "README.md", *project.glob("docs/*.md")]
    for path in documents:
        blocks = re.findall(r"(?ms)^ *```(?:bash|sh|console)?\n(.*?)^ *```", path.read_text(encoding="utf-8"))
        yield from ((path, line) for block in blocks for line in block.splitlines())
    for path in (
        *(ROOT / "tools").glob("*.py"),
        *(project / "jobs").glob("*.sh"),
        project / "Makefile",
        ROOT / "Makefile",
    ):
        yield from ((path, line) for line in path.read_text(encoding="utf-8").splitlines())


def found(patterns: dict[str, tuple[str, str]], text: str) -> list[str]:
    return [pattern for pattern in patterns if re.search(pattern, text)]


def test_commands_need_no_gnu_tools() -> None:
    lines = list(commands())
    assert len(lines) > 1000 and any("make rollback" in line for _, line in lines)
    assert [f"{path.name}: {line}" for path, line in lines if found(GNU, line)] == []


@pytest.mark.parametrize("path", [ROOT / "Makefile", ROOT / "{{cookiecutter.project_slug}}/Makefile"])
def test_makefiles_need_no_newer_make(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "FORCE" in text
    assert found(NEWER_MAKE, text) == []


@pytest.mark.parametrize("patterns", [GNU, NEWER_MAKE], ids=["tools", "make"])
def test_each_pattern_finds_what_it_is_for(patterns: dict[str, tuple[str, str]]) -> None:
    for pattern, (wrong, right) in patterns.items():
        assert pattern in found(patterns, wrong), wrong
        assert found(patterns, right) == [], right
