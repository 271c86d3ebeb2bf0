"""Reference and current data: the release's test rows and predictions, and the requests that were not evaluated yet.

Both become tables in `monitoring/`, of the form that tables.py describes: all that drift.py reads in its environment.
"""

from __future__ import annotations

import json
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.core.sections import Data
from gitops.integrations import dvc
from gitops.monitoring import labels, quality, request_log, tables
from gitops.monitoring.log_window import Window
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
    `labelled` rows, `reused` ids of labelled requests, `redacted` features, `offsets` and `tables` (how far the log was
    read), `read` (how many files were, and were not), `quality` (quality.py's counts of all rows; current.parquet holds
    at most quality.SAMPLE of them).
    """
    present = release.production()
    if present is None:
        raise ProjectError(f"nothing is released on {release.BRANCH} yet, so there is nothing to monitor")
    record = present.record
    schema = _schema(record)
    _write_reference(record, schema)
    known = _labels(schema["target"]["classes"], now - timedelta(days=settings.monitor.days), settings.data)
    redact = record.params.get("request_log", {}).get("redact", [])
    since = now - timedelta(days=settings.monitor.days)
    with request_log.read(since, old=not known.empty) as log:
        echo(request_log.summary(log.counts))
        rule = settings.value.today.column if settings.value else None
        window = Window(log.lines, schema, record.model.version, since, redact, known, rule)
        current, outputs, counts = window.read()
        artifacts.write_parquet(artifacts.MONITOR_CURRENT, current)
        artifacts.write_parquet(artifacts.MONITOR_CURRENT_OUTPUTS, outputs)
        labelled = window.labelled()
        artifacts.write_parquet(artifacts.MONITOR_LABELLED, labelled)
        context = _context(present, schema, window) | {"labelled": len(labelled), "read": log.counts}
    context["quality"] = {"rows": context["rows"], "features": counts}
    context["offsets"], context["tables"] = log.evaluated.offsets, log.evaluated.tables
    artifacts.write_json(artifacts.MONITOR_CONTEXT, context)
    return context


def _context(present: Deployed, schema: Schema, window: Window) -> Context:
    record, counts = present.record, window.counts
    metric = record.params["gate"]["primary_metric"]
    first, last = counts.ends()
    return {
        "model": record.model.name,
        "model_version": record.model.version,
        "release": present.commit,
        "schema": schema,
        "metric": metric,
        "recorded": record.metrics[metric].model_dump(),
        "from": first,
        "to": last,
        "rows": counts.rows,
        "requests": window.requests() + counts.refused,
        "refused": counts.refused,
        "refused_for": [[column, count] for column, count in counts.refused_for.most_common()],
        "lines": counts.rows + counts.refused + counts.unreadable.total(),
        "unreadable": dict((+counts.unreadable).most_common()),
        "other_versions": counts.other_versions,
        "too_old": counts.too_old,
        "reused": len(window.uses.reused),
        "redacted": sorted(window.redacted),
    }


def _labels(classes: list[str], since: datetime, data: Data) -> pd.DataFrame:
    """Return the labels, as numbers where there are no classes. Raises ProjectError where one is no number."""
    import pandas as pd

    found, _ = labels.read(since, data)
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
        every, test = _test_rows(dvc.fetch(record.test_md5))
        outputs = artifacts.read_parquet(dvc.fetch(record.predictions.md5), where=("split", "==", "test"))
        outputs = outputs.set_index("row").loc[every.index]  # performance is compared with that on all test rows
        outputs = outputs[["target", "prediction", *(f"p_{name}" for name in classes)]]
        if GROUP in every:
            outputs[GROUP] = every[GROUP]
        features = tables.reference_features(test, schema)
    except (KeyError, ValueError, OSError) as error:
        raise ProjectError(f"the release's test rows and predictions do not fit each other: {error}") from error
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE, features)
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS, outputs.reset_index(drop=True))


def _test_rows(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the groups of all test rows, indexed by the rows' numbers, and at most quality.SAMPLE of the rows."""
    import pyarrow.parquet as pq

    names = pq.read_schema(str(path)).names
    row = ROW if ROW in names else "row"  # its name in releases of earlier versions, which have no groups either
    every = artifacts.read_parquet(path, [row, *(name for name in names if name == GROUP)]).set_index(row)
    if len(every) <= quality.SAMPLE:
        return every, artifacts.read_parquet(path).set_index(row)
    chosen = every.sample(quality.SAMPLE, random_state=0).sort_index().index
    return every, artifacts.read_parquet(path, where=(row, "in", chosen.tolist())).set_index(row).loc[chosen]
