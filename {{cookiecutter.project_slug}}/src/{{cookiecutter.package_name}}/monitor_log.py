"""The request log and the labels, wherever they lie: a folder, or any address that fsspec knows (s3://bucket/prefix).

What is judged already is kept beside the log, in `monitor-state.json`: how far into each file. There it outlives a
runner and a pod, needs no other storage, and goes where the log goes. Counted in bytes, not by time, it neither loses
a line that arrives late nor sees one twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from . import artifacts
from .artifacts import ProjectError

if TYPE_CHECKING:
    import pandas as pd

STATE = "monitor-state.json"

#: Where the two lie unless the environment says otherwise.
DEFAULTS = {"REQUEST_LOG": "requests", "LABELS": "labels"}

Entry = dict[str, Any]
Key = tuple[str, int]  # request id, and the instance's index


@dataclass
class Log:
    """What was read: lines of the release that are not judged yet, and older ones whose labels may have come since."""

    rows: list[Entry] = field(default_factory=list)
    older: list[Entry] = field(default_factory=list)
    refused: list[Entry] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)  # reason: lines
    other_versions: int = 0
    too_old: int = 0
    ends: dict[str, int] = field(default_factory=dict)  # file: bytes up to the end of its last whole line


def read(version: str, days: int, now: datetime, labelled: set[Key]) -> Log:
    """Read the log of the model `version` over the last `days`. Raises ProjectError where it cannot be read.

    Of the lines that were judged before, those are kept that `labelled` names. A last line without its end is left for
    the next run.
    """
    since = now - timedelta(days=days)
    log = Log()
    with _opened("REQUEST_LOG") as (files, root):
        judged = _state(files, root)
        for path in tqdm(_files(files, root, (".jsonl",)), "request log", unit="file", disable=None):
            name = path.removeprefix(root).lstrip("/")
            if files.modified(path) < since:
                continue
            content = files.cat_file(path)
            log.ends[name] = end = content.rfind(b"\n") + 1
            start = judged.get(name, 0)
            _take(log, content[:end], start if start <= end else 0, version, since, labelled)  # shorter: another file
    return log


def _take(log: Log, content: bytes, start: int, version: str, since: datetime, labelled: set[Key]) -> None:
    """Sort the lines of a file, those before the byte `start` being judged already."""
    place = 0
    for line in content.splitlines(keepends=True):
        new, place = place >= start, place + len(line)
        try:
            entry = _entry(line)
        except ValueError as error:
            log.broken[str(error)] += new
            continue
        if entry["model_version"] != version:
            log.other_versions += new
        elif entry["time"] < since:
            log.too_old += new
        elif "inputs" not in entry:
            log.refused += [entry] * new
        elif new:
            log.rows.append(entry)
        elif (entry["request_id"], entry["instance"]) in labelled:
            log.older.append(entry)


def _entry(line: bytes) -> Entry:
    """Return a line as a dictionary, its time parsed. Raises ValueError with a reason that names no value."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    for key in ("request_id", "model_version"):
        if not isinstance(entry.get(key), str):
            raise ValueError(f"no {key}")
    try:
        moment = datetime.fromisoformat(entry["time"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("no time in ISO 8601") from None
    entry["time"] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if "errors" in entry:
        if not isinstance(entry["errors"], list):
            raise ValueError("errors are no list")
        entry.pop("inputs", None)
    elif not isinstance(entry.get("inputs"), dict) or "prediction" not in entry:
        raise ValueError("neither inputs with a prediction nor errors")
    elif type(entry.setdefault("instance", 0)) is not int:
        raise ValueError("instance is no integer")
    return entry


def save(ends: dict[str, int], now: datetime) -> None:
    """Remember that the log is judged up to `ends`. Raises ProjectError where that cannot be written."""
    state = {"judged": ends, "at": now.isoformat()}
    with _opened("REQUEST_LOG") as (files, root):
        if "file" in ([files.protocol] if isinstance(files.protocol, str) else files.protocol):
            artifacts.write_json(Path(root, STATE), state)
        else:  # an object is there wholly or not at all
            files.pipe_file(f"{root}/{STATE}", json.dumps(state).encode())


def labels(classes: list[str], days: int, now: datetime) -> pd.DataFrame:
    """Return the labels that have come, by `request_id` and `instance`: text where there are classes, else numbers.

    Of two labels for one row the later file's counts. Raises ProjectError naming a file that is no such table.
    """
    import pandas as pd

    tables = [pd.DataFrame({"request_id": [], "instance": [], "label": []})]
    if not os.environ.get("LABELS") and not Path(DEFAULTS["LABELS"]).exists():
        return tables[0]
    with _opened("LABELS") as (files, root):
        for path in _files(files, root, (".parquet", ".csv")):
            if files.modified(path) < now - timedelta(days=days):
                continue
            with files.open(path, "rb") as file:
                table = pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file, dtype=str)
            if lacking := {"request_id", "label"} - {*table.columns}:
                raise ProjectError(f"labels in {path} have no column {' and no column '.join(sorted(lacking))}")
            tables.append(_label_table(table.dropna(subset=["request_id", "label"]), classes))
    found = pd.concat(tables[1:] or tables)
    return found.drop_duplicates(["request_id", "instance"], keep="last", ignore_index=True)


def _label_table(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    import pandas as pd

    label = table["label"]
    if classes:  # whole numbers with gaps are floats: 7.0 is the class 7, as in table.py
        text = label.astype(str).str.strip()
        label = text.str.removesuffix(".0") if pd.api.types.is_float_dtype(label) else text
    else:
        label = pd.to_numeric(label)
    instance = pd.to_numeric(table["instance"]).fillna(0) if "instance" in table else 0
    ids = table["request_id"].astype(str)
    return pd.DataFrame({"request_id": ids, "instance": instance, "label": label}).astype({"instance": int})


def _state(files: Any, root: str) -> dict[str, int]:
    path = f"{root}/{STATE}"
    if not files.exists(path):
        return {}
    try:
        return {str(name): int(end) for name, end in json.loads(files.cat_file(path))["judged"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(f"{path} is broken: delete it, and the log is judged again from the start") from error


def _files(files: Any, root: str, endings: tuple[str, ...]) -> list[str]:
    return sorted(path for path in files.find(root) if path.endswith(endings))


@contextmanager
def _opened(variable: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system of the address in `variable` and the path in it. Whatever goes wrong is a ProjectError."""
    import fsspec

    address = os.environ.get(variable) or DEFAULTS[variable]
    try:
        files, root = fsspec.core.url_to_fs(address)
        root = root.rstrip("/")
        if files.protocol[0] == "file" and not files.isdir(root):
            raise ProjectError(f"{variable} is {address!r}: there is no such folder")
        yield files, root
    except ProjectError:
        raise
    except Exception as error:  # each cloud's library has errors of its own
        raise ProjectError(f"{variable} is {address!r}, which cannot be used: {error}") from error
