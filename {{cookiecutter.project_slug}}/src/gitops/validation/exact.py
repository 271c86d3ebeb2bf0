"""What must be known of all rows where Deepchecks gets a sample: a value for some of its checks.

A sample has far fewer pairs of equal rows than the table, lacks rare categories and ids, and the last time. So these
checks take their value from one pass over the splits here, which keeps two 64-bit hashes a row, and their conditions
judge it as they would Deepchecks' own.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deepchecks.core import CheckResult
from deepchecks.tabular import Suite
from numpy.typing import NDArray

from gitops.validation.sample import mix, parts

Array = NDArray[Any]

#: What stands for a missing value among the hashes of a column.
MISSING = np.uint64(0x5DEECE66D)


class Rows:
    """What a table holds, in all of its rows: hashes of features, and of features and target, [rows] (uint64); hashes
    of ids, and times in microseconds since 1970; how often each category and class is there, by column.
    """

    def __init__(self, paths: list[Path], schema: dict[str, Any], own: dict[str, str]) -> None:
        """Read the files once, part by part; arguments as in deepchecks.read_table. Raises what sample.parts does."""
        target, names = schema["target"]["name"], [feature["name"] for feature in schema["features"]]
        others = [name for name in (schema["id"], schema["timestamp"]) if name is not None]
        texts = [one["name"] for one in schema["features"] if one["dtype"] in ("category", "boolean")]
        texts += [target] if schema["task"] != "regression" else []
        wanted = list(dict.fromkeys([*names, target, *others]))
        self.counts: dict[str, Counter[Any]] = {name: Counter() for name in texts}
        found: dict[str, list[Array]] = {"features": [], "whole": [], "ids": [], "times": []}
        for path in paths:
            for part in parts(path, [own.get(name, name) for name in wanted]):
                table = part.rename_columns(wanted)
                features = functools.reduce(_combine, (hashes(table[name]) for name in names))
                found["features"].append(features)
                found["whole"].append(_combine(features, hashes(table[target])))
                for name in texts:
                    self.counts[name].update(_counted(table[name]))
                if schema["id"] is not None:
                    found["ids"].append(hashes(table[schema["id"]].drop_null()))
                if schema["timestamp"] is not None:
                    found["times"].append(_times(table[schema["timestamp"]].drop_null()))
        empty = {"ids": np.empty(0, np.uint64), "times": np.empty(0, np.int64)}
        self.features, self.whole = np.concatenate(found["features"]), np.concatenate(found["whole"])
        self.ids, self.times = (np.concatenate([none, *found[key]]) for key, none in empty.items())


def hashes(column: pa.ChunkedArray) -> Array:
    """Return a hash of each value, [rows] (uint64): equal for equal values, and for all missing ones."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return np.full(len(column), MISSING)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        codes = column.combine_chunks().dictionary_encode()
        known = pd.util.hash_array(np.array([*codes.dictionary.to_pylist(), None], dtype=object), categorize=False)
        known[-1] = MISSING
        return np.asarray(known[codes.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)])
    missing = column.is_null().to_numpy()
    if pa.types.is_temporal(column.type):
        values = np.zeros(len(column), np.int64)
        values[~missing] = _times(column.drop_null())
    else:
        numbers = column.cast(pa.float64(), safe=False).to_numpy()
        missing = missing | np.isnan(numbers)
        values = (numbers + 0.0).view(np.int64)  # -0 is 0
    return np.where(missing, MISSING, mix(values.view(np.uint64)))


def _combine(one: Array, other: Array) -> Array:
    return mix(one * np.uint64(0x100000001B3) ^ other)


def _times(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy())


def _counted(column: pa.ChunkedArray) -> dict[Any, int]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return {one["values"]: one["counts"] for one in pc.value_counts(column.drop_null()).to_pylist()}


def duplicates(train: Rows, test: Rows, schema: dict[str, Any]) -> Any:
    """Return the fraction of rows that repeat another one, in features and target."""
    return 1 - len(np.unique(train.whole)) / len(train.whole)


