"""The git operations that releases need, through the command `git`. None changes the working tree or the index."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from gitops.core.artifacts import ProjectError
from gitops.integrations.git_command import WHERE, start
from gitops.integrations.git_command import GitError as GitError

REMOTE = "origin"

#: The branch that people write, by merges.
MAIN = "main"

#: Author of a commit where git has no user configured, as on a fresh CI runner.
FALLBACK = ("-c", "user.name=release", "-c", "user.email=release@localhost")

#: For a command that writes or reads files of a working tree: their bytes are those of the commit.
UNCHANGED = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false")


class Refused(GitError):
    """origin refused a push."""


class Commit(NamedTuple):
    """A commit, its parents and its message."""

    name: str
    parents: list[str]
    message: str


def run(*arguments: str, stdin: bytes | None = None, **variables: str) -> str:
    """Run `git ARGUMENTS` with additional environment variables; return its output without the last line break.

    Raises GitError.
    """
    done = start(*arguments, stdin=stdin, **variables)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise GitError(f"`git {' '.join(arguments)}` failed: {reason}")
    return done.stdout.decode().rstrip("\n")


def is_repository() -> bool:
    """Tell whether the working directory is in a Git repository. Raises GitError for one that Git does not trust."""
    return start(*WHERE).returncode == 0


def exists(revision: str) -> bool:
    """Tell whether this clone holds the object `revision`."""
    return start("cat-file", "-e", revision).returncode == 0


def is_ancestor(older: str, newer: str) -> bool:
    """Tell whether the history of `newer` holds `older`, two commits of this clone; a commit is its own ancestor."""
    return start("merge-base", "--is-ancestor", older, newer).returncode == 0


def differ(older: str, newer: str, *paths: str) -> bool:
    """Tell whether a file under `paths` differs between two commits."""
    return bool(changed(older, newer, *paths))


def changed(older: str, newer: str, *paths: str) -> set[str]:
    """Return the files that differ between two commits: all of them, or those that `paths` (pathspecs) match."""
    found = run("diff-tree", "-r", "--name-only", "--no-renames", "-z", older, newer, "--", *paths)
    return set(filter(None, found.split("\0")))


def log(*revisions: str) -> list[Commit]:
    """Return the commits of a range, descendants before their ancestors; options and paths of `git log` are passed on.

    Bytes of a message that are no UTF-8 are replaced: anybody may have written it.
    """
    done = start("log", "--topo-order", "--format=%x01%H%x00%P%x00%B", *revisions)
    if done.returncode:
        raise GitError(f"`git log {' '.join(revisions)}` failed: {done.stderr.decode(errors='replace').strip()}")
    commits = (text.split("\0", 2) for text in done.stdout.decode(errors="replace").split("\1")[1:])
    return [Commit(name, parents.split(), message) for name, parents, message in commits]


def changes() -> list[str]:
    """Return the files that differ from HEAD: changed, staged, deleted, or untracked and not ignored."""
    entries = run("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all").split("\0")
    return [entry[3:] for entry in entries if entry]


def has_remote() -> bool:
    """Tell whether the repository has a remote named origin."""
    return REMOTE in run("remote").splitlines()


def fetch(branch: str) -> str | None:
    """Fetch `branch` of origin and return its newest commit, or None where origin has no such branch.

    Raises ProjectError where origin cannot be reached.
    """
    try:
        if not run("ls-remote", REMOTE, f"refs/heads/{branch}"):
            return None
        run("fetch", "--quiet", "--no-tags", REMOTE, f"+refs/heads/{branch}:refs/remotes/{REMOTE}/{branch}")
    except GitError as error:
        raise ProjectError(f"the branch {branch} of {REMOTE} cannot be read: {error}") from error
    return run("rev-parse", f"refs/remotes/{REMOTE}/{branch}")


def push(commit: str, branch: str) -> None:
    """Fast-forward `branch` of origin to `commit`, never by force.

    Raises Refused where origin refuses, as when another push came first.
    """
    _push(REMOTE, f"{commit}:refs/heads/{branch}")


def replace(commit: str, branch: str, seen: str | None, *also: str) -> None:
    """Force `branch` of origin from `seen` (None: it does not exist) to `commit`, and with it the refs `also`.

    All of them or none. Only for a branch that one job alone writes and whose history nobody needs. Raises Refused
    where origin refuses, as when the branch holds something else than `seen`.
    """
    target = f"refs/heads/{branch}"
    together = [*(["--atomic"] if also else []), f"--force-with-lease={target}:{seen or ''}"]
    _push(*together, REMOTE, f"{commit}:{target}", *(f"+{commit}:{ref}" for ref in also))


def propose(commit: str, branch: str, *also: str) -> str:
    """Make `commit` the tip of origin's `branch`, as `replace` does, and return the tip.

    A branch that already holds the same files on the same parent stays as it is: a run before has been killed.
    """
    seen = fetch(branch)
    if seen and _contents(seen) == _contents(commit):
        commit = seen
    replace(commit, branch, seen, *also)
    return commit


def _contents(commit: str) -> str:
    return run("log", "-1", "--format=%T %P", commit)


def export(commit: str, folder: Path) -> None:
    """Write the files of a commit into `folder`, as a checkout would."""
    with tempfile.TemporaryDirectory(prefix="index-") as temporary:
        index = str(Path(temporary) / "index")
        run("read-tree", commit, GIT_INDEX_FILE=index)
        run(*UNCHANGED, "checkout-index", "--all", f"--prefix={folder.resolve()}/", GIT_INDEX_FILE=index)


def tree(commit: str) -> str:
    """Return the tree of a commit."""
    return run("rev-parse", f"{commit}^{{tree}}")


def write_tree(entries: Mapping[str, bytes | str]) -> str:
    """Store a folder and return its tree. `entries` maps names to a file's bytes or a folder's tree."""
    lines = [f"040000 tree {content}\t{name}\0" for name, content in entries.items() if isinstance(content, str)]
    files = {name: content for name, content in entries.items() if isinstance(content, bytes)}
    for name, blob in zip(files, _write_blobs(files.values()), strict=True):
        lines.append(f"100644 blob {blob}\t{name}\0")
    return run("mktree", "-z", stdin="".join(lines).encode())


def overlay(commit: str, files: Mapping[str, Path]) -> str:
    """Store the files of a commit with `files` laid over them, byte for byte, and return the tree.

    Raises GitError where Git refuses a name.
    """
    listed = "".join(f"{path.absolute()}\n" for path in files.values()).encode()
    blobs = run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed).splitlines()
    entries = "".join(f"100644 {blob}\t{name}\0" for name, blob in zip(files, blobs, strict=True)).encode()
    with tempfile.TemporaryDirectory(prefix="index-") as temporary:
        index = str(Path(temporary) / "index")
        run("read-tree", commit, GIT_INDEX_FILE=index)
        run("update-index", "-z", "--index-info", stdin=entries, GIT_INDEX_FILE=index)
        return run("write-tree", GIT_INDEX_FILE=index)


def write_commit(tree: str, parent: str | None, message: str) -> str:
    """Store a commit of `tree` on top of `parent` and return it, without moving a branch."""
    identity = () if start("var", "GIT_COMMITTER_IDENT").returncode == 0 else FALLBACK
    parents = ("-p", parent) if parent else ()
    return run(*identity, "commit-tree", tree, *parents, "-F", "-", stdin=message.encode())


def _write_blobs(contents: Collection[bytes]) -> list[str]:
    """Store files with one call of git, which reads several only from a folder."""
    with tempfile.TemporaryDirectory(prefix="blobs-") as folder:
        paths = [Path(folder, str(number)) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        listed = "".join(f"{path}\n" for path in paths).encode()
        return run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed).splitlines()


def _push(*arguments: str) -> None:
    try:
        run("push", "--quiet", *arguments)
    except GitError as error:
        raise Refused(str(error)) from None
