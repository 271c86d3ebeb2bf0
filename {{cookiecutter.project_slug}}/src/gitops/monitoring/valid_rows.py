"""Which lines of the log are rows that fit a release's schema, decided by DuckDB as `request_rows.check_row` decides.

A row has `f0`, `f1`, ... for the features that requests give (numbers, booleans and dates as doubles, categories as
texts), `o0`, ... for the outputs as in predictions.parquet, and `reason`: null, or the number of a text in `reasons`
that says why it does not fit. Lines without typed columns pass through `check_row` itself (tables.valid) and join them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from gitops.monitoring import tables
from gitops.monitoring.answered_lines import INPUT, PROBABILITY
from gitops.monitoring.log_table import Group, Lines
from gitops.monitoring.request_log import REDACTED, Entry
from gitops.monitoring.sql import microseconds, quoted, text
from gitops.monitoring.typed_lines import TIME

Schema = dict[str, Any]

#: What Python's str.strip removes.
SPACE = "".join(character for character in map(chr, range(sys.maxunicode + 1)) if character.isspace())

UNFIT_PREDICTION = "the prediction does not fit the schema"

#: The columns of a row before its features.
KEYS = ("source", "start", "new", "time", "request_id", "instance", "identity", "reason")


def unfit(column: str | None) -> str:
    """Return why a row with a misfit in a column is left out."""
    return f"column {column!r} does not fit the schema"


class Rows:
    """The rows of a release's answered requests, as a query for DuckDB."""

    def __init__(self, lines: Lines, schema: Schema, redacted: set[str], where: str) -> None:
        """`redacted`: features that are missing; `where`: a condition that selects lines of the release."""
        from gitops.tabular.columns import given

        self.lines, self.schema, self.redacted, self.where = lines, schema, redacted, where
        self.features = given(schema)
        self.classes: list[str] = schema["target"]["classes"]
        self.reasons: list[str] = []
        lines.connection.create_function(  # type: ignore[call-overload]
            "moment", _moments, ["VARCHAR"], "DOUBLE", type="arrow", null_handling="special"
        )
        kinds = ["VARCHAR" if feature["dtype"] == "category" else "DOUBLE" for feature in self.features]
        outputs = ["VARCHAR" if self.classes else "DOUBLE", *("DOUBLE" for _ in self.classes)]
        self.types = {f"f{place}": kind for place, kind in enumerate(kinds)}
        self.types |= {f"o{place}": kind for place, kind in enumerate(outputs)}
        columns = ", ".join(f"{name} {kind}" for name, kind in self.types.items())
        lines.connection.execute(
            "CREATE OR REPLACE TABLE others_rows (source VARCHAR, start BIGINT, new BOOLEAN, time BIGINT, request_id "
            f"VARCHAR, instance BIGINT, identity VARCHAR, reason INTEGER, {columns})"
        )

    def query(self) -> str:
        """Return the query for all rows, those that do not fit among them."""
        return " UNION ALL ".join([*map(self._typed, self.lines.groups), "FROM others_rows"])

    def add(self, rows: Iterable[Entry]) -> None:
        """Add rows that `tables.valid` has returned, each with its `source`, `start` and `new`."""
        import pyarrow as pa

        rows = list(rows)
        if not rows:
            return
        values: dict[str, list[Any]] = {name: [] for name in (*KEYS, *self.types)}
        for row in rows:
            for key in ("source", "start", "new", "request_id", "instance"):
                values[key].append(row[key])
            values["time"].append(microseconds(row["time"]))
            values["identity"].append(row["id"])
            values["reason"].append(None)
            for place, feature in enumerate(self.features):
                values[f"f{place}"].append(_value(row["inputs"][feature["name"]], feature["dtype"]))
            for place, value in enumerate(row["outputs"]):
                values[f"o{place}"].append(value)
        kinds = {"source": pa.string(), "request_id": pa.string(), "identity": pa.string(), "new": pa.bool_()}
        kinds |= {name: pa.string() if kind == "VARCHAR" else pa.float64() for name, kind in self.types.items()}
        given = pa.table({name: pa.array(each, kinds.get(name, pa.int64())) for name, each in values.items()})
        self.lines.connection.register("given_rows", given)
        self.lines.connection.execute("INSERT INTO others_rows FROM given_rows")
        self.lines.connection.unregister("given_rows")

    def _typed(self, group: Group) -> str:
        values, misfits = [], [f"WHEN {condition} THEN {self._reason(why)}" for condition, why in self._unknown(group)]
        for place, feature in enumerate(self.features):
            value, misfit = self._feature(group, feature)
            values.append(f"{value} AS f{place}")
            if misfit:
                misfits.append(f"WHEN new AND ({misfit}) THEN {self._reason(unfit(feature['name']))}")
        outputs, fits = self._outputs(group)
        values += [f"{value} AS o{place}" for place, value in enumerate(outputs)]
        misfits.append(f"WHEN NOT coalesce({fits}, false) THEN {self._reason(UNFIT_PREDICTION)}")
        return (
            f"SELECT source, start, new, epoch_us(time) AS time, request_id, instance, {self._identity(group)} AS "
            f"identity, CASE {' '.join(misfits)} END AS reason, {', '.join(values)} FROM ({group.query}) "
            f"WHERE line IS NULL AND errors IS NULL AND {self.where}"
        )

    def _reason(self, why: str) -> int:
        if why not in self.reasons:
            self.reasons.append(why)
        return self.reasons.index(why)

    def _unknown(self, group: Group) -> list[tuple[str, str]]:
        """Return, for each form of lines that has a column which is not in the schema, a condition and the reason."""
        from gitops.tabular.request_rows import SHOWN, optional

        known = {feature["name"] for feature in self.features} | {*optional(self.schema)}
        if known.issuperset(group.inputs):
            return []
        found = self.lines.connection.execute(
            f"SELECT DISTINCT shape FROM ({group.query}) WHERE line IS NULL AND errors IS NULL AND {self.where}"
        ).fetchall()
        first = {shape: next((name for name in json.loads(shape) if name not in known), None) for (shape,) in found}
        return [(f"shape = {text(shape)}", unfit(name[:SHOWN])) for shape, name in first.items() if name is not None]

    def _feature(self, group: Group, feature: dict[str, Any]) -> tuple[str, str]:
        """Return a feature's value, and when it does not fit (empty: never)."""
        from gitops.tabular.request_rows import MAX_TEXT

        name, dtype = feature["name"], feature["dtype"]
        kind = "VARCHAR" if dtype == "category" else "DOUBLE"
        column, stored = quoted(INPUT + name), group.types.get(name)
        nothing = f"CAST(NULL AS {kind})"
        if stored is None or name in self.redacted:
            return nothing, ""
        if stored in ("double", "bool"):
            fits = stored == {"number": "double", "boolean": "bool"}.get(dtype)
            return (f"CAST({column} AS DOUBLE)", "") if fits else (nothing, f"{column} IS NOT NULL")
        stripped = f"trim({column}, {text(SPACE)})"
        markers = ", ".join(map(text, self.schema["missing_markers"]))
        given = f"CASE WHEN {stripped} IN ({markers}) THEN NULL ELSE {stripped} END" if markers else stripped
        if dtype == "category":
            return given, f"length({column}) > {MAX_TEXT} AND length({given}) > {MAX_TEXT}"
        if dtype == "datetime":
            moment = (
                f"coalesce(CASE WHEN regexp_full_match({given}, {text(TIME)}) THEN "
                f"epoch_us(try_cast({given} AS TIMESTAMPTZ)) / 1e6 END, moment({given}))"
            )
            return moment, f"({given}) IS NOT NULL AND ({moment}) IS NULL"
        return nothing, f"({given}) IS NOT NULL"

    def _outputs(self, group: Group) -> tuple[list[str], str]:
        """Return the outputs, and the condition that they fit."""
        nothing = ["CAST(NULL AS VARCHAR)" if self.classes else "CAST(NULL AS DOUBLE)"]
        nothing += ["CAST(NULL AS DOUBLE)" for _ in self.classes]
        names = ["label", *(PROBABILITY + name for name in self.classes)] if self.classes else ["value"]
        if not {*group.columns}.issuperset(names):
            return nothing, "false"
        fits = [f"{quoted(name)} IS NOT NULL" for name in names]
        if self.classes:
            fits.append(f"label IN ({', '.join(map(text, self.classes))})")
        return [quoted(name) for name in names], " AND ".join(fits)

    def _identity(self, group: Group) -> str:
        """Return the value of data.id that the request gave, as a text."""
        name = self.schema.get("id")
        column, stored = quoted(INPUT + str(name)), group.types.get(str(name))
        if name is None or stored is None:
            return "CAST(NULL AS VARCHAR)"
        if stored == "double":  # an integer, or a number that is no id
            return f"CASE WHEN {column} = floor({column}) THEN {column}::BIGINT::VARCHAR ELSE {column}::VARCHAR END"
        return f"nullif({column}::VARCHAR, {text(REDACTED)})"


