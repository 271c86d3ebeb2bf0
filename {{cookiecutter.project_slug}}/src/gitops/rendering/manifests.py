"""Show what differs between two sets of Kubernetes objects: one line for each value, with its full path."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

import yaml

#: The suffix that kustomize gives a generated ConfigMap or Secret, and a release a Job: a hash of what it holds, in
#: kustomize's own digits.
HASH_SUFFIX = re.compile(r"(?<=-)[2456789bcdfghkmt]{10}(?=\.yaml$)")


def changes(old: dict[str, bytes], new: dict[str, bytes]) -> list[str]:
    """Return the lines of a diff between two sets of objects, each a file name -> YAML of one object.

    Objects that only one of them has are listed by name. Lines are sorted by file name and path, so that equal sets of
    objects give equal lines.
    """
    before, after = _parse(old), _parse(new)
    lines = []
    for file in sorted({*before, *after}):
        if file not in before:
            lines.append(f"+ {_title(after[file])}")
        elif file not in after:
            lines.append(f"- {_title(before[file])}")
        elif changed := _changed(_flatten(before[file]), _flatten(after[file])):
            lines += [f"@@ {_title(after[file])} @@", *changed]
    return lines


def _parse(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    return {HASH_SUFFIX.sub("hash", name): yaml.safe_load(content) for name, content in files.items()}


def _title(item: dict[str, Any]) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def _flatten(value: Any, path: str = "") -> dict[str, str]:
    """Return path -> text of each value. An entry of a list goes by its name, or else by its position."""
    if isinstance(value, dict) and value:
        parts = value
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        parts = {(each.get("name") or i if isinstance(each, dict) else i): each for i, each in enumerate(value)}
    else:
        return {path: value if isinstance(value, str) else json.dumps(value)}
    flat: dict[str, str] = {}
    for key, each in parts.items():
        flat |= _flatten(each, f"{path}.{key}" if path else str(key))
    return flat


def _changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return a line for each value that is gone and for each that is new; of a text of many lines, for those lines."""
    lines = []
    for path in sorted({*old, *new}):
        before, after = (flat[path].split("\n") if path in flat else [] for flat in (old, new))
        hunks = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]  # after the names of two files
        lines += [f"{line[0]} {path}: {line[1:]}" for line in hunks if not line.startswith("@@")]
    return lines
