"""Files that people have put into the project and that hold the id: they are named, for people to decide about."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc_remote, git
from gitops.privacy import derived

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject

#: Characters of the shortest id that is searched: a shorter one is a word of many files.
SHORTEST = 4

#: Bytes of the largest file that is read, and files that are named.
LARGEST, NAMED = 2**26, 20


def notes(subject: Subject) -> list[str]:
    """Return what is said of files that Git tracks or would track, and that hold the id: no results."""
    if len(subject.value) < SHORTEST:
        return []
    found = [path.as_posix() for path in _files() if _holds(path, subject)]
    names = [name.replace(subject.value, "…") for name in found[:NAMED]]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [f"Files of the working tree that hold it as a word: {', '.join(names)}{more}."] if found else []


def remote_folder() -> Path | None:
    """Return the folder of this repository that is the DVC remote; None where that is elsewhere, or there is none."""
    with suppress(ProjectError):
        return dvc_remote.folder()
    return None


def _files() -> list[Path]:
    listed = git.run("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    remote = remote_folder()
    away = [path.resolve() for path in (*derived.RESULTS, *([remote] if remote else []))]
    paths = (Path(name) for name in dict.fromkeys(listed) if name)
    return [path for path in paths if path.is_file() and not any(map(path.resolve().is_relative_to, away))]


def _holds(path: Path, subject: Subject) -> bool:
    if subject.value in path.name:
        return True
    if path.stat().st_size > LARGEST:
        return False
    content = path.read_bytes()
    return subject.trace.search(content) is not None and subject.named(content.decode("utf-8", "replace"))
