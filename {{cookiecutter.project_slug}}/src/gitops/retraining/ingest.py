"""Bring the newest data into the project's tables, as new DVC versions.

A table that DVC imports (`dvc import`, `dvc import-url`) is updated from its source. To any other, unless it belongs to
a feature store, the labelled requests are appended, each exactly once, as a file of their own (tabular/parts.py):
nothing else is stored anew. data/appended.json lists these files and the requests that the table holds, and who sent
those that nobody has looked at; it is committed together with the pointer of the files' folder.
"""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from gitops.core import artifacts
from gitops.core.artifacts import APPENDED, ProjectError
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.core.sections import Data
from gitops.integrations import dvc
from gitops.monitoring import ground_truth
from gitops.monitoring.ground_truth import Found, Labelled
from gitops.monitoring.request_log import REDACTED
from gitops.retraining import clients, facts
from gitops.retraining.facts import Facts
from gitops.tabular import append, parts, request_rows


def update_tables(settings: Params) -> dict[str, Any]:
    """Update the tables; return `kind`, the number of appended `rows`, md5s `before` and `after`, and `left_out`.

    The md5s are the table's, or where rows were appended those of the folder that holds them; of a feature store's two
    tables those of the last that changed. Then there are also their times `from` and `to`, and what `clients.summary`
    returns. `left_out` counts requests by reason.
    Raises ProjectError where a table, the log or the labels cannot be read.
    """
    updates = [_update(path, settings) for path in settings.tables]
    return next((update for update in reversed(updates) if update["before"] != update["after"]), updates[0])


def _update(path: Path, settings: Params) -> dict[str, Any]:
    if settings.data.query is None and parts.elsewhere(settings.data):
        echo(f"{path} is no file or folder that DVC tracks: labelled requests are not appended to it")
        return {"kind": "requests", "rows": 0, "before": "", "after": "", "left_out": {}}
    pointer = _pointer(path)
    if not pointer.exists():
        raise ProjectError(f"{pointer} is missing: `dvc add {path}` and commit it, so that new data is a new version")
    before = artifacts.tracked_md5(path)
    update: dict[str, Any] = {"kind": "requests", "rows": 0, "before": before, "left_out": {}}
    if "deps" in yaml.safe_load(pointer.read_text(encoding="utf-8")):
        original = pointer.read_bytes()
        dvc.update(path)
        if artifacts.tracked_md5(path) == before:
            pointer.write_bytes(original)  # the source has another date, tag or commit, and the same contents
        update["kind"] = "import"
    elif settings.data.query is not None:
        echo(f"{path} is a database: labelled requests are not appended to it")
    elif settings.feature_store is None:  # a request names no entity, so it is no observation for a feature store
        update |= _append_requests(settings, path)
    return {"after": artifacts.tracked_md5(path)} | update


def _append_requests(settings: Params, path: Path) -> dict[str, Any]:
    data, state = settings.data, parts.everything()
    known, until = state.get("requests", {}), state.get("until")
    window = timedelta(days=settings.retrain.label_days)
    after = datetime.fromisoformat(until) - window if until else None
    # Twice the window: an id that was sent before it, and again in it, is noticed.
    horizon = after - window if after else None
    found = ground_truth.read(after, known, state.get("used", {}), data, horizon)
    rows = []
    if found.rows:
        _pull(path)
        table = facts.of(data)
        rows = valid_rows(found, table, data)
    update: dict[str, Any] = {"rows": len(rows), "left_out": dict(found.left_out)}
    if not rows:
        return update
    current = parts.state(data)  # empty where a person has replaced the table
    counts = clients.add(current.get("unreviewed", {}), [request for request, _ in rows])
    update |= clients.summary(counts, len(rows), table.rows + len(rows), settings)
    update |= _add_part(path, rows, table, data)
    times = [request.time.astimezone(UTC) for request, _ in rows]
    newest = max([*times, *([datetime.fromisoformat(until)] if until else [])])
    hashes = known | {request.request_hash: f"{time:%Y-%m-%d}" for (request, _), time in zip(rows, times, strict=True)}
    oldest = f"{newest - window:%Y-%m-%d}"  # of earlier requests the labels are not used any more: a count is enough
    used = Counter(state.get("used", {})) + Counter(day for day in hashes.values() if day < oldest)
    new_state = {
        "table": artifacts.tracked_md5(path),
        "parts": [*current.get("parts", []), table.rows],
        "files": [*current.get("files", []), update.pop("file")],
        "facts": facts.kept(table.grown(len(rows)), data),
        "until": newest.isoformat(),
        "unreviewed": {} if update["review"] else counts,  # a person who merges a draft has looked at them
        "requests": {request_hash: day for request_hash, day in sorted(hashes.items()) if day >= oldest},
        "used": dict(sorted(used.items())),
    }
    artifacts.write_json(APPENDED, new_state)
    return update | {"from": min(times).isoformat(), "to": max(times).isoformat()}


