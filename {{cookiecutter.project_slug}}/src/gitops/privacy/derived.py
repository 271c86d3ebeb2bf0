"""What this machine has made of the table and of the log: results, which `make pipeline` makes again, and DVC's copies.

Splits and reports do not all have ids, so they are not searched: they go as a whole, as `make clean` removes them. Of
DVC's cache go the versions of the table that hold the subject, and what stages have made of them, but for the models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from gitops.core.artifacts import CHECKPOINTS, JOINED
from gitops.integrations import dvc, git
from gitops.integrations.dvc import LOCK
from gitops.integrations.dvc_stages import FOLDER
from gitops.retraining import retrain

#: Results: all that `make clean` removes of them, the online store without a server, a retraining's working tree.
RESULTS = (
    Path("data/prepared"),
    JOINED,
    Path("model"),
    Path("evaluation"),
    Path("package"),
    Path("reports"),
    Path("monitoring"),
    Path("build"),
    CHECKPOINTS,
    Path(".feast"),
    retrain.WORKTREE,
)

#: Stages whose outputs hold no rows of the table.
ROWLESS = ("train",)


def results() -> list[Path]:
    """Return those of RESULTS that are here."""
    return [path for path in RESULTS if path.exists()]


def remove_results() -> None:
    """Remove them. A run that is killed has removed less."""
    for path in results():
        if path == retrain.WORKTREE:
            retrain.remove_worktree()
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def cached(versions: set[str], objects: set[str]) -> list[str]:
    """Return the md5s of what DVC's cache here has of the `objects`, and of what was made of the `versions`."""
    root = dvc.cached("0" * 32).parent.parent
    wanted = set(objects)
    for stages in _locks():
        if any(not versions.isdisjoint(_md5s(stage.get("deps"))) for stage in stages.values()):
            for name, stage in stages.items():
                wanted |= {*_md5s(stage.get("outs"))} if name not in ROWLESS else set()
    for md5 in [md5 for md5 in wanted if md5.endswith(FOLDER)]:
        wanted |= {*_members(root, md5)}
    return sorted(md5 for md5 in wanted if _path(root, md5).exists())


def forget(md5s: Iterable[str]) -> None:
    """Remove objects of DVC's cache: those of a folder's files before their list."""
    root = dvc.cached("0" * 32).parent.parent
    for md5 in sorted(md5s, key=lambda md5: md5.endswith(FOLDER)):
        _path(root, md5).unlink(missing_ok=True)


def _locks() -> Iterator[dict[str, Any]]:
    """Yield the stages of each dvc.lock: that of the workspace, and those in Git's history."""
    texts = [LOCK.read_text(encoding="utf-8")] if LOCK.exists() else []
    for commit in git.run("log", "--all", "--format=%H", "--", str(LOCK)).split() if git.exists("HEAD") else []:
        if git.exists(f"{commit}:{LOCK}"):
            texts.append(git.run("show", f"{commit}:{LOCK}"))
    for text in dict.fromkeys(texts):
        try:
            yield yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)).get("stages", {})  # noqa: S506
        except (yaml.YAMLError, AttributeError):  # a merge's conflict
            continue


def _md5s(files: Any) -> list[str]:
    return [str(file["md5"]) for file in files or [] if isinstance(file, dict) and "md5" in file]


def _members(root: Path, md5: str) -> list[str]:
    """Return the md5s of the files of a folder, whose list is in the cache."""
    path = _path(root, md5)
    return [str(file["md5"]) for file in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def _path(root: Path, md5: str) -> Path:
    return root / md5[:2] / md5[2:]
