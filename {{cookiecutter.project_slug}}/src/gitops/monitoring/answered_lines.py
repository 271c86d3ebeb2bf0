"""Answered lines of the request log: queries that give their inputs and predictions typed columns.

Lines with the same inputs, of a classifier with the same classes too, have one shape. Each of the SHAPES most frequent
ones gets a query. An input is of one sort in the whole table, that of most of its values; a line with a value of
another sort is in no query, and keeps its bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gitops.monitoring.sql import quoted, text

if TYPE_CHECKING:
    import duckdb

#: What the names of columns for inputs, and for the probabilities of classes, begin with.
INPUT, PROBABILITY = "in:", "p:"

#: Shapes that get typed columns in one table, at most; lines of rarer ones keep their bytes.
SHAPES = 32

#: Beyond this, some integers have no double of their own.
EXACT = 2**53

#: The SQL type of each sort of column, and the letters that its values have in the column `kinds`.
SORTS = {"number": ("DOUBLE", "id"), "text": ("VARCHAR", "s"), "boolean": ("BOOLEAN", "b")}

#: A function from what DuckDB calls a JSON value's type to its letter in `kinds`.
KIND = (
    "lambda x: CASE x WHEN 'UBIGINT' THEN 'i' WHEN 'BIGINT' THEN 'i' WHEN 'DOUBLE' THEN 'd' WHEN 'VARCHAR' THEN 's' "
    "WHEN 'BOOLEAN' THEN 'b' WHEN 'NULL' THEN '0' ELSE 'x' END"
)

#: The columns of every line that has typed ones.
COMMON = "number, source, start, time, request_id, client, model_version"


@dataclass(frozen=True)
class _Shape:
    """The names of the inputs and of the classes of some lines; `classes` is None where the prediction is a number."""

    names: tuple[str, ...]
    classes: tuple[str, ...] | None

    @property
    def condition(self) -> str:
        classes = "IS NULL" if self.classes is None else f"= {text(_listed(self.classes))}"
        return f"shape = {text(_listed(self.names))} AND classes {classes}"


def _listed(names: Sequence[str]) -> str:
    return json.dumps([*names], ensure_ascii=False, separators=(",", ":"))


def queries(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return a query for each shape of the answered lines in the table `parsed` (typed_lines.py)."""
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE answers AS
        SELECT *, CASE WHEN keys_inputs IS NOT NULL THEN to_json(keys_inputs)::VARCHAR END AS shape,
            to_json(keys_classes)::VARCHAR AS classes
        FROM (SELECT *, json_keys(inputs) AS keys_inputs,
            CASE WHEN predicted = 'OBJECT' THEN json_keys(prediction, '$.probabilities') END AS keys_classes,
            CASE WHEN predicted = 'OBJECT' THEN json_keys(prediction) END AS keys_prediction
            FROM parsed WHERE answered AND instance IS NOT NULL)
        WHERE predicted IN ('UBIGINT', 'BIGINT', 'DOUBLE')
            OR predicted = 'OBJECT' AND list_sort(keys_prediction) = ['label', 'probabilities']
                AND json_type(prediction, '$.label') = 'VARCHAR' AND json_type(prediction, '$.probabilities') = 'OBJECT'
    """)
    found = connection.execute(
        "SELECT shape, classes, count(*) FROM answers GROUP BY ALL ORDER BY count(*) DESC, shape, classes "
        f"LIMIT {SHAPES}"
    ).fetchall()
    shapes = [
        _Shape(tuple(json.loads(names)), None if classes is None else tuple(json.loads(classes)))
        for names, classes, _ in found
    ]
    shapes = [shape for shape in shapes if _plain(shape.names) and (shape.classes is None or _plain(shape.classes))]
    shapes = _compatible(shapes)
    sorts: dict[str, Counter[str]] = {}
    for place, shape in enumerate(shapes):
        _count(connection, shape, place, sorts)
    chosen = {name: max(SORTS, key=counts.__getitem__) for name, counts in sorts.items()}
    connection.execute("DROP TABLE answers")
    return [_typed(shape, place, chosen) for place, shape in enumerate(shapes)]


def _plain(names: Sequence[str]) -> bool:
    """Tell whether names can be columns of DuckDB, which does not tell upper from lower case, and parts of a path."""
    if len({name.lower() for name in names}) < len(names) or len({name.casefold() for name in names}) < len(names):
        return False
    return bool(names) and all(name.isprintable() and not {*name} & {*'"\\*'} and 0 < len(name) < 256 for name in names)


def _compatible(shapes: list[_Shape]) -> list[_Shape]:
    """Return the shapes, the most frequent first, without those that spell a name of an earlier one otherwise."""
    spelt: dict[str, str] = {}
    kept = []
    for shape in shapes:
        names = [INPUT + name for name in shape.names] + [PROBABILITY + name for name in shape.classes or ()]
        if all(spelt.get(name.casefold(), name) == name for name in names):
            spelt |= {name.casefold(): name for name in names}
            kept.append(shape)
    return kept


def _count(connection: duckdb.DuckDBPyConnection, shape: _Shape, place: int, sorts: dict[str, Counter[str]]) -> None:
    """Make the table of a shape's lines, with their kinds, and count in `sorts` of which sort each input is."""
    paths = ", ".join(text(f'$."{name}"') for name in shape.names)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE shape_{place} AS
        SELECT {COMMON}, instance, inputs, prediction, shape,
            array_to_string(list_transform(json_type(inputs, [{paths}]), {KIND}), '') AS kinds
        FROM answers WHERE {shape.condition}""")
    counts = [
        f"count_if(contains('{letters}', kinds[{index + 1}]))"
        for index in range(len(shape.names))
        for _, letters in SORTS.values()
    ]
    (row,) = connection.execute(f"SELECT {', '.join(counts)} FROM shape_{place}").fetchall()
    for index, name in enumerate(shape.names):
        sorts.setdefault(name, Counter()).update(
            dict(zip(SORTS, row[index * len(SORTS) : (index + 1) * len(SORTS)], strict=True))
        )


def _typed(shape: _Shape, place: int, sorts: dict[str, str]) -> str:
    """Return the query for the lines of a shape whose values are of the sorts of their columns."""
    pattern = "".join(f"[{SORTS[sorts[name]][1]}0]" for name in shape.names)
    structure = text(json.dumps({name: SORTS[sorts[name]][0] for name in shape.names}))
    inputs = [f"sent.{quoted(name)}" for name in shape.names]
    numbers = [value for name, value in zip(shape.names, inputs, strict=True) if sorts[name] == "number"]
    columns = [f"{value} AS {quoted(INPUT + name)}" for name, value in zip(shape.names, inputs, strict=True)]
    # A comparison with a number that is not one, or infinite, is false, or beyond EXACT.
    conditions = [f"({value} IS NULL OR abs({value}) <= {EXACT})" for value in numbers]
    if shape.classes is None:
        answer, answers = "TRY_CAST(prediction AS DOUBLE)", []
        columns.append("answer AS value")
        conditions.append("isfinite(answer)")
    else:
        answered = {"label": "VARCHAR", "probabilities": dict.fromkeys(shape.classes, "DOUBLE")}
        answer = f"json_transform(prediction, {text(json.dumps(answered))})"
        answers = [f"answer.probabilities.{quoted(name)}" for name in shape.classes]
        columns += ["answer.label AS label"]
        columns += [
            f"{value} AS {quoted(PROBABILITY + name)}" for name, value in zip(shape.classes, answers, strict=True)
        ]
        paths = ", ".join(text(f'$.probabilities."{name}"') for name in shape.classes)
        numeric = f"list_has_all(['UBIGINT', 'BIGINT', 'DOUBLE'], json_type(prediction, [{paths}]))"
        conditions += [numeric, *(f"isfinite({value})" for value in answers)]
    return f"""
        SELECT {COMMON}, instance, shape, kinds, {", ".join(columns)}
        FROM (SELECT *, json_transform(inputs, {structure}) AS sent, {answer} AS answer FROM shape_{place}
            WHERE regexp_full_match(kinds, {text(pattern)}))
        WHERE {" AND ".join(conditions)}"""
