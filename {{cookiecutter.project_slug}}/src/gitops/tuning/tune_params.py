"""Change values in params.yaml and nothing else of its text: comments, order and layout are the user's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from gitops.core import artifacts, params
from gitops.core.artifacts import PARAMS, ProjectError


def places(text: str, keys: list[str], path: Path = PARAMS) -> dict[str, tuple[int, int]]:
    """Return where in `text` the value of each key "section.name" begins and ends.

    Raises ProjectError for a key that it lacks, or whose value is more than one word.
    """
    found = {}
    for key in keys:
        node: Any = yaml.compose(text)
        for part in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            node = next((value for name, value in pairs if name.value == part), None)
        if not isinstance(node, yaml.ScalarNode) or node.start_mark.line != node.end_mark.line:
            raise ProjectError(f"{path}: tune.space names {key}, which the file does not set: add it with its value")
        found[key] = (node.start_mark.index, node.end_mark.index)
    return found


def write(settings: params.Params, path: Path = PARAMS) -> None:
    """Bring the values of the search space in `path` to those of `settings`.

    A comment behind a value stays in its column, where there is room. Raises ProjectError, and changes nothing, where
    the file would then not be read as `settings`.
    """
    text = path.read_text(encoding="utf-8")
    values = settings.model_dump()
    found = places(text, list(settings.tune.space), path)
    for key, (start, end) in sorted(found.items(), key=lambda item: item[1], reverse=True):
        section, _, name = key.partition(".")
        value, rest = yaml.safe_dump(values[section][name]).splitlines()[0], text[end:]
        if rest.lstrip(" ").startswith("#"):
            column = len(rest) - len(rest.lstrip(" ")) + (end - start) - len(value)
            rest = " " * max(2, column) + rest.lstrip(" ")
        text = text[:start] + value + rest
    with artifacts.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        with contextlib.suppress(ProjectError):
            if params.load(temporary) == settings:
                return
        raise ProjectError(f"{path} holds a value twice, or by a reference: write the best set yourself")
