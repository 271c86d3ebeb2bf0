"""The newest data for a retraining, as a new DVC version of the raw table.

A table that DVC imports (`dvc import`, `dvc import-url`) is brought up to date. To any other that is not a feature
store's the labelled requests are appended, each exactly once: data/appended.json names those that the table holds, and
is committed with the table's pointer, so that both are there or neither.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gitops.core import artifacts
from gitops.core.artifacts import APPENDED, ProjectError
from gitops.core.params import Params
from gitops.core.sections import Data
from gitops.integrations import dvc
from gitops.monitoring import ground_truth
from gitops.monitoring.ground_truth import Found, Labelled
from gitops.tabular import append, table

if TYPE_CHECKING:
    import pandas as pd


def take(settings: Params) -> dict[str, Any]:
    """Bring the table up to date, and return `kind`, `rows` that were appended, md5s `before` and `after`, `left_out`.

    Of a feature store's two tables the md5s are those of the last that changed. Raises ProjectError where a table, the
    log or the labels cannot be read.
    """
    found = [_take(path, settings) for path in settings.tables]
    return next((facts for facts in reversed(found) if facts["before"] != facts["after"]), found[0])


def _take(path: Path, settings: Params) -> dict[str, Any]:
    pointer = path.with_name(f"{path.name}.dvc")
    if not pointer.exists():
        raise ProjectError(f"{pointer} is missing: `dvc add {path}`, commit it, and new data is a new version of it")
    before = artifacts.tracked_md5(path)
    facts: dict[str, Any] = {"kind": "requests", "rows": 0, "before": before, "left_out": {}}
    if "deps" in yaml.safe_load(pointer.read_text(encoding="utf-8")):
        kept = pointer.read_bytes()
        dvc.update(path)
        if artifacts.tracked_md5(path) == before:
            pointer.write_bytes(kept)  # the source has another date, tag or commit, and the same contents
        facts["kind"] = "import"
    elif settings.feature_store is None:  # whose requests are of no entity: they are no observations
        facts |= _append_requests(settings, path)
    return facts | {"after": artifacts.tracked_md5(path)}


def _append_requests(settings: Params, path: Path) -> dict[str, Any]:
    kept = artifacts.read_json(APPENDED, "git restore") if APPENDED.exists() else {}
    known, until = kept.get("requests", {}), kept.get("until")
    window = timedelta(days=settings.retrain.label_days)
    found = ground_truth.read(datetime.fromisoformat(until) - window if until else None, known)
    rows = []
    if found.rows:
        dvc.pull(path)
        frame = table.read(settings.data)
        rows = fitting(found, frame, settings.data)
    facts = {"rows": len(rows), "left_out": dict(found.left_out)}
    if not rows:
        return facts
    unchanged = kept.get("table") == artifacts.digest(path, "md5")  # else a person has put another table in its place
    parts = [*(kept["parts"] if unchanged else []), len(frame)]
    append.append(settings.data, [row for _, row in rows])
    check_kinds(frame, settings.data)
    dvc.add(path)
    times = [request.time.astimezone(UTC) for request, _ in rows]
    newest = max([*times, *([datetime.fromisoformat(until)] if until else [])])
    marks = known | {request.request_hash: f"{time:%Y-%m-%d}" for (request, _), time in zip(rows, times, strict=True)}
    oldest = f"{newest - window:%Y-%m-%d}"  # no request before that is read again, so none need be known
    state = {
        "table": artifacts.tracked_md5(path),
        "parts": parts,
        "until": newest.isoformat(),
        "requests": {mark: day for mark, day in sorted(marks.items()) if day >= oldest},
    }
    artifacts.write_json(APPENDED, state)
    return facts | {"from": min(times).isoformat(), "to": max(times).isoformat()}


def fitting(found: Found, frame: pd.DataFrame, data: Data) -> list[tuple[Labelled, dict[str, Any]]]:
    """Return the requests that fit the table, each with its row; the others are counted in `found.left_out`."""
    kinds = {name: _kind(frame[name]) for name in frame.columns if name not in (data.target, data.id, data.timestamp)}
    classes = None if data.task == "regression" else set(frame[data.target].dropna())
    rows = []
    for request in found.rows:
        try:
            row = {name: _value(request.inputs.get(name), kind, name) for name, kind in kinds.items()}
            row[data.target] = _label(request.label, classes)
        except ValueError as error:
            found.left_out[str(error)] += 1
            continue
        if data.timestamp is not None:
            row[data.timestamp] = request.time
        rows.append((request, row))
    return rows


def _kind(column: pd.Series[Any]) -> str:
    return {"float64": "number", "boolean": "boolean", "object": "category"}.get(str(column.dtype), "datetime")


def _value(value: Any, kind: str, name: str) -> Any:
    """Return a request's value as the table holds it. Raises ValueError with the reason to count."""
    wrong = ValueError(f"column {name!r} holds no {kind}")
    if value is None:
        return None
    if kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise wrong
    elif not isinstance(value, bool if kind == "boolean" else str):
        raise wrong
    if kind != "datetime":
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise wrong from None


def _label(label: str, classes: set[str] | None) -> str | float:
    if classes is not None:
        if label not in classes:
            raise ValueError("a label is no class of the table")
        return label
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a label is not a number")
    return number


def check_kinds(before: pd.DataFrame, data: Data) -> None:
    """Raise ProjectError where a column of the table is read as another kind than before."""
    after = table.read(data)
    changed = [name for name in before.columns if after[name].dtype != before[name].dtype]
    if changed:
        raise ProjectError(f"with the labelled requests, {data.path} is read otherwise: column {', '.join(changed)}")