def _value(value: Any, dtype: str) -> Any:
    from gitops.tabular.columns import number

    return value if value is None or dtype == "category" else number(value)


def _moments(texts: Any) -> Any:  # DuckDB looks at the annotations
    """Return the seconds since 1970 of texts in any form that Python reads, null for others."""
    import pyarrow as pa

    from gitops.tabular.columns import seconds
    from gitops.tabular.request_rows import fits

    return pa.array(
        [seconds(each) if each is not None and fits(each, "datetime") else None for each in texts.to_pylist()],
        pa.float64(),
    )


def redacted(lines: Lines, redact: list[str], schema: Schema, where: str) -> set[str]:
    """Return the given features that hold the text for redacted values in lines with typed columns."""
    found: set[str] = set()
    for group in lines.groups:
        names = [name for name in tables.may_be_redacted(redact, schema) if group.types.get(name) == "string"]
        if names:
            tests = ", ".join(f"bool_or({quoted(INPUT + name)} = {text(REDACTED)})" for name in names)
            query = f"SELECT {tests} FROM ({group.query}) WHERE line IS NULL AND errors IS NULL AND new AND {where}"
            (row,) = lines.connection.execute(query).fetchall()
            found |= {name for name, hidden in zip(names, row, strict=True) if hidden}
    return found
