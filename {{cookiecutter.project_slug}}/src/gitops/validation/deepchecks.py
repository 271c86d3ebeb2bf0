"""Run Deepchecks on the project's tables; results.py says what it has found.

Deepchecks runs in an environment of its own, because it needs old versions of packages that everything else needs new.
The project's checks.py, conditions.py and the monitor's drift.py choose the checks; nothing else imports Deepchecks.
"""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path
from typing import Any

import deepchecks
import joblib
import pandas as pd
import pyarrow as pa
from deepchecks.core import SuiteResult
from deepchecks.core.errors import DeepchecksBaseError
from deepchecks.tabular import Dataset, Suite
from threadpoolctl import ThreadpoolController

from gitops.core.artifacts import ROW, SCHEMA, ProjectError, read_json, read_parquet
from gitops.core.sections import Validation
from gitops.validation import results, sample
from gitops.validation.conditions import Candidate
from gitops.validation.sample import Sample

#: Columns that checks of Deepchecks 0.19 add to copies of a table, where another column of that name would crash them.
OWN_COLUMNS = frozenset({"count", "_dc_index", "_value_to_sort_by_", "belongs_to_test"})


def read_schema() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the schema with other names for columns that are called like one of Deepchecks' own.

    The second result has the column's own name for each of these: `count_` for `count`.
    """
    schema = read_json(SCHEMA, "make pipeline")
    taken = {feature["name"] for feature in schema["features"]}
    taken |= {schema["target"]["name"], schema["id"], schema["timestamp"]}
    own: dict[str, str] = {}

    def other(name: str) -> str:
        if name not in OWN_COLUMNS:
            return name
        alias = f"{name}_"
        while alias in taken:
            alias += "_"
        own[alias] = name
        return alias

    schema["features"] = [feature | {"name": other(feature["name"])} for feature in schema["features"]]
    schema["target"] = schema["target"] | {"name": other(schema["target"]["name"])}
    for key in ("id", "timestamp"):
        schema[key] = other(schema[key]) if schema[key] is not None else None
    return schema, own


def read_table(paths: list[Path], schema: dict[str, Any], own: dict[str, str]) -> tuple[pd.DataFrame, Sample]:
    """Return the rows of the splits `paths`, indexed by row number, with columns and types that Deepchecks supports.

    Of a table that is too large for it these are a sample, which the second result describes. `schema` and `own` are
    those of `read_schema`. Booleans become the categories "true" and "false". Dates stay dates: Deepchecks uses them to
    find equal rows, and leaves them out of drift, which a chronological split always shows. Raises ProjectError where a
    file is missing or lacks a column of the schema.
    """
    names = [feature["name"] for feature in schema["features"]] + [schema["target"]["name"]]
    names += [name for name in (schema["id"], schema["timestamp"]) if name is not None]
    try:
        columns = [ROW, *(own.get(name, name) for name in names)]
        chosen = sample.choose(paths, len(columns))
        table = pd.concat([_read(path, columns, chosen, ROW) for path in paths]).set_index(ROW)
    except (OSError, ValueError) as error:  # no such file; no such column
        files = " and ".join(str(path) for path in paths)
        reason = str(error).partition("\n")[0]  # pyarrow goes on to list every column
        raise ProjectError(f"{files} cannot be read by the schema ({reason}): run `make pipeline`") from error
    table = table.rename(columns={name: alias for alias, name in own.items()})
    for feature in schema["features"]:
        if feature["dtype"] == "boolean":
            column = table[feature["name"]].map({True: "true", False: "false"}).astype(object)
            table[feature["name"]] = column.where(column.notna(), None)
    if schema["id"] is not None:  # a row without an id is a group of its own, as in split.py
        table[schema["id"]] = table[schema["id"]].where(table[schema["id"]].notna(), "row " + table.index.astype(str))
    return table, chosen


def _read(path: Path, columns: list[str], chosen: Sample, number: str) -> pd.DataFrame:
    """Return the rows of a file that are in the sample; the column `number` has the rows' numbers."""
    if chosen.largest is None:
        return read_parquet(path, columns=columns)
    found = [part.filter(pa.array(chosen.of(part[number].to_numpy()))) for part in sample.parts(path, columns)]
    table: pd.DataFrame = pa.concat_tables(found).to_pandas()
    return table


