"""Stage `evaluate`: score the model on the test split, with intervals, by slice, and with what the plots need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from gitops.core import artifacts, threads
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.integrations import tracking
from gitops.rendering import plots
from gitops.tabular import arrow

from . import metrics
from .features import decide, encode, encode_target
from .settings import Settings

#: Rows that go through the model at once.
BATCH = 8192


def predict(program: torch.nn.Module, frame: pd.DataFrame, schema: dict[str, Any]) -> metrics.Array:
    """Return the model's outputs for a split: probabilities [rows, classes] or values [rows]."""
    numbers, categories = encode(arrow.from_frame(frame, schema), schema)
    with torch.inference_mode():
        pairs = zip(numbers.split(BATCH), categories.split(BATCH), strict=True)
        outputs: metrics.Array = torch.cat([program(*pair) for pair in pairs]).double().numpy()
    return outputs


def prediction_table(frame: pd.DataFrame, outputs: metrics.Array, split: str, schema: dict[str, Any]) -> pd.DataFrame:
    """Return row, split, target, prediction and, for classes, a column `p_<class>` each."""
    classes = schema["target"]["classes"]
    columns = {"row": frame[artifacts.ROW], "split": split, "target": frame[schema["target"]["name"]]}
    table = pd.DataFrame(columns).reset_index(drop=True)
    table["prediction"] = np.array(classes, dtype=object)[decide(outputs, schema)] if classes else outputs
    for index, name in enumerate(classes):
        table[f"p_{name}"] = outputs[:, index]
    return table


def slice_metrics(
    frame: pd.DataFrame, actual: metrics.Array, outputs: metrics.Array, schema: dict[str, Any], columns: list[str]
) -> dict[str, Any]:
    """Return, for each column and value of it, the rows and the metrics (None where these rows do not define one).

    Raises ProjectError for a column that is no categorical or boolean feature.
    """
    sliceable = [feature["name"] for feature in schema["features"] if feature["dtype"] in ("category", "boolean")]
    predicted = decide(outputs, schema)
    slices: dict[str, Any] = {}
    for column in columns:
        if column not in sliceable:
            raise ProjectError(
                f"evaluate.slices names {column!r}: a categorical or boolean feature is needed "
                f"({', '.join(sliceable) or 'there is none'})"
            )
        values = frame[column].astype(object).where(frame[column].notna(), "(missing)").astype(str).to_numpy()
        slices[column] = {}
        for value in sorted(set(values)):
            rows = values == value
            scores = metrics.score(schema["task"], actual[rows], outputs[rows], predicted[rows])
            known = {name: None if np.isnan(score) else score for name, score in scores.items()}
            slices[column][value] = {"rows": int(rows.sum()), "metrics": known}
    return slices


def evaluate(settings: Settings, schema: dict[str, Any], test: pd.DataFrame, outputs: metrics.Array) -> dict[str, Any]:
    """Return the contents of metrics.json (its format: docs/system-design.md)."""
    actual = encode_target(test[schema["target"]["name"]], schema).numpy()
    predicted, wanted = decide(outputs, schema), settings.evaluate
    with tqdm(total=wanted.bootstrap, desc="bootstrap", unit="resample", disable=None) as progress:
        scores = metrics.bootstrap(
            schema["task"], actual, outputs, predicted, wanted.bootstrap, wanted.seed, progress.update
        )
    undefined = [name for name, score in scores.items() if np.isnan(score["value"])]
    if undefined:
        raise ProjectError(
            f"the {len(test)} test rows do not define {', '.join(undefined)} (one class only?): raise data.test_size"
        )
    result: dict[str, Any] = {
        "task": schema["task"],
        "rows": len(test),
        "test_md5": artifacts.digest(artifacts.TEST, "md5"),
        "model_sha256": artifacts.digest(artifacts.MODEL),
        "metrics": scores,
    }
    if classes := schema["target"]["classes"]:
        counts = metrics.confusion(actual, predicted, len(classes))
        result["confusion"] = {"classes": classes, "counts": counts}
    return result | {"slices": slice_metrics(test, actual, outputs, schema, settings.data.slices)}


def main() -> None:
    """Write predictions, metrics and plot data, and add the metrics to the run that trained the model."""
    settings = Settings.load()
    threads.limit(artifacts.TRAIN)
    with tracking.resume(settings) as run:
        schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
        program = torch.export.load(artifacts.MODEL).module()
        train, test = artifacts.read_parquet(artifacts.TRAIN), artifacts.read_parquet(artifacts.TEST)
        outputs = predict(program, test, schema)
        result = evaluate(settings, schema, test, outputs)
        tables = [
            prediction_table(train, predict(program, train, schema), "train", schema),
            prediction_table(test, outputs, "test", schema),
        ]
        with artifacts.replacing(artifacts.PREDICTIONS) as temporary:
            pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)
        actual = encode_target(test[schema["target"]["name"]], schema).numpy()
        plots.write(actual, outputs, decide(outputs, schema), schema)
        artifacts.write_json(artifacts.METRICS, result)
        run.log_metrics({f"test_{name}": score["value"] for name, score in result["metrics"].items()})
        run.log_files(artifacts.METRICS)
    for name, score in result["metrics"].items():
        echo(f"{name:10} {score['value']:.4f}  [{score['low']:.4f}, {score['high']:.4f}]")


if __name__ == "__main__":
    artifacts.run(main)
