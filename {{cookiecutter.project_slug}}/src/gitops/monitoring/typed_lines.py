"""Lines of the request log as a table with typed columns: what compaction stores, and what the checks read.

A line of the form that the server writes gets a value in each typed column. Any other line, be it damaged or merely of
another form, keeps its bytes in the column `line`; whoever reads the table judges it as it would judge the log's line.
So nothing is decided here, and a table holds exactly what the lines held. Well-formed lines are taken apart by
DuckDB's JSON functions, none of them by a loop in Python. answered_lines.py gives the columns of inputs and
predictions.

| column | |
|---|---|
| source, start | the file, relative to the log's folder, and the byte in it at which the line starts |
| time, request_id, client, model_version | as in the line; time in UTC |
| instance | of an answered request, else null |
| shape | the names of the inputs, as JSON, in the order of the line |
| kinds | of each of them what it is in JSON: i integer, d other number, s text, b boolean, 0 null |
| in:NAME | the input: double, text or boolean |
| label, p:CLASS, value | the prediction: of a classifier, or a number |
| errors, refused_for, status | of a refused request; refused_for has "=" and the column, or "" |
| line | the bytes of any other line |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gitops.monitoring import answered_lines
from gitops.monitoring.answered_lines import COMMON, INPUT, PROBABILITY
from gitops.monitoring.request_ids import CLIENT
from gitops.monitoring.sql import quoted, text

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

#: The key in a parquet file's metadata for what its lines come from: {JSON file: the byte up to which it has them}.
SOURCES = "gitops_sources"

#: A line with more bytes than this keeps them: it is not parsed.
LONG = 2**20

#: A time that Python and DuckDB read alike.
TIME = r"[12]\d{3}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{3}(\d{3})?)?)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?"

#: What DuckDB accepts in JSON, and the standard does not: a comma before a closing bracket. In a text it is harmless.
COMMA = r",[ \t\r\n]*[}\]]"

#: What `make erase` leaves of a line, for the sake of the bytes at which the others start: it counts as no line.
ERASED = re.compile(rb" +[\r\n]*")

#: The keys that a line may have, and those of a line for an answered and for a refused request.
TOP = ("time", "request_id", "model_version", "client", "instance", "inputs", "prediction", "errors", "status")
ANSWERED = {"time", "request_id", "model_version", "client", "instance", "inputs", "prediction"}
REFUSED = {"time", "request_id", "model_version", "client", "errors", "status"}

#: A query without rows for the columns that every table has.
_NONE = """
    SELECT NULL::BIGINT AS number, NULL::VARCHAR AS source, NULL::BIGINT AS start, NULL::TIMESTAMPTZ AS time,
        NULL::VARCHAR AS request_id, NULL::VARCHAR AS client, NULL::VARCHAR AS model_version, NULL::BIGINT AS instance,
        NULL::VARCHAR AS shape, NULL::VARCHAR AS kinds, NULL::VARCHAR AS label, NULL::DOUBLE AS value,
        NULL::VARCHAR AS errors, NULL::VARCHAR AS status, NULL::VARCHAR[] AS refused_for
    WHERE false"""

#: A query for the lines of refused requests whose errors are of the server's form.
_REFUSED = f"""
    SELECT {COMMON}, errors::VARCHAR AS errors, status::VARCHAR AS status, list_distinct(list_transform(
        problems, lambda x: CASE WHEN json_type(x, '$.column') = 'VARCHAR'
        THEN '=' || json_extract_string(x, '$.column') ELSE '' END)) AS refused_for
    FROM (SELECT *, json_extract(errors, '$[*]') AS problems FROM parsed WHERE refused)
    WHERE coalesce(list_bool_and(list_transform(problems,
        lambda x: list_sort(json_keys(x)) = ['column', 'error', 'instance'])), true)"""


@dataclass(frozen=True)
class Piece:
    """Whole lines of a file, from the byte `start` on."""

    source: str
    start: int
    content: bytes


def write(connection: duckdb.DuckDBPyConnection, pieces: Iterable[Piece], path: Path, sources: dict[str, int]) -> int:
    """Write the lines as a parquet file, which names `sources` in its metadata, and return their number."""
    lines = _lines(pieces)
    connection.register("lines", lines)
    try:
        _parse(connection)
        parts = [_NONE, *answered_lines.queries(connection), _REFUSED]
        connection.execute(f"CREATE OR REPLACE TEMP TABLE typed AS {' UNION ALL BY NAME '.join(parts)}")
        columns = ", ".join(quoted(name) for name in _columns(connection))
        metadata = text(json.dumps(sources))
        connection.execute(
            f"COPY (SELECT {columns} FROM typed UNION ALL BY NAME SELECT source, start, raw AS line FROM lines "
            f"ANTI JOIN typed USING (number) ORDER BY source, start) TO {text(str(path))} "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 131072, KV_METADATA {{{SOURCES}: {metadata}}})"
        )
        connection.execute("DROP TABLE typed")
        connection.execute("DROP TABLE parsed")
    finally:
        connection.unregister("lines")
    return int(lines.num_rows)


def _columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the columns of the table in a fixed order, so that files of the same ones are read together."""
    found = [row[0] for row in connection.execute("DESCRIBE typed").fetchall()]
    named = [name for name in found if name.startswith((INPUT, PROBABILITY))]
    return [name for name in found if name not in (*named, "number")] + sorted(named)


