"""Versions of the tables, by their md5s: which of them hold the subject.

Objects are read in DVC's cache or in its remote; of one that neither has nothing is known. None is stored here for it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv
from gitops.integrations import dvc_contents
from gitops.integrations.dvc_contents import OBJECTS
from gitops.integrations.dvc_stages import FOLDER
from gitops.privacy import rows
from gitops.tabular import csv_file, csv_rows, parts

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject

TABLES = (".csv", ".parquet")


@dataclass
class Versions:
    """Md5s of tables, and of folders of their files: whether each holds the subject, None where that is not known."""

    all: dict[str, bool | None] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)  # those files of them that hold it
    copies: set[str] = field(default_factory=set)  # other tables in DVC's cache that hold it, splits mostly

    @property
    def held(self) -> set[str]:
        """Those that hold the subject."""
        return {md5 for md5, holds in self.all.items() if holds}

    @property
    def unknown(self) -> set[str]:
        """Those that nobody has."""
        return {md5 for md5, holds in self.all.items() if holds is None}


class Reader:
    """Looks into objects, each once."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.found = cache, Versions()
        self.failed = ""  # why the remote is not asked any more

    def look(self, path: str, md5: str, subject: Subject, csv: Csv | None) -> bool | None:
        """Tell whether a version of the table at `path` holds the subject; None where that is not known."""
        if md5 not in self.found.all:
            try:
                self.found.all[md5] = self._look(path, md5, subject, csv)
            except (ProjectError, OSError, ValueError):
                self.found.all[md5] = None
        return self.found.all[md5]

    def search_cache(self, subject: Subject, csv: Csv) -> None:
        """Find tables in DVC's cache that no commit names, such as one that was added and replaced before a commit."""
        if subject.column is None:
            return
        for path in self.cache.glob("[0-9a-f][0-9a-f]/*"):
            md5 = path.parent.name + path.name
            if md5.endswith(FOLDER) or md5 in self.found.all:
                continue
            with suppress(ProjectError, OSError, ValueError), self._opened(md5, _suffix(path, subject, csv)) as copy:
                if copy.suffix and rows.of_subject(copy, subject, csv):
                    self.found.copies.add(md5)

    def _look(self, path: str, md5: str, subject: Subject, csv: Csv | None) -> bool | None:
        if not md5.endswith(FOLDER):
            return self._file(path, md5, subject, csv) if subject.column is not None else False
        with self._opened(md5, ".json") as listing:
            members = {str(each["relpath"]): str(each["md5"]) for each in json.loads(listing.read_text("utf-8"))}
        if subject.column is None:
            return self._noted(members, subject)
        tables = {name: member for name, member in members.items() if name.endswith(TABLES)}
        # Each of them is looked at, so that each that holds the subject is known.
        return _any([self._file(name, member, subject, csv) for name, member in tables.items()])

    def _file(self, path: str, md5: str, subject: Subject, csv: Csv | None) -> bool | None:
        if csv is None:
            return None
        with self._opened(md5, PurePosixPath(path).suffix) as copy:
            if not rows.of_subject(copy, subject, csv):
                return False
        self.found.objects.add(md5)
        return True

    def _noted(self, members: dict[str, str], subject: Subject) -> bool | None:
        """Tell whether parts in a folder hold rows of a request: by what notes their requests."""
        results: list[bool | None] = []
        for name, md5 in members.items():
            if not PurePosixPath(name).name.startswith("appended-") or not name.endswith(TABLES):
                continue
            noted = members.get(parts.requests(Path(name)).as_posix())
            if noted is None:
                results.append(None)
                continue
            with self._opened(noted, ".requests") as copy:
                results.append(not subject.hashes.isdisjoint(copy.read_text("ascii").split()))
            if results[-1]:
                self.found.objects |= {md5, noted}
        return _any(results)

    @contextmanager
    def _opened(self, md5: str, suffix: str) -> Iterator[Path]:
        """Yield a path with this suffix at which the object lies. Raises ProjectError where nobody has it."""
        kept = self.cache / md5[:2] / md5[2:]
        with tempfile.TemporaryDirectory(prefix="version-") as folder:
            copy = Path(folder, f"object{suffix}")
            if kept.exists():
                copy.symlink_to(kept.resolve())
            else:
                copy.write_bytes(self._fetched(md5))
            yield copy

    def _fetched(self, md5: str) -> bytes:
        """Return an object of the remote. Raises ProjectError, at once where that could not be read before."""
        if self.failed:
            raise ProjectError(self.failed)
        try:
            return dvc_contents.read(f"{OBJECTS}/{md5[:2]}/{md5[2:]}")
        except Exception as error:  # each cloud's library has errors of its own
            if not isinstance(error.__cause__, FileNotFoundError):
                self.failed = "the DVC remote cannot be read"
            raise ProjectError(f"the DVC remote does not have {md5}") from None


def _suffix(path: Path, subject: Subject, csv: Csv) -> str:
    """Return the suffix of the table that a file is, if it has the column with ids; else an empty text."""
    import pyarrow.parquet as pq

    name = str(subject.column)
    with path.open("rb") as file:
        start = file.read(2**16)
    try:
        if start.startswith(b"PAR1"):
            return ".parquet" if name in [each.strip() for each in pq.read_schema(path).names] else ""
        return ".csv" if name.encode() in start and name in csv_rows.header(path, csv) else ""
    except (ProjectError, OSError, ValueError, TypeError, *csv_file.UNREADABLE):  # another kind of file
        return ""


def _any(results: list[bool | None]) -> bool | None:
    return True if True in results else None if None in results else False
