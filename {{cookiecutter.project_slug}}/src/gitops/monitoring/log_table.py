"""The log's lines as tables of DuckDB: the parquet files as they lie there, and JSON that is in none yet.

DuckDB joins and aggregates in bounded memory and spills to disk beyond it; so a window of any size is read in one
gibibyte. It reads a bucket through fsspec, like everything else here, and loads no extension.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.monitoring import log_files, typed_lines
from gitops.monitoring.answered_lines import INPUT
from gitops.monitoring.log_files import Folder, Table
from gitops.monitoring.sql import quoted, text

if TYPE_CHECKING:
    import duckdb

#: What DuckDB may take of memory before it spills to disk.
MEMORY = "1GiB"

#: Rows that Python takes at a time.
ROWS = 65_536


@dataclass(frozen=True)
class Group:
    """Files with the same columns: `query` has them, with `new`, whether a line was not evaluated before."""

    query: str
    columns: tuple[str, ...]
    types: Mapping[str, str]  # input: the column's type in Arrow

    @property
    def inputs(self) -> list[str]:
        return [name.removeprefix(INPUT) for name in self.columns if name.startswith(INPUT)]


class Lines:
    """Lines of the log in DuckDB."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, groups: list[Group], ends: dict[str, int]) -> None:
        """`ends`: of the JSON files the end of the last whole line."""
        self.connection, self.groups, self.ends = connection, groups, ends

    def each(self, select: str, where: str) -> str:
        """Return a query for columns that every group has."""
        return " UNION ALL ".join(f"SELECT {select} FROM ({group.query}) WHERE {where}" for group in self.groups)

    def raw(self) -> Iterator[tuple[str, int, bool, bytes]]:
        """Yield source, start, newness and bytes of each line that is not of the server's form, in order."""
        if self.groups:
            query = self.each("source, start, new, line", "line IS NOT NULL")
            yield from self.rows(f"{query} ORDER BY source, start")

    def rows(self, query: str) -> Iterator[Any]:
        """Yield the rows of a query's result, which is never held whole."""
        with self.connection.cursor() as cursor:  # sees tables, but no temporary ones
            cursor.execute(query)
            while rows := cursor.fetchmany(ROWS):
                yield from rows

    def entries(self, group: Group, condition: str) -> Iterator[dict[str, Any]]:
        """Yield answered lines of a group that meet a condition as the dictionaries that their JSON is."""
        names = group.inputs
        wanted = ["source", "start", "epoch_us(time)", "request_id", "client", "instance", "shape", "kinds"]
        columns = [*wanted, *(quoted(INPUT + name) for name in names)]
        places = {name: place + len(wanted) for place, name in enumerate(names)}
        query = f"SELECT {', '.join(columns)} FROM ({group.query}) WHERE line IS NULL AND errors IS NULL"
        for row in self.rows(f"{query} AND ({condition})"):
            source, start, time, request_id, client, instance, shape, kinds = row[: len(wanted)]
            inputs = {
                name: int(row[places[name]]) if kind == "i" else row[places[name]]
                for name, kind in zip(json.loads(shape), kinds, strict=True)
            }
            entry = {"source": source, "start": start, "time": time, "request_id": request_id, "instance": instance}
            yield entry | ({"client": client} if client is not None else {}) | {"inputs": inputs}


@contextmanager
def connected() -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Yield DuckDB, in memory and limited to MEMORY, and the temporary folder to which it spills."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="request-log-") as temporary, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute(f"SET temp_directory = {text(temporary)}")
        for setting in (
            "enable_progress_bar",
            "preserve_insertion_order",
            "autoinstall_known_extensions",
            "autoload_known_extensions",
        ):
            connection.execute(f"SET {setting} = false")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection, Path(temporary)


@contextmanager
def opened(
    folder: Folder,
    tables: Iterable[Table],
    spans: dict[str, tuple[int, int]],
    seen: Mapping[str, int] | None = None,
    evaluated: frozenset[str] = frozenset(),
) -> Iterator[Lines]:
    """Yield the lines of parquet files, and of JSON files between two bytes each.

    `seen`: up to which byte of which file lines were evaluated before; `evaluated`: parquet files of which all were.
    """
    import pyarrow as pa

    with connected() as (connection, temporary):
        if not folder.local:
            connection.register_filesystem(folder.files)
        seen = {name: end for name, end in (seen or {}).items() if end}
        sources, offsets = pa.array([*seen], pa.string()), pa.array([*seen.values()], pa.int64())
        connection.register("given", pa.table({"source": sources, "upto": offsets}))
        connection.execute("CREATE TABLE seen AS FROM given")
        found = [(_address(folder, table.name), table) for table in tables]
        converted = _converted(connection, folder, spans, temporary)
        ends: dict[str, int] = {}
        for _, table in converted:  # the slices of a long file come in order
            ends |= table.sources
        yield Lines(connection, _groups([*found, *converted], seen, evaluated), ends)


def _converted(
    connection: duckdb.DuckDBPyConnection, folder: Folder, spans: dict[str, tuple[int, int]], temporary: Path
) -> list[tuple[str, Table]]:
    """Write the lines of JSON files to parquet files of this run, and return them."""
    here = Folder(folder.variable, _local(), str(temporary))
    found = []
    for number, pieces in enumerate(folder.batches(spans, log_files.BYTES)):
        path = temporary / f"{number}.parquet"
        sources = {piece.source: piece.start + len(piece.content) for piece in pieces}
        typed_lines.write(connection, pieces, path, sources)
        found += [(str(path), table) for table in here.tables([path.name])]
    return found


def _local() -> Any:
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem()


def _address(folder: Folder, name: str) -> str:
    """Return a file's path as DuckDB takes it, which would expand wildcards in it."""
    path = folder.path(name)
    return re.sub(r"([*?\[])", r"[\1]", path) if folder.local else str(folder.files.unstrip_protocol(path))


def _groups(found: list[tuple[str, Table]], seen: Mapping[str, int], evaluated: frozenset[str]) -> list[Group]:
    groups: dict[Any, list[str]] = {}
    for path, table in found:
        if table.name in evaluated:
            new = "false"
        elif seen.keys().isdisjoint(table.sources):
            new = "true"
        else:
            new = "start >= coalesce(upto, 0)"
        groups.setdefault((table.columns, new), []).append(path)
    made = []
    for (columns, new), paths in groups.items():
        files = f"read_parquet([{', '.join(map(text, paths))}])"
        if "upto" in new:
            files += " LEFT JOIN seen USING (source)"
        types = {name.removeprefix(INPUT): kind for name, kind in columns if name.startswith(INPUT)}
        names = tuple(name for name, _ in columns)
        listed = ", ".join(map(quoted, names))
        made.append(Group(f"SELECT {listed}, {new} AS new FROM {files}", names, types))
    return made
