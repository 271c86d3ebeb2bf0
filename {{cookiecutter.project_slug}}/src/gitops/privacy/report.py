"""What an erasure found, did and left, for the console and as reports/erase.md: counts and hashes, never the id."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.integrations import dvc_remote
from gitops.privacy.provenance import Provenance
from gitops.rendering import markdown

REPORT = Path("reports/erase.md")

#: Digits of an md5 or a commit that are shown.
DIGITS = 12

KNOWN = {True: "yes", False: "no", None: "not known"}


def describe(found: dict[str, list[Any]], provenance: Provenance, notes: list[str]) -> dict[str, Any]:
    """Return all that the report says, ready for JSON. `found`: by place, how many of what; `notes`: what is unusual."""
    held = sorted(provenance.held)
    unknown = sorted(md5 for md5, holds in provenance.versions.items() if holds is None)
    return {
        "found": found,
        "releases": provenance.releases,
        "note": provenance.note,
        "versions": {"held": held, "unknown": unknown, "all": len(provenance.versions)},
        "left": [*notes, *_left(provenance, held, unknown)],
    }


def _left(provenance: Provenance, held: list[str], unknown: list[str]) -> list[str]:
    """Return what cannot be erased from here, each with what can be done about it."""
    left = []
    inside = dvc_remote.in_repository()
    if held or unknown:
        where = "this repository's DVC remote, which Git tracks" if inside else "the DVC remote"
        md5s = ", ".join(f"files/md5/{md5[:2]}/{md5[2:]}" for md5 in [*sorted(provenance.objects), *unknown][:20])
        left.append(
            f"Old versions in {where}, and the splits, predictions and reports that were made of them. `make gc` removes "
            "what no branch and no release names any more. It keeps what a release in the release log names: remove that "
            f"by hand, once you will not go back to that release. Of the table: {md5s}."
        )
        left.append(
            "Git's history: the md5s of these versions and hashes of requests in data/appended.json"
            + (", and the rows themselves, since the DVC remote lies in this repository" if inside else "")
            + ". Rewriting it (git filter-repo) changes every commit after the first that is changed."
        )
    if held:
        left.append(
            "Models that were trained from these versions, in the cluster, in images, in the DVC remote and in MLflow; the "
            "archive of a model holds a few rows of its test split as the request of the smoke test. Release a model that "
            "was trained without the rows, then delete the older images and runs."
        )
        left.append(
            "Until such a model is released, the gate and the monitor fetch the test rows of the present release again."
        )
    runs = [release["run"] for release in provenance.releases if release["held"] is not False and release["run"]]
    if runs:
        left.append(f"MLflow: models and artifacts of the runs {', '.join(dict.fromkeys(runs))}. `mlflow gc` removes runs.")
    left.append(
        "What servers hold in memory: it is in the log within seconds, or when a pod ends. The logs of pods without "
        "REQUEST_LOG go with the pods. Run this again after a minute."
    )
    left.append(
        "Other machines' clones and DVC caches, artifacts of CI's runs, older versions in a bucket that keeps them, backups, "
        "and the source that the table came from."
    )
    return left


def lines(report: dict[str, Any]) -> list[str]:
    """Return what was found and what was trained with it, for the console."""
    told = [f"  {place}: {count} {what}" for place, (count, what) in report["found"].items() if count]
    shown = ["found:", *(told or ["  nothing"])]
    versions = report["versions"]
    shown.append(
        f"versions of the table: {len(versions['held'])} of {versions['all']} hold it, {len(versions['unknown'])} not known"
    )
    held = [release for release in report["releases"] if release["held"] is not False]
    shown.append(f"releases whose table held it: {len(held)} of {len(report['releases'])}")
    for release in held:
        shown.append(
            f"  {release['environment']}: model {release['version']}, commit {release['commit']}, {release['state']}: "
            f"{KNOWN[release['held']]}"
        )
    return shown + ([report["note"]] if report["note"] else [])


def left(report: dict[str, Any]) -> list[str]:
    """Return what is not erased, for the console."""
    return ["not erased:", *(f"  - {each}" for each in report["left"])]


def write(report: dict[str, Any]) -> None:
    """Write reports/erase.md."""
    parts = [
        "# Erasure",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. This report does not hold the id: keep it with the request.",
        "## Erased here",
        markdown.table(
            ["Place", "Erased"], [[place, f"{count} {what}"] for place, (count, what) in report["found"].items()]
        ),
        "## Trained with it",
        _releases(report),
        "## Not erased",
        "\n".join(f"- {each}" for each in report["left"]),
        "## Next",
        "Commit the new .dvc files and data/appended.json, as a pull request: its CI trains without the rows, and the merge "
        "releases that model. A rollback to an earlier release brings back a model that was trained with them.",
    ]
    artifacts.write_text(REPORT, "\n\n".join(filter(None, parts)) + "\n")


def _releases(report: dict[str, Any]) -> str:
    versions = report["versions"]
    text = (
        f"Of {versions['all']} versions of the table {len(versions['held'])} hold it, and {len(versions['unknown'])} "
        "could not be had."
    )
    if report["note"]:
        text += f" {markdown.plain(report['note'])}"
    if not report["releases"]:
        return text + " Nothing was released."
    rows = [
        [
            markdown.plain(each["environment"]),
            markdown.code(each["version"]),
            markdown.code(each["commit"]),
            markdown.code(each["main"]),
            each["state"],
            KNOWN[each["held"]],
        ]
        for each in report["releases"]
    ]
    header = ["Environment", "Model", "Commit", "Commit of main", "State", "Its table held it"]
    return f"{text}\n\n{markdown.table(header, rows, len(rows))}"
