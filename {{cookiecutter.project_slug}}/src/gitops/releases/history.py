"""The release log: what env/production has held, from its first commit to its newest, and how each release ended.

Every commit of the branch's first-parent history that changed release.json is an entry: a release, a rollback, a
`git revert`, the merge of a promotion. Each release names the one before it: equal records are the same release.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from gitops.core.artifacts import ProjectError
from gitops.integrations import git
from gitops.releases.release import BRANCH, RECORD, Release

State = Literal["runs", "superseded", "rolled back"]


@dataclass(frozen=True)
class Entry:
    """A commit of the branch that changed the record."""

    commit: str
    time: str  # when it was committed, ISO 8601
    author: str
    subject: str
    blob: str  # git's hash of release.json
    record: Release


@dataclass(frozen=True)
class Stint:
    """A time in which a release ran."""

    start: Entry
    end: Entry | None  # what ended it; None while it runs
    back: bool = False  # whether that brought an earlier release back


@dataclass(frozen=True)
class Released:
    """A release and all the times that it ran, the first one first."""

    first: Entry
    stints: list[Stint]

    @property
    def record(self) -> Release:
        """The release's record."""
        return self.first.record

    @property
    def state(self) -> State:
        """What has become of it."""
        last = self.stints[-1]
        if last.end is None:
            return "runs"
        return "rolled back" if last.back else "superseded"


def whole() -> None:
    """Raise ProjectError in a clone that lacks history."""
    if git.run("rev-parse", "--is-shallow-repository") == "true":
        raise ProjectError("this clone lacks history: `git fetch --unshallow`")


def read(tip: str) -> list[Entry]:
    """Return the log up to the commit `tip`, oldest first.

    A commit whose record cannot be read is told on standard error and left out. Raises ProjectError in a clone that
    lacks history.
    """
    whole()
    form = "--format=%x01%H%x00%cI%x00%an%x00%s%x00"
    raw = ("--raw", "--no-abbrev", "--no-renames", "--diff-merges=first-parent")
    log = git.run("log", "--first-parent", "--reverse", *raw, form, tip, "--", RECORD)
    commits = [commit.split("\0") for commit in log.split("\1")[1:]]
    blobs = [change.split()[3] for *_, change in commits]
    contents = _contents(blobs)
    entries = []
    for (commit, time, author, subject, _), blob in zip(commits, blobs, strict=True):
        try:
            record = Release.model_validate_json(contents.get(blob, ""))
        except ValidationError:
            print(f"commit {commit[:12]} of {BRANCH} holds no release record that can be read", file=sys.stderr)
            continue
        entries.append(Entry(commit, time, printable(author), printable(subject), blob, record))
    return entries


def releases(entries: list[Entry]) -> list[Released]:
    """Return the releases of a log, in the order in which they first ran."""
    found: dict[str, Released] = {}
    turns = [entry for before, entry in zip([None, *entries], entries, strict=False) if _changed(before, entry)]
    for start, end in zip(turns, [*turns[1:], None], strict=True):
        released = found.setdefault(start.blob, Released(start, []))
        released.stints.append(Stint(start, end, back=end is not None and end.blob in found))
    return list(found.values())


def printable(text: str) -> str:
    """Return `text` without the signs that steer a terminal."""
    return "".join(sign for sign in text if sign.isprintable())


def _changed(before: Entry | None, entry: Entry) -> bool:
    return before is None or before.blob != entry.blob


def _contents(blobs: list[str]) -> dict[str, str]:
    """Return the text of each blob; one that is not there, as where a commit removed the file, is left out."""
    wanted = "\n".join(dict.fromkeys(blobs)).encode()
    answer, found = git.run("cat-file", "--batch", stdin=wanted).encode() + b"\n", {}
    while header := re.match(rb"([0-9a-f]+) (?:blob (\d+)|missing)\n", answer):
        start, size = header.end(), int(header[2] or 0)
        if header[2]:
            found[header[1].decode()] = answer[start : start + size].decode()
            size += 1  # the line break behind it
        answer = answer[start + size :]
    return found
