"""A finding of `make debts`, and where in a file its cause stands.

The names of debts are those of Sculley et al., "Hidden Technical Debt in Machine Learning Systems" (NeurIPS 2015). One
is not the paper's: what is installed beside the model grows old, and vulnerable, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import yaml

from gitops.core.artifacts import PARAMS

UNDERUTILIZED = "underutilized data dependency"
UNSTABLE = "unstable data dependency"
CONSUMERS = "undeclared consumers"
FEEDBACK = "feedback loop"
CONFIGURATION = "configuration debt"
CODE_PATHS = "dead code path"
GLUE = "glue code"
DEPENDENCIES = "software dependency"


class Finding(TypedDict):
    """A debt. `file` is relative to the root, and `line` counts from 1; None where no file or line holds it.

    `known`: False where nothing could be looked up, and `text` says why; that is never the same as no debt.
    """

    debt: str
    file: str | None
    line: int | None
    text: str
    known: bool


def found(debt: str, text: str, file: Path | str | None = None, line: int | None = None) -> Finding:
    """Return a debt that was found."""
    return {"debt": debt, "file": None if file is None else str(file), "line": line, "text": text, "known": True}


def unknown(debt: str, text: str, file: Path | str | None = None) -> Finding:
    """Return what could not be looked up."""
    return found(debt, text, file) | {"known": False}


def lines(path: Path = PARAMS) -> dict[str, int]:
    """Return the line of each key of a YAML file, keys joined by dots. Raises OSError, yaml.YAMLError."""
    places: dict[str, int] = {}

    def visit(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}{key.value}"
                places[name] = key.start_mark.line + 1
                visit(value, f"{name}.")

    visit(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), "")
    return places
