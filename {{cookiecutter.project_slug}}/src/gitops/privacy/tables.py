"""The project's tables without the subject's rows: which files change, and what they and data/appended.json become.

Rows that a retraining has appended carry no id of the request that they came as; a file beside each part of the table
has the hashes of these (tabular/parts.py). Nothing here changes a file of the project: the new ones are written to a
folder of their own, from which journal.py puts them in place.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.core.sections import Data
from gitops.integrations import dvc
from gitops.privacy import rows
from gitops.tabular import parts

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject


@dataclass
class Found:
    """The rows that are the subject's, by file, and why which table is left as it is."""

    positions: dict[Path, list[int]] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=set)  # of the subject's requests in data/appended.json
    left: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(map(len, self.positions.values()))


@dataclass
class Staged:
    """What replaces the project's files: names in the staging folder by their targets, and what is to be removed."""

    moves: dict[str, str] = field(default_factory=dict)
    removals: list[str] = field(default_factory=list)
    tracked: list[str] = field(default_factory=list)  # what DVC tracks of it
    state: dict[str, Any] | None = None  # of data/appended.json; None: it stays
    table: str | None = None  # whose md5 that file gets, once it is in place


def search(subject: Subject, settings: Params) -> Found:
    """Find the subject's rows. Raises ProjectError where a table cannot be had or read."""
    found = Found()
    known = parts.everything().get("requests", {})
    found.hashes = {each for each in known if each in subject.hashes}
    for path in settings.tables:
        if reason := _elsewhere(path, settings):
            found.left.append(reason)
            continue
        for tracked in (path, parts.FOLDER):
            _bring(tracked)
        if not path.exists():
            raise ProjectError(f"{path} is missing: `dvc pull` gets it")
        for file in files(path, settings):
            if positions := of_file(file, subject, settings.data):
                found.positions[file] = positions
                told = requests(file)
                found.hashes |= {told[at] for at in positions if at < len(told)} & {*known}
    return found


def _elsewhere(path: Path, settings: Params) -> str | None:
    """Return why a table is not changed here; None where it is."""
    if settings.feature_store is None and parts.elsewhere(settings.data):
        return "the table is in a database or in object storage, which this project only reads: erase the rows there"
    pointer = _pointer(path)
    if pointer.exists() and "deps" in yaml.safe_load(pointer.read_text(encoding="utf-8")):
        return f"{path} is imported: erase the rows in its source, then `make retrain` takes the new version"
    return None


def _bring(path: Path) -> None:
    """Bring a file or folder that DVC tracks to the version that its .dvc file names."""
    if not _pointer(path).exists():
        return
    if path.exists():
        dvc.follow(path)
    else:
        dvc.pull(path)


def files(path: Path, settings: Params) -> list[Path]:
    """Return the files of a table, the appended ones too; those of a table that was replaced have personal data too."""
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    if settings.feature_store is not None:
        return [path]
    return [path, *sorted(parts.FOLDER.glob(f"appended-*{path.suffix}"))]


def of_file(file: Path, subject: Subject, data: Data) -> list[int]:
    """Return the numbers of the subject's rows in a file of a table. Raises ProjectError."""
    if subject.column is None:
        return [at for at, each in enumerate(requests(file)) if each in subject.hashes]
    return rows.of_subject(file, subject, data.csv)


def requests(file: Path) -> list[str]:
    """Return the hash of the request of each row of a part; nothing where they were not noted."""
    noted = parts.requests(file)
    return noted.read_text(encoding="ascii").split() if noted.exists() else []


def stage(found: Found, settings: Params, folder: Path) -> Staged:
    """Write the files anew into `folder`. Raises ProjectError where a table would have no row left."""
    staged, names = Staged(), dict[str, str | None]()
    for number, (path, positions) in enumerate(found.positions.items()):
        draft = folder / f"{number}{path.suffix}"
        left = rows.write_without(path, draft, positions, settings.data.csv)
        part = path.name.startswith("appended-")
        if not left and not part:
            raise ProjectError(f"{path} would have no row left: remove it, with what was made of it, by hand")
        if left:
            target = path.with_name(parts.name(int(path.name.split("-")[1]), draft)) if part else path
            staged.moves[draft.name] = str(target)
        if part:
            names[path.name] = target.name if left else None
            _stage_requests(path, positions, staged, folder / f"{number}.requests", target if left else None)
    changed = set(found.positions)
    staged.tracked = [str(each) for each in _tracked(settings) if any(_within(path, each) for path in changed)]
    if found.hashes or changed:
        staged.state = _state(found, names, settings)
        staged.table = settings.data.path if parts.state(settings.data) else None
    return staged


def _stage_requests(path: Path, positions: list[int], staged: Staged, draft: Path, target: Path | None) -> None:
    """Stage what notes the requests of a part, as that is staged: what is left of it, under its new name."""
    gone, noted = {*positions}, requests(path)
    staged.removals += [str(each) for each in (path, parts.requests(path)) if each.exists()]
    if target is not None and noted:
        draft.write_text("".join(f"{each}\n" for at, each in enumerate(noted) if at not in gone), encoding="ascii")
        staged.moves[draft.name] = str(parts.requests(target))


def _tracked(settings: Params) -> list[Path]:
    return [path for path in (*settings.tables, parts.FOLDER) if _pointer(path).exists()]


def _within(path: Path, tracked: Path) -> bool:
    return path == tracked or path.is_relative_to(tracked)


def _state(found: Found, names: dict[str, str | None], settings: Params) -> dict[str, Any] | None:
    """Return what data/appended.json says without the subject's rows and requests; None where there is no such file."""
    state = parts.everything()
    if not state:
        return None
    old = list(state.get("files", []))
    kept = [file for file in old if names.get(file, file) is not None]
    if parts.state(settings.data) and "parts" in state:
        gone = _gone(found, settings)
        earlier = len(state["parts"]) - len(old)  # of a version that appended to the table's own file
        starts = [start - bisect_left(gone, start) for start in state["parts"]]
        state["parts"] = [start for at, start in enumerate(starts) if at < earlier or old[at - earlier] in kept]
    if old:
        state["files"] = [names.get(file, file) for file in kept]
    if found.positions:
        state.pop("facts", None)  # a column may have lost its only text, or the target a class
    if "requests" in state:
        state["requests"] = {each: day for each, day in state["requests"].items() if each not in found.hashes}
    return state


def _gone(found: Found, settings: Params) -> list[int]:
    """Return the numbers, in the whole table, of the rows that go."""
    import pyarrow.parquet as pq

    data, state, start = settings.data, parts.state(settings.data), 0
    added = state.get("files", [])
    starts = dict(zip(added, state["parts"][len(state["parts"]) - len(added) :], strict=True))
    gone: list[int] = []
    for file in map(Path, parts.files(data)):
        first = starts.get(file.name, start)
        gone += [first + at for at in found.positions.get(file, [])]
        start += pq.read_metadata(file).num_rows if file.suffix == ".parquet" else 0
    return sorted(gone)


def _pointer(path: Path) -> Path:
    return path.with_name(f"{path.name}.dvc")
