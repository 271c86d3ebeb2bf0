"""The DVC operations of pipeline and releases: what is stale, and files pushed and retrieved by their md5."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, digest

LOCK = Path("dvc.lock")


def changed() -> list[str]:
    """Return the stages and data files that differ from dvc.lock and the .dvc files, or are missing.

    A stage is not among them for a file that is only needed before it, as in a pod that has no more than it trains on.
    """
    with opened("cannot determine what is changed") as repository:
        return list(repository.status())


def stale() -> list[str]:
    """Return the stages and data files that differ from dvc.lock and the .dvc files or are missing, and what needs one.

    DVC's status names the first ones alone: where a network was changed, the metrics are still those of the model that
    lies here. An empty list means that every result in the workspace comes from its code, data and parameters.
    """
    import networkx

    with opened("cannot determine what is stale") as repository:
        differing, graph = list(repository.status()), repository.index.graph
        after = {
            later for stage in graph if stage.addressing in differing for later in networkx.ancestors(graph, stage)
        }
        order = networkx.dfs_postorder_nodes(graph)  # each stage after what it needs
        return differing + [one.addressing for one in order if one in after and one.addressing not in differing]


def push() -> None:
    """Push the workspace's data, model, reports and the run cache to the DVC remote. Raises ProjectError."""
    from gitops.integrations import dvc_contents  # it imports this module

    with opened("cannot push to its remote") as repository:
        repository.push(run_cache=True)
    dvc_contents.mark()


def pull(path: Path) -> None:
    """Pull the file or folder `path`, which has its own .dvc file, into the workspace. Raises ProjectError."""
    with opened(f"cannot get {path}") as repository:
        repository.pull([f"{path}.dvc"])


def follow(path: Path) -> bool:
    """Replace the file or folder `path` with the version in its .dvc file; return whether that was necessary.

    After a merge that changed the .dvc file, the file is still an older version, which `dvc repro` would take for an
    intended change and write into the .dvc file. It is replaced only where DVC's cache has it: a file that a person put
    there stays. Raises ProjectError where the wanted version cannot be retrieved.
    """
    pointer = f"{path}.dvc"
    if not Path(pointer).exists() or not path.exists():
        return False
    with opened(f"cannot replace {path} with the version in {pointer}") as repository:
        (stage,) = repository.stage.collect(pointer)
        (output,) = stage.outs
        here, wanted = output.get_hash().value, output.hash_info.value
        kept = [Path(repository.cache.local.oid_to_path(md5)).exists() for md5 in (here, wanted)]
        if here == wanted or not kept[0]:
            return False
        (repository.checkout if kept[1] else repository.pull)([pointer], force=True)
        return True


def add(path: Path) -> None:
    """Make the contents of a file or folder its new version, in DVC's cache and its .dvc file. Raises ProjectError."""
    with opened(f"cannot add {path}") as repository:
        repository.add([str(path)])


def update(path: Path) -> None:
    """Update an imported file to its source's newest version. Raises ProjectError."""
    with opened(f"cannot update {path}") as repository:
        repository.update([f"{path}.dvc"])


def tracked_objects(md5s: Iterable[str]) -> list[Path]:
    """Return the paths of those objects that the DVC remote has, where it is a folder of this repository; else none.

    Files of `dvc import` are not among them: their source repository stores them.
    """
    with opened("cannot find its remote") as repository:
        remote = repository.cloud.get_remote_odb()
        if remote.fs.protocol != "local":
            return []
        # Resolved, because Git tracks nothing behind a symbolic link.
        root = Path(repository.root_dir).resolve()
        paths = [Path(remote.oid_to_path(md5)).resolve() for md5 in dict.fromkeys(md5s)]
        return [path.relative_to(root) for path in paths if path.is_relative_to(root) and path.exists()]


