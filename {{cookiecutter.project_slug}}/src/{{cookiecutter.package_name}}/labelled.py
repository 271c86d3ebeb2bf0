"""Requests of the log whose labels have come: what the model saw in production, and what was right.

The log (REQUEST_LOG) and the labels (LABELS) are folders or any address that fsspec knows, such as s3://bucket/prefix.
Both are data from outside: a line that is not what it should be is left out and counted, never an error.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .artifacts import ProjectError

#: Where the two lie unless the environment says otherwise; there they need not exist.
DEFAULTS = {"REQUEST_LOG": "requests", "LABELS": "labels"}

#: What the log holds in place of a value that must not be kept.
MASKED = "masked"

#: Request id, and the place of the instance in the request.
Key = tuple[str, int]


@dataclass(frozen=True)
class Labelled:
    """One instance: `mark` names it in data/appended.json."""

    mark: str
    time: datetime
    inputs: dict[str, Any]
    label: str


@dataclass
class Found:
    """Labelled instances, the oldest first, and how many others were left out, by reason."""

    rows: list[Labelled] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read(after: datetime | None, known: Container[str]) -> Found:
    """Return the labelled requests later than `after` whose marks are not `known`. Raises ProjectError."""
    found = Found()
    labels = _labels(found.left_out)
    seen: set[str] = set()
    for content in _contents("REQUEST_LOG", (".jsonl",)) if labels else ():
        for line in content.splitlines():
            try:
                row = _row(line, labels)
            except ValueError as error:
                found.left_out[str(error)] += 1
                continue
            if row is None or row.mark in seen or row.mark in known:
                continue
            if after is not None and row.time <= after:
                found.left_out["the label came too late"] += 1
                continue
            seen.add(row.mark)
            found.rows.append(row)
    found.rows.sort(key=lambda row: (row.time, row.mark))
    return found


def _row(line: bytes, labels: dict[Key, str]) -> Labelled | None:
    """Return what a line of the log says, None where it has no label. Raises ValueError with the reason to count."""
    try:
        entry = json.loads(line)
        inputs, key = entry.get("inputs"), (entry.get("request_id"), entry.get("instance", 0))
        if inputs is None or key not in labels:  # refused, or not labelled yet
            return None
        time = datetime.fromisoformat(entry["time"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError("not a line of a request log") from None
    if not isinstance(inputs, dict):
        raise ValueError("not a line of a request log")
    if MASKED in inputs.values():
        raise ValueError("a value is masked")
    mark = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return Labelled(mark, time if time.tzinfo else time.replace(tzinfo=UTC), inputs, labels[key])


def _labels(left_out: Counter[str]) -> dict[Key, str]:
    """Return all labels as text. Of two for one instance that of the later file counts, and in it the later line."""
    import pandas as pd

    labels: dict[Key, str] = {}
    for content in _contents("LABELS", (".csv", ".parquet")):
        if content[:4] == b"PAR1":
            rows = pd.read_parquet(io.BytesIO(content)).astype(object).to_dict("records")
        else:
            rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        for row in rows:
            label, instance = row.get("label"), row.get("instance")
            if isinstance(label, float):  # whole numbers with gaps: 7.0 is the class 7, as in table.py
                label = None if label != label else f"{label:.17g}"
            if not row.get("request_id") or label is None or not str(label).strip():
                left_out["a label without a request or a value"] += 1
                continue
            try:
                place = 0 if instance in (None, "") or instance != instance else int(float(instance))
            except (ValueError, OverflowError):
                left_out["a label without a request or a value"] += 1
                continue
            labels[str(row["request_id"]), place] = str(label).strip()
    return labels


def _contents(variable: str, endings: tuple[str, ...]) -> Iterator[bytes]:
    """Yield the files below the address in `variable` with one of the endings, by name."""
    if not os.environ.get(variable) and not Path(DEFAULTS[variable]).exists():
        return
    with _opened(variable) as (files, root):
        paths = sorted(path for path in files.find(root) if path.endswith(endings))
        for path in tqdm(paths, variable.lower().replace("_", " "), unit="file", disable=None):
            yield files.cat_file(path)


@contextmanager
def _opened(variable: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system of the address in `variable` and the path in it. Whatever goes wrong is a ProjectError."""
    import fsspec

    address = os.environ.get(variable) or DEFAULTS[variable]
    try:
        files, root = fsspec.core.url_to_fs(address)
        if not files.exists(root):
            raise ProjectError(f"{variable} is {address!r}: there is no such folder")
        yield files, root
    except ProjectError:
        raise
    except Exception as error:  # each cloud's library has errors of its own, and so has each kind of file
        raise ProjectError(f"{variable} is {address!r}, which cannot be read: {error}") from error
