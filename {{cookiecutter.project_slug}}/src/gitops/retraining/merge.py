"""Resolve what a merge of two trained branches leaves in dvc.lock, and name what only a person can decide.

Each entry of dvc.lock says which inputs gave which outputs. An entry on which both sides agree stays; the others are
left out, so that DVC runs those stages on the merged inputs or takes their outputs from the run cache.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import APPENDED, PARAMS, ProjectError
from gitops.core.console import echo
from gitops.integrations import git
from gitops.integrations.dvc import LOCK

#: The stages of the two sides in Git's index; 1 is their common ancestor.
OURS, THEIRS = 2, 3


def resolve() -> None:
    """Rewrite a dvc.lock that holds conflict markers, and say what is left to do. A no-op without a conflict.

    Raises ProjectError where another file of the pipeline holds a conflict.
    """
    for path in (PARAMS, Path("dvc.yaml"), *sorted(Path("data").glob("*.dvc")), APPENDED):
        artifacts.refuse_conflict(path)
    if not artifacts.conflicted(LOCK):
        return
    from dvc.utils.serialize import dumps_yaml

    ours, theirs = (_stages(text) for text in _sides())
    agreed = {name: entry for name, entry in ours.items() if theirs.get(name) == entry}
    artifacts.write_text(LOCK, dumps_yaml({"schema": "2.0", "stages": agreed}))
    others = sorted({*ours, *theirs} - {*agreed})
    echo(
        f"{LOCK} held a merge's conflict: kept is what both sides agree on ({', '.join(agreed) or 'no stage'}); "
        f"run again or taken from the run cache: {', '.join(others)}. "
        f"Then `git add {LOCK}`, and `git commit` or `git rebase --continue`"
    )


def _sides() -> tuple[str, str]:
    """Return dvc.lock as the two sides of the merge have it.

    From Git's index, or from the markers where somebody has added the file with them: there entries may mix both sides.
    """
    unmerged = git.run("ls-files", "--unmerged", "--", str(LOCK)) if Path(".git").exists() else ""
    found = {int(line.split()[2]): line.split()[1] for line in unmerged.splitlines()}
    if OURS in found and THEIRS in found:
        return git.run("cat-file", "blob", found[OURS]), git.run("cat-file", "blob", found[THEIRS])
    sides: dict[int, list[str]] = {OURS: [], THEIRS: []}
    inside: tuple[int, ...] = (OURS, THEIRS)
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if marker := re.match(r"(<{7} |\|{7}( |$)|={7}$|>{7} )", line):
            inside = {"<": (OURS,), "|": (), "=": (THEIRS,), ">": (OURS, THEIRS)}[marker[0][0]]
        else:
            for side in inside:
                sides[side].append(line)
    return "\n".join(sides[OURS]), "\n".join(sides[THEIRS])


def _stages(text: str) -> dict[str, Any]:
    from dvc.utils.serialize import ParseError, parse_yaml  # YAML 1.2, in which 1e-05 is a number

    try:
        return dict(parse_yaml(text, str(LOCK))["stages"])
    except (ParseError, KeyError, TypeError, ValueError) as error:
        wanted = f"take one side (`git checkout --theirs {LOCK}`) or delete it, and run `make pipeline` again"
        raise ProjectError(f"{LOCK} holds a merge's conflict that cannot be read: {wanted}") from error
