"""Which versions of the tables hold the subject, and which releases were trained from them.

Versions are those that the release logs and Git's history name. Their objects are read in DVC's cache or in its remote;
of one that neither has nothing is known. None is stored here for it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.core.sections import Csv
from gitops.integrations import dvc, dvc_contents, git
from gitops.integrations.dvc_contents import OBJECTS
from gitops.integrations.dvc_stages import FOLDER
from gitops.privacy import rows
from gitops.releases import history
from gitops.tabular import csv_file, csv_rows, parts

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject

MD5 = re.compile(r"md5: ([0-9a-f]{32}(?:\.dir)?)")
TABLES = (".csv", ".parquet")


@dataclass
class Provenance:
    """`versions`: md5 of a table, or of a folder, and whether it holds the subject, None where that is not known."""

    versions: dict[str, bool | None] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)  # those files of them that hold it
    copies: set[str] = field(default_factory=set)  # other tables in DVC's cache that hold it, splits mostly
    releases: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    @property
    def held(self) -> set[str]:
        return {md5 for md5, holds in self.versions.items() if holds}


def trace(subject: Subject, settings: Params) -> Provenance:
    """Return what is known of all versions of the tables and of all releases."""
    found, cache = Provenance(), dvc.cached("0" * 32).parent.parent
    reader = _Reader(cache, found)
    for path in (*settings.tables, parts.FOLDER):
        for md5 in _versions(path):
            reader.look(path.as_posix(), md5, subject, settings.data.csv)
    reader.search_cache(subject, settings.data.csv)
    try:
        tips, found.note = _environments()
        for environment, tip in tips.items():
            for release in history.releases(history.read(tip)):
                found.releases.append(_release(environment, release, subject, reader))
    except ProjectError as error:
        found.note = f"not known: {error}"
    return found


def _versions(path: Path) -> list[str]:
    """Return the md5s that the .dvc file of a table has had in any commit, and has now."""
    pointer = path.with_name(f"{path.name}.dvc").as_posix()
    commits = git.run("log", "--all", "--format=%H", "--", pointer).split() if git.exists("HEAD") else []
    texts = [git.run("show", f"{commit}:{pointer}") for commit in commits if git.exists(f"{commit}:{pointer}")]
    if Path(pointer).exists():
        texts.append(Path(pointer).read_text(encoding="utf-8"))
    found = (MD5.search(text.partition("outs:\n")[2]) for text in texts)
    return list(dict.fromkeys(match[1] for match in found if match))


def _environments() -> tuple[dict[str, str], str]:
    """Return the newest commit of each branch `env/*`, and a note where origin could not be asked."""
    note = "no remote named origin: these are the releases that this clone knows"
    if git.has_remote():
        try:
            git.run("fetch", "--quiet", "--no-tags", git.REMOTE, f"+refs/heads/env/*:refs/remotes/{git.REMOTE}/env/*")
            note = ""
        except git.GitError:
            note = "origin cannot be reached: these are the releases that this clone knows"
    prefix = f"refs/remotes/{git.REMOTE}/env/"
    lines = git.run("for-each-ref", "--format=%(objectname) %(refname)", prefix).splitlines()
    return {name.removeprefix(prefix): commit for commit, name in (line.split(" ", 1) for line in lines)}, note


def _release(environment: str, release: history.Released, subject: Subject, reader: _Reader) -> dict[str, Any]:
    """Return what the report says of a release."""
    record = release.record
    data = record.params.get("data", {})
    csv = Csv.model_validate(data["csv"]) if "csv" in data else None
    column = data.get("id") if subject.column is not None else None
    then = replace(subject, column=column)
    known = subject.column is None or column is not None
    holds = [
        reader.look(file.path, file.md5, then, csv) if known else None
        for file in (record.data, record.appended)
        if file is not None
    ]
    return {
        "environment": environment,
        "version": record.model.version,
        "commit": release.first.commit[:12],
        "main": record.commit[:12],
        "state": release.state,
        "held": True if True in holds else None if None in holds else False,
        "run": record.mlflow_run_id,
    }


class _Reader:
    """Looks into objects, each once."""

    def __init__(self, cache: Path, found: Provenance) -> None:
        self.cache, self.found = cache, found

    def look(self, path: str, md5: str, subject: Subject, csv: Csv | None) -> bool | None:
        """Tell whether a version of the table at `path` holds the subject; None where that is not known."""
        if md5 not in self.found.versions:
            try:
                self.found.versions[md5] = self._look(path, md5, subject, csv)
            except (ProjectError, OSError, ValueError):
                self.found.versions[md5] = None
        return self.found.versions[md5]

    def search_cache(self, subject: Subject, csv: Csv) -> None:
        """Find tables in DVC's cache that no commit names, such as one that was added and replaced before a commit."""
        if subject.column is None:
            return
        for path in self.cache.glob("[0-9a-f][0-9a-f]/*"):
            md5 = path.parent.name + path.name
            if md5.endswith(FOLDER) or md5 in self.found.versions:
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
                copy.write_bytes(dvc_contents.read(f"{OBJECTS}/{md5[:2]}/{md5[2:]}"))
            yield copy


def _suffix(path: Path, subject: Subject, csv: Csv) -> str:
    """Return the suffix of the table that a file is, if it has the column with ids; else an empty text."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        start = file.read(2**16)
    try:
        if start.startswith(b"PAR1"):
            return ".parquet" if subject.column in map(str.strip, pq.read_schema(path).names) else ""
        return ".csv" if str(subject.column).encode() in start and subject.column in csv_rows.header(path, csv) else ""
    except (ProjectError, OSError, ValueError, TypeError, *csv_file.UNREADABLE):  # another kind of file
        return ""


def _any(results: list[bool | None]) -> bool | None:
    return True if True in results else None if None in results else False
