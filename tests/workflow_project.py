"""A repository with the generated workflows, and in place of its commands the small ones of workflow_steps.py.

A life of events is run in seconds, each step as its workflow has it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_api import connect, server_of
from workflow_events import Event, merge_group, pull_request
from workflow_hub import Environment, Hub, Rule
from workflow_runner import Run, deliver

#: Who a cloud trusts with which role: main's may write, the branches' reads; none is for packages that nobody has seen.
MAIN_ROLE, BRANCH_ROLE = "arn:aws:iam::1:role/main", "arn:aws:iam::1:role/branches"
ROLES = {
    MAIN_ROLE: r"repo:owner/name:(ref:refs/heads/main|environment:main)",
    BRANCH_ROLE: r"repo:owner/name:ref:refs/heads/(?!main$|dependabot/|locks/).*",
}
VARIABLES = {"AWS_ROLE_ARN": MAIN_ROLE, "AWS_BRANCH_ROLE_ARN": BRANCH_ROLE, "AWS_REGION": "eu-west-1"}

KEY = "the deploy key"


@dataclass
class Project:
    """The repository on all sides: the hub, a person's clone, and the world outside."""

    hub: Hub
    clone: Path
    world: Path
    api: Any = None

    def git(self, *arguments: str) -> str:
        return self.hub.git(*arguments, at=self.clone)

    def set_up(self, first: str = "production", reviewers: bool = False) -> None:
        """Do what `make github` does: rules, environments, and the key, where the plan lets it."""
        self.hub.keys = [KEY]
        self.hub.rules = [Rule("env/*"), Rule("main", ("maintainer",))]
        key = {"RELEASE_KEY": KEY}
        main = Environment({"COSIGN_PRIVATE_KEY": "the key of cosign", "COSIGN_PASSWORD": "its password"})
        self.hub.environments = {
            "main": main,
            "rollback": Environment(key),
            "production": Environment(key, reviewers=reviewers),
        }
        if first == "staging":
            self.hub.environments["staging"] = Environment(key)
            self.hub.vars["FIRST_ENVIRONMENT"] = "staging"
        self.hub.heed()

    def change(self, branch: str, settings: str = "", to: str = "origin", who: str = "maintainer", **files: str) -> str:
        """Commit to a branch, which may be new, push it and return the commit."""
        self.branch(branch)
        if settings:
            (self.clone / "settings.txt").write_text(f"{settings}\n")
        for name, text in files.items():
            (self.clone / name.replace("__", ".")).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", f"Change {branch}")
        self.push(branch, to, who)
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str) -> None:
        """Switch the clone to a branch; a new one begins at main."""
        there = self.git("branch", "--list", name)
        self.git("switch", "--quiet", *([name] if there else ["--create", name, "main"]))

    def push(self, branch: str, to: str = "origin", who: str = "maintainer") -> None:
        """Push a branch from the clone."""
        with_name = ["-c", f"remote.origin.receivepack=HUB_PERSON={who} git-receive-pack"]
        self.git(*with_name, "push", "--quiet", "--force", to, f"HEAD:refs/heads/{branch}")

    def open(self, number: int, branch: str, action: str = "opened", fork: tuple[str, Path] | None = None) -> Event:
        """Open a pull request, or say what else became of it."""
        return pull_request(self.hub, number, branch, fork, action)

    def merge(self, number: int, method: str = "merge") -> None:
        """Merge a pull request as GitHub does, which asks the rules of main first, and push main."""
        assert self.hub.mergeable(number), f"the pull request {number} has not passed"
        pull = self.hub.pulls.pop(number)
        head = pull["head"]
        self.git("fetch", "--quiet", "origin", f"refs/pull/{number}/merge")
        self.git("switch", "--quiet", "main")
        if method == "squash":
            self.git("merge", "--quiet", "--squash", head["sha"])
            self.git("commit", "--quiet", "--allow-empty", "--message", f"Change (#{number})")
        else:
            self.git("merge", "--quiet", "--no-ff", "--message", f"Merge pull request #{number}", head["sha"])
        self.push("main")
        self.hub.merged[self.git("rev-parse", "HEAD")] = pull

    def queue(self, number: int) -> list[Run]:
        """Put a pull request in the merge queue: main becomes what has passed there."""
        event = merge_group(self.hub, number)
        ran = self.deliver(event)
        assert self.hub.checks(event.sha).get("pass") == "success"
        self.git("fetch", "--quiet", "origin")
        self.git("switch", "--quiet", "main")
        self.git("reset", "--quiet", "--hard", event.sha)
        self.push("main")
        self.git("push", "--quiet", "origin", f":{event.ref}")
        self.hub.merged[event.sha] = self.hub.pulls.pop(number)
        return ran

    def deliver(self, *events: Event) -> list[Run]:
        return deliver(self.hub, *events)

    def log(self) -> list[str]:
        """Return what the jobs have done since the last time, each line with its job."""
        log = self.world / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def trainings(self) -> int:
        """Return how often a job has trained since the last time; what else was done is forgotten."""
        return len([line for line in self.log() if line.endswith(": train")])

    def requests(self, folder: Path) -> dict[str, str]:
        """Return the variables that name a request log: the small project's retraining finds new rows without one."""
        return {}

    def releases(self, environment: str = "production") -> int:
        """Return how many commits an environment's branch has."""
        branch = f"env/{environment}"
        there = self.hub.git("for-each-ref", f"refs/heads/{branch}")
        return int(self.hub.git("rev-list", "--count", branch)) if there else 0


@contextmanager
def small_project(folder: Path, generated: Path, remote: str = "folder", staging: bool = False) -> Iterator[Project]:
    """Yield the repository with one commit on main that has started nothing yet.

    `remote` says where the DVC remote lies: `folder`, in the repository, or `bucket`, for which jobs have to sign in.
    """
    clone, origin, world = folder / "clone", folder / "origin.git", folder / "world"
    for path in (clone / "requirements", clone / "serving", world, origin):
        path.mkdir(parents=True)
    shutil.copytree(generated / ".github", clone / ".github")
    shutil.copyfile(Path(__file__).parent / "workflow_steps.py", clone / "workflow_steps.py")
    (clone / "Makefile").write_text(f"%:\n\t@{sys.executable} -S -B workflow_steps.py $@\n")
    (clone / ".gitignore").write_text("build/\nmodel/\nreports/\npackage/\n")
    (clone / "remote.txt").write_text(remote)
    (clone / "requirements/pipeline.txt").write_text("torch==2.9.0\n")
    (clone / "serving/Containerfile").write_text("ARG REVISION\nCOPY package /model\n")
    if staging:
        (clone / "staging.txt").write_text("")
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", origin], check=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", clone], check=True)
    hub = Hub(folder / "hub", origin)
    hub.vars, hub.roles = dict(VARIABLES), ROLES
    project = Project(hub, clone, world)
    project.git("remote", "add", "origin", str(origin))
    (hub.folder / "artifacts").mkdir()
    (clone / "settings.txt").write_text("epochs: 10\n")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "A project")
    with server_of(folder, hub) as server:
        connect(hub, server)
        hub.machine |= {"WORLD": str(world), "ARTIFACTS": str(hub.folder / "artifacts")}
        project.api = server
        yield project
