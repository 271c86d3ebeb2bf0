"""The stand-in for GitHub's REST API of gitops' tests, in front of the hub.

It knows the tokens of the hub's jobs and what each may do, tells of its runs, artifacts and pull requests, and starts
workflows.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

from projects import ROOT, module_of
from workflow_events import ACTIONS, completed, pull_request
from workflow_hub import Hub, Refused

#: How a job that calls the stand-in trusts it.
TRUST = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "NO_PROXY", "no_proxy")

#: Which permission a call needs, by its path below the repository; the first that fits. Reading needs `read` of it.
#: Source: https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps
NEEDED = {
    r"/actions/.*": "actions",
    r"/deployments.*": "deployments",
    r"/pulls.*|/commits/[^/]+/pulls|/issues/.*": "pull-requests",
    r"/git/.*|/commits.*|/contents.*|/branches.*": "contents",
}


def server_of(folder: Path, hub: Hub) -> Any:
    """Return the server, to be entered as a context; `connect` lets the hub's jobs find it."""
    module = module_of(ROOT, "tests/gitops/github_server.py")
    server = module.GitHub(folder, repository=hub.repository)
    answer = server.answer

    def permitted(call: Any, token: str) -> Any:
        path = call.path.removeprefix(f"/repos/{hub.repository}")
        needed = next((name for pattern, name in NEEDED.items() if re.fullmatch(pattern, path)), "unknown")
        permission = hub.tokens.get(token, {}).get(needed)
        if path != call.path and permission != "write" and (permission != "read" or call.method != "GET"):
            return 403, {}, {"message": f"Resource not accessible by integration ({needed}: {call.method} {path})"}
        server.tokens[token] = module.ACTIONS
        if found := re.fullmatch(r"/actions/workflows/([^/]+)/dispatches", path):
            return dispatched(hub, token, found[1], call.body)
        tell(hub, server)
        if found := re.fullmatch(r"/commits/([0-9a-f]+)/pulls", path):
            server.merges.setdefault(found[1], [])
        status, headers, body = answer(call, token)
        if (call.method, path, status) == ("POST", "/pulls", 201) and body["base"]["ref"] == "main":
            # It starts nothing: runs for a pull request that the token has opened wait for a person's approval.
            opened = pull_request(hub, body["number"], call.body["head"], actor=ACTIONS)
            body["head"]["sha"] = opened.head
        return status, headers, body

    server.answer = permitted
    return server


def dispatched(hub: Hub, token: str, file: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """Start a workflow, or return why not, as the API answers."""
    try:
        hub.dispatch(token, file, body["ref"].removeprefix("refs/heads/"), body.get("inputs", {}))
    except Refused as refusal:
        return refusal.args[0], {}, {"message": refusal.args[1]}
    return 204, {}, {}


def connect(hub: Hub, server: Any) -> None:
    """Let the hub's jobs find the server, once it runs."""
    hub.url, hub.api = server.url, server.api
    hub.machine = {name: server.environment[name] for name in TRUST}


def tell(hub: Hub, server: Any) -> None:
    """Let the server know what the hub has: pull requests with where they were merged, runs with jobs, artifacts."""
    told = {pull["number"]: pull for pull in server.pulls}
    for pull in (*hub.pulls.values(), *hub.merged.values()):
        number, head, name = pull["number"], pull["head"], pull["head"]["repo"]["full_name"]
        if number not in told:
            fork = name if name != hub.repository else None
            told[number] = server.open_pull(number, head["sha"], head["ref"], fork)
        told[number]["head"]["sha"], told[number]["merged_at"] = head["sha"], None
    for commit, pull in hub.merged.items():
        told[pull["number"]] |= {"state": "closed", "merged_at": "2026-11-01T00:00:00Z"}
        server.merges[commit] = [told[pull["number"]]]
    ci = [run for run in hub.runs if run.file == "ci.yaml"]
    states = {"ended": "completed", "cancelled": "completed", "running": "in_progress", "pending": "queued"}
    server.runs = [
        completed(hub, run).payload["workflow_run"]
        | {"status": states[run.state], "conclusion": run.conclusion if states[run.state] == "completed" else None}
        for run in ci
    ]
    server.jobs = {run.id: run.described(f"{hub.url}/{hub.repository}") for run in hub.runs}
    for run in hub.runs:
        for folder in sorted((hub.folder / "artifacts" / str(run.id)).glob("*")):
            store(server, run.id, folder, run.event.fork)


def store(server: Any, run: int, folder: Path, fork: bool) -> None:
    """Keep an artifact as the archive that GitHub makes of it; one that was written again replaces the one before."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as contents:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            contents.write(file, file.relative_to(folder))
    same = [entry for entry in server.artifacts if (entry["workflow_run"]["id"], entry["name"]) == (run, folder.name)]
    for entry in same:
        if server.storage[f"/storage/{entry['id']}"] == archive.getvalue():
            return
        server.artifacts.remove(entry)
    server.store(folder.name, archive.getvalue(), run=run, fork=fork)
