"""One part of a partitioned table: in a Kubernetes Indexed Job each pod predicts some of INPUT's files.

Pod i of n takes the files i, i + n, ... in order of their names, and writes OUTPUT/part-<i>.parquet. That appears when
it is complete, and says in its metadata what it was made of. So a Job that is started again leaves out the parts that
are finished, and makes anew those of another model, other files or another limit. INPUT must not change while a Job
runs: each pod lists it by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gitops.core.addresses import PARQUET, SUFFIXES, arrow_filesystem, locate, reached
from gitops.core.artifacts import ProjectError

if TYPE_CHECKING:
    from gitops.inference.model import Model
    from gitops.inference.source import Source

#: Kubernetes sets the first in each pod of an Indexed Job; the second is the Job's `completions`.
INDEX, COMPLETIONS = "JOB_COMPLETION_INDEX", "COMPLETIONS"

#: The key of a part's metadata.
MADE_OF = b"gitops.batch"

#: What file systems know of a file beside its size that changes with its contents, the best one first.
STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")


@dataclass(frozen=True)
class Part:
    """Part `index` of `count`, from 0."""

    index: int
    count: int

    def address(self, output: str) -> str:
        """Return where this part is written. Raises ProjectError where `output` is the name of a table."""
        if output.endswith(SUFFIXES):
            raise ProjectError(f"OUTPUT is {output!r}: {self.count} parts ({COMPLETIONS}) need a folder")
        return f"{output.rstrip('/')}/{self._name}{PARQUET}"

    @property
    def _name(self) -> str:
        return f"part-{self.index:05}"

    def clear(self, output: str, *, empty: bool) -> None:
        """Remove what a killed pod of this part has left, and the part itself where it is `empty`: it has no file.

        The first pod also removes parts of a Job that had more of them. Raises ProjectError naming OUTPUT.
        """
        filesystem, folder = locate("OUTPUT", output.rstrip("/"))
        with reached("OUTPUT", output):
            for path in filesystem.ls(folder, detail=False) if filesystem.isdir(folder) else ():
                found = re.fullmatch(
                    rf"(\.[0-9a-f]{{32}}-)?part-(\d{{5,}})(\.rejected)?{re.escape(PARQUET)}", _base(path)
                )
                if found is None:
                    continue
                unfinished, number = found[1] is not None, int(found[2])
                superfluous = number >= self.count and self.index == 0
                if superfluous or (number == self.index and (unfinished or empty)):
                    filesystem.rm_file(path)


def this() -> Part | None:
    """Return the part that this pod predicts, None where the table is one. Raises ProjectError."""
    count = _number(COMPLETIONS, os.environ.get(COMPLETIONS) or "1", 1, 99_999)
    if count == 1:
        return None
    return Part(_number(INDEX, os.environ.get(INDEX, ""), 0, count - 1), count)


def _number(name: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or not least <= int(text) <= most:
        raise ProjectError(f"{name} is {text!r}: a number from {least} to {most} is needed")
    return int(text)


def made_of(source: Source, model: Model, max_rejected: float) -> str | None:
    """Return what a part is made of, as its metadata says it: model, files, limit.

    None where the file system cannot tell a file from a later one of its name: such a part is never finished.
    """
    with reached("INPUT", source.address):
        known = [_of_file(path, source.filesystem.info(path)) for path in source.paths]
    if any(stamp is None for _, _, stamp in known):
        return None
    encoded = hashlib.sha256(json.dumps(model.schema, sort_keys=True).encode()).hexdigest()
    return json.dumps({"model": model.version, "schema": encoded, "max_rejected": max_rejected, "files": known})


def _of_file(path: str, info: dict[str, Any]) -> tuple[str, int, str | None]:
    """Return name, size in bytes, and what changes with the contents."""
    stamp = next((info[name] for name in STAMPS if info.get(name) is not None), None)
    return path, int(info["size"]), None if stamp is None else str(stamp)


def finished(address: str, made_of: str | None) -> bool:
    """Tell whether the part at `address` is there and made of just this. Raises ProjectError naming OUTPUT."""
    filesystem, path = locate("OUTPUT", address)
    with reached("OUTPUT", address):
        if made_of is None or not filesystem.isfile(path):
            return False
        try:
            with arrow_filesystem(filesystem).open_input_file(path) as file:
                metadata = pq.read_schema(file).metadata or {}
        except pa.ArrowInvalid:  # something else has that name
            return False
    return bool(metadata.get(MADE_OF) == made_of.encode())


def marked(schema: pa.Schema, made_of: str | None) -> pa.Schema:
    """Return the schema of a part's file, which says what it is made of."""
    return schema if made_of is None else schema.with_metadata({MADE_OF: made_of})


def root(path: str) -> str:
    """Return the folder below which all files of a folder or pattern lie, with its last slash."""
    fixed = path.partition("*")[0] if "*" in path else f"{path.rstrip('/')}/"
    return fixed[: fixed.rfind("/") + 1]


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
