"""Files in the DVC remote beside DVC's own objects, and the check that the remote's objects are what they are named."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from gitops.core.artifacts import digest
from gitops.integrations import dvc


def upload(folder: Path, name: str, files: Iterable[str]) -> None:
    """Copy `files` of `folder`, in this order, to the folder `name` of the remote. Raises ProjectError."""
    with dvc.opened("cannot write to its remote") as repository:
        remote = repository.cloud.get_remote()
        for file in files:
            target = remote.fs.join(remote.path, name, *file.split("/"))
            remote.fs.makedirs(remote.fs.parent(target))
            remote.fs.put_file(str(folder / file), target)


def download(name: str, folder: Path, files: Collection[str]) -> list[str]:
    """Copy those of `files` that the folder `name` of the remote has into `folder`, and return them.

    Raises ProjectError where the remote cannot be read.
    """
    found = []
    with dvc.opened("cannot read its remote") as repository:
        remote = repository.cloud.get_remote()
        for file in files:
            source, target = remote.fs.join(remote.path, name, *file.split("/")), folder / file
            if remote.fs.exists(source):
                target.parent.mkdir(parents=True, exist_ok=True)
                remote.fs.get_file(source, str(target))
                found.append(file)
    return found


def in_repository() -> bool:
    """Tell whether the remote is a folder of this repository, which another machine does not see."""
    return folder() is not None


def folder() -> Path | None:
    """Return the folder of this repository that is the remote; None where that lies elsewhere."""
    with dvc.opened("cannot find its remote") as repository:
        remote = repository.cloud.get_remote()
        inside = remote.fs.protocol == "local" and Path(remote.path).is_relative_to(repository.root_dir)
        return Path(remote.path).resolve() if inside else None


def on_this_machine() -> bool:
    """Tell whether the remote is a folder, in this repository or elsewhere, which no other machine need see."""
    with dvc.opened("cannot find its remote") as repository:
        return bool(repository.cloud.get_remote().fs.protocol == "local")


def lacks(targets: Collection[str]) -> list[str]:
    """Return the outputs of `targets`, stages and .dvc files, of which the remote lacks something. Raises ProjectError.

    They must lie in the workspace or in DVC's cache.
    """
    if not targets:  # to DVC that would be all
        return []
    with dvc.opened("cannot read its remote") as repository:
        found = repository.status(targets=[*targets], cloud=True)
    return sorted(path for path, status in found.items() if status != "deleted")  # which only the remote has


def ensure(md5s: Iterable[str]) -> list[str]:
    """Make sure that the remote's objects have the contents of those in the cache; return those that had others.

    `dvc push` leaves out what the remote has, and looks at the name alone: whoever may write there could have put other
    contents under a name before. Raises ProjectError.
    """
    replaced = []
    with dvc.opened("cannot check its remote") as repository, tempfile.TemporaryDirectory(prefix="remote-") as folder:
        remote = repository.cloud.get_remote_odb()
        for number, md5 in enumerate(md5s):
            copy, source = Path(folder, str(number)), remote.oid_to_path(md5)
            remote.fs.get_file(source, str(copy))
            if digest(copy, "md5") != md5:
                remote.fs.put_file(repository.cache.local.oid_to_path(md5), source)
                replaced.append(md5)
            copy.unlink()
    return replaced
