"""Reference and current data: the release's test rows and predictions, and the requests that were not evaluated yet.

Both become tables in `monitoring/`, of the form that tables.py describes: all that drift.py reads in its environment.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.params import Params
from gitops.core.sections import Data
from gitops.integrations import dvc
from gitops.monitoring import ground_truth, request_ids, request_log, tables
from gitops.monitoring.request_log import Entry, Log
from gitops.releases import release
from gitops.releases.record import Deployed, Release

if TYPE_CHECKING:
    import pandas as pd

Context = dict[str, Any]
Schema = dict[str, Any]


def collect(settings: Params, now: datetime) -> Context:
    """Write the tables and context.json to monitoring/ and return the context. Raises ProjectError.

    The context: `model`, `model_version`, `release`, `schema`, `metric` and its `recorded` score, `from`, `to` (times
    of the first and the last request, or null), `rows`, `requests` and `refused` requests, `refused_for` (pairs of
    column or null, and requests), `lines` and `unreadable` (reason: lines), `other_versions` and `too_old` lines,
    `labelled` rows, `reused` ids of labelled requests, `redacted` features, `offsets` (how far the log was read).
    """
    present = release.production()
    if present is None:
        raise ProjectError(f"nothing is released on {release.BRANCH} yet, so there is nothing to monitor")
    record = present.record
    schema = _schema(record)
    _write_reference(record, schema)
    labels = _labels(schema["target"]["classes"], now - timedelta(days=settings.monitor.days), settings.data)
    keys = set(zip(labels["request_id"], labels["instance"], strict=True))
    log = request_log.read(record.model.version, settings.monitor.days, now, keys)
    redact = record.params.get("request_log", {}).get("redact", [])
    redacted = tables.redacted_features(log.rows, redact, schema)
    rows = tables.valid(log.rows, schema, redacted, log.unreadable)
    older = tables.valid(log.older, schema, {feature["name"] for feature in schema["features"]}, Counter())
    artifacts.write_parquet(artifacts.MONITOR_CURRENT, tables.current_features(rows, schema, redacted))
    artifacts.write_parquet(artifacts.MONITOR_CURRENT_OUTPUTS, tables.outputs_table(rows, schema))
    labelled = _write_labelled(_once([*older, *rows], log.reused), labels, schema)
    context = _context(present, schema, rows, log) | {"redacted": sorted(redacted), "labelled": labelled}
    artifacts.write_json(artifacts.MONITOR_CONTEXT, context)
    return context


def _context(present: Deployed, schema: Schema, rows: list[Entry], log: Log) -> Context:
    record = present.record
    metric = record.params["gate"]["primary_metric"]
    times = sorted(entry["time"].astimezone(UTC) for entry in [*rows, *log.refused])
    columns = Counter(column for entry in log.refused for column in _refused_for(entry))
    return {
        "model": record.model.name,
        "model_version": record.model.version,
        "release": present.commit,
        "schema": schema,
        "metric": metric,
        "recorded": record.metrics[metric].model_dump(),
        "from": times[0].isoformat() if times else None,
        "to": times[-1].isoformat() if times else None,
        "rows": len(rows),
        "requests": _requests(rows) + len(log.refused),
        "refused": len(log.refused),
        "refused_for": [[column, count] for column, count in columns.most_common()],
        "lines": len(rows) + len(log.refused) + log.unreadable.total(),
        "unreadable": dict(log.unreadable.most_common()),
        "other_versions": log.other_versions,
        "too_old": log.too_old,
        "reused": len(log.reused),
        "offsets": log.offsets,
    }


def _requests(rows: list[Entry]) -> int:
    """Return how many requests the rows are of. An id that was sent again is another request with the same id.

    A request leaves a line for each of its instances, of which any may be missing because it cannot be read.
    """
    times_sent: dict[str, int] = {}
    for (request_id, _), lines in Counter((entry["request_id"], entry["instance"]) for entry in rows).items():
        times_sent[request_id] = max(lines, times_sent.get(request_id, 0))
    return sum(times_sent.values())


def _refused_for(entry: Entry) -> set[str | None]:
    """Return the columns that a request was refused for, None for the request as a whole."""
    problems = [problem for problem in entry["errors"] if isinstance(problem, dict)]
    return {problem.get("column") if isinstance(problem.get("column"), str) else None for problem in problems} or {None}


def _labels(classes: list[str], since: datetime, data: Data) -> pd.DataFrame:
    """Return the labels of ground_truth.labels, as numbers where there are no classes."""
    import pandas as pd

    found, _ = ground_truth.labels(since, data)
    if classes:
        return found
    numbers = pd.to_numeric(found["label"], errors="coerce")
    if texts := int(numbers.isna().sum()):
        raise ProjectError(f"LABELS has labels that are not numbers: {texts} of {len(found)}")
    return found.assign(label=numbers)


def _schema(record: Release) -> Schema:
    """Return the schema in the release's archive."""
    try:
        with zipfile.ZipFile(dvc.fetch(record.package.md5)) as files:
            schema: Schema = json.loads(files.read(artifacts.SCHEMA.name))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ProjectError(f"{record.package.path} of the release holds no schema: {error}") from error
    return schema


def _write_reference(record: Release, schema: Schema) -> None:
    """Write the release's test rows and its model's predictions for them."""
    classes = schema["target"]["classes"]
    try:
        test = artifacts.read_parquet(dvc.fetch(record.test_md5))
        test = test.set_index(ROW if ROW in test else "row")  # its name in releases of earlier versions
        outputs = artifacts.read_parquet(dvc.fetch(record.predictions.md5))
        outputs = outputs[outputs["split"] == "test"].set_index("row").loc[test.index]
        outputs = outputs[["target", "prediction", *(f"p_{name}" for name in classes)]]
        if GROUP in test:  # not in releases of earlier versions
            outputs[GROUP] = test[GROUP]
        features = tables.reference_features(test, schema)
    except (KeyError, ValueError, OSError) as error:
        raise ProjectError(f"the release's test rows and predictions do not fit each other: {error}") from error
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE, features)
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS, outputs.reset_index(drop=True))


def _once(rows: list[Entry], reused: set[str]) -> list[Entry]:
    """Return each instance once, without those whose id is `reused`: a label would count for all that sent the id."""
    first: dict[request_ids.Key, Entry] = {}
    for entry in rows:
        if entry["request_id"] not in reused:
            first.setdefault((entry["request_id"], entry["instance"]), entry)
    return [*first.values()]


def _write_labelled(rows: list[Entry], labels: pd.DataFrame, schema: Schema) -> int:
    """Write the outputs of the labelled rows, those evaluated before among them, and return their number.

    Rows that gave the same data.id are a group, any other row is one by itself.
    """
    import pandas as pd

    keys = pd.DataFrame(
        {"request_id": [entry["request_id"] for entry in rows], "instance": [entry["instance"] for entry in rows]}
    ).astype({"request_id": object, "instance": int})
    codes, known = pd.factorize(pd.Series([entry["id"] for entry in rows], dtype=object))
    keys[GROUP] = [code if code >= 0 else len(known) + place for place, code in enumerate(codes.tolist())]
    table = pd.concat([keys, tables.outputs_table(rows, schema)], axis=1)
    joined = table.merge(labels.astype({"request_id": object, "instance": int}), on=["request_id", "instance"])
    joined = joined.rename(columns={"label": "target"}).drop(columns=["request_id", "instance"])
    artifacts.write_parquet(artifacts.MONITOR_LABELLED, joined)
    return len(joined)
