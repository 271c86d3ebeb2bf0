"""Runs the workflows of a generated repository as GitHub Actions would, on this machine: `run`.

The steps are those of the workflow at the event's commit, and run in a fresh clone of the hub's bare repository. What
these workflows use is known here and nothing more: another key, context, function or action is an error, so that a
workflow that changes does not go untested. Actions have stand-ins in workflow_actions.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import workflow_expressions as expressions
from workflow_actions import ACTIONS, Failed
from workflow_expressions import Strict, UnknownError, render, text_of
from workflow_files import check_keys, needs, parse, read_outputs
from workflow_hub import Event, Hub, granted

#: Of the caller's environment a job sees this: where programs are, and how packages are had.
HANDED_DOWN = r"(?i)PATH|PYTHON|LANG|LC_\w+|TZ|TMPDIR|\w*(SSL|CA_BUNDLE|CA_CERTS)\w*|\w+_proxy|(PIP|UV)_\w+|TORCH_INDEX"

#: What pip and uv find in the caller's home, which is not the job's: settings, and caches that save time.
PACKAGES = {
    "PIP_CONFIG_FILE": ".config/pip/pip.conf",
    "UV_CONFIG_FILE": ".config/uv/uv.toml",
    "PIP_CACHE_DIR": ".cache/pip",
    "UV_CACHE_DIR": ".cache/uv",
}

#: Seconds after which a step is ended.
TIMEOUT = 900


@dataclass
class Step:
    """What became of a step. `result` is its conclusion: success, failure or skipped."""

    name: str
    result: str
    output: str = ""
    inner: bool = False  # of an action of the repository
    seconds: float = 0.0


@dataclass
class Run:
    """One run of a workflow."""

    id: int
    workflow: str
    event: Event
    concurrency: dict[str, Any]
    jobs: dict[str, JobRun] = field(default_factory=dict)
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # actions, with their inputs

    @property
    def conclusion(self) -> str:
        results = {job.result for job in self.jobs.values()}
        return "failure" if "failure" in results else "skipped" if results == {"skipped"} else "success"

    def inputs_of(self, action: str) -> list[dict[str, str]]:
        """Return the inputs of each use of an action."""
        return [inputs for name, inputs in self.used if name == action]

    def told(self) -> str:
        """Return what every job and step came to, with what those that ran printed."""
        lines = [f"{self.workflow}: {self.conclusion}"]
        for job in self.jobs.values():
            lines.append(f"== {job.id}: {job.result}")
            for step in job.steps:
                lines.append(f"-- {step.name}: {step.result}, {step.seconds:.1f} s\n{step.output}".rstrip())
        return "\n".join(lines)

    def described(self, url: str) -> list[dict[str, Any]]:
        """Return the jobs as GitHub's API lists them."""
        return [
            {
                "name": job.id,
                "conclusion": job.result,
                "html_url": f"{url}/actions/runs/{self.id}/job/{number}",
                "steps": [{"name": step.name, "conclusion": step.result} for step in job.steps if not step.inner],
            }
            for number, job in enumerate(self.jobs.values(), start=1)
        ]


def run(hub: Hub, file: str, event: Event, assume: dict[str, str] | None = None) -> Run:
    """Run the workflow `file`, which the event must start. `assume` gives results of jobs that are not to be run."""
    workflow = hub.workflows(event)[file]
    hub.runs += 1
    contexts = hub.contexts(event, hub.runs)
    concurrency = {key: render(value, contexts) for key, value in workflow["concurrency"].items()}
    this = Run(hub.runs, workflow["name"], event, concurrency)
    for name, job in workflow["jobs"].items():
        if unknown := set(needs(job)) - set(this.jobs):
            raise UnknownError(f"the job {name} needs {unknown}, which do not stand before it")
        results = Strict({other: {"result": this.jobs[other].result} for other in needs(job)})
        this.jobs[name] = JobRun(hub, this, name, job, contexts | {"needs": results})
        this.jobs[name].go((assume or {}).get(name))
    return this


