"""The checks of `make monitor`: current data against the release's. Runs in the validate environment.

Drift scores are Deepchecks'. It has no check of ranges and none that knows the categories of the training rows, so
fractions of missing, unseen and out-of-range values come from counts of all rows of the window (quality_checks.py);
Deepchecks gets a sample of a large window, and of a large reference. A check fails where its value is above both its
limit in params.yaml and the critical value, which values without any drift exceed in FALSE_ALARM of the windows, over
all checks of a window together (Bonferroni): thirty features, checked every day, must not raise a false alarm a week.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts, params
from gitops.core.sections import Monitor
from gitops.monitoring import quality, quality_checks
from gitops.monitoring.critical_values import FALSE_ALARM, critical_drift
from gitops.monitoring.quality_checks import Check, result

if TYPE_CHECKING:
    import pandas as pd

#: Values that a column must have, in reference and current data, for Deepchecks to measure its drift.
MIN_VALUES = 10

#: A placeholder for Deepchecks, which wants a feature in every table.
ROW = {"name": "row", "dtype": "number"}

Frames = dict[str, "pd.DataFrame"]


def main() -> None:
    """Check the tables in monitoring/ and write checks.json there: `checks` as in reports/monitor.json, and `notes`."""
    settings = params.load().monitor
    context = artifacts.read_json(artifacts.MONITOR_CONTEXT, "make monitor")
    frames = {
        "reference": artifacts.read_parquet(artifacts.MONITOR_REFERENCE),
        "reference_outputs": artifacts.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS),
        "current": artifacts.read_parquet(artifacts.MONITOR_CURRENT),
        "current_outputs": artifacts.read_parquet(artifacts.MONITOR_CURRENT_OUTPUTS),
        "labelled": artifacts.read_parquet(artifacts.MONITOR_LABELLED),
    }
    checks, notes = evaluate(settings, context["schema"], context["redacted"], frames, context["quality"])
    artifacts.write_json(artifacts.MONITOR_CHECKS, {"checks": checks, "notes": notes})


def evaluate(
    settings: Monitor,
    schema: dict[str, Any],
    redacted: list[str],
    frames: Frames,
    counted: dict[str, Any] | None = None,
) -> tuple[list[Check], list[str]]:
    """Return the checks of a window of at least `min_rows` rows, and notes on what could not be checked.

    `counted`: `rows` of the window and the counts of `features` that quality.py has made of them; `frames["current"]`
    may be a sample then. None: that frame is the window, and is counted. Labels are checked where there are `min_rows`
    of them, too. Raises ProjectError where Deepchecks fails.
    """
    features = [feature for feature in schema["features"] if feature["name"] not in redacted]
    compared = [feature for feature in features if feature["dtype"] != "datetime"]  # Deepchecks has no drift of dates
    dtypes = [feature["dtype"] for feature in features]
    # Of each feature drift and missing values, of some their range or categories; predictions; labels twice.
    level = FALSE_ALARM / (len(compared) + len(features) + dtypes.count("number") + dtypes.count("category") + 3)
    checks, notes = _feature_drift(settings, schema, compared, frames, level)
    checks.append(_prediction_drift(settings, schema, frames, level))
    checks += quality_checks.data_quality(
        settings, schema, features, counted or quality_checks.count(features, frames["current"]), level
    )
    if len(frames["labelled"]) >= settings.min_rows:
        checks += _labels(settings, schema, frames, level)
    skip = {*settings.skip}
    return [check for check in checks if not skip & {check["check"], f"{check['check']}: {check['column']}"}], notes


def _deepchecks(schema: dict[str, Any], first: pd.DataFrame, second: pd.DataFrame, check: Any, **arguments: Any) -> Any:
    """Return the value of a Deepchecks check. Raises ProjectError where it cannot run, which must not pass."""
    from deepchecks.core import CheckFailure
    from deepchecks.tabular import Suite

    from gitops.validation import deepchecks

    suite = Suite("monitor", check)
    (outcome,) = deepchecks.run(suite, schema, first, second, with_display=False, **arguments).results
    if isinstance(outcome, CheckFailure):
        raise artifacts.ProjectError(f"{check.name()} did not run: {outcome.exception}")
    return outcome.value


def _only(schema: dict[str, Any], features: list[Any]) -> dict[str, Any]:
    """Return the schema of tables that hold these features and nothing else."""
    return schema | {"features": features, "target": {"name": None}, "id": None, "timestamp": None}


def _feature_drift(
    settings: Monitor, schema: dict[str, Any], compared: list[Any], frames: Frames, level: float
) -> tuple[list[Check], list[str]]:
    from deepchecks.tabular import checks

    tables = frames["reference"], frames["current"]
    measured = [
        feature for feature in compared if min(table[feature["name"]].count() for table in tables) >= MIN_VALUES
    ]
    notes = []
    if few := [feature["name"] for feature in compared if feature not in measured]:
        notes.append(
            f"feature drift not measured, under {MIN_VALUES} values in reference or current data: {', '.join(few)}"
        )
    if not compared:
        notes.append("no feature is of a dtype whose drift can be measured")
    if not measured:  # Deepchecks refuses tables without a column that it can measure
        return [], notes
    old, new = (table[[feature["name"] for feature in measured]] for table in tables)
    found = _deepchecks(_only(schema, measured), old, new, checks.FeatureDrift())
    results = []
    for feature in measured:
        name, dtype = feature["name"], feature["dtype"]
        limit = max(settings.max_feature_drift, critical_drift(dtype, old[name], new[name], level))
        score = found[name]["Drift score"]
        results.append(result("feature drift", name, score, limit, _change(dtype, old[name], new[name])))
    return results, notes


def _change(dtype: str, old: pd.Series[Any], new: pd.Series[Any]) -> str:
    """Describe in a few words how a column differs from the reference."""
    if dtype == "number":
        return f"median {new.median():.4g}, {old.median():.4g} in the reference"
    now, before = (column.value_counts(normalize=True) for column in (new, old))
    value = now.sub(before, fill_value=0).abs().idxmax()
    return f"fraction of {str(value)[:60]!r} {now.get(value, 0):.3g}, {before.get(value, 0):.3g} in the reference"


def _sampled(outputs: pd.DataFrame) -> pd.DataFrame:
    """Return at most quality.SAMPLE of the rows, the same each time."""
    return outputs if len(outputs) <= quality.SAMPLE else outputs.sample(quality.SAMPLE, random_state=0)


def _prediction_drift(settings: Monitor, schema: dict[str, Any], frames: Frames, level: float) -> Check:
    """Check the positive class's probability (binary), the predicted classes (multiclass) or the predicted values."""
    import pandas as pd
    from deepchecks.tabular import checks

    classes = schema["target"]["classes"]
    reference, current = _sampled(frames["reference_outputs"]), frames["current_outputs"]
    arguments: dict[str, Any] = {"model_classes": sorted(classes)} if classes else {}
    tables = []
    for split, outputs in (("train", reference), ("test", current)):
        arguments[f"y_pred_{split}"] = outputs["prediction"].to_numpy()
        if classes:
            arguments[f"y_proba_{split}"] = outputs[[f"p_{name}" for name in sorted(classes)]].to_numpy(float)
        tables.append(pd.DataFrame({"row": range(len(outputs))}))
    check = checks.PredictionDrift(drift_mode="proba" if len(classes) == 2 else "prediction")
    score = _deepchecks(_only(schema, [ROW]), tables[0], tables[1], check, **arguments)["Drift score"]
    column = f"p_{classes[-1]}" if len(classes) == 2 else "prediction"
    dtype = "category" if len(classes) > 2 else "number"
    old, new = reference[column], current[column]
    limit = max(settings.max_prediction_drift, critical_drift(dtype, old, new, level))
    value = max(score.values()) if isinstance(score, dict) else score
    return result("prediction drift", None, value, limit, _change(dtype, old, new))


def _labels(settings: Monitor, schema: dict[str, Any], frames: Frames, level: float) -> list[Check]:
    from deepchecks.tabular import checks

    labelled = frames["labelled"][["target"]]
    old, new = _sampled(frames["reference_outputs"])[["target"]], _sampled(labelled)
    classes = schema["target"]["classes"]
    dtype = "category" if classes else "number"
    labels = {"task": schema["task"], "target": {"name": "target"}, "features": [], "id": None, "timestamp": None}
    score = _deepchecks(labels, old, new, checks.LabelDrift())["Drift score"]
    limit = max(settings.max_label_drift, critical_drift(dtype, old["target"], new["target"], level))
    results = [result("label drift", None, score, limit, _change(dtype, old["target"], new["target"]))]
    if classes:
        known, train = dict.fromkeys(classes, 1.0), schema["rows"]["train"]
        found = quality_checks.count([{"name": "target", "dtype": "category", "categories": known}], labelled)
        counts = found["features"]["target"]
        results.append(
            quality_checks.unseen(settings, known, train, found["rows"], counts, level, schema["target"]["name"])
        )
    return results


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    artifacts.run(main)
