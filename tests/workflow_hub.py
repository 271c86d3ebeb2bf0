"""GitHub for one repository, as far as its workflows can tell: events, tokens, caches, artifacts, images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_expressions import Strict
from workflow_files import parse, started

if TYPE_CHECKING:
    from workflow_runner import Run

#: Stands before a push: a job may push with a token that may write, and people may at any time.
PRE_RECEIVE = """#!/bin/sh
test "$GITHUB_WORKSPACE" != '{workspace}' && exit 0
test -n "$GITHUB_TOKEN" && grep -qxF -e "$GITHUB_TOKEN" '{pushers}' && exit 0
echo 'Permission denied to github-actions[bot]: the step has no token that may write contents' >&2
exit 1
"""


@dataclass(frozen=True)
class Event:
    """What starts workflows. `trusted` is false for a fork and for Dependabot: no secrets, a token that only reads."""

    name: str
    payload: dict[str, Any]
    sha: str
    ref: str = "refs/heads/main"
    trusted: bool = True
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cache:
    """What actions/cache has saved under a key."""

    scope: str  # the ref whose runs may read it; main's are read by all
    key: str
    folder: Path


class Hub:
    """What GitHub keeps of the repository whose Git side is the bare repository `origin`.

    `url` and `api` are the addresses that jobs are told, `machine` more variables of the machines that they run on.
    """

    def __init__(self, folder: Path, origin: Path, repository: str = "owner/name") -> None:
        self.folder, self.origin, self.repository = folder, origin, repository
        self.url, self.api = "https://github.invalid", "https://github.invalid/api"
        self.machine: dict[str, str] = {}
        self.vars: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.runs = 100  # the newest one's id
        self.caches: list[Cache] = []
        self.tokens: dict[str, dict[str, str]] = {}  # the running job's, with its permissions
        self.images: dict[str, str] = {}  # tag: digest
        self.signatures = folder / "signatures"
        self.workspace = folder / "work" / repository.rpartition("/")[2]
        folder.mkdir(parents=True, exist_ok=True)
        hook = origin / "hooks/pre-receive"
        hook.write_text(PRE_RECEIVE.format(workspace=self.workspace, pushers=folder / "pushers"))
        hook.chmod(0o755)
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")  # as GitHub allows

    def git(self, *arguments: str) -> str:
        """Run git in the bare repository."""
        done = subprocess.run(["git", "-C", self.origin, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def workflows(self, event: Event) -> dict[str, dict[Any, Any]]:
        """Return the workflows that an event starts, by file, as the event's commit has them."""
        files = self.git("ls-tree", "--name-only", event.sha, ".github/workflows/").splitlines()
        found = {Path(file).name: parse(self.git("show", f"{event.sha}:{file}"), "workflow") for file in files}
        return {file: workflow for file, workflow in found.items() if started(workflow, event)}

    def artifact(self, run: int, name: str) -> Path:
        """Return the folder that an artifact of a run lies in, if the run has it."""
        return self.folder / "artifacts" / str(run) / name

    def issue(self, permissions: dict[str, str]) -> str:
        """Return a token for a job; those of earlier jobs are worth nothing any more."""
        token = f"ghs_{os.urandom(18).hex()}"
        self.tokens = {token: permissions}
        (self.folder / "pushers").write_text(f"{token}\n" if permissions.get("contents") == "write" else "")
        return token

    def save_cache(self, scope: str, key: str, path: Path) -> None:
        """Keep a folder under a key, for the runs of one ref, unless it is there."""
        if all((entry.scope, entry.key) != (scope, key) for entry in self.caches):
            folder = self.folder / "caches" / str(len(self.caches))
            shutil.copytree(path, folder)
            self.caches.append(Cache(scope, key, folder))

    def push(self, sha: str) -> Event:
        """A push to main, whose tip it made `sha`."""
        return Event("push", {"ref": "refs/heads/main", "after": sha}, sha)

    def pull_request(
        self, number: int, branch: str, fork: tuple[str, Path] | None = None, action: str = "opened"
    ) -> Event:
        """A pull request from a branch of this repository, or of a fork by name and path; the merge lies on origin."""
        name, path = fork or (self.repository, self.origin)
        ref = f"refs/pull/{number}/merge"
        with tempfile.TemporaryDirectory() as clone:
            git = ["git", "-C", clone]
            subprocess.run(["git", "clone", "--quiet", self.origin, clone], check=True)
            subprocess.run([*git, "fetch", "--quiet", path, branch], check=True)
            subprocess.run([*git, "merge", "--quiet", "--no-ff", "-m", f"Merge {branch}", "FETCH_HEAD"], check=True)
            subprocess.run([*git, "push", "--quiet", "--force", "origin", f"HEAD:{ref}"], check=True)
        pull = {
            "number": number,
            "user": {"login": name.partition("/")[0]},
            "head": {"ref": branch, "sha": self.git("rev-parse", f"{ref}^2"), "repo": {"full_name": name}},
            "base": {"ref": "main", "repo": {"full_name": self.repository}},
        }
        payload = {"action": action, "number": number, "pull_request": pull}
        return Event("pull_request", payload, self.git("rev-parse", ref), ref, trusted=fork is None)

    def completed(self, run: Run) -> Event:
        """The end of a run, which workflows of main hear of."""
        here = {"ref": "main", "sha": run.event.sha, "repo": {"full_name": self.repository}}
        head: dict[str, Any] = run.event.payload.get("pull_request", {}).get("head", here)
        name = head["repo"]["full_name"]
        told = {
            "id": run.id,
            "name": run.workflow,
            "event": run.event.name,
            "conclusion": run.conclusion,
            "html_url": f"{self.url}/{self.repository}/actions/runs/{run.id}",
            "head_branch": head["ref"],
            "head_sha": head["sha"],
            "head_repository": {"full_name": name, "owner": {"login": name.partition("/")[0]}},
            "pull_requests": [],  # always, for a fork's run
        }
        return Event("workflow_run", {"action": "completed", "workflow_run": told}, self.git("rev-parse", "main"))

    def contexts(self, event: Event, run: int = 1) -> dict[str, Any]:
        """Return what all jobs of a run can read. One that is not trusted has neither variables nor secrets."""
        pull = event.payload.get("pull_request")
        owner = self.repository.partition("/")[0]
        github = {
            "event": event.payload,
            "event_name": event.name,
            "repository": self.repository,
            "repository_owner": owner,
            "sha": event.sha,
            "ref": event.ref,
            "ref_name": re.sub("^refs/(heads|pull)/", "", event.ref),
            "head_ref": pull["head"]["ref"] if pull else "",
            "base_ref": pull["base"]["ref"] if pull else "",
            "actor": pull["user"]["login"] if pull else owner,
            "run_id": run,
            "server_url": self.url,
            "api_url": self.api,
        }
        return {
            "github": Strict(github),
            "inputs": event.inputs,
            "vars": dict(self.vars) if event.trusted else {},
            "secrets": dict(self.secrets) if event.trusted else {},
        }


def granted(asked: dict[str, str], event: Event) -> dict[str, str]:
    """Return a token's permissions: what a fork's job asks to write it may only read, and it cannot say who it is."""
    if event.trusted:
        return dict(asked)
    return {name: "read" for name in asked if name != "id-token"}
