"""The stages of dvc.yaml one by one: what dvc.lock says of them, what the workspace says now, and running them again.

An entry of dvc.lock records a stage's run: the command, the md5 of each dependency, the parameters, the md5 of each
output. Whoever can write that file can write anything into it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops.core.artifacts import PIPELINE_LOG, ProjectError, digest, write_text
from gitops.core.console import relay
from gitops.integrations import dvc, git, git_command
from gitops.integrations.dvc import LOCK

#: End of the md5 of a folder: the object of that name lists the folder's files.
FOLDER = ".dir"

Entry = dict[str, Any]


def lock() -> dict[str, Entry]:
    """Return the entries of dvc.lock by stage; none where there is no such file. Raises ProjectError."""
    if not LOCK.exists():
        return {}
    from dvc.utils.serialize import load_yaml  # YAML 1.2, in which 1e-05 is a number

    with dvc.opened(f"cannot read {LOCK}"):
        stages: dict[str, Entry] = load_yaml(str(LOCK)).get("stages", {})
    return stages


def lock_of(revision: str) -> dict[str, Entry]:
    """Return the same of a commit. Raises ProjectError."""
    if not git.run("ls-tree", "--name-only", revision, "--", LOCK.name):
        return {}
    from dvc.utils.serialize import parse_yaml

    with dvc.opened(f"cannot read {LOCK} of {revision}"):
        stages: dict[str, Entry] = parse_yaml(git.run("show", f"{revision}:{LOCK}"), str(LOCK)).get("stages", {})
    return stages


@dataclass(frozen=True)
class Around:
    """The stages but one, each list in an order in which they can run: those it needs, and all others in two parts.

    No stage of a part depends on one of the other part, so they can run beside each other: `after` is the longest part,
    `beside` all that does not depend on it.
    """

    before: list[str]
    after: list[str]
    beside: list[str]


def around(stage: str, *, sources: bool = False) -> Around:
    """Return the stages around `stage`. With `sources`, the .dvc files that name data are among them."""
    import networkx

    with dvc.opened("cannot read dvc.yaml") as repository:
        graph = repository.index.graph
        (node,) = repository.stage.collect(stage)
        needed = networkx.descendants(graph, node)
        ordered = [other for other in networkx.dfs_postorder_nodes(graph) if sources or not other.is_data_source]
        others = [other for other in ordered if other not in needed and other != node]
        longest: set[Any] = max(networkx.weakly_connected_components(graph.subgraph(others)), key=len, default=set())
        parts = (needed & {*ordered}, longest, {*others} - {*longest})
        return Around(*([other.addressing for other in ordered if other in part] for part in parts))


def sort_lock() -> None:
    """Put the entries of dvc.lock into the order of the stages in dvc.yaml, and not that in which they ended."""
    order = [*yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]]

    def place(name: str) -> int:
        name = name.partition("@")[0]  # NAME@ITEM, of a stage with foreach
        return order.index(name) if name in order else len(order)

    text = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    names = re.findall(r"^  (\S+):$", text, re.MULTILINE)  # DVC's parser takes a tenth of a second
    if names != sorted(names, key=place):
        from dvc.utils.serialize import dumps_yaml, load_yaml

        contents = load_yaml(str(LOCK))
        contents["stages"] = dict(sorted(contents["stages"].items(), key=lambda item: place(item[0])))
        write_text(LOCK, dumps_yaml(contents))


def runs(stage: str) -> bool:
    """Tell whether DVC would run `stage`: neither the workspace nor DVC's cache or run cache here has its result.

    Where what it depends on is missing, so that nothing is known of its result, it would.
    """
    from dvc.dependency.base import DependencyDoesNotExistError
    from dvc.logger import set_loggers_level
    from dvc.stage.cache import RunCacheNotFoundError
    from dvc_data.hashfile.hash_info import HashInfo

    with (
        dvc.opened(f"cannot tell what stage {stage} needs") as repository,
        repository.lock,
        set_loggers_level(logging.WARNING),
    ):
        (node,) = repository.stage.collect(stage)
        if not node.changed(allow_missing=True):  # dvc.lock has the result
            return bool(node.changed() and not node.outs_cached())
        for out in node.outs:
            out.hash_info = HashInfo()  # that of what it depended on before
        try:
            node.save_deps()
            repository.stage_cache.restore(node, dry=True)
        except (DependencyDoesNotExistError, RunCacheNotFoundError):
            return True
        return False


def entry(stage: str) -> Entry:
    """Return what dvc.lock would say of `stage` if it ran on what is in the workspace now; outputs have no md5."""
    from dvc.stage.serialize import to_single_stage_lockfile

    with dvc.opened(f"cannot read what stage {stage} depends on") as repository:
        (node,) = repository.stage.collect(stage)
        node.save_deps()
        return dict(to_single_stage_lockfile(node)) | {"outs": [{"path": str(out)} for out in node.outs]}


def reproduce(stages: Sequence[str], beside: Sequence[str] = ()) -> None:
    """Run the stages, whether they are stale or not, and take no earlier result; those `beside` at the same time.

    Raises ProjectError if one fails.
    """
    command = [sys.executable, "-m", "gitops.integrations.dvc_repro", "force", *stages, "--beside", *beside]
    PIPELINE_LOG.parent.mkdir(exist_ok=True)  # for the report
    if relay(command, git_command.environment(DVC_NO_ANALYTICS="1"), log=PIPELINE_LOG):
        raise ProjectError("a stage failed, see above: nothing is released")


def commit(stage: str) -> None:
    """Record the outputs in the workspace as those of `stage` on what it depends on now. Raises ProjectError."""
    with dvc.opened(f"cannot record the outputs of {stage}") as repository:
        repository.commit(stage, force=True)


def outputs(entry: Entry) -> dict[str, str]:
    """Return path -> md5 of a stage's outputs, a folder's being that of the object that lists its files."""
    return {out["path"]: out["md5"] for out in entry.get("outs", []) if "md5" in out}


def listed(path: str, listing: Path) -> dict[str, str]:
    """Return path -> md5 of the files of the folder `path`, of which `listing` is the object. Raises ValueError."""
    return {f"{path}/{file['relpath']}": file["md5"] for file in json.loads(listing.read_text(encoding="utf-8"))}


def check_outputs() -> None:
    """Raise ProjectError where an output in the workspace, or DVC's copy of it, is not what dvc.lock says.

    DVC keeps the object that its cache has under a name, whatever is in it, and where it links files puts that in the
    output's place.
    """
    for stage in lock().values():
        for path, md5 in outputs(stage).items():
            files = {path: md5}
            if md5.endswith(FOLDER):
                files = listed(path, dvc.cached(md5))
            for name, expected in files.items():
                for copy in (Path(name), dvc.cached(expected)):
                    if digest(copy, "md5") != expected.removesuffix(FOLDER):
                        raise ProjectError(f"{copy} is not what was computed for {name} (md5 {expected}): delete it")
