"""What rollbacks have taken back in an environment, and whether a commit of main would bring it back.

A rollback goes from a release of a commit of main to one of an earlier commit, and main still holds what lies between
the two. Therefore a release that was taken back holds up whatever shares that change: later commits of main, and those
between the two. A commit passes once the change is undone, which means that

- the files in which the two commits differ are again as before, or were so in a commit of main since then, or
- main holds, for each commit that made the change, another whose message says that it reverts that one.

A hold ends with a release that descends from what was taken back, since that either passed or was lifted by a person
with REDEPLOY=1. Rolling that release back as well restores the hold. The model, the archive and the manifests of a
release that was taken back are held apart from all that, until one of them is released again: another history of main
may lead to the same ones.

All this is derived from the release log, so it does not matter how somebody went back: `make rollback`, `git revert`, a
button on GitHub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gitops.integrations import git, kustomize
from gitops.releases import history, release
from gitops.releases.history import Entry
from gitops.releases.record import Candidate, Release
from gitops.releases.release import MAIN, MANIFESTS

#: Every file but those that can change no release; main computes what dvc.lock says.
RELEASED = (":/", *(f":(top,exclude,glob){path}" for path in ("docs/**", "tests/**", "dvc.lock", "*.md")))

#: As `git revert` writes it, also with --reference or for a merge, and in the message of a squashed branch.
REVERTS = re.compile(r"^[\s*]*This reverts commit\s+([0-9a-f]{7,64})\b", re.MULTILINE)

#: Files and commands that a message lists.
LISTED = 3

#: What a release consists of: kind and digest.
Digests = Mapping[str, str]


@dataclass(frozen=True)
class Hold:
    """A release that a rollback has taken back."""

    rollback: str  # commit of the environment's branch that took it back
    unwanted: Release
    back: Release  # what the environment went back to


@dataclass(frozen=True)
class Holds:
    """What is held up in an environment: by their history, and by what they consist of (kind and digest)."""

    releases: tuple[Hold, ...] = ()
    digests: dict[tuple[str, str], Hold] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """What holds a candidate up: rollback and reason, the newest first; and the holds that it undoes."""

    refusals: dict[str, str]
    undone: list[Hold]


def digests(candidate: Candidate, manifests: str) -> Digests:
    """Return what a release of the candidate consists of; `manifests` is the tree of its manifests."""
    return {"model": candidate.model.sha256, "archive": candidate.package.md5, "manifests": manifests}


def read(tip: str) -> Holds:
    """Return what is held up after the commit `tip` of an environment's branch."""
    log = history.read(tip)
    listed = "".join(f"{entry.commit}:{MANIFESTS}\n" for entry in log).encode()
    trees = git.run("cat-file", "--batch-check=%(objectname)", stdin=listed).splitlines()
    consists = [digests(entry.record, tree).items() for entry, tree in zip(log, trees, strict=True)]
    first: dict[str, int] = {}
    states: list[Holds] = []
    for index, (entry, back) in enumerate(zip(log, history.rollbacks(log), strict=True)):
        first.setdefault(entry.blob, index)
        if back is None:
            state = _after_release(states[-1], entry) if states else Holds()
        else:
            state = states[back]  # whatever came later is taken back, the end of a hold too
            later = {log[number].blob: number for number in range(back + 1, index)}
            for blob, number in later.items():
                if first[blob] > first[entry.blob]:
                    hold = Hold(entry.commit, log[number].record, entry.record)
                    state = Holds((*state.releases, hold), state.digests | dict.fromkeys(consists[number], hold))
        kept = {key: hold for key, hold in state.digests.items() if key not in consists[index]}
        states.append(Holds(state.releases, kept))
    return states[-1] if states else Holds()


def examine(environment: str, tip: str, commit: str, consists: Digests) -> Examined:
    """Return what holds up a release of `commit` of main, which consists of `consists`, to an environment at `tip`."""
    held, found = read(tip), Examined({}, [])
    for hold in reversed(held.releases):
        unwanted = hold.unwanted.commit
        if left := _still_there(hold, commit):
            found.refusals.setdefault(hold.rollback, _refusal(hold, environment, commit, left))
        elif git.is_ancestor(unwanted, commit) and reverts(hold.back.commit, unwanted):
            found.undone.append(hold)
    for (kind, value), hold in held.digests.items():
        if consists.get(kind) == value:
            reason = (
                f"commit {hold.rollback[:12]} of {release.branch(environment)} rolled back {hold.unwanted.title}, and "
                f"{commit[:12]} has the same {kind}: change that on {MAIN}, or set {_redeploy(environment)}"
            )
            found.refusals.setdefault(hold.rollback, reason)
    return found


