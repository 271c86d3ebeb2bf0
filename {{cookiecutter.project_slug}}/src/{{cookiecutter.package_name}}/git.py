"""What a release needs of git, as calls of its command. Nothing here touches the working tree or the index."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from .artifacts import ProjectError

REMOTE = "origin"

#: Author of a commit where git does not know who runs it, as on a fresh CI runner.
FALLBACK = ("-c", "user.name=release", "-c", "user.email=release@localhost")


class GitError(ProjectError):
    """git ended with an error; the message holds what it said."""


def run(*arguments: str, stdin: bytes | None = None) -> str:
    """Run `git ARGUMENTS` and return its output without the last line break. Raises GitError."""
    done = _start(*arguments, stdin=stdin)
    if done.returncode:
        raise GitError(f"`git {' '.join(arguments)}` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode().rstrip("\n")


def exists(revision: str) -> bool:
    """Tell whether this clone holds the object `revision`."""
    return _start("cat-file", "-e", revision).returncode == 0


def is_ancestor(older: str, newer: str) -> bool:
    """Tell whether the history of `newer` holds `older`, two commits of this clone; a commit is its own ancestor."""
    return _start("merge-base", "--is-ancestor", older, newer).returncode == 0


def differ(older: str, newer: str, *paths: str) -> bool:
    """Tell whether a file under `paths` differs between two commits."""
    return bool(run("diff", "--name-only", older, newer, "--", *paths))


def changes() -> list[str]:
    """Return the files that differ from HEAD: changed, staged, deleted, or neither tracked nor ignored."""
    entries = run("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all").split("\0")
    return [entry[3:] for entry in entries if entry]


def has_remote() -> bool:
    """Tell whether the repository has a remote named origin."""
    return REMOTE in run("remote").splitlines()


def fetch(branch: str) -> str | None:
    """Fetch `branch` of origin and return its newest commit, or None where origin has no such branch.

    Raises ProjectError where origin cannot be reached: what it holds is then unknown.
    """
    try:
        if not run("ls-remote", REMOTE, f"refs/heads/{branch}"):
            return None
        run("fetch", "--quiet", "--no-tags", REMOTE, f"+refs/heads/{branch}:refs/remotes/{REMOTE}/{branch}")
    except GitError as error:
        raise ProjectError(f"the branch {branch} of {REMOTE} cannot be read: {error}") from error
    return run("rev-parse", f"refs/remotes/{REMOTE}/{branch}")


def push(commit: str, branch: str) -> None:
    """Move `branch` of origin on to `commit`, never by force.

    Raises GitError where origin refuses, as it does when another push came first.
    """
    run("push", "--quiet", REMOTE, f"{commit}:refs/heads/{branch}")


def write_tree(entries: Mapping[str, bytes | str]) -> str:
    """Store a folder and return its tree. `entries`: name to a file's bytes, or to the tree of a folder in it."""
    lines = []
    for name, content in entries.items():
        if isinstance(content, str):
            lines.append(f"040000 tree {content}\t{name}\0")
        else:
            lines.append(f"100644 blob {run('hash-object', '-w', '--stdin', stdin=content)}\t{name}\0")
    return run("mktree", "-z", stdin="".join(lines).encode())


def write_commit(tree: str, parent: str | None, message: str) -> str:
    """Store a commit of `tree` on top of `parent` and return it; no branch names it yet."""
    identity = () if _start("var", "GIT_COMMITTER_IDENT").returncode == 0 else FALLBACK
    parents = ("-p", parent) if parent else ()
    return run(*identity, "commit-tree", tree, *parents, "-F", "-", stdin=message.encode())


def _start(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], input=stdin, capture_output=True, check=False)