def _pull(path: Path) -> None:
    """Get the table and its parts, so that a part that is added to them is all that changes. Raises ProjectError."""
    dvc.pull(path)
    if path.is_dir():
        return
    if not _pointer(parts.FOLDER).exists():
        raise ProjectError(
            f"{_pointer(parts.FOLDER)} is missing, the folder of the rows that are appended to {path}: `mkdir -p "
            f"{parts.FOLDER} && dvc add {parts.FOLDER}`, and commit what that writes"
        )
    dvc.pull(parts.FOLDER)


def _add_part(path: Path, rows: list[tuple[Labelled, dict[str, Any]]], table: Facts, data: Data) -> dict[str, Any]:
    """Write the rows as a new part of the table, a new version of the folder that holds it, and of what they came as.

    Return the part's name as `file`, and the folder's md5s `before` and `after`. The parts of a table that a person has
    replaced are removed from the folder of parts; a folder of parquet files is as that person wants it.
    """
    folder, files = parts.folder(data), parts.state(data).get("files", [])
    before = artifacts.tracked_md5(folder)
    if folder != path:
        for name in {*parts.everything().get("files", [])} - {*files}:
            (folder / name).unlink(missing_ok=True)
            parts.requests(folder / name).unlink(missing_ok=True)
    added = append.append(data, [row for _, row in rows], table.dtypes, len(files) + 1)
    artifacts.write_text(parts.requests(added), "".join(f"{request.request_hash}\n" for request, _ in rows))
    dvc.add(folder)
    return {"file": added.name, "before": before, "after": artifacts.tracked_md5(folder)}


def _pointer(path: Path) -> Path:
    return path.with_name(f"{path.name}.dvc")


def valid_rows(found: Found, table: Facts, data: Data) -> list[tuple[Labelled, dict[str, Any]]]:
    """Return the requests that fit the table, each with its row; `found.left_out` counts the rest."""
    dtypes = {name: dtype for name, dtype in table.dtypes.items() if name not in (data.target, data.id, data.timestamp)}
    classes = None if data.task == "regression" else {*table.classes}
    types = append.types(data)
    rows = []
    for request in found.rows:
        try:
            row = {name: _value(request.inputs.get(name), dtype, name) for name, dtype in dtypes.items()}
            row |= _named(request, data)
            row[data.target] = _label(request.label, classes)
            _refuse_misfits(row, types)
        except ValueError as error:
            found.left_out[str(error)] += 1
            continue
        rows.append((request, row))
    return rows


def _named(request: Labelled, data: Data) -> dict[str, Any]:
    """Return the id and the time of a request, as far as the table has such columns; its own time where it names none.

    A redacted one counts as none. Raises ValueError with the reason to count.
    """
    row, given = {}, {name: value for name, value in request.inputs.items() if value != REDACTED}
    if data.id is not None:
        row[data.id] = _value(given.get(data.id), "category", data.id)
    if data.timestamp is not None:
        row[data.timestamp] = _value(given.get(data.timestamp), "datetime", data.timestamp) or request.time
    return row


def _refuse_misfits(row: dict[str, Any], types: dict[str, Any]) -> None:
    """Raise ValueError, with the reason to count, for a value that a column of a parquet table cannot hold."""
    for name, value in row.items():
        if name in types and not append.fits(value, types[name]):
            raise ValueError(f"column {name!r} does not fit the table's type {types[name]}")


def _value(value: Any, dtype: str, name: str) -> Any:
    """Return a request's value as the table holds it. Raises ValueError with the reason to count."""
    if value is None:
        return None
    if value == REDACTED:
        raise ValueError("a value is redacted")
    if not request_rows.fits(value, dtype):
        raise ValueError(f"column {name!r} is not a {dtype}")
    return datetime.fromisoformat(value) if dtype == "datetime" else value


def _label(label: str, classes: set[str] | None) -> str | float:
    if classes is not None:
        if label not in classes:
            raise ValueError("the label is not a class of the table")
        return label
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("the label is not a finite number")
    return number
