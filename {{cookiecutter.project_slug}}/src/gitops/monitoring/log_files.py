"""Reading files of the request log, and of labels, in a folder or at any address that fsspec knows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from gitops.core.addresses import arrow_filesystem
from gitops.core.artifacts import ProjectError
from gitops.monitoring.typed_lines import SOURCES, Piece

if TYPE_CHECKING:
    import pyarrow as pa

#: How many files are read at once, and of how many bytes together; a larger file is read alone. A bucket's log has very
#: many small objects, one for each ten seconds of each server.
FILES, BYTES = 64, 2**25

#: How the names of JSON and of parquet files end.
LINES, TABLE = ".jsonl", ".parquet"

#: Footers of parquet files that are read at the same time: each waits for two answers of a bucket.
FOOTERS = 16


@dataclass(frozen=True)
class Table:
    """A parquet file of the log: up to which byte it has each of its JSON files, and its columns with their types."""

    name: str
    rows: int
    sources: dict[str, int]
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Folder:
    """What an address names: a file system of fsspec's, and the path of a folder there."""

    variable: str
    files: Any
    root: str

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "file" in ([self.files.protocol] if isinstance(self.files.protocol, str) else self.files.protocol)

    def contents(self, endings: tuple[str, ...], since: datetime | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of the files with one of the endings, sorted by name.

        Left out are files last written before `since`.
        """
        found = self.files.find(self.root, detail=True)
        wanted = {
            path: int(found[path]["size"])
            for path in sorted(found)
            if path.endswith(endings)
            if since is None or self.modified(path, found[path]) >= since
        }
        with tqdm(total=len(wanted), desc=self.variable, unit="file", disable=None) as progress:
            for paths in _chunks(wanted):
                for path, content in zip(paths, self._read(paths, None, None), strict=True):
                    yield self.name(path), content
                progress.update(len(paths))

    def modified(self, path: str, entry: dict[str, Any]) -> datetime:
        """Return when a file was last written, without asking for it where the listing says so."""
        for key in ("LastModified", "last_modified", "mtime", "created"):
            if isinstance(entry.get(key), datetime):
                return _aware(entry[key])
        if isinstance(entry.get("mtime"), int | float):
            return datetime.fromtimestamp(entry["mtime"], UTC)
        return _aware(self.files.modified(path))

    def tables(self, names: Iterable[str]) -> list[Table]:
        """Return what the footers of parquet files say. Raises ProjectError where one is no table of the log."""
        with ThreadPoolExecutor(FOOTERS) as pool:
            return [*pool.map(self._table, names)]

    def _table(self, name: str) -> Table:
        import pyarrow.parquet as pq

        path = self.path(name)
        try:
            with pq.ParquetFile(path, filesystem=arrow_filesystem(self.files)) as file:
                schema: pa.Schema = file.schema_arrow
                sources = json.loads((schema.metadata or {})[SOURCES.encode()])
                columns = tuple((column.name, str(column.type)) for column in schema)
                return Table(
                    name, file.metadata.num_rows, {str(key): int(end) for key, end in sources.items()}, columns
                )
        except FileNotFoundError:
            raise
        except (KeyError, ValueError, AttributeError, OSError) as error:
            raise ProjectError(f"{path} is not a table of the request log: move it elsewhere ({error})") from None

    def pieces(self, wanted: dict[str, tuple[int, int]]) -> Iterator[list[Piece]]:
        """Yield the whole lines of files between two bytes each, about BYTES at a time, in order.

        A last line without its newline is left out: it is being written, or a crash has left it.
        """
        small = {self.path(name): end - start for name, (start, end) in wanted.items() if end - start <= BYTES}
        with tqdm(total=len(wanted), desc=self.variable, unit="file", disable=None) as progress:
            for paths in _chunks(small):
                spans = [wanted[self.name(path)] for path in paths]
                contents = self._read(paths, [start for start, _ in spans], [end for _, end in spans])
                yield [
                    Piece(self.name(path), start, content[: content.rfind(b"\n") + 1])
                    for path, (start, _), content in zip(paths, spans, contents, strict=True)
                ]
                progress.update(len(paths))
            for name, (start, end) in wanted.items():
                if end - start > BYTES:
                    yield from self._slices(name, start, end)
                    progress.update()

    def batches(self, wanted: dict[str, tuple[int, int]], size: int) -> Iterator[list[Piece]]:
        """Yield the lines of `pieces` in lists of about `size` bytes: what becomes one parquet file."""
        batch: list[Piece] = []
        for pieces in self.pieces(wanted):
            batch += [piece for piece in pieces if piece.content]
            if sum(len(piece.content) for piece in batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _slices(self, name: str, start: int, end: int) -> Iterator[list[Piece]]:
        size = BYTES
        while start < end:
            content = self.files.cat_file(self.path(name), start=start, end=min(start + size, end))
            whole = content[: content.rfind(b"\n") + 1]
            if not whole and start + size < end:  # a line that is longer than a slice
                size *= 2
                continue
            if not whole:
                return
            yield [Piece(name, start, whole)]
            start, size = start + len(whole), BYTES

    def _read(self, paths: list[str], starts: Any, ends: Any) -> list[bytes]:
        contents: list[bytes] = self.files.cat_ranges(paths, starts, ends)
        for content in contents:
            if isinstance(content, Exception):
                raise content
        return contents

    def path(self, name: str) -> str:
        """Return the path of a file on the file system."""
        return f"{self.root}/{name}"

    def name(self, path: str) -> str:
        """Return a path on the file system as a name in the folder."""
        return path.removeprefix(self.root).lstrip("/")


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _chunks(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Yield the paths in order, as many at a time as FILES and BYTES allow."""
    chunk: list[str] = []
    total = 0
    for path, size in sizes.items():
        if chunk and (len(chunk) == FILES or total + size > BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(path)
        total += size
    if chunk:
        yield chunk


def uncovered(lines: dict[str, int], tables: Iterable[Table]) -> dict[str, tuple[int, int]]:
    """Return from which byte to which each JSON file is in no table yet, without those that are in one altogether."""
    covered: dict[str, int] = {}
    for table in tables:
        for source, end in table.sources.items():
            covered[source] = max(end, covered.get(source, 0))
    return {name: (covered.get(name, 0), size) for name, size in lines.items() if covered.get(name, 0) < size}
