"""What an erasure found, did and left, for the console and as reports/erase.md: counts and hashes, never the id."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.privacy import elsewhere
from gitops.privacy.provenance import Provenance
from gitops.rendering import markdown

REPORT = Path("reports/erase.md")

#: Objects of the DVC remote that are listed.
LISTED = 20

KNOWN = {True: "yes", False: "no", None: "not known"}


def found(count: int, what: str, files: int | None = None, plural: str = "") -> dict[str, Any]:
    """Return how much of what was found in a place, in how many files."""
    text = f"{count} {what if count == 1 else plural or what + 's'}"
    return {"count": count, "text": text if files is None else f"{text} in {files} file{'s' * (files != 1)}"}


def describe(found: dict[str, dict[str, Any]], provenance: Provenance, notes: list[str]) -> dict[str, Any]:
    """Return all that the report says, ready for JSON. `found`: by place, how many of what; `notes`: on this ID."""
    held = sorted(provenance.versions.held)
    unknown = sorted(provenance.versions.unknown)
    return {
        "found": found,
        "releases": provenance.releases,
        "note": provenance.note,
        "versions": {"held": held, "unknown": unknown, "all": len(provenance.versions.all)},
        "notes": notes,
        "left": [*notes, *_left(provenance, held, unknown)],
    }


def _left(provenance: Provenance, held: list[str], unknown: list[str]) -> list[str]:
    """Return what cannot be erased from here, each with what can be done about it."""
    left = _versions(provenance, unknown) if held or unknown else []
    if held:
        runs = [release["run"] for release in provenance.releases if release["held"] is not False and release["run"]]
        named = f"; of releases {', '.join(dict.fromkeys(runs))}" if runs else ""
        left += [
            "Models that were trained from these versions: in the cluster, in images, in the DVC remote. A model's "
            "archive also holds a few of its test rows, as the request of the smoke test. Release a model that was "
            "trained without the rows, then delete the older images.",
            "Until such a model is released, the gate and the monitor fetch the present release's test rows again.",
            f"MLflow: models and artifacts of the runs that trained from these versions{named}. Delete the runs, then "
            "`mlflow gc`.",
        ]
    return [
        *left,
        "What servers hold in memory: it is in the log within seconds, or when a pod ends. Run this again after a "
        "minute. The logs of pods without REQUEST_LOG go with the pods.",
        "Other machines' clones and DVC caches, artifacts of CI's runs, older versions in a bucket that keeps them, "
        "backups, and the source that the table came from.",
    ]


def _versions(provenance: Provenance, unknown: list[str]) -> list[str]:
    """Return what is said of old versions of the table."""
    inside = elsewhere.remote_folder() is not None
    where = "this repository's DVC remote, which Git tracks" if inside else "the DVC remote"
    objects = [*sorted(provenance.versions.objects), *unknown]
    named = ", ".join(f"files/md5/{md5[:2]}/{md5[2:]}" for md5 in objects[:LISTED])
    more = f" and {len(objects) - LISTED} more" if len(objects) > LISTED else ""
    rows = ", and the rows themselves, since the DVC remote lies in this repository" if inside else ""
    return [
        f"Old versions in {where}, with the splits, predictions and reports that were made of them. `make gc` removes "
        "what no branch and no release names any more. It keeps what a release in the release log names: remove that "
        f"by hand, once you will not go back to that release. Of the table: {named}{more}.",
        f"Git's history: the md5s of these versions, and hashes of requests in data/appended.json{rows}. Rewriting it "
        "(git filter-repo) changes every commit from the first of them on.",
    ]


def lines(report: dict[str, Any]) -> list[str]:
    """Return what was found and what was trained with it, for the console."""
    told = [f"  {place}: {each['text']}" for place, each in report["found"].items() if each["count"]]
    shown = ["found:", *(told or ["  nothing"])]
    versions = report["versions"]
    shown.append(
        f"versions of the table: {len(versions['held'])} of {versions['all']} hold it, "
        f"{len(versions['unknown'])} cannot be had"
    )
    held = [release for release in report["releases"] if release["held"] is not False]
    shown.append(f"releases whose table held it, or cannot be had: {len(held)} of {len(report['releases'])}")
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
        markdown.table(["Place", "Erased"], [[place, each["text"]] for place, each in report["found"].items()]),
        "## Trained with it",
        _releases(report),
        "## Not erased",
        "\n".join(f"- {each}" for each in report["left"]),
        "## Next",
        "`make pipeline`, `make push`, then a pull request with the .dvc files, data/appended.json and dvc.lock, as "
        "for any new table: the merge releases a model that was trained without the rows. A rollback to an earlier "
        "release brings back one that was trained with them.",
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
