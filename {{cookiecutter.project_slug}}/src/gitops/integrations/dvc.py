"""The DVC operations of pipeline and releases: what is stale, and files pushed and retrieved by their md5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError

LOCK = Path("dvc.lock")


def stale() -> list[str]:
    """Return the stages and data files that differ from dvc.lock and the .dvc files, or are missing.

    An empty list means that every result in the workspace comes from its code, data and parameters.
    """
    with _repository("cannot determine what is stale") as repository:
        return list(repository.status())


def push() -> None:
    """Push the workspace's data, model, reports and the run cache to the DVC remote. Raises ProjectError."""
    with _repository("cannot push to its remote") as repository:
        repository.push(run_cache=True)


def pull(path: Path) -> None:
    """Pull the file `path`, which has its own .dvc file, into the workspace. Raises ProjectError."""
    with _repository(f"cannot get {path}") as repository:
        repository.pull([f"{path}.dvc"])


def follow(path: Path) -> bool:
    """Replace the file `path` with the version in its .dvc file; return whether that was necessary.

    After a merge that changed the .dvc file, the file is still an older version, which `dvc repro` would take for an
    intended change and write into the .dvc file. It is replaced only where DVC's cache has it: a file that a person put
    there stays. Raises ProjectError where the wanted version cannot be retrieved.
    """
    pointer = f"{path}.dvc"
    if not Path(pointer).exists() or not path.exists():
        return False
    with _repository(f"cannot replace {path} with the version in {pointer}") as repository:
        (stage,) = repository.stage.collect(pointer)
        (output,) = stage.outs
        here, wanted = output.get_hash().value, output.hash_info.value
        kept = [Path(repository.cache.local.oid_to_path(md5)).exists() for md5 in (here, wanted)]
        if here == wanted or not kept[0]:
            return False
        (repository.checkout if kept[1] else repository.pull)([pointer], force=True)
        return True


def add(path: Path) -> None:
    """Make the file's contents its new version, in DVC's cache and its .dvc file. Raises ProjectError."""
    with _repository(f"cannot add {path}") as repository:
        repository.add([str(path)])


def update(path: Path) -> None:
    """Update an imported file to its source's newest version. Raises ProjectError."""
    with _repository(f"cannot update {path}") as repository:
        repository.update([f"{path}.dvc"])


def tracked_object(md5: str) -> Path | None:
    """Return the path of the object `md5` where the DVC remote is a folder of this repository, else None.

    None as well for a file of `dvc import`, whose source repository stores it.
    """
    with _repository("cannot find its remote") as repository:
        remote = repository.cloud.get_remote_odb()
        if remote.fs.protocol != "local":
            return None
        # Resolved, because Git tracks nothing behind a symbolic link.
        path, root = Path(remote.oid_to_path(md5)).resolve(), Path(repository.root_dir).resolve()
        return path.relative_to(root) if path.is_relative_to(root) and path.exists() else None


def fetch(md5: str) -> Path:
    """Return the path of the object `md5` in DVC's cache, fetched from the remote if needed. Raises ProjectError."""
    from dvc_data.hashfile.hash_info import HashInfo

    with _repository(f"cannot fetch the object {md5}") as repository:
        path = Path(repository.cache.local.oid_to_path(md5))
        if not path.exists():
            repository.cloud.pull([HashInfo("md5", md5)])
    if not path.exists():
        raise ProjectError(f"object {md5} is neither in DVC's cache nor in its remote")
    return path


@contextmanager
def _repository(failure: str) -> Iterator[Any]:
    """Yield this repository in DVC's API; DVC's errors in the block become ProjectErrors that begin with `failure`."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repository:
            yield repository
    except (DvcException, OSError) as error:
        if artifacts.conflicted(LOCK):
            raise ProjectError(f"{LOCK} holds a merge's conflict, which `make pipeline` resolves") from error
        for path in (Path("dvc.yaml"), *Path("data").glob("*.dvc")):
            artifacts.refuse_conflict(path)
        raise ProjectError(f"DVC {failure}: {error}") from error
