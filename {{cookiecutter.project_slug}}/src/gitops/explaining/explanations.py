"""evaluation/explanations.json: which columns decide, and what the model answers over their values.

It is of a sample of the test rows, and of a wide table's most telling columns alone, so that it costs no more than
about ten seconds, however large the table is. The columns are the table's, those that a request gives; derived features
follow them. Nothing is decided by it.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from gitops import owner
from gitops.core import artifacts
from gitops.core.artifacts import GROUP
from gitops.core.params import Params
from gitops.explaining import dependence, importance
from gitops.explaining.dependence import Predict
from gitops.explaining.importance import Score, Scorer
from gitops.statistics.resampling import Clusters
from gitops.tabular import arrow, in_parts
from gitops.tabular import numbers as statistics
from gitops.tabular.columns import Columns, given

Array = NDArray[Any]
Schema = dict[str, Any]

#: Rows of the sample, at most; a smaller one is shuffled several times, REPEATS at most, up to so many answers.
ROWS, REPEATS = 2000, 3

#: Values that the model takes for all columns together, about: rows times columns of the table.
CELLS = 16_000_000

#: Columns that are shuffled at least, if the table has as many, and those that have a curve.
FEWEST, CURVES = 20, 10

#: Rows that go through the model at once.
CHUNK = 1024

#: Parts of equal size of a column that is not shuffled if they tell little.
TENTHS = 10


def write(settings: Params, schema: Schema, program: torch.nn.Module) -> None:
    """Write evaluation/explanations.json of the test rows (its format: docs/system-design.md)."""
    artifacts.write_json(artifacts.EXPLANATIONS, explain(settings, schema, program))


def explain(settings: Params, schema: Schema, program: torch.nn.Module) -> dict[str, Any]:
    """Return the contents of explanations.json; without columns where the sampled rows do not define the metric."""
    features = {feature["name"]: feature for feature in given(schema)}
    tried = min(len(features), max(FEWEST, CELLS // (len(features) * ROWS)))
    answers = min(ROWS, max(1, CELLS // (len(features) * tried)))
    rng = np.random.default_rng(settings.evaluate.seed)
    total, frame = sample(artifacts.TEST, answers, rng)
    repeats = max(1, min(REPEATS, answers // len(frame)))
    predict, name = partial(_predict, program, schema), settings.gate.primary_metric
    columns = arrow.from_frame(frame, schema)
    outputs = predict(columns)
    names = importance.shortlist(_codes(columns), outputs, tried)
    actual, groups = owner.features().encode_target(frame[schema["target"]["name"]], schema), frame[GROUP].to_numpy()
    pairs = importance.pairs(groups, repeats, rng)
    scorer = Scorer(_score(settings, schema, name), actual.numpy(), outputs, pairs)
    rows = dependence.take(columns, pairs.rows)
    shuffled = dependence.take({one: columns[one] for one in names}, pairs.donors)
    found = {one: scorer.importance(predict(rows | {one: shuffled[one]})) for one in names}
    ranked = sorted((one for one in found if not math.isnan(found[one].value)), key=lambda one: -found[one].value)
    return {
        "model_sha256": artifacts.digest(artifacts.MODEL),
        "test_md5": artifacts.digest(artifacts.TEST, "md5"),
        "metric": name,
        "rows": len(frame),
        "of_rows": total,
        "repeats": repeats,
        "of_columns": len(features),
        "features": [
            {"name": one, "importance": found[one].value, "low": found[one].low, "high": found[one].high}
            for one in ranked
        ],
        "dependence": _dependence(predict, (columns, outputs), [features[one] for one in ranked[:CURVES]], schema),
    }


def sample(path: Path, count: int, rng: np.random.Generator) -> tuple[int, pd.DataFrame]:
    """Return how many rows a split has, and `count` of them, if it has as many: whole groups, but for the last one."""
    clusters = Clusters(artifacts.read_parquet(path, [GROUP])[GROUP].to_numpy())
    order = rng.permutation(len(clusters))[clusters.codes]
    chosen = np.sort(np.argsort(order, kind="stable")[:count])
    parts, start = [], 0
    for part in in_parts.read(path):
        here = chosen[(chosen >= start) & (chosen < start + len(part))] - start
        start += len(part)
        if len(here):
            parts.append(part.iloc[here])
    return start, pd.concat(parts, ignore_index=True)


def _predict(program: torch.nn.Module, schema: Schema, columns: Columns) -> Array:
    """Return the program's outputs, as a server computes them: the columns of a split are converted once."""
    inputs = owner.features().encode(columns, schema)
    with torch.inference_mode():
        chunks = zip(*(tensor.split(CHUNK) for tensor in inputs), strict=True)
        outputs: Array = torch.cat([program(*chunk) for chunk in chunks]).double().numpy()
    return outputs


def _score(settings: Params, schema: Schema, name: str) -> Score:
    """Return the metric `name` as a function of actual values and outputs, higher for better."""
    metric = owner.metrics().of(schema["task"], schema["target"]["classes"], settings.value)[name]
    sign = 1 if metric.better == "higher" else -1
    decide = owner.features().decide
    return lambda actual, outputs: sign * metric.score(actual, outputs, np.asarray(decide(outputs, schema)))


def _codes(columns: Columns) -> dict[str, Array]:
    """Return for each column the number of each row's value, or of the tenth that it lies in, missing ones apart."""
    found = {}
    for name, column in columns.items():
        if not isinstance(column, torch.Tensor):
            found[name] = pd.factorize(np.array(column, dtype=object), use_na_sentinel=False)[0]
            continue
        values = column.numpy()
        known = values[~np.isnan(values)]
        inner = np.quantile(known, np.linspace(0, 1, TENTHS + 1)[1:-1]) if len(known) else np.empty(0)
        found[name] = np.where(np.isnan(values), TENTHS, np.searchsorted(inner, values))
    return found


def _dependence(
    predict: Predict, sample: tuple[Columns, Array], features: list[Schema], schema: Schema
) -> dict[str, dict[str, Any]]:
    """Return x and y of each column's curve, and `of` which class the probability is, the target's name for values.

    `sample` has the columns and the model's outputs for them. Of more than two classes it is the one whose probability
    changes most. A column of one value has no curve.
    """
    columns, outputs = sample
    names = schema["target"]["classes"] or [schema["target"]["name"]]
    known, curves = statistics.read(), {}
    for feature in features:
        name, dtype = feature["name"], feature["dtype"]
        x: list[Any]
        if dtype == "category":
            x = sorted(feature["categories"], key=lambda text: -feature["categories"][text])[: dependence.CATEGORIES]
            y = dependence.of_categories(predict, columns, name, x)
        else:
            edges = dependence.edges(known.of([name]).quantiles[0], len(outputs))
            at, y = dependence.of_numbers(predict, columns, outputs, name, edges)
            x = [_json(value, dtype) for value in at]
        if len(x) > 1:
            chosen = int(np.ptp(y, axis=0).argmax()) if len(names) > 2 else -1
            curves[name] = {"x": x, "y": y[:, chosen].tolist(), "of": names[chosen]}
    return curves


def _json(value: float, dtype: str) -> Any:
    """Return a number of the encoder as JSON has it: to six digits, a date as its day."""
    if dtype == "datetime":
        return pd.Timestamp(value, unit="s", tz="UTC").date().isoformat()
    return bool(value > 0.5) if dtype == "boolean" else float(f"{value:.6g}")
