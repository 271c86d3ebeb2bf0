"""The files that together are the table: what a person has put there, and what retrainings have appended to it.

A retraining writes the rows that it appends into a file of their own, in the table's format, so that the table itself
stays as it is, and a new version has no other new bytes. Of a table in one file these parts lie in FOLDER, which DVC
tracks; of a folder of parquet files they are more files in it. data/appended.json lists them, with the md5 of the table
that they belong to: the parts of a table that a person has replaced do not count any more.

Only the standard library and core are needed, and no row is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data

#: Where the parts of a table in one file lie.
FOLDER = Path("data/appended")


def files(data: Data) -> list[str]:
    """Return the paths of the table's files in the order of their rows: the table itself, then its appended parts.

    Of a folder these are its parquet files by name, the appended ones last. A pattern or an address of object storage
    is returned as it is; nothing is appended to those. Raises ProjectError where a part that data/appended.json lists
    is missing, or a folder holds rows that would not be read.
    """
    if elsewhere(data):
        return [data.path]
    path, names = Path(data.path), state(data).get("files", [])
    added = [folder(data) / name for name in names]
    for part in added:
        if not part.exists():
            pointer = f"{folder(data).as_posix()}.dvc"
            raise ProjectError(
                f"{part.as_posix()}, rows that a retraining has appended to {data.path}, is missing: `dvc pull "
                f"{pointer}` gets it; if it does not, {artifacts.APPENDED} and {pointer} are of different commits"
            )
    own = [path]
    if path.is_dir():
        refuse_others(f"data.path is {data.path!r}", path.as_posix(), (name.as_posix() for name in path.rglob("*")))
        own = sorted({*path.glob("*.parquet")} - {*added})
        own = [file for file in own if counts(file.name)] or [path]
    return [file.as_posix() for file in (*own, *added)]


def counts(path: str) -> bool:
    """Tell whether no name in a path begins with a dot or an underscore: by convention such are no part of a table, but
    unfinished, or metadata.
    """
    return not any(name.startswith((".", "_")) for name in PurePosixPath(path).parts)


def refuse_others(problem: str, folder: str, paths: Iterable[str]) -> None:
    """Raise ProjectError, which begins with `problem`, where a table's folder also holds rows that would not be read:
    CSV, or files in folders below it. `paths`: what there is at any depth.
    """
    below = (PurePosixPath(path).relative_to(folder) for path in paths if PurePosixPath(path).is_relative_to(folder))
    tables = (path for path in below if path.name.endswith((".csv", ".csv.gz", ".parquet")) and counts(str(path)))
    others = sorted(path.as_posix() for path in tables if len(path.parts) > 1 or path.suffix != ".parquet")
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise ProjectError(
            f"{problem}: a folder's table is the .parquet files that lie in it, so {shown} would not be read: move "
            f"what is no part of it elsewhere; for parquet in folders below write '{folder}/**/*.parquet'"
        )


def starts(data: Data) -> list[int]:
    """Return the rows of the table, counted from 0, at which retrainings have appended some.

    Those that an earlier version of this package has appended lie in the table's own file.
    """
    return list(state(data).get("parts", []))


def state(data: Data) -> dict[str, Any]:
    """Return what data/appended.json says of the table; nothing where it is about another one or there is no such file.

    The table's md5 is the one in its .dvc file, which `dvc repro` brings up to date before a stage reads the table.
    """
    found = everything()
    if found.get("table") is None or elsewhere(data) or found["table"] != _md5(Path(data.path)):
        return {}
    return found


def unused(data: Data) -> list[str]:
    """Return the names of the parts that data/appended.json lists for another table than the one that is here."""
    return [] if state(data) else list(everything().get("files", []))


def version(data: Data) -> str | None:
    """Return the md5 of FOLDER where rows in it belong to the table; None where all rows are in data.path itself."""
    return artifacts.tracked_md5(FOLDER) if state(data).get("files") and folder(data) == FOLDER else None


def md5(data: Data) -> str:
    """Return what names the table's contents: its md5, and after a `+` that of the rows that are appended to it."""
    return "+".join(filter(None, (artifacts.tracked_md5(Path(data.path)), version(data))))


def everything() -> dict[str, Any]:
    """Return the contents of data/appended.json, of whichever table; nothing where there is no such file."""
    if not artifacts.APPENDED.exists():
        return {}
    found: dict[str, Any] = artifacts.read_json(artifacts.APPENDED, "git restore")
    return found


def folder(data: Data) -> Path:
    """Return the folder in which the appended parts of the table lie."""
    return Path(data.path) if Path(data.path).is_dir() else FOLDER


def name(number: int, content: Path) -> str:
    """Return the name of part `number`, counted from 1, whose rows are in the file `content`.

    With a digest, so that two retrainings that a merge brings together never write different rows under one name.
    """
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"appended-{number:04d}-{digest[:12]}{content.suffix}"


def requests(part: Path) -> Path:
    """Return the file beside an appended part that has the hash of each row's request, a line each: the rows themselves
    name none, and `make erase` finds them by it.
    """
    return part.with_suffix(".requests")


def elsewhere(data: Data) -> bool:
    """Tell whether the table is no file or folder that DVC can track: a database's, a pattern, or object storage's."""
    return data.query is not None or "://" in data.path or "*" in data.path


def _md5(path: Path) -> str | None:
    if path.with_name(f"{path.name}.dvc").exists() or path.is_file():
        return artifacts.tracked_md5(path)
    return None
