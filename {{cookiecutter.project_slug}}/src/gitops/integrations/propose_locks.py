"""`make propose-locks`: the locks that a change of requirements by Dependabot needs, in a pull request in its place.

Dependabot changes requirements/ and cannot run `make lock`. In a workflow one job runs that, with a token that can
only read, and hands over what it wrote. This one may write: it runs nothing that was downloaded, takes the locks as
data, and pushes Dependabot's commit with one more on top as `locks/...`. Only the standard library is imported.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from gitops.core import actions
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo
from gitops.integrations import git, github, github_pulls

#: Where the workflow puts what `make lock` has left of requirements/.
FOLDER = Path("build/locks")

REQUIREMENTS = "requirements"

#: Bytes of a lock at most.
LIMIT = 20_000_000

THEIRS, OURS = "dependabot/", "locks/"


def main() -> None:
    """Propose the locks, or print that they are right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--locks", type=Path, default=FOLDER, help=f"the folder requirements/ of `make lock`; {FOLDER}")
    parser.add_argument("--branch", default=os.environ.get("GITHUB_REF_NAME", ""), help="Dependabot's branch")
    arguments = parser.parse_args()
    propose(arguments.branch, arguments.locks, os.environ.get("GITHUB_SHA", ""))


def propose(branch: str, folder: Path, commit: str) -> str | None:
    """Push the locks for `commit` of Dependabot's branch, open their pull request and return its address.

    None where there is nothing to propose. An empty `commit` stands for the newest. Raises ProjectError.
    """
    if not re.fullmatch(rf"{THEIRS}[\w./-]+", branch, re.ASCII):
        raise ProjectError(f"--branch is {branch!r} (or GITHUB_REF_NAME): Dependabot's is needed, {THEIRS}...")
    client = github.connect()
    tip = git.fetch(branch)
    if tip is None or commit not in ("", tip):
        _tell(f"nothing is proposed: {branch} has a newer commit, or is gone")
        return None
    tree = git.overlay(tip, locks(tip, folder))
    if tree == git.tree(tip):
        _tell(f"nothing is proposed: the locks of {branch} are as `make lock` writes them")
        return None
    rest = branch.removeprefix(THEIRS)
    pushed = git.propose(git.write_commit(tree, tip, "Write the locks of these requirements\n"), OURS + rest)
    change = github_pulls.of_branch(client, branch)
    text = (
        f"The change of `{branch}` with the locks that `make lock` writes for it"
        + (f", in place of #{change['number']}" if change else "")
        + ". Dependabot closes its own pull request once the versions are on main.\n\n"
        "This branch is made anew whenever Dependabot changes its own: commits of yours on it are lost."
    )
    address = github_pulls.propose(client, OURS + rest, pushed, f"Locks of {rest}", text)
    _tell(f"opened: {address}")
    return address


def locks(commit: str, folder: Path) -> dict[str, Path]:
    """Return the locks in `folder` that a commit has too, by their paths in the repository. Raises ProjectError."""
    if folder.is_symlink() or not folder.is_dir():
        raise ProjectError(f"{folder} is no folder: the job that runs `make lock` hands over {REQUIREMENTS}/")
    found = {}
    for entry in filter(None, git.run("ls-tree", "-r", "-z", commit, "--", f"{REQUIREMENTS}/").split("\0")):
        kind, name = entry.split("\t", 1)
        below = Path(name).relative_to(REQUIREMENTS)
        way = [folder.joinpath(*below.parts[: depth + 1]) for depth in range(len(below.parts))]
        if not kind.startswith("100644 ") or below.suffix != ".txt" or not os.path.lexists(way[-1]):
            continue
        if any(part.is_symlink() for part in way) or not way[-1].is_file() or way[-1].stat().st_size > LIMIT:
            raise ProjectError(f"{way[-1]}: a regular file of at most {LIMIT:,} bytes is needed")
        found[name] = way[-1]
    return found


def _tell(line: str) -> None:
    echo(line)
    actions.summarise(line)


if __name__ == "__main__":
    run(main)
