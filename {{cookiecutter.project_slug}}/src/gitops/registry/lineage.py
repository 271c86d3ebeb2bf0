"""The lineage of a release, where it came from and when it was deployed, as a dictionary and as text."""

from __future__ import annotations

import re
from typing import Any

import yaml

from gitops.core.console import one_line
from gitops.integrations import git, tracking
from gitops.releases.history import Entry, Period, Released
from gitops.releases.record import Release, changed_params
from gitops.releases.release import BRANCH, MAIN

#: Digits of a hash that are shown.
SHORT = 12


def describe(released: Released, previous: Release | None) -> dict[str, Any]:
    """Return everything about a release that Git knows. `previous` is the record that it replaced."""
    record = released.record
    return {
        "state": released.state,
        "model": record.model.model_dump(),
        "image": record.image,
        "deployed": [_period(period) for period in released.periods],
        "main": _main(record.commit),
        "data": record.data.model_dump(),
        "appended": record.appended.model_dump() if record.appended else None,
        "rows": record.rows,
        "changed_params": changed_params(previous.params, record.params) if previous else None,
        "metrics": {name: score.model_dump() for name, score in record.metrics.items()},
        "threshold": record.threshold,
        "gate": record.gate.model_dump(),
        "training": record.training.model_dump() if record.training else None,
        "mlflow": {"run_id": record.mlflow_run_id, "address": tracking.address()},
        "package": record.package.model_dump(),
        "predictions": record.predictions.model_dump(),
        "reports": _reports(record),
        "previous": {"release": record.previous, "model_version": previous.model.version} if previous else None,
        "lifts": record.lifts,
    }


def table(found: dict[str, Any]) -> str:
    """Return a described release as lines of text."""
    model, main, gate, run = found["model"], found["main"], found["gate"], found["mlflow"]
    lines = [("model", model["sha256"]), ("image", found["image"])]
    lines += [("deployed", _describe_period(period)) for period in found["deployed"]]
    origin = f": {main['subject']} ({main['author']}, {_time(main['time'])})" if main["time"] else ", not in this clone"
    lines.append(("commit of main", f"{main['commit'][:SHORT]}{origin}"))
    if request := main["pull_request"]:
        lines.append(("pull request", f"#{request['number']} {request['address'] or ''}".strip()))
    rows = ", ".join(f"{name} {count}" for name, count in found["rows"].items())
    lines.append(("data", f"{found['data']['path']}, md5 {found['data']['md5']}"))
    if appended := found["appended"]:
        lines.append(("appended rows", f"{appended['path']}, md5 {appended['md5']}"))
    lines += [("rows", rows)] if rows else []
    parameters = found["changed_params"]
    if parameters is not None:
        shown = "; ".join(f"{name} {old!r} -> {new!r}" for name, (old, new) in parameters.items())
        lines.append(("parameters", shown or "same as in the previous release"))
    for name, score in found["metrics"].items():
        lines.append((name, f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]"))
    if found["threshold"] is not None:
        lines.append(("threshold", f"{found['threshold']:.4g}"))
    lines.append(("gate", f"{gate['reason']} ({gate['mode']})"))
    if best := gate["best"]:
        lines.append(("best until then", f"{best['model_version']}, commit {best['commit'][:SHORT]} of {BRANCH}"))
    if training := found["training"]:
        where = "on main" if training["trained_on"] == "main" else "on a branch, taken over by main"
        lines.append(("trained", f"{where}, from inputs {training['inputs'][:SHORT]}"))
    lines.append(("MLflow run", f"{run['run_id'] or 'none'} at {run['address']}"))
    if "aliases" in run:
        version = f"version {run['version']}" if run["version"] else "no version, see `make register`"
        lines.append(("registry", ", ".join([version, *run["aliases"]])))
    files = (found["package"], found["predictions"], *found["reports"])
    lines += [("DVC object", f"{file['path']}, md5 {file['md5']}") for file in files]
    previous = found["previous"]
    lines.append(
        ("previous", f"{previous['model_version']}, commit {previous['release'][:SHORT]}" if previous else "none")
    )
    if found["lifts"]:
        rollbacks = ", ".join(commit[:SHORT] for commit in found["lifts"])
        lines.append(("redeployed", f"REDEPLOY=1, though commit {rollbacks} of {BRANCH} had rolled it back"))
    title = f"{model['name']} {model['version']}: {found['state']}"
    return "\n".join([title, *(f"  {label:16}{one_line(text)}" for label, text in lines)])


def _period(period: Period) -> dict[str, Any]:
    started = {"since": period.start.time, "started_by": _commit(period.start)}
    if period.end is None:
        return started | {"ended": None}
    ended = {"until": period.end.time, "ended_by": _commit(period.end), "rolled_back": period.rolled_back}
    return started | {"ended": ended}


def _commit(entry: Entry) -> dict[str, str]:
    return {"commit": entry.commit, "author": entry.author, "subject": entry.subject}


def _describe_period(period: dict[str, Any]) -> str:
    start, ended = period["started_by"], period["ended"]
    text = f"since {_time(period['since'])} by {start['author']}, commit {start['commit'][:SHORT]} of {BRANCH}"
    if ended is None:
        return text
    by = ended["ended_by"]
    how = "rolled back by" if ended["rolled_back"] else "superseded by"
    return f"{text}, until {_time(ended['until'])}: {how} {by['author']}, commit {by['commit'][:SHORT]}"


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ") + iso[19:]


def _main(commit: str) -> dict[str, Any]:
    """Describe a commit of main; its time is None where this clone lacks it, as after main was rewritten."""
    found: dict[str, Any] = {"commit": commit, "subject": None, "author": None, "time": None, "pull_request": None}
    if not git.exists(commit):
        git.fetch(MAIN)
    if git.exists(commit):
        subject, author, time = git.run("show", "-s", "--format=%s%x00%an%x00%cI", commit).split("\0")
        found |= {"subject": one_line(subject), "author": one_line(author), "time": time}
        if number := re.match(r"Merge pull request #(\d+)\b", subject) or re.search(r"\(#(\d+)\)$", subject):
            found["pull_request"] = {"number": int(number[1]), "address": _pull_request(number[1])}
    return found


def _reports(record: Release) -> list[dict[str, str]]:
    """Return the HTML reports in the commit's dvc.lock; none where that lock is of another model."""
    try:
        lock = yaml.safe_load(git.run("show", f"{record.commit}:dvc.lock"))
    except git.GitError:
        return []
    outputs = [out for stage in lock["stages"].values() for out in stage.get("outs", []) if "md5" in out]
    if all(out["md5"] != record.model.md5 for out in outputs):
        return []
    return [{"path": out["path"], "md5": out["md5"]} for out in outputs if out["path"].endswith(".html")]


def _pull_request(number: str) -> str | None:
    """Return the address of a pull request, derived from origin's without the login that may be part of that."""
    form = r"(?:(?:https|ssh|git)://)?(?:[^@/]*@)?([\w.-]+\.\w+)(?::\d+)?[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?"
    found = re.fullmatch(form, git.run("remote", "get-url", git.REMOTE))
    return f"https://{found[1]}/{found[2]}/pull/{number}" if found else None
