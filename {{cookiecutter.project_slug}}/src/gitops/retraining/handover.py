"""What a retraining hands to `make propose`: the folder build/candidate, files and text.

In a workflow the two are jobs. What trains runs other people's packages on data from outside with a token that can only
read; what proposes has a token that can write, runs none of that, and takes this folder as a stranger's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import APPENDED, DATA_UNDERSTANDING, PARAMS, ProjectError
from gitops.integrations import git

FOLDER = Path("build/candidate")
TEXT, FILES = "candidate.json", "files"

#: Bytes of the text at most.
LIMIT = 1_000_000

#: The branches of candidates, each named by its model's version.
PREFIX = "retrain/"

#: What a retraining changes on main, besides the pointers of tables: settings, the requests in them, what was trained,
#: and how many rows there are.
CHANGES = (PARAMS.as_posix(), APPENDED.as_posix(), "dvc.lock", DATA_UNDERSTANDING.as_posix())

#: An object in a DVC remote that is a folder of the repository, named by its md5; a folder's listing ends in `.dir`.
OBJECT = re.compile(r"(?:.+/)?files/md5/([0-9a-f]{2})/([0-9a-f]{30})(?:\.dir)?")


@dataclass(frozen=True)
class Candidate:
    """A candidate for `branch`, or without one the record of a refused candidate, which changes no file."""

    main: str  # the commit of main that it is made from
    message: str  # of its commit
    branch: str = ""
    title: str = ""  # of its pull request
    body: str = ""
    review: str = ""  # why a person must look at the rows before the merge, or nothing
    files: dict[str, Path] = field(default_factory=dict)  # by their paths in the repository


def in_workflow() -> bool:
    """Tell whether this is a job of GitHub Actions, whose candidates another job proposes."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def leave(candidate: Candidate, paths: Sequence[Path] = (), folder: Path = FOLDER) -> None:
    """Write a candidate with the present contents of `paths` into `folder`, whole or not at all."""
    draft = folder.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / FILES).mkdir(parents=True)
    for number, path in enumerate(paths):  # by number: an artifact holds no hidden files and not every name
        shutil.copyfile(path, draft / FILES / str(number))
    told = asdict(candidate) | {"files": [path.as_posix() for path in paths]}
    (draft / TEXT).write_text(json.dumps(told), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def read(folder: Path = FOLDER) -> Candidate:
    """Return the candidate in `folder`, every part of it checked. Raises ProjectError."""
    told = _text(folder)
    candidate = Candidate(**told | {"files": {}})
    if not re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", candidate.main):
        raise ProjectError(f"{folder / TEXT}: main is no commit")
    if not re.fullmatch(rf"(?:{PREFIX}[0-9a-f]{{12}})?", candidate.branch):
        raise ProjectError(f"{folder / TEXT}: branch must be {PREFIX} and a model's version, or empty")
    if bool(candidate.branch) != bool(told["files"]):
        raise ProjectError(f"{folder / TEXT}: a candidate has a branch and files, and a refused one has neither")
    main = git.fetch(git.MAIN)
    if not git.exists(candidate.main) or not main or not git.is_ancestor(candidate.main, main):
        raise ProjectError(f"commit {candidate.main[:12]}, which the candidate is made from, is not on {git.MAIN} here")
    for number, name in enumerate(told["files"]):
        candidate.files[name] = _file(folder, number, name, candidate.main)
    return candidate


def _text(folder: Path) -> dict[str, Any]:
    """Return the text, its keys and types checked; `files` is a list of names. Raises ProjectError."""
    path = folder / TEXT
    if not path.is_file() or any(part.is_symlink() for part in (path, folder, folder / FILES)):
        raise ProjectError(
            f"{path} is missing: in a workflow `make retrain` leaves it; elsewhere it proposes by itself"
        )
    if path.stat().st_size > LIMIT:
        raise ProjectError(f"{path} is larger than {LIMIT:,} bytes")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ProjectError(f"{path} is not JSON") from None
    wanted = {name: type(value) for name, value in asdict(Candidate("", "")).items()} | {"files": list}
    right = isinstance(told, dict) and {name: type(value) for name, value in told.items()} == wanted
    if not right or not all(isinstance(name, str) for name in told["files"]):
        raise ProjectError(f"{path} holds something else than `make retrain` writes")
    return dict(told)


def _file(folder: Path, number: int, name: str, main: str) -> Path:
    """Return one of the files, whose name a retraining may change on `main`. Raises ProjectError."""
    path = folder / FILES / str(number)
    if path.is_symlink() or not path.is_file():
        raise ProjectError(f"{path}, which stands for {name!r}, is no regular file")
    pointer = name.endswith(".dvc") and git.exists(f"{main}:{name}")
    found = OBJECT.fullmatch(name)
    is_object = found and artifacts.digest(path, "md5") == found[1] + found[2]
    if not (name in CHANGES or pointer or is_object):
        raise ProjectError(f"{folder / TEXT}: a retraining does not change {name!r}")
    return path
