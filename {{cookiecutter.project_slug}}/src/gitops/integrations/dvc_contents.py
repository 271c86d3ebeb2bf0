"""What the DVC remote holds, file by file, with sizes and ages: DVC's objects, its run cache, what branches share.

Which projects write to a remote is kept there too, below PROJECTS: one that two repositories share can be cleaned by
neither, since each knows only what it names itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc, dvc_remote, git

#: Folders of a remote. The first two are DVC's own: https://dvc.org/doc/user-guide/project-structure/internal-files
OBJECTS, RUNS, PROJECTS = "files/md5", "runs", "projects"

#: Under which names file systems of fsspec tell when a file was written.
TIMES = ("mtime", "LastModified", "last_modified", "updated")


class Stored(NamedTuple):
    """A file of the remote: its path below the remote's folder, its size in bytes, when it was written."""

    path: str
    size: int
    written: datetime


def stored(folder: str) -> list[Stored]:
    """Return the files below `folder` of the remote. Raises ProjectError where it cannot be read or tells no age."""
    with dvc.opened("cannot list its remote") as repository:
        remote = _remote(repository)
        below = remote.fs.join(remote.path, *folder.split("/"))
        if not remote.fs.exists(below):
            return []
        found = remote.fs.fs.find(below, detail=True)
        if not isinstance(found, dict):  # a folder on this machine, of which DVC has a file system of its own
            found = {path: remote.fs.info(path) for path in found}
        start = len(_slashes(remote.path).rstrip("/")) + 1
        return [Stored(_slashes(path)[start:], int(info["size"]), _written(path, info)) for path, info in found.items()]


def read(path: str) -> bytes:
    """Return the contents of a file of the remote. Raises ProjectError."""
    with dvc.opened(f"cannot read {path} of its remote") as repository, tempfile.TemporaryDirectory() as folder:
        remote, copy = _remote(repository), Path(folder, "copy")
        remote.fs.get_file(remote.fs.join(remote.path, *path.split("/")), str(copy))
        return copy.read_bytes()


def remove(paths: Iterable[str]) -> None:
    """Remove files of the remote, in this order. Raises ProjectError, and what comes after the failure stays."""
    with dvc.opened("cannot remove files of its remote") as repository:
        remote = _remote(repository)
        for path in paths:
            remote.fs.rm_file(remote.fs.join(remote.path, *path.split("/")))


def mark() -> None:
    """Write into the remote that this project uses it, unless it lies in the repository. Raises ProjectError."""
    if dvc_remote.in_repository() or (name := project()) is None:
        return
    with dvc.opened("cannot write to its remote") as repository, tempfile.TemporaryDirectory() as folder:
        remote, own = _remote(repository), Path(folder, "project")
        target = remote.fs.join(remote.path, PROJECTS, name)
        if not remote.fs.exists(target):
            own.write_text(f"{Path(repository.root_dir).name}\n", encoding="utf-8")
            remote.fs.makedirs(remote.fs.parent(target))
            remote.fs.put_file(str(own), target)


def project() -> str | None:
    """Return the name of this project in remotes, its first commit; None where this clone does not have that."""
    if git.run("rev-parse", "--is-shallow-repository") == "true" or not git.exists("HEAD"):
        return None
    return min(git.run("rev-list", "--max-parents=0", "HEAD").splitlines())


def _remote(repository: Any) -> Any:
    """Return the remote. Raises ProjectError for one whose files the cloud versions: they are not named by md5."""
    remote = repository.cloud.get_remote()
    if remote.worktree or remote.fs.version_aware:
        raise ProjectError(f"the DVC remote {remote.name} is version_aware: its files are not stored by their md5")
    return remote


def _written(path: str, info: dict[str, Any]) -> datetime:
    """Return when a file was written. Raises ProjectError where its file system does not tell."""
    value = next((info[name] for name in TIMES if info.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        raise ProjectError(
            f"the DVC remote does not tell when {path} was written, so that nothing there can be removed"
        )
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _slashes(path: str) -> str:
    return path.replace("\\", "/")