def _lines(pieces: Iterable[Piece]) -> pa.Table:
    """Return number, source, start, bytes (`raw`) and, where they are UTF-8, `content` of each line."""
    import pyarrow as pa

    schema = pa.schema(
        {"source": pa.string(), "start": pa.int64(), "raw": pa.binary(), "content": pa.string()}  # in this order
    )
    tables = []
    for piece in pieces:
        ends = _ends(piece.content)
        if not len(ends):
            continue
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        raw = pa.Array.from_buffers(
            pa.binary(), len(ends), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(piece.content)]
        )
        start = pa.array(offsets[:-1].astype(np.int64) + piece.start)
        source = pa.repeat(piece.source, len(ends))
        table = pa.Table.from_arrays([source, start, raw, _texts(raw)], schema=schema)
        if piece.content.startswith(b" ") or b"\n " in piece.content:
            table = table.filter(pa.array([ERASED.fullmatch(line) is None for line in raw.to_pylist()]))
        tables.append(table)
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    return table.append_column("number", pa.array(np.arange(table.num_rows)))


def _ends(content: bytes) -> Any:
    """Return where the lines end, a carriage return being an end too, as in bytes.splitlines."""
    if b"\r" in content:
        return np.cumsum([len(line) for line in content.splitlines(keepends=True)])
    return np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1


def _texts(raw: pa.Array) -> pa.Array:
    """Return the lines as texts, null where one is not UTF-8."""
    import pyarrow as pa

    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(line) for line in raw.to_pylist()], pa.string())


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _parse(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table `parsed`: the lines that may get typed columns, and what is at their top level."""
    paths = ", ".join(f"'$.{name}'" for name in TOP)
    structure = dict.fromkeys(TOP, "VARCHAR") | {"instance": "BIGINT"}
    structure |= dict.fromkeys(("inputs", "prediction", "errors", "status"), "JSON")
    kinds = dict(zip(TOP, (f"types[{place + 1}]" for place in range(len(TOP))), strict=True))
    texts = " AND ".join(f"{kinds[name]} = 'VARCHAR'" for name in ("time", "request_id", "model_version"))
    # The conditions of a CASE are evaluated in order: functions of JSON fail on what is none.
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE parsed AS
        WITH valid AS MATERIALIZED (
            SELECT number, source, start,
                CASE WHEN content IS NULL OR strlen(content) > {LONG} OR NOT json_valid(content) THEN NULL
                    WHEN contains(content, '\\u0000') OR regexp_matches(content, {text(COMMA)}) THEN NULL
                    ELSE content END AS content FROM lines
        ), top AS MATERIALIZED (
            SELECT number, source, start, json_keys(content) AS keys, json_type(content, [{paths}]) AS types,
                json_transform(content, {text(json.dumps(structure))}) AS entry
            FROM valid WHERE content IS NOT NULL AND json_type(content) = 'OBJECT'
        ), checked AS MATERIALIZED (
            SELECT *, CASE WHEN regexp_full_match(entry.time, {text(TIME)}) THEN try_cast(entry.time AS TIMESTAMPTZ) END
                AS time FROM top
            WHERE len(list_distinct(keys)) = len(keys) AND {texts}
                AND ({kinds["client"]} IS NULL OR {kinds["client"]} = 'VARCHAR'
                    AND regexp_full_match(entry.client, {text(CLIENT.pattern)}))
        )
        SELECT number, source, start, time, keys, types, entry.request_id AS request_id, entry.client AS client,
            entry.model_version AS model_version, entry.inputs AS inputs, entry.prediction AS prediction,
            entry.errors AS errors, entry.status AS status, {kinds["prediction"]} AS predicted,
            CASE WHEN {kinds["instance"]} IS NULL THEN 0
                WHEN {kinds["instance"]} IN ('UBIGINT', 'BIGINT') THEN entry.instance END AS instance,
            {kinds["inputs"]} IS NOT DISTINCT FROM 'OBJECT' AND {kinds["prediction"]} IS NOT NULL
                AND list_has_all({[*sorted(ANSWERED)]}, keys) AS answered,
            {kinds["errors"]} IS NOT DISTINCT FROM 'ARRAY' AND list_has_all({[*sorted(REFUSED)]}, keys) AS refused
        FROM checked WHERE time IS NOT NULL""")
