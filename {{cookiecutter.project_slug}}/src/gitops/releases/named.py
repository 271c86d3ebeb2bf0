"""What is still named: every md5 that a release, a branch or this workspace refers to, and every shared training.

Branches are origin's and those of this clone, with its tags and stashes. Of `env/*` each release counts that its log
ever held, since a rollback may go back to any of them, and the commit of main that it came from. An md5 is taken from
wherever it stands in dvc.lock and in .dvc files: rather too many than too few.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.integrations import git, git_command
from gitops.integrations.dvc import LOCK
from gitops.releases import history, trained
from gitops.releases.record import RECORD, Release

MD5 = "md5: [0-9a-f]{32}(\\.dir)?"

#: Commits that one call of git searches.
AT_ONCE = 200


@dataclass
class Named:
    """What must stay: objects by md5 (of a folder with `.dir`), and the names that trained models are shared under."""

    md5s: set[str] = field(default_factory=set)
    trainings: set[str] = field(default_factory=set)


def named() -> Named:
    """Return what is named now. Raises ProjectError where origin, or a record in a release log, cannot be read."""
    history.require_full_clone()
    found, commits = Named(), set(_tips())
    for tip in _environments():
        for record in _records(tip):
            if not git.exists(record.commit):
                raise ProjectError(
                    f"a release came from commit {record.commit[:12]}, which this clone lacks: `git fetch`"
                )
            commits.add(record.commit)
            _add_record(found, record)
    ordered = sorted(commits)
    for start in range(0, len(ordered), AT_ONCE):
        found.md5s |= _md5s(ordered[start : start + AT_ONCE])
    for path in (LOCK, *Path().rglob("*.dvc")):
        if path.is_file():
            found.md5s |= {line[0][5:] for line in re.finditer(MD5, path.read_text(errors="replace"))}
    texts = {git.run("show", f"{commit}:{LOCK}") for commit in ordered if git.exists(f"{commit}:{LOCK}")}
    if LOCK.is_file():
        texts.add(LOCK.read_text(errors="replace"))
    found.trainings |= {key for text in texts if (key := _training(text))}
    return found


def _tips() -> list[str]:
    """Return the newest commits of all branches, of origin and here, and of tags and stashes."""
    if not git.has_remote():
        raise ProjectError(f"there is no remote named {git.REMOTE}, so that nothing is known of other branches")
    try:
        git.run("fetch", "--quiet", "--no-tags", git.REMOTE, f"+refs/heads/*:refs/remotes/{git.REMOTE}/*")
        there = git.run("ls-remote", git.REMOTE, "refs/heads/*").splitlines()
    except git.GitError as error:
        raise ProjectError(f"the branches of {git.REMOTE} cannot be read: {error}") from error
    here = git.run("for-each-ref", "--format=%(objectname)^{commit}", "refs/heads", "refs/tags", "refs/stash")
    return [git.run("rev-parse", name) for name in ("HEAD", *(line.split()[0] for line in there), *here.splitlines())]


def _environments() -> list[str]:
    """Return the newest commit of each branch `env/*` of origin."""
    there = git.run("ls-remote", git.REMOTE, "refs/heads/env/*").splitlines()
    return [line.split()[0] for line in there]


def _records(tip: str) -> list[Release]:
    """Return every record that the branch has held. Raises ProjectError where one cannot be read."""
    entries = history.read(tip)
    changes = git.run("log", "--first-parent", "--format=%H", tip, "--", RECORD).splitlines()
    if len(entries) != len(changes):
        raise ProjectError(
            f"a {RECORD} in the history of {tip[:12]} cannot be read, so that it is unknown what it names"
        )
    return [entry.record for entry in entries]


def _add_record(found: Named, record: Release) -> None:
    files = (record.model.md5, record.package.md5, record.predictions.md5, record.test_md5, record.data.md5)
    found.md5s.update(files)
    found.md5s.update(file.md5 for file in (record.appended, record.explanations) if file)
    if record.training:
        found.trainings.add(record.training.inputs)


def _md5s(commits: list[str]) -> set[str]:
    """Return the md5s in dvc.lock and .dvc files of the commits."""
    done = git_command.start("grep", "-h", "-o", "--text", "-E", MD5, *commits, "--", str(LOCK), "*.dvc")
    if done.returncode not in (0, 1):  # 1: found nothing
        raise ProjectError(f"`git grep` failed: {done.stderr.decode(errors='replace').strip()}")
    return {line[5:] for line in done.stdout.decode().splitlines()}


def _training(text: str) -> str | None:
    """Return the name of the trained model in the text of a dvc.lock; None where it has none, or cannot be read."""
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml

    try:
        stages: dict[str, Any] = parse_yaml(text, str(LOCK)).get("stages", {})
        return trained.key(trained.inputs(stages[trained.STAGE]))
    except (YAMLFileCorruptedError, AttributeError, KeyError, TypeError):
        return None
