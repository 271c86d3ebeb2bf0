"""A person's machine, for the tests of `make github`: a project in Git, and a `gh` that is fake_gh.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from defaults import ROOT

NAME = "team/churn"
#: Who pushes, by GitHub's ids of roles; a deploy key has none.
KEY, MAINTAIN, WRITE, ADMIN = None, 2, 4, 5
OVERLAY = "k8s/overlays/production/kustomization.yaml"
CODEOWNERS = ".github/CODEOWNERS"
OWNED = "# Who reviews\n/.github/   @team\n/k8s/       @team  # the cluster\n"
COSIGN = """#!/bin/sh
test "$1 $2" = "generate-key-pair --output-key-prefix" || exit 2
test -n "$COSIGN_PASSWORD" || exit 3
echo "private half, under $COSIGN_PASSWORD" > "$3.key"
echo "public half" > "$3.pub"
"""


class Laptop:
    """A project in Git, with a `gh` on PATH that is fake_gh.py."""

    def __init__(self, folder: Path, *, staging: bool = False) -> None:
        self.project, self.file, self.bin = folder / "project", folder / "github/state.json", folder / "bin"
        for path in (self.project / OVERLAY, self.project / CODEOWNERS, self.file, self.bin / "gh"):
            path.parent.mkdir(parents=True)
        (self.project / CODEOWNERS).write_text(OWNED)
        (self.project / "pyproject.toml").write_text('[project]\nname = "churn"\n')
        (self.project / OVERLAY).write_text("images:\n  - name: model-server\n    newName: ghcr.io/team/churn\n")
        start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fake_gh; fake_gh.main()"
        (self.bin / "gh").write_text(f"#!{sys.executable} -IS\n{start}\n")
        (self.bin / "gh").chmod(0o755)
        (self.bin / "git").symlink_to(str(shutil.which("git")))
        self.change(repositories={}, calls=[], logged_in=True, broken="", plan="enterprise", shows_plan=False)
        self.change(type="User", me="team", teams={}, owns=True, deploy_keys=True)
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        settings = folder / "gitconfig"
        person = "[user]\n  name = Tester\n  email = t@localhost\n"
        settings.write_text(f'{person}[url "{self.file.parent}/"]\n  insteadOf = https://github.com/\n')
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GH_"))},
            "FAKE_GH": str(self.file),
            "GIT_CONFIG_GLOBAL": str(settings),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT / "src"),
        }
        if staging:
            for name in ("k8s/overlays/staging/kustomization.yaml", ".github/workflows/promote.yaml"):
                (self.project / name).parent.mkdir(parents=True, exist_ok=True)
                (self.project / name).touch()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "First")

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.project, env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def change(self, **values: Any) -> None:
        """Change what the stand-in knows."""
        state = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(json.dumps(state | values))

    def change_repository(self, change: Callable[[Any], object]) -> None:
        """Change the repository on GitHub, as somebody would in its settings."""
        state = json.loads(self.file.read_text())
        change(state["repositories"][NAME])
        self.file.write_text(json.dumps(state))

    def install_cosign(self) -> None:
        """Put a `cosign` on PATH that makes keys, with a password from its environment as the real one."""
        (self.bin / "cosign").write_text(COSIGN)
        (self.bin / "cosign").chmod(0o755)

    @property
    def calls(self) -> list[Any]:
        calls: list[Any] = json.loads(self.file.read_text())["calls"]
        return calls

    @property
    def repository(self) -> Any:
        return json.loads(self.file.read_text())["repositories"].get(NAME)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gitops.project.github_setup", *arguments]
        return subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False
        )

    def set_up(self, *arguments: str) -> str:
        """Run the command, which has to succeed, and return what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """Run the command, which has to fail, and return its error."""
        done = self.run(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr


def rules(repository: Any, name: str) -> dict[str, Any]:
    """Return the rules of an active ruleset, by their types."""
    [ruleset] = [each for each in repository["rulesets"].values() if each["name"] == name]
    assert ruleset["enforcement"] == "active"
    return {rule["type"]: rule.get("parameters") for rule in ruleset["rules"]}


def may(repository: Any, action: str, branch: str, who: Any) -> bool:
    """Return whether GitHub lets `who` (an id of a role, or None for a deploy key) do `action` to the branch.

    `action` is a type of rule: what an active ruleset restricts is open to its bypass list alone, which is free of the
    whole ruleset; a merge of a pull request is an update that the rule `pull_request` lets through.
    """
    for ruleset in repository["rulesets"].values():
        names = ruleset["conditions"]["ref_name"]
        here = any(fnmatch(f"refs/heads/{branch}", pattern) for pattern in names["include"])
        here = here and not any(fnmatch(f"refs/heads/{branch}", pattern) for pattern in names["exclude"])
        blocking = {"merge": {"update"}, "update": {"update", "pull_request"}}.get(action, {action})
        restricted = (
            here and ruleset["enforcement"] == "active" and blocking & {rule["type"] for rule in ruleset["rules"]}
        )
        if restricted and who not in [actor["actor_id"] for actor in ruleset["bypass_actors"]]:
            return False
    return True