class JobRun:
    """One job: a clean machine, and its steps one after another."""

    def __init__(self, hub: Hub, run: Run, name: str, job: dict[str, Any], contexts: dict[str, Any]) -> None:
        check_keys(job, "job")
        self.hub, self.run, self.event, self.id, self.job, self.contexts = hub, run, run.event, name, job, contexts
        self.workspace, self.temporary = hub.workspace, hub.folder / "temporary"
        self.result, self.steps, self.summary, self.failed = "skipped", list[Step](), "", False
        self.permissions = granted(job["permissions"], self.event)
        # What may be read where: https://docs.github.com/en/actions/reference/workflows-and-actions/contexts
        self.readable = {name: contexts[name] for name in ("github", "inputs", "vars", "needs")}
        self.runs_on = render(job["runs-on"], self.readable)
        self.path: list[str] = []
        self.registries: set[str] = set()
        self.always_after: list[Callable[[], None]] = []

    def go(self, assumed: str | None = None) -> None:
        """Run the job if it is to be run, unless its result is assumed."""
        results = [need["result"] for need in self.contexts["needs"].values()]
        functions = status(all(result == "success" for result in results), "failure" in results)
        if not expressions.condition(self.job.get("if"), self.readable, functions):
            return
        if assumed:
            self.result = assumed
            return
        for folder in (self.workspace, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        token = self.hub.issue(self.permissions)
        contexts = self.contexts | {"github": Strict(self.contexts["github"] | {"token": token})}
        environment = {name: text_of(render(value, contexts)) for name, value in self.job.get("env", {}).items()}
        self.take(self.job["steps"], contexts, environment)
        for after in self.always_after:
            after()
        self.result = "failure" if self.failed else "success"

    def take(
        self, steps: list[dict[str, Any]], contexts: dict[str, Any], environment: dict[str, str], inner: bool = False
    ) -> None:
        """Take the steps of the job, or of an action of the repository within it."""
        earlier = Strict()
        for step in steps:
            check_keys(step, "step")
            record = Step(step["name"], "skipped", inner=inner)
            self.steps.append(record)
            readable = contexts | {"steps": earlier, "env": Strict(environment)}
            secretless = {name: value for name, value in readable.items() if name != "secrets"}
            outputs: dict[str, str] = {}
            if expressions.condition(step.get("if"), secretless, status(not self.failed, self.failed)):
                record.result = "success"
                began = time.monotonic()
                try:
                    outputs = Strict(self.act(step, readable, environment, record))
                except Failed as failure:
                    record.output += str(failure)
                    if step.get("continue-on-error") is not True:
                        record.result = "failure"
                        self.failed = True
                record.seconds = time.monotonic() - began
            if "id" in step:
                earlier[step["id"]] = {"outputs": outputs}

    def act(
        self, step: dict[str, Any], readable: dict[str, Any], environment: dict[str, str], record: Step
    ) -> dict[str, str]:
        """Run a step's script or action and return its outputs. Raises Failed."""
        functions: expressions.Functions = {"hashFiles": self.hash_files, "join": expressions.join}

        def texts(key: str) -> dict[str, str]:
            return {name: text_of(render(value, readable, functions)) for name, value in step.get(key, {}).items()}

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
        contents = {"script": script, "event": json.dumps(self.event.payload)}
        for name, file in files.items():
            file.write_text(contents.get(name, ""))
        with subprocess.Popen(
            ["bash", "-e", files["script"]],  # GitHub's own where no shell is named
            cwd=self.workspace,
            env=self.environment(files) | environment,
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

    def environment(self, files: dict[str, Path]) -> dict[str, str]:
        """Return the variables of every step. The token is not among them: a step has it where its `env` says so."""
        variables = {name: value for name, value in os.environ.items() if re.fullmatch(HANDED_DOWN, name)}
        for name, path in PACKAGES.items():
            if (Path.home() / path).exists():
                variables.setdefault(name, str(Path.home() / path))
        variables |= self.hub.machine
        variables |= {f"GITHUB_{name.upper()}": str(self.contexts["github"][name]) for name in TOLD}
        if self.permissions.get("id-token") == "write":
            variables["ACTIONS_ID_TOKEN_REQUEST_URL"] = f"{self.hub.url}/id-token"
        return variables | {
            "PATH": os.pathsep.join([*self.path, variables["PATH"]]),
            "HOME": str(self.temporary),
            "GIT_CONFIG_NOSYSTEM": "1",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_JOB": self.id,
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_EVENT_PATH": str(files["event"]),
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
        }

    def hash_files(self, *patterns: str) -> str:
        """The function of that name: empty where no file fits."""
        found = {path for pattern in patterns for path in self.workspace.glob(re.sub(r"\*\*$", "**/*", pattern))}
        digests = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sorted(found) if path.is_file())
        return hashlib.sha256(digests).hexdigest() if digests else ""

    def git(self, *arguments: str) -> None:
        """Run git in the workspace. Raises Failed."""
        done = subprocess.run(["git", "-C", self.workspace, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(done.stderr)

    def step(self, name: str) -> Step:
        """Return what became of the step `name`."""
        return next(step for step in self.steps if step.name == name)


#: Of the context `github`, what every step has as GITHUB_NAME too.
TOLD = (
    *("actor", "api_url", "base_ref", "event_name", "head_ref", "ref", "ref_name", "repository", "repository_owner"),
    *("run_id", "server_url", "sha"),
)


def status(success: bool, failure: bool) -> dict[str, Callable[..., Any]]:
    """Return the functions that an `if` may call. No run is cancelled here."""
    return {
        "success": lambda: success,
        "failure": lambda: failure,
        "always": lambda: True,
        "cancelled": lambda: False,
    }
