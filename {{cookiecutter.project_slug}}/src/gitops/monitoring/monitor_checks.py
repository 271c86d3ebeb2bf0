"""The checks of `make monitor`: the window's rows against the release's. Runs in the validate environment.

Drift is Deepchecks'; it has no checks of ranges, and none that knows which categories training had, so shares are
counted here. Every value is held to its limit in params.yaml or to what chance makes of so few rows, whichever is
larger (monitor_chance.py).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts, params
from gitops.core.sections import Monitor
from gitops.monitoring.monitor_chance import FALSE_ALARM, drift_by_chance, share_by_chance

if TYPE_CHECKING:
    import pandas as pd

#: Values that Deepchecks needs of a column, in the reference and in the window, to measure its drift.
ENOUGH = 10

#: A feature for tables that have none.
ROW = {"name": "row", "dtype": "number"}

Check = dict[str, Any]
Frames = dict[str, "pd.DataFrame"]


def main() -> None:
    """Judge the tables in monitoring/ and write checks.json there: `checks` as in reports/monitor.json, and `notes`."""
    settings = params.load().monitor
    facts = artifacts.read_json(artifacts.MONITOR_FACTS, "make monitor")
    frames = {
        "reference": artifacts.read_parquet(artifacts.MONITOR_REFERENCE),
        "reference_outputs": artifacts.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS),
        "window": artifacts.read_parquet(artifacts.MONITOR_WINDOW),
        "outputs": artifacts.read_parquet(artifacts.MONITOR_OUTPUTS),
        "labelled": artifacts.read_parquet(artifacts.MONITOR_LABELLED),
    }
    checks, notes = judge(settings, facts["schema"], facts["masked"], frames)
    artifacts.write_json(artifacts.MONITOR_CHECKS, {"checks": checks, "notes": notes})


def judge(
    settings: Monitor, schema: dict[str, Any], masked: list[str], frames: Frames
) -> tuple[list[Check], list[str]]:
    """Return the checks of a window of at least `min_rows` rows, and notes on what could not be judged.

    Labels are judged where there are `min_rows` of them, too. Raises ProjectError where Deepchecks fails.
    """
    features = [feature for feature in schema["features"] if feature["name"] not in masked]
    compared = [feature for feature in features if feature["dtype"] != "datetime"]  # Deepchecks has no drift of dates
    dtypes = [feature["dtype"] for feature in features]
    labelled = len(frames["labelled"]) >= settings.min_rows
    # Of each feature drift and missing values, of some their range or categories; predictions; labels twice.
    level = FALSE_ALARM / (len(compared) + len(features) + dtypes.count("number") + dtypes.count("category") + 3)
    drifts, notes = _feature_drift(settings, schema, compared, frames, level)
    checks = [*drifts, _prediction_drift(settings, schema, frames, level)]
    checks += _shares(settings, schema, features, frames["window"], level)
    if labelled:
        checks += _labels(settings, schema, frames, level)
    return [check for check in checks if not skipped(settings, check)], notes


def skipped(settings: Monitor, check: Check) -> bool:
    """Tell whether `monitor.skip` names the check, or the check with its column."""
    return bool({check["check"], f"{check['check']}: {check['column']}"} & {*settings.skip})


def checked(name: str, column: str | None, value: float, limit: float, details: str) -> Check:
    """Return a check of the verdict; it passes unless the value is above its limit."""
    numbers = {"value": round(float(value), 4), "limit": round(float(limit), 4)}
    return {"check": name, "column": column, **numbers, "passed": bool(value <= limit), "details": details}


def _deepchecks(schema: dict[str, Any], first: pd.DataFrame, second: pd.DataFrame, check: Any, **arguments: Any) -> Any:
    """Return the value of a check. One that does not run is an error, not a pass: ProjectError."""
    from deepchecks.core import CheckFailure
    from deepchecks.tabular import Suite

    from gitops.validation import deepchecks

    suite = Suite("monitor", check)
    (outcome,) = deepchecks.run(suite, schema, first, second, with_display=False, **arguments).results
    if isinstance(outcome, CheckFailure):
        raise artifacts.ProjectError(f"{check.name()} did not run: {outcome.exception}")
    return outcome.value


def _feature_drift(
    settings: Monitor, schema: dict[str, Any], compared: list[Any], frames: Frames, level: float
) -> tuple[list[Check], list[str]]:
    from deepchecks.tabular import checks

    tables = frames["reference"], frames["window"]
    measured = [feature for feature in compared if min(table[feature["name"]].count() for table in tables) >= ENOUGH]
    notes = []
    if few := [feature["name"] for feature in compared if feature not in measured]:
        notes.append(f"feature drift not measured, under {ENOUGH} values in reference or window: {', '.join(few)}")
    if not compared:
        notes.append("no feature is of a dtype whose drift can be measured")
    if not measured:  # Deepchecks refuses tables without a column that it can measure
        return [], notes
    old, new = (table[[feature["name"] for feature in measured]] for table in tables)
    found = _deepchecks(_named(schema, measured), old, new, checks.FeatureDrift())
    results = []
    for feature in measured:
        name, dtype = feature["name"], feature["dtype"]
        limit = max(settings.max_feature_drift, drift_by_chance(dtype, old[name], new[name], level))
        score = found[name]["Drift score"]
        results.append(checked("feature drift", name, score, limit, _moved(dtype, old[name], new[name])))
    return results, notes


def _moved(dtype: str, old: pd.Series[Any], new: pd.Series[Any]) -> str:
    """Say in a few words how a column differs from the reference."""
    if dtype == "number":
        return f"median {new.median():.4g}, {old.median():.4g} in the reference"
    shares = [column.value_counts(normalize=True) for column in (new, old)]
    value = shares[0].sub(shares[1], fill_value=0).abs().idxmax()
    return f"share of {str(value)[:60]!r} {shares[0].get(value, 0):.3g}, {shares[1].get(value, 0):.3g} in the reference"


def _prediction_drift(settings: Monitor, schema: dict[str, Any], frames: Frames, level: float) -> Check:
    """Of the positive class's probability (binary), the predicted classes (multiclass) or the predicted values."""
    import pandas as pd
    from deepchecks.tabular import checks

    classes = schema["target"]["classes"]
    arguments: dict[str, Any] = {"model_classes": sorted(classes)} if classes else {}
    tables = []
    for split, outputs in (("train", frames["reference_outputs"]), ("test", frames["outputs"])):
        arguments[f"y_pred_{split}"] = outputs["prediction"].to_numpy()
        if classes:
            arguments[f"y_proba_{split}"] = outputs[[f"p_{name}" for name in sorted(classes)]].to_numpy(float)
        tables.append(pd.DataFrame({"row": range(len(outputs))}))  # Deepchecks wants a table that was predicted
    check = checks.PredictionDrift(drift_mode="proba" if len(classes) == 2 else "prediction")
    score = _deepchecks(_named(schema, [ROW]), tables[0], tables[1], check, **arguments)["Drift score"]
    column = f"p_{classes[-1]}" if len(classes) == 2 else "prediction"
    dtype = "category" if len(classes) > 2 else "number"
    old, new = frames["reference_outputs"][column], frames["outputs"][column]
    limit = max(settings.max_prediction_drift, drift_by_chance(dtype, old, new, level))
    value = max(score.values()) if isinstance(score, dict) else score
    return checked("prediction drift", None, value, limit, _moved(dtype, old, new))


