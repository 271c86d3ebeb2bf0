"""What the monitor compares: the release's test rows and predictions, and the requests that are not judged yet.

Both become tables of the same form in `monitoring/`, which is all that monitor_checks.py sees, in its environment:
features with booleans as the texts "true" and "false" and dates as seconds since 1970, and apart from them, because a
feature may have any name, outputs as in predictions.parquet.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.integrations import dvc
from gitops.monitoring import monitor_log
from gitops.monitoring.monitor_log import Entry
from gitops.monitoring.request_log import MASKED
from gitops.releases import release
from gitops.releases.record import Deployed, Release

if TYPE_CHECKING:
    import pandas as pd

Facts = dict[str, Any]


def collect(settings: Params, now: datetime) -> Facts:
    """Write the tables and facts.json to monitoring/ and return the facts. Raises ProjectError.

    The facts: `model`, `model_version`, `release`, `schema`, `metric` and its `recorded` score, `from`, `to` (times of
    the first and the last request, or null), `rows`, `requests` and `refused` requests, `refused_for` (column or null:
    requests), `lines` and `broken` (reason: lines), `other_versions` and `too_old` lines, `labelled` rows, `masked`
    columns, `ends` (how far the log was read).
    """
    present = release.production()
    if present is None:
        raise ProjectError(f"nothing is released on {release.BRANCH} yet, so there is nothing to monitor")
    record = present.record
    schema = _schema(record)
    _write_reference(record, schema)
    labels = monitor_log.labels(schema["target"]["classes"], settings.monitor.days, now)
    keys = set(zip(labels["request_id"], labels["instance"], strict=True))
    log = monitor_log.read(record.model.version, settings.monitor.days, now, keys)
    masked = _masked(log.rows, record, schema)
    rows = _fitting(log.rows, schema, masked, log.broken)
    older = _fitting(log.older, schema, {feature["name"] for feature in schema["features"]}, Counter())
    _write_window(rows, schema)
    labelled = _write_labelled([*older, *rows], labels, schema)
    facts = _facts(present, schema, rows, log) | {"masked": sorted(masked), "labelled": labelled}
    artifacts.write_json(artifacts.MONITOR_FACTS, facts)
    return facts


def _facts(present: Deployed, schema: dict[str, Any], rows: list[Entry], log: monitor_log.Log) -> Facts:
    record = present.record
    metric = record.params["gate"]["primary_metric"]
    times = sorted(entry["time"].astimezone(UTC) for entry in [*rows, *log.refused])
    reasons = Counter(column for entry in log.refused for column in _columns(entry))
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
        "requests": len({entry["request_id"] for entry in rows}) + len(log.refused),
        "refused": len(log.refused),
        "refused_for": [[column, count] for column, count in reasons.most_common()],
        "lines": len(rows) + len(log.refused) + log.broken.total(),
        "broken": dict(log.broken.most_common()),
        "other_versions": log.other_versions,
        "too_old": log.too_old,
        "ends": log.ends,
    }


def _columns(entry: Entry) -> set[str | None]:
    """Return the columns that a request was refused for, None for the request as a whole."""
    problems = [problem for problem in entry["errors"] if isinstance(problem, dict)]
    return {problem.get("column") if isinstance(problem.get("column"), str) else None for problem in problems} or {None}


def _schema(record: Release) -> dict[str, Any]:
    """Return the schema that the release's archive holds."""
    try:
        with zipfile.ZipFile(dvc.fetch(record.package.md5)) as files:
            schema: dict[str, Any] = json.loads(files.read(artifacts.SCHEMA.name))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ProjectError(f"{record.package.path} of the release holds no schema: {error}") from error
    return schema


def _write_reference(record: Release, schema: dict[str, Any]) -> None:
    """Write the release's test rows and what its model made of them."""
    classes = schema["target"]["classes"]
    names = [feature["name"] for feature in schema["features"]]
    try:
        test = artifacts.read_parquet(dvc.fetch(record.test_md5)).set_index("row")
        outputs = artifacts.read_parquet(dvc.fetch(record.predictions.md5))
        outputs = outputs[outputs["split"] == "test"].set_index("row").loc[test.index]
        outputs = outputs[["target", "prediction", *(f"p_{name}" for name in classes)]]
        features = test[names]
    except (KeyError, ValueError, OSError) as error:
        raise ProjectError(f"the release's test rows and predictions do not fit each other: {error}") from error
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE, _plain(features, schema))
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS, outputs.reset_index(drop=True))


