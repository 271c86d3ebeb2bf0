"""Where a release came from and what became of it: as one dictionary, and as a table for people."""

from __future__ import annotations

import re
from typing import Any

import yaml

from gitops.integrations import git, tracking
from gitops.releases.history import Entry, Released, Stint, printable
from gitops.releases.release import BRANCH, MAIN, Release

#: Digits of a hash that people are shown.
SHORT = 12


def describe(released: Released, before: Release | None) -> dict[str, Any]:
    """Return all that is known of a release without asking MLflow. `before` is the record that it replaced."""
    record = released.record
    return {
        "state": released.state,
        "model": record.model.model_dump(),
        "image": record.image,
        "ran": [_stint(stint) for stint in released.stints],
        "main": _main(record.commit),
        "data": record.data.model_dump(),
        "rows": record.rows,
        "changed_params": changed(before, record) if before else None,
        "metrics": {name: score.model_dump() for name, score in record.metrics.items()},
        "gate": record.gate.model_dump(),
        "mlflow": {"run_id": record.mlflow_run_id, "address": tracking.address()},
        "package": record.package.model_dump(),
        "predictions": record.predictions.model_dump(),
        "reports": _reports(record),
        "before": {"release": record.previous, "model_version": before.model.version} if before else None,
    }


def changed(before: Release, record: Release) -> dict[str, list[Any]]:
    """Return the parameters that differ between two records: name to old and new value, None where it is not there."""
    old, new = tracking.flatten(before.params), tracking.flatten(record.params)
    names = [*new, *(name for name in old if name not in new)]
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}


def table(found: dict[str, Any]) -> str:
    """Return a described release as lines of text."""
    model, main, gate, run = found["model"], found["main"], found["gate"], found["mlflow"]
    lines = [("model", model["sha256"]), ("image", found["image"])]
    lines += [("ran", _ran(stint)) for stint in found["ran"]]
    made = f": {main['subject']} ({main['author']}, {_time(main['time'])})" if main["time"] else ", not in this clone"
    lines.append(("commit of main", f"{main['commit'][:SHORT]}{made}"))
    if request := main["pull_request"]:
        lines.append(("pull request", f"#{request['number']} {request['address'] or ''}".strip()))
    rows = ", ".join(f"{name} {count}" for name, count in found["rows"].items())
    lines.append(("data", f"{found['data']['path']}, md5 {found['data']['md5']}"))
    lines += [("rows", rows)] if rows else []
    parameters = found["changed_params"]
    if parameters is not None:
        shown = "; ".join(f"{name} {old!r} -> {new!r}" for name, (old, new) in parameters.items())
        lines.append(("parameters", shown or "as in the release before"))
    for name, score in found["metrics"].items():
        lines.append((name, f"{score['value']:.4f}  [{score['low']:.4f}, {score['high']:.4f}]"))
    lines.append(("gate", f"{gate['reason']} ({gate['mode']})"))
    lines.append(("MLflow run", f"{run['run_id'] or 'none'} at {run['address']}"))
    if "aliases" in run:
        version = f"version {run['version']}" if run["version"] else "no version, see `make register`"
        lines.append(("registry", ", ".join([version, *run["aliases"]])))
    kept = (found["package"], found["predictions"], *found["reports"])
    lines += [("DVC object", f"{part['path']}, md5 {part['md5']}") for part in kept]
    earlier = found["before"]
    lines.append(
        ("before", f"{earlier['model_version']}, commit {earlier['release'][:SHORT]}" if earlier else "nothing")
    )
    title = f"{model['name']} {model['version']}: {found['state']}"
    return "\n".join([title, *(f"  {label:16}{printable(text)}" for label, text in lines)])


def _stint(stint: Stint) -> dict[str, Any]:
    ended = {"until": stint.end.time, "ended_by": _commit(stint.end), "rolled_back": stint.back} if stint.end else None
    return {"since": stint.start.time, "begun_by": _commit(stint.start), "ended": ended}


def _commit(entry: Entry) -> dict[str, str]:
    return {"commit": entry.commit, "author": entry.author, "subject": entry.subject}


def _ran(stint: dict[str, Any]) -> str:
    begun, ended = stint["begun_by"], stint["ended"]
    text = f"since {_time(stint['since'])} by {begun['author']}, commit {begun['commit'][:SHORT]} of {BRANCH}"
    if ended is None:
        return text
    by = ended["ended_by"]
    how = "rolled back by" if ended["rolled_back"] else "superseded by"
    return f"{text}, until {_time(ended['until'])}: {how} {by['author']}, commit {by['commit'][:SHORT]}"


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ") + iso[19:]


def _main(commit: str) -> dict[str, Any]:
    """Return what a commit of main says; without time where this clone lacks it, as after main was rewritten."""
    told: dict[str, Any] = {"commit": commit, "subject": None, "author": None, "time": None, "pull_request": None}
    if not git.exists(commit):
        git.fetch(MAIN)
    if git.exists(commit):
        subject, author, time = git.run("show", "-s", "--format=%s%x00%an%x00%cI", commit).split("\0")
        told |= {"subject": printable(subject), "author": printable(author), "time": time}
        if number := re.match(r"Merge pull request #(\d+)\b", subject) or re.search(r"\(#(\d+)\)$", subject):
            told["pull_request"] = {"number": int(number[1]), "address": _pull_request(number[1])}
    return told


def _reports(record: Release) -> list[dict[str, str]]:
    """Return the reports that dvc.lock has beside the model; none where its commit has no lock that made this model."""
    try:
        lock = yaml.safe_load(git.run("show", f"{record.commit}:dvc.lock"))
    except git.GitError:
        return []
    outputs = [out for stage in lock["stages"].values() for out in stage.get("outs", []) if "md5" in out]
    if all(out["md5"] != record.model.md5 for out in outputs):
        return []
    return [{"path": out["path"], "md5": out["md5"]} for out in outputs if out["path"].endswith(".html")]


def _pull_request(number: str) -> str | None:
    """Return the address of a pull request, from origin's; what origin's says before the host is never shown."""
    form = r"(?:(?:https|ssh|git)://)?(?:[^@/]*@)?([\w.-]+\.\w+)(?::\d+)?[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?"
    found = re.fullmatch(form, git.run("remote", "get-url", git.REMOTE))
    return f"https://{found[1]}/{found[2]}/pull/{number}" if found else None
