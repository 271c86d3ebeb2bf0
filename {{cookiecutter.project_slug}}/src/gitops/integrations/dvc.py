"""What a release needs of DVC: whether results are up to date, and files that can be had again by their md5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError


def stale() -> list[str]:
    """Return the stages and data files that differ from what dvc.lock and the .dvc files say, or are missing.

    An empty list means: every result here comes from the code, data and parameters that lie here.
    """
    with _repository("cannot tell what is stale") as repository:
        return list(repository.status())


def push() -> None:
    """Copy the workspace's data, model and reports to the DVC remote, with the run cache. Raises ProjectError."""
    with _repository("cannot push to its remote") as repository:
        repository.push(run_cache=True)


def pull(path: Path) -> None:
    """Bring the file `path`, which has a pointer of its own, into the workspace. Raises ProjectError."""
    with _repository(f"cannot get {path}") as repository:
        repository.pull([f"{path}.dvc"])


def follow(path: Path) -> bool:
    """Bring the file `path` to the version that its pointer names, and tell whether that was needed.

    After a merge that moved the pointer the file still is an older version, which `dvc repro` would take for a person's
    new one and write into the pointer. It is replaced only where DVC's cache has it: what a person has put there stays.
    Raises ProjectError where the version that is wanted cannot be had.
    """
    pointer = f"{path}.dvc"
    if not Path(pointer).exists() or not path.exists():
        return False
    with _repository(f"cannot bring {path} to the version that {pointer} names") as repository:
        (stage,) = repository.stage.collect(pointer)
        (output,) = stage.outs
        here, wanted = output.get_hash().value, output.hash_info.value
        kept = [Path(repository.cache.local.oid_to_path(md5)).exists() for md5 in (here, wanted)]
        if here == wanted or not kept[0]:
            return False
        (repository.checkout if kept[1] else repository.pull)([pointer], force=True)
        return True


def add(path: Path) -> None:
    """Make the file's present contents its new version: in DVC's cache, and in its pointer. Raises ProjectError."""
    with _repository(f"cannot add {path}") as repository:
        repository.add([str(path)])


def update(path: Path) -> None:
    """Get an imported file's newest version from where it comes from. Raises ProjectError."""
    with _repository(f"cannot update {path}") as repository:
        repository.update([f"{path}.dvc"])


def tracked_object(md5: str) -> Path | None:
    """Return where the object `md5` lies in this repository, if the DVC remote is one of its folders; else None.

    None too for what `dvc import` brings from another repository, which keeps it.
    """
    with _repository("cannot tell where its remote is") as repository:
        remote = repository.cloud.get_remote_odb()
        path, root = Path(remote.oid_to_path(md5)), Path(repository.root_dir)
        here = remote.fs.protocol == "local" and path.is_relative_to(root) and path.exists()
        return path.relative_to(root) if here else None


def fetch(md5: str) -> Path:
    """Return the path of the object `md5`, from DVC's cache or else from its remote. Raises ProjectError without it."""
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
    """Yield this repository as DVC's API sees it; what goes wrong in the block becomes a ProjectError."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repository:
            yield repository
    except (DvcException, OSError) as error:
        raise ProjectError(f"DVC {failure}: {error}") from error