def conflicting_labels(train: Rows, test: Rows, schema: dict[str, Any]) -> Any:
    """Return the fraction of rows that share their features with a row of another class."""
    _, first = np.unique(train.whole, return_index=True)
    values, labels = np.unique(train.features[first], return_counts=True)
    rows = np.isin(train.features, values[labels > 1])
    return {"percent_of_conflicting_samples": float(rows.mean()), "samples_indices": []}


def samples_mix(train: Rows, test: Rows, schema: dict[str, Any]) -> Any:
    """Return the fraction of test rows that are training rows too, in features and target."""
    return {"ratio": float(np.isin(test.whole, train.whole).mean()), "data": None}


def index_leakage(train: Rows, test: Rows, schema: dict[str, Any]) -> Any:
    """Return the number of test ids that are training ids too, as a fraction of the test rows."""
    return len(np.intersect1d(test.ids, train.ids)) / len(test.whole)


def date_leakage(train: Rows, test: Rows, schema: dict[str, Any]) -> Any:
    """Return the fraction of test rows that are earlier than the last training row."""
    return float((test.times < train.times.max()).sum() / len(test.whole))


def new_labels(train: Rows, test: Rows, schema: dict[str, Any]) -> Any:
    """Return the classes that only the test rows have, and how many rows these are."""
    name = schema["target"]["name"]
    new = {value: count for value, count in test.counts[name].items() if value not in train.counts[name]}
    return {
        "n_samples": len(test.whole),
        "n_new_labels_samples": sum(new.values()),
        "new_labels": sorted(new),
        "n_samples_per_new_label": new,
    }


def new_categories(train: Rows, test: Rows, schema: dict[str, Any]) -> Any:
    """Return a frame with the fraction of test rows that have a category which train lacks, by feature."""
    lines = {}
    for name in train.counts.keys() - {schema["target"]["name"]}:
        new = {value: count for value, count in test.counts[name].items() if value not in train.counts[name]}
        lines[name] = (len(new), sum(new.values()) / len(test.whole))
    columns = ["# New Categories", "Ratio of New Categories"]
    frame = pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("Feature Name")
    return frame.sort_index().sort_values(columns[1], ascending=False, kind="stable")


#: What has a value here, by the name of Deepchecks' class.
MEASURES: dict[str, Callable[[Rows, Rows, dict[str, Any]], Any]] = {
    "DataDuplicates": duplicates,
    "ConflictingLabels": conflicting_labels,
    "TrainTestSamplesMix": samples_mix,
    "IndexTrainTestLeakage": index_leakage,
    "DateTrainTestLeakageOverlap": date_leakage,
    "NewLabelTrainTest": new_labels,
    "NewCategoryTrainTest": new_categories,
}


def put_in(suite: Suite, train: list[Path], test: list[Path], schema: dict[str, Any], own: dict[str, str]) -> None:
    """Have the checks of a suite that a sample would mislead take their value from all rows of the files.

    A check that the project limits to some columns is left as it is. Each that is changed gets the attribute `exact`.
    """
    everything = {feature["name"] for feature in schema["features"]} | {schema["target"]["name"]}
    chosen = [
        check
        for check in suite.checks.values()
        if type(check).__name__ in MEASURES
        and getattr(check, "ignore_columns", None) is None
        and (getattr(check, "columns", None) is None or {*check.columns} == everything)
    ]
    if not chosen:
        return
    tables = Rows(train, schema, own), Rows(test, schema, own)
    for check in chosen:
        value = MEASURES[type(check).__name__](*tables, schema)
        check.run_logic = functools.partial(_result, value)
        check.exact = True


def _result(value: Any, *_: Any, **__: Any) -> CheckResult:
    shown = [value.head(10)] if isinstance(value, pd.DataFrame) else None
    return CheckResult(value, display=["Measured on all rows, not on the sample.", *(shown or [])])
