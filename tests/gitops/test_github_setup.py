"""`make github`: the repository's settings after the first and later runs, and the errors where GitHub refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from defaults import ROOT

NAME = "team/churn"
OVERLAY = "k8s/overlays/production/kustomization.yaml"


class Laptop:
    """A project in Git, with a `gh` on PATH that is fake_gh.py."""

    def __init__(self, folder: Path, *, staging: bool = False) -> None:
        self.project, self.file, self.bin = folder / "project", folder / "github/state.json", folder / "bin"
        for path in (self.project / OVERLAY, self.file, self.bin / "gh"):
            path.parent.mkdir(parents=True)
        (self.project / "pyproject.toml").write_text('[project]\nname = "churn"\n')
        (self.project / OVERLAY).write_text("images:\n  - name: model-server\n    newName: ghcr.io/team/churn\n")
        start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fake_gh; fake_gh.main()"
        (self.bin / "gh").write_text(f"#!{sys.executable} -IS\n{start}\n")
        (self.bin / "gh").chmod(0o755)
        (self.bin / "git").symlink_to(str(shutil.which("git")))
        self.change(repositories={}, calls=[], logged_in=True, plan="paid", broken="")
        settings = folder / "gitconfig"
        settings.write_text(f'[url "{self.file.parent}/"]\n  insteadOf = https://github.com/\n')
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GH_"))},
            "FAKE_GH": str(self.file),
            "GIT_CONFIG_GLOBAL": str(settings),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT / "src"),
        }
        if staging:
            for name in ("k8s/overlays/staging/kustomization.yaml", ".github/workflows/promote.yaml"):
                (self.project / name).parent.mkdir(parents=True)
                (self.project / name).touch()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", "--all")
        self.git("-c", "user.name=Tester", "-c", "user.email=t@localhost", "commit", "--quiet", "--message", "First")

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


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


def rules(repository: Any, name: str) -> dict[str, Any]:
    [ruleset] = [each for each in repository["rulesets"].values() if each["name"] == name]
    assert ruleset["enforcement"] == "active" and ruleset["bypass_actors"] == []
    return {rule["type"]: rule.get("parameters") for rule in ruleset["rules"]}


def test_a_new_repository(laptop: Laptop) -> None:
    printed = laptop.set_up("--variable", "TRAINING_RUNNER=gpu")
    repository = laptop.repository
    assert repository["visibility"] == "PRIVATE" and repository["topics"] == ["gitops-mlops"]
    assert laptop.git("rev-parse", "origin/main") == laptop.git("rev-parse", "main")
    assert laptop.git("rev-parse", "--abbrev-ref", "main@{upstream}").strip() == "origin/main"
    assert repository["actions/permissions"]["sha_pinning_required"] is True
    assert repository["actions/permissions/workflow"] == {
        "default_workflow_permissions": "read",
        "can_approve_pull_request_reviews": False,
    }
    main = rules(repository, "main")
    assert main.keys() == {"deletion", "non_fast_forward", "pull_request", "required_status_checks"}
    assert main["required_status_checks"] == {
        "strict_required_status_checks_policy": True,
        "required_status_checks": [{"context": "pass", "integration_id": 15368}],
    }
    assert main["pull_request"]["required_approving_review_count"] == 0
    assert rules(repository, "releases").keys() == {"deletion", "non_fast_forward"}
    assert [each["name"] for each in repository["environments"]["production"]["policies"].values()] == ["main"]
    assert repository["variable"] == {"TRAINING_RUNNER": "gpu"}
    assert re.search(r"# +set +variable +TRAINING_RUNNER", printed)
    assert re.search(r"# +not set +secret +REGISTRY_PASSWORD", printed)
    assert f"gh secret set NAME --repo {NAME}" in printed


def test_a_project_with_staging(tmp_path: Path) -> None:
    """Promotions are pull requests that Actions opens, from a branch that is moved and deleted."""
    laptop = Laptop(tmp_path, staging=True)
    laptop.set_up()
    repository = laptop.repository
    assert repository["actions/permissions/workflow"] == {
        "default_workflow_permissions": "read",
        "can_approve_pull_request_reviews": True,
    }
    assert repository["variable"] == {"FIRST_ENVIRONMENT": "staging"}
    assert repository["environments"].keys() == {"staging", "production"}
    for environment in repository["environments"].values():
        assert [policy["name"] for policy in environment["policies"].values()] == ["main"]
    [releases] = [each for each in repository["rulesets"].values() if each["name"] == "releases"]
    names = releases["conditions"]["ref_name"]
    covered = [
        name
        for name in ("env/staging", "env/production", "env/production-next")
        if any(fnmatch(f"refs/heads/{name}", pattern) for pattern in names["include"])
        and not any(fnmatch(f"refs/heads/{name}", pattern) for pattern in names["exclude"])
    ]
    assert covered == ["env/staging", "env/production"]
    laptop.set_up()
    assert laptop.repository == repository


def test_each_call_is_printed(laptop: Laptop) -> None:
    printed = laptop.set_up()
    for *arguments, _ in laptop.calls:
        assert "gh " + " ".join(f"'{item}'" if "?" in item else item for item in arguments) in printed


def test_again_it_is_the_same(laptop: Laptop) -> None:
    laptop.set_up("--variable", "AWS_REGION=eu-central-1")
    first = laptop.repository
    (laptop.project / "local").touch()
    laptop.git("add", "local")
    laptop.git("-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "--quiet", "--message", "Not reviewed")
    again = laptop.set_up()
    assert laptop.repository == first
    assert "git push --set-upstream" not in again and "gh repo create" not in again


def test_what_somebody_changed_is_put_right(laptop: Laptop) -> None:
    laptop.set_up()
    first = laptop.repository

    def meddle(repository: Any) -> None:
        for ruleset in repository["rulesets"].values():
            ruleset |= {"enforcement": "disabled", "rules": ruleset["rules"][1:]}
            ruleset["bypass_actors"] = [{"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}]
        repository["actions/permissions"]["sha_pinning_required"] = False
        repository["actions/permissions/workflow"]["default_workflow_permissions"] = "write"
        policies = {"1": {"name": "*"}, "2": {"name": "main", "type": "tag"}}
        repository["environments"]["production"]["policies"] = policies

    laptop.change_repository(meddle)
    laptop.set_up()
    [policy] = laptop.repository["environments"]["production"].pop("policies").values()
    assert policy == {"name": "main", "type": "branch"}
    for key, value in first.items():
        assert key == "environments" or laptop.repository[key] == value


def test_what_somebody_made_stricter_stays(laptop: Laptop) -> None:
    laptop.set_up("--approvals", "2")
    reviewers = [{"type": "Team", "reviewer": {"id": 7}}]

    def tighten(repository: Any) -> None:
        repository["topics"].append("churn")
        repository["actions/permissions"]["allowed_actions"] = "selected"
        repository["environments"]["production"] |= {
            "deployment_branch_policy": None,
            "protection_rules": [{"type": "required_reviewers", "prevent_self_review": True, "reviewers": reviewers}],
        }

    laptop.change_repository(tighten)
    laptop.set_up()
    repository = laptop.repository
    review = rules(repository, "main")["pull_request"]
    assert review["required_approving_review_count"] == 2 and review["require_code_owner_review"] is True
    assert repository["topics"] == ["churn", "gitops-mlops"]
    assert repository["actions/permissions"]["allowed_actions"] == "selected"
    [rule] = repository["environments"]["production"]["protection_rules"]
    assert rule["reviewers"] == reviewers

    laptop.set_up("--approvals", "0")
    assert rules(laptop.repository, "main")["pull_request"]["required_approving_review_count"] == 0


def test_a_public_one_holds_back_runs_from_outside(laptop: Laptop) -> None:
    laptop.change(plan="free")
    laptop.set_up("--public")
    assert laptop.repository["visibility"] == "PUBLIC"
    approval = laptop.repository["actions/permissions/fork-pr-contributor-approval"]
    assert approval == {"approval_policy": "all_external_contributors"}
    assert len(laptop.repository["rulesets"]) == 2


def test_settings_that_a_free_plan_refuses_are_listed_and_the_others_applied(laptop: Laptop) -> None:
    laptop.change(plan="free")
    error = laptop.refused("--variable", "TRAINING_RUNNER=gpu")
    assert "Rules of the branches" in error and "Upgrade to GitHub Pro" in error and "paid plan" in error
    assert "Only main deploys to production" in error
    assert laptop.repository["actions/permissions"]["sha_pinning_required"] is True
    assert laptop.repository["variable"] == {"TRAINING_RUNNER": "gpu"}


def test_any_other_failure_ends_it(laptop: Laptop) -> None:
    laptop.change(broken="rulesets")
    error = laptop.refused()
    assert "error connecting" in error and "rulesets" in error
    assert laptop.repository["environments"] == {}


def test_a_repository_that_exists_stays_as_private_as_it_is(laptop: Laptop) -> None:
    laptop.set_up()
    laptop.git("remote", "remove", "origin")
    error = laptop.refused("--public")
    assert "is private" in error and "--visibility public" in error
    assert laptop.repository["visibility"] == "PRIVATE"
    assert laptop.git("config", "remote.origin.url").strip() == f"https://github.com/{NAME}"


def test_without_a_login_nothing_is_done(laptop: Laptop) -> None:
    laptop.change(logged_in=False)
    assert "gh auth login" in laptop.refused()
    assert laptop.calls == [["auth", "status", None]]


@pytest.mark.parametrize(
    ("variable", "match"),
    [
        ("TRAINIG_RUNNER=gpu", "TRAINING_RUNNER, MLFLOW_TRACKING_URI"),
        ("REGISTRY_PASSWORD=secret", "gh secret set REGISTRY_PASSWORD"),
        ("AWS_REGION", "no value"),
        ("AWS_REGION=", "no value"),
        ("MLFLOW_TRACKING_URI=https://me:secret@mlflow.example", "holds a password"),
    ],
)
def test_a_variable_is_refused(laptop: Laptop, variable: str, match: str) -> None:
    error = laptop.refused("--variable", variable)
    assert match in error and "=secret" not in error and ":secret" not in error
    assert laptop.calls == []


def test_the_listed_variables_are_those_of_the_workflows(laptop: Laptop) -> None:
    printed = laptop.set_up("--print")
    texts = "".join(path.read_text() for path in (ROOT / ".github").rglob("*.yaml"))
    for word, kind in (("vars", "variable"), ("secrets", "secret")):
        listed = re.findall(rf"^# +{kind} +([A-Z_]+)", printed, re.MULTILINE)
        assert set(re.findall(rf"\b{word}\.([A-Z_]+)", texts)) == set(listed)


def test_code_owners_are_named_for_files_that_exist() -> None:
    lines = [line.split() for line in (ROOT / ".github/CODEOWNERS").read_text().splitlines()]
    for pattern, *owners in (line for line in lines if line and line[0] != "#"):
        assert list(ROOT.glob(pattern.lstrip("/"))), pattern
        assert owners and all(owner.startswith("@") for owner in owners)


def test_printed_commands_do_the_same(laptop: Laptop) -> None:
    variables = ("--variable", "TRAINING_RUNNER=a b", "--variable", "AWS_REGION=$HOME")
    script = laptop.set_up("--print", "--public", "--approvals", "1", *variables)
    assert laptop.calls == [] and laptop.git("remote") == ""
    subprocess.run(["sh", "-e"], input=script, text=True, cwd=laptop.project, env=laptop.environment, check=True)
    printed = laptop.repository
    assert printed["variable"] == {"TRAINING_RUNNER": "a b", "AWS_REGION": "$HOME"}
    laptop.set_up("--public", "--approvals", "1")
    assert laptop.repository == printed


def test_without_gh_the_commands_are_printed(laptop: Laptop) -> None:
    with_gh = laptop.set_up("--print")
    (laptop.bin / "gh").unlink()
    laptop.environment["PATH"] = str(laptop.bin)
    done = laptop.run()
    assert done.stdout == with_gh
    assert done.returncode == 1 and "gh is not on PATH" in done.stderr


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("git@github.com:Some-One/a.name.git", "Some-One/a.name"),
        ("https://github.com/someone/name", "someone/name"),
        ("https://token@github.com/someone/name.git/", "someone/name"),
        ("ssh://git@github.com/someone/name.git", "someone/name"),
    ],
)
def test_origin_names_the_repository(laptop: Laptop, origin: str, name: str) -> None:
    laptop.git("remote", "add", "origin", origin)
    assert f"gh repo create {name} --private\n" in laptop.set_up("--print")


@pytest.mark.parametrize(
    ("origin", "overlay", "arguments", "match"),
    [
        ("/srv/git/churn.git", "", (), "not on GitHub"),
        ("https://github.com/a/b", "", ("--repository", "a/c"), "origin is a/b"),
        ("", "newName: registry.example/team/churn", (), "OWNER/churn"),
        ("", "", ("--repository", "churn"), "OWNER/NAME"),
    ],
)
def test_an_unclear_repository_is_an_error(
    laptop: Laptop, origin: str, overlay: str, arguments: tuple[str, ...], match: str
) -> None:
    if origin:
        laptop.git("remote", "add", "origin", origin)
    (laptop.project / OVERLAY).write_text(overlay)
    assert match in laptop.refused("--print", *arguments)