def _shares(
    settings: Monitor, schema: dict[str, Any], features: list[Any], window: pd.DataFrame, level: float
) -> list[Check]:
    """Check what is missing, unseen or out of range, feature by feature, against what training had."""
    rows, train = len(window), schema["rows"]["train"]
    results = []
    for feature in features:
        name, column = feature["name"], window[feature["name"]]
        missing = max(
            feature["missing"] + settings.max_missing,
            share_by_chance(round(feature["missing"] * train), train, rows, level),
        )
        details = f"in {feature['missing']:.1%} of the training rows"
        results.append(checked("missing values", name, column.isna().mean(), missing, details))
        if feature["dtype"] == "number":
            outside = column[(column < feature["min"]) | (column > feature["max"])]
            limit = max(settings.max_out_of_range, share_by_chance(2, train, rows, level))  # two rows set the range
            details = f"training has {feature['min']:.4g} to {feature['max']:.4g}"
            if len(outside):
                details += f", here are {outside.min():.4g} to {outside.max():.4g}"
            results.append(checked("out of range", name, len(outside) / rows, limit, details))
        elif feature["dtype"] == "category":
            results.append(_unseen(settings, feature["categories"], train, column, level, name))
    return results


def _unseen(
    settings: Monitor, shares: dict[str, float], train: int, column: pd.Series[Any], level: float, name: str
) -> Check:
    """Check for values that training lacks. As many are to be expected as there were values in one training row only
    (Good and Turing).
    """
    unseen = column[column.notna() & ~column.isin([*shares])]
    once = sum(round(share * train) <= 1 for share in shares.values())
    limit = max(settings.max_unseen, share_by_chance(once, train, len(column), level))
    examples = ", ".join(repr(str(value)[:60]) for value in unseen.value_counts().index[:5])
    details = f"new: {examples}" if len(unseen) else "none is new"
    return checked("unseen categories", name, len(unseen) / len(column), limit, details)


def _labels(settings: Monitor, schema: dict[str, Any], frames: Frames, level: float) -> list[Check]:
    from deepchecks.tabular import checks

    old, new = frames["reference_outputs"][["target"]], frames["labelled"][["target"]]
    classes = schema["target"]["classes"]
    dtype = "category" if classes else "number"
    labels = {"task": schema["task"], "target": {"name": "target"}, "features": [], "id": None, "timestamp": None}
    score = _deepchecks(labels, old, new, checks.LabelDrift())["Drift score"]
    limit = max(settings.max_label_drift, drift_by_chance(dtype, old["target"], new["target"], level))
    results = [checked("label drift", None, score, limit, _moved(dtype, old["target"], new["target"]))]
    if classes:
        known, train = dict.fromkeys(classes, 1.0), schema["rows"]["train"]
        results.append(_unseen(settings, known, train, new["target"], level, schema["target"]["name"]))
    return results


def _named(schema: dict[str, Any], features: list[Any]) -> dict[str, Any]:
    """Return the schema for tables of these features and nothing else."""
    return schema | {"features": features, "target": {"name": None}, "id": None, "timestamp": None}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    artifacts.run(main)
