"""Trace the lineage of releases: what is deployed and where it came from (`make trace`), or which releases a commit,
run, model, image or table went into (`make trace WHAT=...`).

Everything is read from Git: the release log of env/production, and main. MLflow is queried only with --registry,
because that takes seconds, and tracing must work without it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from typing import Any

from gitops.core import params
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import echo
from gitops.integrations import git
from gitops.registry import lineage
from gitops.registry.lineage import SHORT
from gitops.releases import history, release
from gitops.releases.history import Released
from gitops.releases.record import RECORD
from gitops.releases.release import BRANCH, MAIN

#: Minimum number of digits of a hash.
MIN_DIGITS = 4

#: What a release is made from: a commit that changes none of it releases nothing.
INPUTS = ("data", "dvc.lock", "dvc.yaml", "k8s", "params.yaml", "requirements", "serving", "src")


def main() -> None:
    """Print the releases, as text or, with --json, as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", default=os.environ.get("WHAT") or None, help="what to look for (or WHAT)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--registry", action="store_true", help="query MLflow for versions and aliases too")
    arguments = parser.parse_args()
    found = trace(arguments.what)
    if arguments.registry:
        add_registry(found["releases"])
    if arguments.json:
        echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    echo("\n\n".join(filter(None, [found["note"], *map(lineage.table, found["releases"])])))


def trace(what: str | None) -> dict[str, Any]:
    """Return "what" was looked for, a "note" on it, and the "releases" that it went into, from lineage.describe.

    Without `what`, it is the release in production. Raises ProjectError where nothing was released, and where `what` is
    unknown or ambiguous.
    """
    present = release.production()
    if present is None:
        raise ProjectError(f"{BRANCH} holds no release: nothing was ever released")
    releases = history.releases(history.read(present.commit))
    if what is None:
        chosen, note = [one for one in releases if one.state == "deployed"], ""
    else:
        chosen, note = find(what, releases, present.commit)
    records = {period.start.commit: one.record for one in releases for period in one.periods}
    described = [lineage.describe(one, records.get(one.record.previous or "")) for one in chosen]
    return {"what": what, "note": note, "releases": described}


def find(what: str, releases: list[Released], tip: str) -> tuple[list[Released], str]:
    """Return the releases that `what` went into, and a sentence that says what it is.

    `what` is a commit, run id or digest that a record holds, or its first digits, or an image's reference, or any other
    name of a commit.
    """
    if len(what) < MIN_DIGITS or what.startswith("-") or not what.isprintable():
        raise ProjectError(
            f"WHAT is {what!r}: at least {MIN_DIGITS} digits of a commit, run id, sha256, md5 or digest are needed"
        )
    commit = _commit(what)
    named = [(kind, value, one) for one in releases for kind, value in names(one)]
    hits = [hit for hit in named if hit[1] == commit or _fits(what, hit[1])]
    hits = [hit for hit in hits if what == hit[1]] or hits
    matches = dict.fromkeys((value, kind) for kind, value, _ in hits)
    if commit and all(value != commit for value, _ in matches):
        matches[commit, "commit"] = None
    if len({value for value, _ in matches}) > 1:
        listed = ", ".join(f"{kind} {value}" for value, kind in matches)
        raise ProjectError(f"WHAT is {what!r}, which is ambiguous: {listed}")
    if hits:
        kinds = ", ".join(dict.fromkeys(kind for _, kind in matches))
        return [one for one in releases if any(one is hit[2] for hit in hits)], f"{hits[0][1]}: {kinds}"
    if commit:
        return _find_commit(commit, releases, tip)
    raise ProjectError(
        f"WHAT is {what!r}, which is neither a commit of this clone nor in the {len(releases)} release records of "
        f"{BRANCH}: commits, MLflow runs, images, digests, sha256 and md5 of models, archives, predictions and data"
    )


def names(released: Released) -> list[tuple[str, str]]:
    """Return everything that a release can be found by, as kind and value."""
    record = released.record
    named = [
        (f"commit of {MAIN}", record.commit),
        *((f"commit of {BRANCH}", period.start.commit) for period in released.periods),
        ("sha256 of a model", record.model.sha256),
        ("md5 of a model", record.model.md5),
        ("MLflow run", record.mlflow_run_id or ""),
        ("image", record.image),
        ("digest of an image", record.image.partition("@")[2].removeprefix("sha256:")),
        ("md5 of a table", record.data.md5),
        ("md5 of rows appended to a table", record.appended.md5 if record.appended else ""),
        ("md5 of an archive", record.package.md5),
        ("md5 of predictions", record.predictions.md5),
    ]
    return [(kind, value) for kind, value in named if value]


def add_registry(described: list[dict[str, Any]]) -> None:
    """Add to each described release its version in MLflow and that version's aliases. Raises ProjectError."""
    from gitops.integrations import tracking
    from gitops.registry import registry
    from gitops.registry.versions import Versions

    with tracking.errors():
        model = Versions(params.load())
        known, aliases = model.all(), model.aliases()
    for one in described:
        commit = one["deployed"][0]["started_by"]["commit"]
        version = next((number for number, its in known.items() if its.get(registry.RELEASE) == commit), None)
        named = sorted(alias for alias, number in aliases.items() if number == version)
        one["mlflow"] |= {"version": version, "aliases": named}


def _fits(what: str, value: str) -> bool:
    if re.search(r"[/:@]", value):
        return value == what
    return value.startswith(what.removeprefix("sha256:"))


def _commit(what: str) -> str | None:
    try:
        return git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{what}^{{commit}}")
    except git.GitError:
        return None


def _find_commit(commit: str, releases: list[Released], tip: str) -> tuple[list[Released], str]:
    """Return the releases that hold a commit which is in no record, and why it is in none."""
    shown = commit[:SHORT]
    if commit in git.run("rev-list", "--first-parent", tip).splitlines():
        blob = git.run("rev-parse", f"{commit}:{RECORD}")
        return [one for one in releases if one.first.blob == blob], f"{shown} of {BRANCH} changes only manifests."
    newest = git.fetch(MAIN)
    if newest is None or not git.is_ancestor(commit, newest):
        note = f"{shown} is not on {MAIN} of {git.REMOTE}, from which releases are made; was its branch squashed?"
        return [], note
    later = git.run("rev-list", "--reverse", "--topo-order", "--ancestry-path", f"{commit}..{newest}").splitlines()
    holding = [one for one in releases if one.record.commit in later]
    nearest = min((one.record.commit for one in holding), key=later.index, default=None)
    why = f"No release was made from {shown} itself: {_why(commit, nearest, releases)}"
    if nearest is None:
        return [], f"{why} No release contains it yet."
    return [one for one in holding if one.record.commit == nearest], f"{why} The first release that contains it:"


def _why(commit: str, nearest: str | None, releases: list[Released]) -> str:
    before = [one.record.commit for one in releases if git.exists(one.record.commit)]
    before = [one for one in before if git.is_ancestor(one, commit)]
    if before and not git.differ(before[-1], commit, *INPUTS):
        return f"it changes nothing that is deployed since {before[-1][:SHORT]}, which was released."
    if nearest:
        return f"{nearest[:SHORT]} came after it on {MAIN} and was released first."
    return "its deployment is still running, was refused or failed; see `make plan`."


if __name__ == "__main__":
    run(main)