def read_predictions(
    path: Path, schema: dict[str, Any], train: tuple[pd.DataFrame, Sample], test: tuple[pd.DataFrame, Sample]
) -> dict[str, Any]:
    """Return the predictions for the rows of the tables `train` and `test` as Deepchecks' arguments.

    The tables are as `read_table` returns them, with their samples. Classes are sorted, as Deepchecks demands; in the
    schema a binary task's positive class is last. Raises ProjectError where the file is missing or lacks a row or a
    column.
    """
    classes = sorted(schema["target"]["classes"])
    arguments: dict[str, Any] = {"model_classes": classes} if classes else {}
    try:
        columns = ["row", "prediction", *(f"p_{name}" for name in classes)]
        for split, (rows, chosen) in (("train", train), ("test", test)):
            table = _read(path, columns, chosen, "row").set_index("row").loc[rows.index]
            arguments[f"y_pred_{split}"] = table["prediction"].to_numpy()
            if classes:
                arguments[f"y_proba_{split}"] = table[columns[2:]].to_numpy(float)
    except (OSError, KeyError, ValueError) as error:
        reason = results.one_line(str(error))
        raise ProjectError(f"{path} does not fit the splits ({reason}): run `make pipeline`") from error
    return arguments


def choose(section: str, settings: Validation, candidates: list[Candidate], samples: dict[str, Sample]) -> Suite:
    """Return the checks that apply and are not skipped, as a suite named after the section of params.yaml.

    The page's title has the suite's name, and so which of the tables in `samples` are samples. Each check gets the
    attribute `setting`, the name of the setting that holds its limit or leaves it out. Raises ProjectError where `skip`
    or `optional_checks` of that section names no check.
    """
    known = sorted(check.name() for _, check, _ in candidates)
    for key in ("skip", "optional_checks"):
        for name in getattr(settings, key):
            if name not in known:
                raise ProjectError(
                    f"params.yaml: {section}.{key} names {name!r}, which is not a check; there are {', '.join(known)}"
                )
    chosen = []
    for applies, check, limit in candidates:
        if applies and check.name() not in settings.skip:
            check.setting = f"{section}.{limit or 'skip'}"
            chosen.append(check)
    return Suite(f"{section} {results.sampled(samples)}".strip(), *chosen)


def run(suite: Suite, schema: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame, **arguments: Any) -> SuiteResult:
    """Run the suite on the two tables; `arguments` go to Deepchecks' `Suite.run`, such as the predictions.

    Raises ProjectError where Deepchecks rejects the tables or the predictions as a whole.
    """
    deepchecks.set_verbosity(logging.INFO if sys.stderr.isatty() else logging.ERROR)  # INFO: a progress bar
    try:
        # The fits are small: worker processes, and threads that wait for each other, make them 5 to 20 times slower.
        with joblib.parallel_config(backend="sequential"), _threads().limit(limits=1):
            return suite.run(_dataset(train, schema, "Train"), _dataset(test, schema, "Test"), **arguments)
    except DeepchecksBaseError as error:
        raise ProjectError(f"Deepchecks rejects the tables: {results.one_line(str(error))}") from error


@functools.cache  # finding the libraries takes a tenth as long as the monitor's checks
def _threads() -> Any:
    return ThreadpoolController()


def _dataset(table: pd.DataFrame, schema: dict[str, Any], name: str) -> Dataset:
    features = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    return Dataset(
        table,
        label=schema["target"]["name"] if schema["target"]["name"] in table else None,
        features=list(features),
        cat_features=[feature for feature, dtype in features.items() if dtype in ("category", "boolean")],
        index_name=schema["id"],
        datetime_name=schema["timestamp"],
        label_type=schema["task"] if schema["target"]["name"] in table else None,
        dataset_name=name,
    )
