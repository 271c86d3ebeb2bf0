"""The release log: every release that an environment's branch has held, oldest first, and how its deployment ended.

An entry is a commit of the branch's first-parent history that changed release.json: a release, a rollback, a
`git revert`, the merge of a promotion. A record names the commit of the previous release, so equal records are the same
release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from gitops.core.artifacts import ProjectError
from gitops.core.console import echo, one_line
from gitops.integrations import git
from gitops.releases.record import RECORD, Release

State = Literal["deployed", "superseded", "rolled back"]


@dataclass(frozen=True)
class Entry:
    """A commit of the branch that changed the record."""

    commit: str
    time: str  # of the commit, ISO 8601
    author: str
    subject: str
    blob: str  # git's hash of release.json
    record: Release


@dataclass(frozen=True)
class Period:
    """A period in which a release was deployed."""

    start: Entry
    end: Entry | None  # the entry that ended it; None for the present release
    rolled_back: bool = False  # whether that entry restored an earlier release


@dataclass(frozen=True)
class Released:
    """A release and the periods in which it was deployed, the first one first."""

    first: Entry
    periods: list[Period]

    @property
    def record(self) -> Release:
        """The release's record."""
        return self.first.record

    @property
    def state(self) -> State:
        """Whether it is deployed, or how its last period ended."""
        last = self.periods[-1]
        if last.end is None:
            return "deployed"
        return "rolled back" if last.rolled_back else "superseded"


def require_full_clone() -> None:
    """Raise ProjectError in a shallow clone, whose history is incomplete."""
    if git.run("rev-parse", "--is-shallow-repository") == "true":
        raise ProjectError("this is a shallow clone, and its whole history is needed: `git fetch --unshallow`")


def read(tip: str) -> list[Entry]:
    """Return the log up to the commit `tip`, oldest first.

    A commit with an unreadable record is reported on standard error and left out. Raises ProjectError in a shallow
    clone.
    """
    require_full_clone()
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
            echo(f"commit {commit[:12]} holds no readable release record", error=True)
            continue
        entries.append(Entry(commit, time, one_line(author), one_line(subject), blob, record))
    return entries


def rollbacks(entries: list[Entry]) -> list[int | None]:
    """Return for each entry of a log the index of the entry that it went back to; None where it is no rollback.

    A rollback, by whatever means, restores the record of a release that was first deployed before the present one. To
    bring the later one back after that (`git revert` of a rollback) is no rollback.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    found: list[int | None] = []
    for index, entry in enumerate(entries):
        back = entry.blob in first and first[entry.blob] < first[entries[index - 1].blob]
        found.append(last[entry.blob] if back else None)
        first.setdefault(entry.blob, index)
        last[entry.blob] = index
    return found


def releases(entries: list[Entry]) -> list[Released]:
    """Return the releases of a log, in the order in which they were first deployed."""
    found: dict[str, Released] = {}
    changes = [entry for before, entry in zip([None, *entries], entries, strict=False) if _changed(before, entry)]
    ends = [*zip(changes[1:], rollbacks(changes)[1:], strict=True), (None, None)]
    for start, (end, back) in zip(changes, ends, strict=True):
        released = found.setdefault(start.blob, Released(start, []))
        released.periods.append(Period(start, end, rolled_back=back is not None))
    return list(found.values())


def standing(tip: str) -> list[Released]:
    """Return the releases of the log up to the commit `tip` that no rollback has taken back; raises as `read` does."""
    return [one for one in releases(read(tip)) if one.state != "rolled back"]


def deployed(releases: list[Released]) -> Released | None:
    """Return the one that is deployed now; None where there are no releases."""
    return next((one for one in releases if one.state == "deployed"), None)


def _changed(before: Entry | None, entry: Entry) -> bool:
    return before is None or before.blob != entry.blob


def _contents(blobs: list[str]) -> dict[str, str]:
    """Return the text of each blob; missing ones are left out, such as that of a commit which removed the file."""
    wanted = "\n".join(dict.fromkeys(blobs)).encode()
    answer, found = git.run("cat-file", "--batch", stdin=wanted).encode() + b"\n", {}
    while header := re.match(rb"([0-9a-f]+) (?:blob (\d+)|missing)\n", answer):
        start, size = header.end(), int(header[2] or 0)
        if header[2]:
            found[header[1].decode()] = answer[start : start + size].decode()
            size += 1  # the line break after it
        answer = answer[start + size :]
    return found