def pull_data() -> None:
    """Pull every file that has a .dvc file, as these files say, over whatever lies there. Raises ProjectError.

    An object's name is the md5 of its contents, which DVC does not check when it takes one from its cache or a remote.
    """
    with opened("cannot get the data") as repository:
        outs = [out for stage in repository.index.stages if stage.is_data_source for out in stage.outs]
        for path, out in ((Path(str(out)), out) for out in outs):
            here = out.get_hash().value if path.is_dir() else digest(path, "md5") if path.is_file() else None
            if here and not Path(repository.cache.local.oid_to_path(here)).exists():
                raise ProjectError(f"{path} differs from {path}.dvc, and DVC has no copy: `dvc add {path}`, or move it")
        files = {Path(str(out)): out.hash_info.value for out in outs}
        repository.pull([f"{path}.dvc" for path in files], force=True)
    for path, md5 in files.items():
        for file, expected in _members(path, md5).items():
            if file.is_file() and digest(file, "md5") != expected:
                raise ProjectError(
                    f"{file} is not the file that {path}.dvc names (md5 {expected}): {_forged(expected)}"
                )


def _members(path: Path, md5: str) -> dict[Path, str]:
    """Return the files of data that DVC tracks as `path`, with their md5s: of a folder those that its object lists.

    Raises ProjectError where that object is not the one that is named.
    """
    if not md5.endswith(".dir"):
        return {path: md5}
    listing = fetch(md5)
    return {path / file["relpath"]: file["md5"] for file in json.loads(listing.read_text(encoding="utf-8"))}


def cached(md5: str) -> Path:
    """Return where DVC's cache keeps the object `md5`, whether it has it or not."""
    with opened("cannot find its cache") as repository:
        return Path(repository.cache.local.oid_to_path(md5))


def fetch(md5: str) -> Path:
    """Return the path of the object `md5` in DVC's cache, fetched from the remote if needed.

    Raises ProjectError where neither has it, and where its contents are not those that its name stands for.
    """
    found = fetch_all([md5])[md5]
    if isinstance(found, ProjectError):
        raise found
    return found


def fetch_all(md5s: Iterable[str]) -> dict[str, Path | ProjectError]:
    """Return for each object what `fetch` returns, or would raise. The remote is asked once for all of them."""
    from dvc_data.hashfile.hash_info import HashInfo

    wanted = list(dict.fromkeys(md5s))
    found: dict[str, Path | ProjectError] = {
        md5: ProjectError(f"{md5!r} is not the md5 of an object")
        for md5 in wanted
        if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5)
    }
    rest = [md5 for md5 in wanted if md5 not in found]
    if not rest:
        return found
    paths: dict[str, Path] = {}
    failure: ProjectError | None = None
    try:
        with opened(f"cannot fetch the object{'s' * (len(rest) > 1)} {', '.join(rest)}") as repository:
            paths = {md5: Path(repository.cache.local.oid_to_path(md5)) for md5 in rest}
            if missing := [HashInfo("md5", md5) for md5, path in paths.items() if not path.exists()]:
                repository.cloud.pull(missing)
    except ProjectError as error:
        failure = error
    for md5 in rest:
        found[md5] = _checked(md5, paths.get(md5), failure)
    return found


def _checked(md5: str, path: Path | None, failure: ProjectError | None) -> Path | ProjectError:
    """Return where the cache has an object, or why it cannot be used."""
    if path is None or not path.exists():
        return failure or ProjectError(f"object {md5} is neither in DVC's cache nor in its remote")
    if digest(path, "md5") != md5.removesuffix(".dir"):
        return ProjectError(f"object {md5} has other contents: {_forged(md5)}")
    return path


def _forged(md5: str) -> str:
    return f"somebody or something has changed it; delete {cached(md5)}, and in the remote the file of that name"


@contextmanager
def opened(failure: str) -> Iterator[Any]:
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
        reason = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
        raise ProjectError(f"DVC {failure}: {reason}") from error
