"""GitHub for one repository, as far as its workflows can tell: plan, rules, environments, tokens, artifacts, images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workflow_receive
from workflow_events import ACTIONS, DEPENDABOT, Event, dispatch, push
from workflow_expressions import Strict
from workflow_files import parse, started

if TYPE_CHECKING:
    from workflow_runner import Run


@dataclass
class Environment:
    """Of an environment: what its jobs get, which branches they may be of, and whether somebody is asked first."""

    secrets: dict[str, str] = field(default_factory=dict)
    branches: tuple[str, ...] = ("main",)
    reviewers: bool = False
    vars: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """A ruleset that restricts updates of the branches that fit `pattern` to those who are on its bypass list.

    GitHub lets a list hold roles, teams, Apps and deploy keys, but not its own app of Actions.
    """

    pattern: str
    bypass: tuple[str, ...] = ("deploy key", "maintainer")


@dataclass(frozen=True)
class Cache:
    """What a run has left for later ones of its ref; what main's have left every ref can restore, a fork's too."""

    scope: str
    key: str


class Refused(Exception):
    """What GitHub answers in place of doing it: the status, and its message."""


class Hub:
    """What GitHub keeps of the repository whose Git side is the bare repository `origin`.

    `url` and `api` are the addresses that jobs are told, `machine` more variables of the machines that they run on.
    `secrets` and `vars` are the repository's. `visibility` and `plan` decide whether `environments` and `rules` count.
    """

    def __init__(self, folder: Path, origin: Path, repository: str = "owner/name") -> None:
        self.folder, self.origin, self.repository = folder, origin, repository
        self.url, self.api = "https://github.invalid", "https://github.invalid/api"
        self.visibility, self.plan = "public", "free"
        self.fork_runs = False  # the setting of private repositories that runs forks' pull requests
        self.machine: dict[str, str] = {}
        self.vars: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.environments: dict[str, Environment] = {}
        self.rules: list[Rule] = []
        self.keys: list[str] = []  # deploy keys that may write
        self.roles: dict[str, str] = {}  # of a cloud: which subjects may take a role on, as a regular expression
        self.pulls: dict[int, dict[str, Any]] = {}  # the open ones
        self.merged: dict[str, dict[str, Any]] = {}  # pull requests by the commit of main that each has become
        self.runs: list[Run] = []
        self.dispatched: list[Event] = []
        self.caches: list[Cache] = []
        self.tokens: dict[str, dict[str, str]] = {}  # the running job's, with its permissions
        self.images: dict[str, str] = {}  # tag: digest
        self.signatures = folder / "signatures"
        self.workspace = folder / "work" / repository.rpartition("/")[2]
        folder.mkdir(parents=True, exist_ok=True)
        hook = origin / "hooks/pre-receive"
        program = f'{sys.executable} -S "{workflow_receive.__file__}" "{folder / "state"}" "{folder / "pushes"}"'
        hook.write_text(f"#!/bin/sh\nexec {program}\n")
        hook.chmod(0o755)
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")  # as GitHub allows
        self.heed()

    def git(self, *arguments: str, at: Path | str | None = None) -> str:
        """Run git in the bare repository, or in a clone of it."""
        command = ["git", "-C", str(at or self.origin), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout.strip()

    def has(self, feature: str) -> bool:
        """Tell whether the plan has a feature. Public repositories have all of these on every plan.

        Source: https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments and
        https://docs.github.com/en/repositories/configuring-branches-and-merges-in-your-repository/managing-rulesets
        """
        plans = {
            "rules": ("team", "enterprise"),
            "environments": ("team", "enterprise"),
            "reviewers": ("enterprise",),
        }
        return self.visibility == "public" or self.plan in plans[feature]

    def heed(self, pusher: str = "") -> None:
        """Tell the hook the rules that are in force, and the token that may push, as they are now."""
        rules = [vars(rule) for rule in self.rules] if self.has("rules") else []
        state = {"workspace": str(self.workspace), "keys": self.keys, "pusher": pusher, "rules": rules}
        (self.folder / "state").write_text(json.dumps(state))

    def workflow(self, file: str, ref: str) -> dict[Any, Any]:
        """Return a workflow as a ref has it."""
        return parse(self.git("show", f"{ref}:.github/workflows/{file}"), "workflow")

    def workflows(self, event: Event) -> dict[str, dict[Any, Any]]:
        """Return the workflows that an event starts, by file, as the event's commit has them.

        What Actions' own token causes starts none but by a dispatch; pull requests of its wait for a person's approval.
        Source: https://docs.github.com/en/actions/concepts/security/github_token
        """
        if event.actor == ACTIONS and event.name in ("push", "pull_request"):
            return {}
        if event.fork and self.visibility == "private" and not self.fork_runs:
            return {}
        files = self.git("ls-tree", "--name-only", event.sha, ".github/workflows/").splitlines()
        found = {Path(file).name: self.workflow(Path(file).name, event.sha) for file in files}
        if event.name == "workflow_dispatch":
            found = {file: found[file] for file in found if event.payload["workflow"].endswith(f"/{file}")}
        return {file: workflow for file, workflow in found.items() if started(workflow, event)}

    def caused(self) -> list[Event]:
        """Return the events of what was pushed and dispatched since the last time: each once, in their order."""
        log = self.folder / "pushes"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        dispatched, self.dispatched = self.dispatched, []
        tips = [line for line in lines if re.match("refs/(heads|tags)/", line["ref"]) and set(line["sha"]) != {"0"}]
        pushed = []
        for line in tips:
            actor = {"actions": ACTIONS, "dependabot": DEPENDABOT}.get(line["who"], "owner")
            event = push(self, line["ref"].removeprefix("refs/heads/"), line["sha"], actor)
            pushed.append(Event(**{**vars(event), "ref": line["ref"]}))
        return pushed + dispatched

    def dispatch(self, token: str, file: str, ref: str, inputs: dict[str, Any]) -> None:
        """Start a workflow by the API. Raises Refused as GitHub answers.

        Source: https://docs.github.com/en/rest/actions/workflows#create-a-workflow-dispatch-event
        """
        if self.tokens.get(token, {}).get("actions") != "write":
            raise Refused(403, "Resource not accessible by integration")
        if not self.git("ls-tree", "main", f".github/workflows/{file}"):
            raise Refused(404, "Not Found")
        if not self.git("for-each-ref", f"refs/heads/{ref}", f"refs/tags/{ref}"):
            raise Refused(422, f"No ref found for: {ref}")
        there = self.git("ls-tree", ref, f".github/workflows/{file}")
        if not there or "workflow_dispatch" not in (triggers := self.workflow(file, ref)[True]):
            raise Refused(422, "Workflow does not have 'workflow_dispatch' trigger")
        if unknown := set(inputs) - set((triggers["workflow_dispatch"] or {}).get("inputs", {})):
            raise Refused(422, f"Unexpected inputs provided: {sorted(unknown)}")
        self.dispatched.append(dispatch(self, file, ref, inputs, ACTIONS))

    def checks(self, sha: str, evaluated: bool = True) -> dict[str, str]:
        """Return the checks on a commit's page, by name, each as the newest run left it.

        GitHub shows the name of a job that was skipped evaluated or as the workflow has it: `evaluated` says which.
        """
        found = {}
        for run in self.runs:
            if run.event.checked == sha:
                for job in run.jobs.values():
                    skipped = job.result == "skipped" and not evaluated
                    found[str(job.job["name"]) if skipped else job.name] = job.result
        return found

    def mergeable(self, number: int) -> bool:
        """Tell whether the rules of main let a pull request be merged: `pass` has to have passed, or was skipped."""
        return self.checks(self.pulls[number]["head"]["sha"]).get("pass") in ("success", "skipped")

    def restorable(self, ref: str) -> list[Cache]:
        """Return the caches that a run of a ref can restore.

        Source: https://docs.github.com/en/actions/reference/workflows-and-actions/dependency-caching
        """
        return [cache for cache in self.caches if cache.scope in (ref, "refs/heads/main")]

    def artifact(self, run: int, name: str) -> Path:
        """Return the folder that an artifact of a run lies in, if the run has it."""
        return self.folder / "artifacts" / str(run) / name

    def issue(self, permissions: dict[str, str]) -> str:
        """Return a token for a job; those of earlier jobs are worth nothing any more."""
        token = f"ghs_{os.urandom(18).hex()}"
        self.tokens = {token: permissions}
        self.heed(token if permissions.get("contents") == "write" else "")
        return token

    def contexts(self, event: Event, run: int = 1, attempt: int = 1) -> dict[str, Any]:
        """Return what all jobs of a run can read: a fork's neither variables nor secrets, Dependabot's no secrets."""
        pull = event.payload.get("pull_request")
        described = {"full_name": self.repository, "private": self.visibility == "private"}
        github = {
            "event": event.payload | {"repository": described},
            "event_name": event.name,
            "repository": self.repository,
            "repository_owner": self.repository.partition("/")[0],
            "sha": event.sha,
            "ref": event.ref,
            "ref_name": re.sub("^refs/(heads|tags|pull)/", "", event.ref),
            "head_ref": pull["head"]["ref"] if pull else "",
            "base_ref": pull["base"]["ref"] if pull else "",
            "actor": event.actor,
            "run_id": run,
            "run_attempt": attempt,
            "server_url": self.url,
            "api_url": self.api,
        }
        return {
            "github": Strict(github),
            "inputs": event.inputs,
            "vars": {} if event.fork else dict(self.vars),
            "secrets": {} if event.secretless else dict(self.secrets),
        }


def granted(asked: dict[str, str], event: Event) -> dict[str, str]:
    """Return a token's permissions: what a fork's job asks to write it may only read, and it cannot say who it is.

    A run that Dependabot has started gets what `permissions` ask for, id-token among it:
    https://docs.github.com/en/code-security/dependabot/troubleshooting-dependabot/troubleshooting-dependabot-on-github-actions
    """
    if event.fork:
        return {name: "read" for name in asked if name != "id-token"}
    return dict(asked)
