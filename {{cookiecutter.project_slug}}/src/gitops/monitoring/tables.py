"""Test rows and requests as tables of one form, features and outputs apart, because a feature may have any name.

Features: numbers, dates as seconds since 1970, categories, and booleans as the texts "true" and "false". Outputs: as in
predictions.parquet. The code here is main's, the schema that of the release, which may be older.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from gitops import owner
from gitops.core.artifacts import ProjectError
from gitops.monitoring.request_log import REDACTED, Entry

if TYPE_CHECKING:
    import pandas as pd

    from gitops.tabular.columns import Column, Columns

Schema = dict[str, Any]


def redacted_features(rows: list[Entry], redact: list[str], schema: Schema) -> set[str]:
    """Return the features of requests whose values are redacted in the log.

    A category may by chance have that text as a value: it counts only where `redact`, the release's setting, names it.
    """
    return {
        name for name in may_be_redacted(redact, schema) if any(entry["inputs"].get(name) == REDACTED for entry in rows)
    }


def may_be_redacted(redact: list[str], schema: Schema) -> list[str]:
    """Return the features of requests in whose columns the text for redacted values means that."""
    from gitops.tabular.columns import given

    return [feature["name"] for feature in given(schema) if feature["name"] in redact or feature["dtype"] != "category"]


def with_derived(redacted: set[str], schema: Schema) -> set[str]:
    """Return redacted features and those derived from them."""
    return redacted | {feature["name"] for feature in schema["features"] if redacted & {*feature.get("derived", [])}}


def valid(rows: list[Entry], schema: Schema, redacted: set[str], unreadable: Counter[str]) -> list[Entry]:
    """Return the rows that fit the schema, values as `check_row` returns them and `outputs` as in predictions.parquet.

    `id` is the value of data.id that the request gave, as a text; None where it gave none, or it is redacted. A column
    that a line lacks counts as missing there. Lines that do not fit are counted in `unreadable`, by column.
    """
    from gitops.tabular.columns import given
    from gitops.tabular.request_rows import RowError, check_row, optional

    names = [feature["name"] for feature in given(schema)]
    hidden = dict.fromkeys([*(name for name in names if name in redacted), *optional(schema)])
    fitting = []
    for entry in rows:
        try:
            values = check_row(0, dict.fromkeys(names) | entry["inputs"] | hidden, schema)
            _check_texts(values)
            outputs = _outputs(entry["prediction"], schema["target"]["classes"])
        except RowError as error:
            unreadable[f"column {error.column!r} does not fit the schema"] += 1
        except (KeyError, TypeError, ValueError, OverflowError):
            unreadable["the prediction does not fit the schema"] += 1
        else:
            whom = entry["inputs"].get(schema.get("id"))
            identity = None if whom in (None, REDACTED) else str(whom)
            fitting.append(entry | {"inputs": values, "outputs": outputs, "id": identity})
    return fitting


def _check_texts(values: dict[str, Any]) -> None:
    """Raise RowError for a text that is no Unicode: half of a surrogate pair, which no file can hold."""
    from gitops.tabular.request_rows import RowError

    for name, value in values.items():
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise RowError(0, name, "not Unicode") from None


def _outputs(prediction: Any, classes: list[str]) -> list[Any]:
    """Return prediction and probabilities of a logged prediction. Raises KeyError, TypeError or ValueError."""
    if not classes:
        return [float(prediction)]
    if prediction["label"] not in classes:
        raise ValueError("not a class")
    return [prediction["label"], *(float(prediction["probabilities"][name]) for name in classes)]


def current_features(rows: list[Entry], schema: Schema, redacted: set[str]) -> pd.DataFrame:
    """Return the features of `valid` rows; the derived ones, which are not in the log, are computed here.

    Redacted features are missing. Raises ProjectError where a derived feature cannot be computed.
    """
    from gitops.tabular.columns import from_rows

    columns = from_rows([entry["inputs"] for entry in rows], schema)
    return frame(columns, len(rows), schema, redacted)


def frame(columns: Columns, rows: int, schema: Schema, redacted: set[str]) -> pd.DataFrame:
    """Return the features of so many rows, given the columns that requests have; the derived ones are computed here."""
    from gitops.tabular.columns import column

    for feature in _derived(schema):
        if feature["name"] in redacted or not rows:
            columns[feature["name"]] = column([None] * rows, feature["dtype"])
        else:
            columns[feature["name"]] = _compute(feature, columns, rows)
    return _frame(columns, schema)


def reference_features(test: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return the features of a release's test split, which holds derived features as columns.

    Raises KeyError or ProjectError where the split does not fit the schema, and ProjectError where this workspace does
    not compute a derived feature as the release did: current data would differ from the reference without any drift.
    """
    import torch

    from gitops.tabular import arrow

    stored = {"features": [{"name": feature["name"], "dtype": feature["dtype"]} for feature in schema["features"]]}
    columns = arrow.from_frame(test, stored)
    for feature in _derived(schema):
        column, computed = columns[feature["name"]], _compute(feature, columns, len(test))
        if isinstance(column, torch.Tensor) and isinstance(computed, torch.Tensor):
            same = torch.allclose(column, computed, equal_nan=True)
        else:
            same = column == computed
        if not same:
            raise _unlike(feature, "gives other values")
    return _frame(columns, schema)


def _derived(schema: Schema) -> list[dict[str, Any]]:
    return [feature for feature in schema["features"] if feature.get("derived")]


def _compute(feature: dict[str, Any], columns: Columns, rows: int) -> Column:
    """Return a derived feature of the release, computed by the project's features.py. Raises ProjectError."""
    from gitops.tabular.columns import derive, raised

    name, known = feature["name"], owner.features().DERIVED
    if name not in known:
        raise _unlike(feature, "lacks it")
    if [*known[name].inputs] != feature["derived"]:
        raise _unlike(feature, f"computes it from {', '.join(known[name].inputs)}")
    try:
        column = derive(columns, known, [name])[name]
    except Exception as error:  # the function is the project's own
        raise ProjectError(f"DERIVED[{name!r}] failed: {raised(error)}") from error
    if len(column) != rows or isinstance(column, list) != (feature["dtype"] == "category"):
        raise _unlike(feature, f"does not return one {feature['dtype']} a row")
    return column


def _unlike(feature: dict[str, Any], problem: str) -> ProjectError:
    inputs = ", ".join(feature["derived"])
    return ProjectError(
        f"the release has the derived feature {feature['name']!r}, computed from {inputs}; DERIVED in features.py "
        f"{problem}: keep it as it was until a release without it, or with the new one, is in production"
    )


def _frame(columns: Columns, schema: Schema) -> pd.DataFrame:
    import pandas as pd

    frame = {}
    for feature in schema["features"]:
        values = columns[feature["name"]]
        if isinstance(values, list):
            frame[feature["name"]] = pd.Series(values, dtype=object)
        elif feature["dtype"] == "boolean":
            frame[feature["name"]] = pd.Series(values.numpy()).map({1.0: "true", 0.0: "false"}).astype(object)
        else:
            frame[feature["name"]] = pd.Series(values.numpy())
    return pd.DataFrame(frame)


def output_names(schema: Schema) -> list[str]:
    """Return the columns of the outputs: the prediction and, for classes, `p_<class>` each."""
    return ["prediction", *(f"p_{name}" for name in schema["target"]["classes"])]
