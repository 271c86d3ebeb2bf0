"""The request log and the labels that come later, in a folder or at any address that fsspec knows (s3://bucket/prefix).

A bucket's log has very many small objects, one for each ten seconds of each server, so they are read side by side.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from gitops.core.addresses import locate, reached
from gitops.core.artifacts import ProjectError

if TYPE_CHECKING:
    import pandas as pd

#: Where the two lie unless the environment says otherwise.
DEFAULTS = {"REQUEST_LOG": "requests", "LABELS": "labels"}

#: What the log holds in place of a value that must not be kept.
MASKED = "masked"

#: How many files are read at once, and of how many bytes together, a larger one apart.
FILES, BYTES = 64, 2**25

#: Request id, and the place of the instance in the request.
Key = tuple[str, int]


@dataclass(frozen=True)
class Place:
    """What an address names: a file system of fsspec's, and the path of a folder there."""

    variable: str
    files: Any
    root: str

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "file" in ([self.files.protocol] if isinstance(self.files.protocol, str) else self.files.protocol)

    def contents(
        self, endings: tuple[str, ...], since: datetime | None = None, skip: Callable[[str, int], bool] | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of the files with one of the endings, by name: all but those last written before `since`
        and those that `skip`, which is told name and size, does without.
        """
        found = self.files.find(self.root, detail=True)
        wanted = {
            path: int(found[path]["size"])
            for path in sorted(found)
            if path.endswith(endings)
            if since is None or self.files.modified(path) >= since
            if skip is None or not skip(self._name(path), int(found[path]["size"]))
        }
        with tqdm(total=len(wanted), desc=self.variable, unit="file", disable=None) as progress:
            for paths in _portions(wanted):
                for path, content in zip(paths, self.files.cat_ranges(paths, None, None), strict=True):
                    if isinstance(content, Exception):
                        raise content
                    yield self._name(path), content
                progress.update(len(paths))

    def _name(self, path: str) -> str:
        return path.removeprefix(self.root).lstrip("/")


def _portions(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Yield the paths in their order, as many at a time as FILES and BYTES allow."""
    portion: list[str] = []
    total = 0
    for path, size in sizes.items():
        if portion and (len(portion) == FILES or total + size > BYTES):
            yield portion
            portion, total = [], 0
        portion.append(path)
        total += size
    if portion:
        yield portion


@contextmanager
def opened(variable: str) -> Iterator[Place]:
    """Yield what the address in `variable` names. Whatever goes wrong in the block is a ProjectError."""
    address = os.environ.get(variable) or DEFAULTS[variable]
    with reached(variable, address):
        files, root = locate(variable, address)
        place = Place(variable, files, root.rstrip("/"))
        if place.local and not files.isdir(root):
            raise ProjectError(f"{variable} is {address!r}: there is no such folder")
        yield place


def absent(variable: str) -> bool:
    """Tell whether nothing lies where it would by default, and no other place is named."""
    return not os.environ.get(variable) and not Path(DEFAULTS[variable]).exists()


def labels(since: datetime | None = None) -> tuple[pd.DataFrame, int]:
    """Return the labels that have come, and how many rows are none: they lack the request or the value.

    `request_id`, `instance` and `label`, as text. Of two labels for one instance that of the later file counts, and in
    it the later row. Files last written before `since` are left out. Raises ProjectError naming a file that is no such
    table.
    """
    import pandas as pd

    tables = [pd.DataFrame({"request_id": [], "instance": [], "label": []}).astype({"instance": int})]
    rows = 0
    if not absent("LABELS"):
        with opened("LABELS") as place:
            for name, content in place.contents((".parquet", ".csv"), since):
                table = _table(name, content)
                rows += len(table)
                tables.append(_labels(table))
    found = pd.concat(tables[1:] or tables)
    left_out = rows - len(found)
    return found.drop_duplicates(["request_id", "instance"], keep="last", ignore_index=True), left_out


def _table(name: str, content: bytes) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name.endswith(".parquet"):
        # No file object, for the reason in artifacts.read_parquet.
        table: pd.DataFrame = pq.read_table(pa.BufferReader(content)).to_pandas()
    else:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if lacking := {"request_id", "label"} - {*table.columns}:
        raise ProjectError(f"labels in {name} have no column {' and no column '.join(sorted(lacking))}")
    return table


def _labels(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are labels."""
    import pandas as pd

    text = table["label"].astype(str).str.strip()
    if pd.api.types.is_float_dtype(table["label"]):  # whole numbers with gaps: 7.0 is the class 7, as in table.py
        text = text.str.removesuffix(".0")
    ids = table["request_id"].astype(str)
    instance = table["instance"] if "instance" in table else pd.Series(0, table.index)
    place = pd.to_numeric(instance.replace("", 0).fillna(0), errors="coerce")
    there = table["request_id"].notna() & table["label"].notna() & ids.ne("") & text.ne("") & place.between(0, 10**9)
    found = pd.DataFrame({"request_id": ids, "instance": place, "label": text})[there]
    return found.astype({"instance": int})
