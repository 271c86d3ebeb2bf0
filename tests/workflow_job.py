"""One job of a run: a clean machine, its token, its environment, and its steps one after another, as written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workflow_expressions as expressions
from workflow_actions import ACTIONS
from workflow_expressions import Strict, UnknownError, render, text_of
from workflow_files import check_keys, fits, needs, parse, read_outputs
from workflow_hub import Environment, Hub, granted
from workflow_machine import TIMEOUT, Failed, variables

if TYPE_CHECKING:
    from workflow_runner import Run


@dataclass
class Step:
    """What became of a step. `result` is its conclusion: success, failure or skipped."""

    name: str
    result: str
    output: str = ""
    inner: bool = False  # of an action of the repository
    seconds: float = 0.0
    began: float = 0.0

    def described(self) -> dict[str, Any]:
        """Return the step as GitHub's API lists it."""
        times = ("started_at", self.began), ("completed_at", self.began + self.seconds)
        told = {name: datetime.fromtimestamp(at, UTC).isoformat() if at else None for name, at in times}
        return {"name": self.name, "conclusion": self.result} | told


class JobRun:
    """One job. `result` is success, failure or skipped, or waiting: for reviewers, or for a job that does."""

    result: str

    def __init__(self, hub: Hub, run: Run, name: str, job: dict[str, Any]) -> None:
        check_keys(job, "job")
        self.hub, self.run, self.event, self.id, self.job = hub, run, run.event, name, job
        self.workspace, self.temporary = hub.workspace, hub.folder / "temporary"
        self.contexts = hub.contexts(self.event, run.id, run.attempt)
        self.contexts["needs"] = Strict(
            {other: {"result": run.jobs[other].result, "outputs": run.jobs[other].outputs} for other in needs(job)}
        )
        self.result, self.summary, self.failed = "skipped", "", False
        self.steps: list[Step] = []
        self.outputs: dict[str, str] = {}
        self.permissions = granted(job["permissions"], self.event)
        # What may be read where: https://docs.github.com/en/actions/reference/workflows-and-actions/contexts
        self.readable = {name: self.contexts[name] for name in ("github", "inputs", "vars", "needs")}
        self.runs_on = render(job["runs-on"], self.readable)
        self.name = text_of(render(job["name"], self.readable))
        self.concurrency = {key: render(value, self.readable) for key, value in job.get("concurrency", {}).items()}
        self.environment = self.environment_of(job.get("environment"))
        self.path: list[str] = []
        self.exported: dict[str, str] = {}  # what an action has set for the steps after it
        self.registries: set[str] = set()
        self.always_after: list[Callable[[], None]] = []

    def environment_of(self, value: Any) -> str:
        """Return the name of the job's environment, if it has one."""
        if not isinstance(value, dict | None):
            raise UnknownError(f"{self.id}: environment: {value!r} does not say whether it is a deployment")
        check_keys(value or {}, "environment")
        return text_of(render(value["name"], self.readable)) if value else ""

    @property
    def subject(self) -> str:
        """Who the job is to a cloud that it signs in to.

        Source: https://docs.github.com/en/actions/reference/security/oidc
        """
        pull = "pull_request" if self.event.name == "pull_request" else f"ref:{self.event.ref}"
        return f"repo:{self.hub.repository}:{f'environment:{self.environment}' if self.environment else pull}"

    @property
    def seconds(self) -> float:
        """How long its steps took."""
        return sum(step.seconds for step in self.steps if not step.inner)

    def go(self, assumed: str | None = None, approved: bool = False) -> None:
        """Run the job if it is to be run, unless its result is assumed, or somebody has to approve it first."""
        results = [need["result"] for need in self.contexts["needs"].values()]
        if "waiting" in results:
            self.result = "waiting"
            return
        functions = status(all(result == "success" for result in results), "failure" in results)
        if not expressions.condition(self.job.get("if"), self.readable, functions):
            return
        if assumed:
            self.result = assumed
            return
        # One that does not exist is made when a job names it, and protects nothing.
        environment = self.hub.environments.get(self.environment, Environment(branches=("**",)))
        if self.environment and self.hub.has("environments"):
            branch = self.event.ref.removeprefix("refs/heads/")
            if not any(fits(pattern, branch) for pattern in environment.branches):
                told = f"Branch {branch!r} is not allowed to deploy to {self.environment}"
                self.steps = [Step("Set up job", "failure", f"{told} due to environment protection rules.")]
                self.result = "failure"
                return
            if environment.reviewers and self.hub.has("reviewers") and not approved:
                self.result = "waiting"
                return
            self.contexts["vars"] |= environment.vars
            if not self.event.secretless:
                self.contexts["secrets"] |= environment.secrets
        self.steps_and_outputs()

    def steps_and_outputs(self) -> None:
        """Take the steps on a clean machine, and render the outputs for later jobs."""
        for folder in (self.workspace, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.token = self.hub.issue(self.permissions)
        contexts = self.contexts | {"github": Strict(self.contexts["github"] | {"token": self.token})}
        environment = {name: text_of(render(value, contexts)) for name, value in self.job.get("env", {}).items()}
        done = self.take(self.job["steps"], contexts, environment)
        for after in self.always_after:
            after()
        self.result = "failure" if self.failed else "success"
        left = {key: {"outputs": dict(step["outputs"])} for key, step in done.items()}  # a step need not set all
        for name, value in self.job.get("outputs", {}).items():
            self.outputs[name] = text_of(render(value, contexts | {"steps": left}))

    def take(
        self, steps: list[dict[str, Any]], contexts: dict[str, Any], environment: dict[str, str], inner: bool = False
    ) -> Strict:
        """Take the steps of the job, or of an action of the repository within it; return what those with an id left."""
        earlier = Strict()
        for step in steps:
            check_keys(step, "step")
            record = Step(step["name"], "skipped", inner=inner)
            self.steps.append(record)
            readable = contexts | {"steps": earlier, "env": Strict(environment)}
            secretless = {name: value for name, value in readable.items() if name != "secrets"}
            outputs: dict[str, str] = {}
            outcome = "skipped"  # before `continue-on-error`
            if expressions.condition(step.get("if"), secretless, status(not self.failed, self.failed)):
                record.result = outcome = "success"
                record.began = time.time()
                try:
                    outputs = Strict(self.act(step, readable, environment, record))
                except Failed as failure:
                    record.output += str(failure)
                    outcome = "failure"
                    if step.get("continue-on-error") is not True:
                        record.result = "failure"
                        self.failed = True
                record.seconds = time.time() - record.began
            if "id" in step:
                earlier[step["id"]] = {"outputs": outputs, "outcome": outcome}
        return earlier

    def act(
        self, step: dict[str, Any], readable: dict[str, Any], environment: dict[str, str], record: Step
    ) -> dict[str, str]:
        """Run a step's script or action and return its outputs. Raises Failed."""

        def texts(key: str) -> dict[str, str]:
            return {name: text_of(render(value, readable)) for name, value in step.get(key, {}).items()}

        environment = environment | texts("env")
        if "run" in step:
            return self.shell(text_of(render(step["run"], readable)), environment, record)
        readable["env"] = Strict(environment)
        return self.use(step["uses"], texts("with"), readable, environment)

    def use(
        self, action: str, inputs: dict[str, str], contexts: dict[str, Any], environment: dict[str, str]
    ) -> dict[str, str]:
        """Run an action: one of the repository, or the stand-in for one of others. Raises Failed."""
        if action.startswith("./"):
            return self.compose(self.workspace / action / "action.yaml", inputs, contexts["github"], environment)
        name = action.partition("@")[0].casefold()
        if name not in ACTIONS:
            raise UnknownError(f"the action {name} has no stand-in in workflow_actions.py")
        stand_in, known = ACTIONS[name]
        if unknown := set(inputs) - known:
            raise UnknownError(f"{name}: its stand-in does not know the inputs {unknown}")
        self.run.used.append((name, inputs))
        return stand_in(self, inputs) or {}

    def compose(self, file: Path, inputs: dict[str, str], github: Any, environment: dict[str, str]) -> dict[str, str]:
        """Take the steps of a composite action. Raises Failed where one of them does."""
        action = parse(file.read_text(), "action")
        if set(action["runs"]) != {"using", "steps"} or action["runs"]["using"] != "composite":
            raise UnknownError(f"{file}: only composite actions are known here")
        given = Strict({name: inputs.pop(name, entry["default"]) for name, entry in action["inputs"].items()})
        if inputs:
            raise UnknownError(f"{file} has no inputs {set(inputs)}")
        before = self.failed
        self.take(action["runs"]["steps"], {"github": github, "inputs": given}, environment, inner=True)
        if self.failed and not before:
            raise Failed("a step of it has failed")
        return {}

    def shell(self, script: str, environment: dict[str, str], record: Step) -> dict[str, str]:
        """Run a script and return its outputs. Raises Failed."""
        files = {name: self.temporary / name for name in ("script", "event", "output", "summary")}
        contents = {"script": script, "event": json.dumps(self.contexts["github"]["event"])}
        for name, file in files.items():
            file.write_text(contents.get(name, ""))
        with subprocess.Popen(
            ["bash", "-e", files["script"]],  # GitHub's own where no shell is named
            cwd=self.workspace,
            env=variables(self, files) | self.exported | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        ) as process:
            try:
                record.output, _ = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                raise Failed(f"ended after {TIMEOUT} s") from error
        self.summary += files["summary"].read_text()
        if process.returncode:
            raise Failed(f"Process completed with exit code {process.returncode}.")
        return read_outputs(files["output"].read_text())

    def git(self, *arguments: str) -> None:
        """Run git in the workspace. Raises Failed."""
        done = subprocess.run(["git", "-C", self.workspace, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(done.stderr)

    def step(self, name: str) -> Step:
        """Return what became of the step `name`."""
        return next(step for step in self.steps if step.name == name)

    def need(self, permission: str, level: str = "read") -> None:
        """Fail as GitHub does where the job's token lacks a permission. Raises Failed."""
        if self.permissions.get(permission) not in (level, "write"):
            raise Failed(f"Resource not accessible by integration: {permission}: {level} is missing")


def status(success: bool, failure: bool) -> dict[str, Callable[..., Any]]:
    """Return the functions that an `if` may call. A job that is cancelled runs nothing here."""
    return {
        "success": lambda: success,
        "failure": lambda: failure,
        "always": lambda: True,
        "cancelled": lambda: False,
    }
