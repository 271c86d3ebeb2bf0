"""Stage `evaluate`: score the model on the test split, with intervals, by slice, and with what the plots need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from gitops.core import artifacts, threads
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.core.figures import number
from gitops.core.value import EXPECTED_VALUE
from gitops.integrations import tracking
from gitops.rendering import plots
from gitops.statistics.intervals import from_resamples
from gitops.statistics.scores import of_metrics
from gitops.tabular import arrow, decision, in_parts
from gitops.value import curves, summary, today

from . import calibration, metrics
from .features import decide, encode, encode_target
from .settings import Evaluate, Settings

#: Actual values, outputs and predictions, as metrics.py takes them.
Arrays = tuple[metrics.Array, metrics.Array, metrics.Array]

#: Rows that go through the model at once, at most, and bytes of their values.
BATCH, BATCH_BYTES = 8192, 4 << 20


def predict(program: torch.nn.Module, frame: pd.DataFrame, schema: dict[str, Any]) -> metrics.Array:
    """Return the model's outputs for a split: probabilities [rows, classes] or values [rows]."""
    numbers, categories = encode(arrow.from_frame(frame, schema), schema)
    rows = max(1, min(BATCH, BATCH_BYTES // (8 * max(1, len(schema["features"])))))
    with torch.inference_mode():
        pairs = zip(numbers.split(rows), categories.split(rows), strict=True)
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


def predict_split(
    program: torch.nn.Module, path: Path, schema: dict[str, Any], write: Callable[[pd.DataFrame], None]
) -> metrics.Array:
    """Write the predictions for a split's file, a part of its rows at a time, and return the outputs for all rows."""
    outputs = []
    for frame in in_parts.read(path):
        outputs.append(predict(program, frame, schema))
        write(prediction_table(frame, outputs[-1], path.stem, schema))
    return np.concatenate(outputs)


def slice_metrics(
    settings: Evaluate,
    known: metrics.Metrics,
    schema: dict[str, Any],
    test: pd.DataFrame,
    arrays: Arrays,
    on_resample: Callable[[], object],
) -> dict[str, Any]:
    """Return, for each column of data.slices and value of it, the rows and the score of each of the metrics `known`.

    Metrics are None in a slice with fewer than `evaluate.min_slice_rows` rows, and one that its rows do not define.
    """
    slices: dict[str, Any] = {}
    groups = test[artifacts.GROUP].to_numpy()
    for column, value, rows in slices_of(test, schema):
        scores = None
        if rows.sum() >= settings.min_slice_rows:
            part = arrays[0][rows], arrays[1][rows], arrays[2][rows]
            resampling = settings.bootstrap, settings.seed, on_resample
            scores = of_metrics(schema["task"], known, part, groups[rows], *resampling)
        slices.setdefault(column, {})[value] = {"rows": int(rows.sum()), "metrics": scores}
    return slices


def slices_of(test: pd.DataFrame, schema: dict[str, Any]) -> Iterator[tuple[str, str, metrics.Array]]:
    """Yield each column of data.slices with each value of it and which rows have it (bool, [rows])."""
    for column in schema["slices"]:
        codes, values = pd.factorize(test[column])
        texts = np.array([*map(str, values), "(missing)"], dtype=object)  # a missing value has the code -1: the last
        for text in sorted(set(texts[np.unique(codes)])):
            yield column, text, (texts == text)[codes]


def evaluate(settings: Settings, schema: dict[str, Any], test: pd.DataFrame, outputs: metrics.Array) -> dict[str, Any]:
    """Return the contents of metrics.json (its format: docs/system-design.md).

    Of `test` the target, the groups, and the columns of the slices and of `value.today` are used.
    """
    actual, classes = encode_target(test[schema["target"]["name"]], schema).numpy(), schema["target"]["classes"]
    predicted, wanted = decide(outputs, schema), settings.evaluate
    known = metrics.of(schema["task"], classes, settings.value)
    task, arrays, groups = schema["task"], (actual, outputs, predicted), test[artifacts.GROUP].to_numpy()
    sizes = [len(test), *(int(rows.sum()) for _, _, rows in slices_of(test, schema))]
    count = sum(from_resamples(size) for size in sizes if size >= wanted.min_slice_rows)
    with tqdm(total=wanted.bootstrap * count, desc="bootstrap", unit="resample", disable=None) as progress:
        resampling = wanted.bootstrap, wanted.seed, progress.update
        scores = of_metrics(task, known, arrays, groups, *resampling)
        slices = slice_metrics(wanted, known, schema, test, arrays, progress.update)
    undefined = [name for name, score in scores.items() if score is None]
    if undefined:
        raise ProjectError(
            f"the {len(test)} test rows do not define {', '.join(undefined)} (one class only?): raise data.test_size"
        )
    result: dict[str, Any] = {
        "task": task,
        "rows": len(test),
        "groups": len(np.unique(groups)),
        "test_md5": artifacts.digest(artifacts.TEST, "md5"),
        "model_sha256": artifacts.digest(artifacts.MODEL),
        "metrics": scores,
    }
    if settings.value:
        rows = actual, predicted, today.answers(settings.value, test, schema)
        result["value"] = summary.of(settings.value, schema, rows, scores[EXPECTED_VALUE] or {}, groups, wanted)
    if classes:
        counts = metrics.confusion(actual, predicted, len(classes))
        result["confusion"] = {"classes": classes, "counts": counts}
    return result | {"slices": slices}


def main() -> None:
    """Write predictions, metrics and plot data, and add the metrics to the run that trained the model."""
    settings = Settings.load()
    threads.limit(artifacts.TRAIN)
    with tracking.resume(settings) as run:
        schema = decision.schema()
        program = torch.export.load(artifacts.MODEL).module()
        with in_parts.writing(artifacts.PREDICTIONS) as write:
            predict_split(program, artifacts.TRAIN, schema, write)
            outputs = predict_split(program, artifacts.TEST, schema, write)
        columns = [schema["target"]["name"], artifacts.GROUP, *schema["slices"], *today.columns(settings.value)]
        test = artifacts.read_parquet(artifacts.TEST, [*dict.fromkeys(columns)])
        result = evaluate(settings, schema, test, outputs)
        actual = encode_target(test[schema["target"]["name"]], schema).numpy()
        plots.write(actual, outputs, decide(outputs, schema), schema)
        plots.add(curves.tables(settings.value, schema, actual, outputs, test))
        if schema["target"]["classes"]:
            result["calibration"] = calibration.report(program, actual, outputs)
        artifacts.write_json(artifacts.METRICS, result)
        run.log_metrics({f"test_{name}": score["value"] for name, score in result["metrics"].items()})
        run.log_files(artifacts.METRICS)
    for name, score in result["metrics"].items():
        value, low, high = (number(score[key]) for key in ("value", "low", "high"))
        echo(f"{settings.label(name):10} {value}  [{low}, {high}]")


if __name__ == "__main__":
    artifacts.run(main)