def _plain(features: pd.DataFrame, schema: dict[str, Any]) -> pd.DataFrame:
    """Return a split's features in the form that the window has."""
    import pandas as pd

    columns = {}
    for feature in schema["features"]:
        column = features[feature["name"]].reset_index(drop=True)
        if feature["dtype"] == "boolean":
            column = column.map({True: "true", False: "false"}).astype(object)
        elif feature["dtype"] == "datetime":
            column = (column - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
        columns[feature["name"]] = column
    return pd.DataFrame(columns)


def _masked(rows: list[Entry], record: Release, schema: dict[str, Any]) -> set[str]:
    """Return the features whose values the log hides. A category may by chance have that text as a value, unless the
    release's settings name it.
    """
    named = set(record.params.get("request_log", {}).get("redact", []))
    return {
        feature["name"]
        for feature in schema["features"]
        if feature["name"] in named or feature["dtype"] != "category"
        if any(entry["inputs"].get(feature["name"]) == MASKED for entry in rows)
    }


def _fitting(rows: list[Entry], schema: dict[str, Any], masked: set[str], broken: Counter[str]) -> list[Entry]:
    """Return the rows that fit the schema, values as `check_row` returns them and `outputs` as in predictions.parquet.

    A column that a line lacks counts as missing there. Lines that do not fit are counted in `broken`, by column.
    """
    from gitops.tabular.columns import RowError, check_row

    names = [feature["name"] for feature in schema["features"]]
    fitting = []
    for entry in rows:
        known = dict.fromkeys(names) | entry["inputs"]
        try:
            values = check_row(0, known | dict.fromkeys(masked), schema)
            outputs = _outputs(entry["prediction"], schema["target"]["classes"])
        except RowError as error:
            broken[f"column {error.column!r} does not fit the schema"] += 1
        except (KeyError, TypeError, ValueError):
            broken["the prediction does not fit the schema"] += 1
        else:
            fitting.append(entry | {"inputs": values, "outputs": outputs})
    return fitting


def _outputs(prediction: Any, classes: list[str]) -> list[Any]:
    """Return prediction and probabilities of a logged prediction. Raises KeyError, TypeError or ValueError."""
    if not classes:
        return [float(prediction)]
    if prediction["label"] not in classes:
        raise ValueError("no such class")
    return [prediction["label"], *(float(prediction["probabilities"][name]) for name in classes)]


def _write_window(rows: list[Entry], schema: dict[str, Any]) -> None:
    import pandas as pd

    columns: dict[str, pd.Series[Any]] = {}
    for feature in schema["features"]:
        values = [_value(entry["inputs"][feature["name"]], feature["dtype"]) for entry in rows]
        text = feature["dtype"] in ("category", "boolean")
        columns[feature["name"]] = pd.Series(values, dtype=object if text else "float64")
    artifacts.write_parquet(artifacts.MONITOR_WINDOW, pd.DataFrame(columns))
    artifacts.write_parquet(artifacts.MONITOR_OUTPUTS, _output_table([entry["outputs"] for entry in rows], schema))


def _value(value: Any, dtype: str) -> Any:
    from gitops.tabular.columns import seconds

    if dtype == "boolean" and value is not None:
        return "true" if value else "false"
    return seconds(value) if dtype == "datetime" and value is not None else value


def _output_table(outputs: list[list[Any]], schema: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    names = ["prediction", *(f"p_{name}" for name in schema["target"]["classes"])]
    return pd.DataFrame(outputs, columns=names)


def _write_labelled(rows: list[Entry], labels: pd.DataFrame, schema: dict[str, Any]) -> int:
    """Write the outputs of the rows whose labels have come, those judged before among them; return their number."""
    import pandas as pd

    keys = pd.DataFrame(
        {"request_id": [entry["request_id"] for entry in rows], "instance": [entry["instance"] for entry in rows]}
    ).astype({"request_id": object, "instance": int})
    table = pd.concat([keys, _output_table([entry["outputs"] for entry in rows], schema)], axis=1)
    joined = table.merge(labels.astype({"request_id": object, "instance": int}), on=["request_id", "instance"])
    joined = joined.rename(columns={"label": "target"}).drop(columns=["request_id", "instance"])
    artifacts.write_parquet(artifacts.MONITOR_LABELLED, joined)
    return len(joined)