def reverts(back: str, unwanted: str) -> list[str]:
    """Return the commands that undo on main what came between two of its commits, in the order in which to run them."""
    if not (git.exists(back) and git.exists(unwanted)):
        return [f"git revert {unwanted[:12]}"]
    return [
        f"git revert {'-m 1 ' if len(commit.parents) > 1 else ''}{commit.name[:12]}"
        for commit in _changes(back, unwanted)
    ]


def how_to_undo(back: str, unwanted: str) -> str:
    """Return `reverts` as a text, the first few of them; empty where the two commits are the same."""
    commands = reverts(back, unwanted)
    more = f" and {len(commands) - LISTED} more of {back[:12]}..{unwanted[:12]}" if len(commands) > LISTED else ""
    return ", ".join(f"`{command}`" for command in commands[:LISTED]) + more


def _after_release(state: Holds, entry: Entry) -> Holds:
    ended = [hold for hold in state.releases if git.is_ancestor(hold.unwanted.commit, entry.record.commit)]
    return Holds(tuple(hold for hold in state.releases if hold not in ended), state.digests)


def _still_there(hold: Hold, commit: str) -> list[str]:
    """Return the files by which `commit` of main still holds what was taken back; none where it holds nothing of it."""
    back, unwanted = hold.back.commit, hold.unwanted.commit
    later = git.is_ancestor(unwanted, commit)  # False for a commit that main has lost, too
    if not later and not git.is_ancestor(commit, unwanted):
        return []
    if not git.exists(back):
        return [] if unwanted in _reverted(unwanted, commit) else [f"all since {back[:12]}, which this clone lacks"]
    touched = git.changed(back, unwanted, *RELEASED)
    left = touched & git.changed(back, commit)
    if not touched & git.changed(unwanted, commit):
        return sorted(left)  # as it was taken back, whatever came in between
    since = git.run("rev-list", "--first-parent", f"{unwanted}..{commit}", "--", *RELEASED).splitlines()
    if any(not touched & git.changed(back, one) for one in since):
        return []
    made = {change.name for change in _changes(back, unwanted)}
    return [] if later and made and made <= _reverted(unwanted, commit) else sorted(left)


def _changes(back: str, unwanted: str) -> list[git.Commit]:
    """Return the commits of main that made the change from one of its commits to another, the newest first."""
    return git.log("--first-parent", f"{back}..{unwanted}", "--", *RELEASED)


def _reverted(unwanted: str, commit: str) -> set[str]:
    """Return the commits up to `unwanted` that later ones, up to `commit`, say they revert, and that stay reverted."""
    reverted: set[str] = set()
    for one in git.log(f"{unwanted}..{commit}"):  # the newest first: a revert that was itself reverted counts no more
        if one.name in reverted:
            if len(one.parents) > 1:
                reverted.update(git.run("rev-list", f"{one.parents[0]}..{one.name}").splitlines())
            continue
        reverted.update(filter(None, map(_resolve, REVERTS.findall(one.message))))
    return reverted


def _resolve(name: str) -> str | None:
    try:
        return git.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except git.GitError:
        return None


def _refusal(hold: Hold, environment: str, commit: str, left: list[str]) -> str:
    more = f" and {len(left) - LISTED} more" if len(left) > LISTED else ""
    back, unwanted = hold.back.commit, hold.unwanted.commit
    return (
        f"commit {hold.rollback[:12]} of {release.branch(environment)} rolled back {hold.unwanted.title} of commit "
        f"{unwanted[:12]}, and {commit[:12]} still holds that change ({', '.join(left[:LISTED])}{more}): undo it on "
        f"{MAIN} ({how_to_undo(back, unwanted) or f'as in {back[:12]}'}), or set {_redeploy(environment)}"
    )


def _redeploy(environment: str) -> str:
    workflow = "CI" if environment == kustomize.first() else "Promote"
    return (
        "REDEPLOY=1 to release it all the same, as for a fix on top of it (on GitHub: run the workflow "
        f"{workflow} with `redeploy`)"
    )
