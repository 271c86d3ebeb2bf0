"""`make github`: the repository's settings after the first and later runs, and the errors where GitHub refuses."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from defaults import ROOT
from github_laptop import NAME, OVERLAY, Laptop, rules


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


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
    assert repository["variable"] == {"TRAINING_RUNNER": "gpu"}
    assert re.search(r"# +set +variable +TRAINING_RUNNER", printed)
    assert re.search(r"# +not set +secret +REGISTRY_PASSWORD", printed)
    assert f"gh secret set NAME --repo {NAME}" in printed


def test_each_call_is_printed(laptop: Laptop) -> None:
    printed = laptop.set_up()
    for *arguments, _ in laptop.calls:
        assert "gh " + shlex.join(arguments) in printed


def test_again_it_is_the_same(laptop: Laptop) -> None:
    laptop.set_up("--variable", "AWS_REGION=eu-central-1")
    first = laptop.repository
    (laptop.project / "local").touch()
    laptop.git("add", "local")
    laptop.git("commit", "--quiet", "--message", "Not reviewed")
    again = laptop.set_up()
    assert laptop.repository == first
    assert "git push --set-upstream" not in again and "gh repo create" not in again


def test_what_somebody_changed_is_put_right(laptop: Laptop) -> None:
    laptop.set_up()
    first = laptop.repository

    def meddle(repository: Any) -> None:
        for ruleset in repository["rulesets"].values():
            ruleset |= {"enforcement": "disabled", "rules": ruleset["rules"][1:]}
            ruleset["bypass_actors"] = [{"actor_id": 4, "actor_type": "RepositoryRole", "bypass_mode": "always"}]
        repository["actions/permissions"]["sha_pinning_required"] = False
        repository["actions/permissions/workflow"]["default_workflow_permissions"] = "write"
        policies = {"1": {"name": "*"}, "2": {"name": "main", "type": "tag"}}
        repository["environments"]["production"]["policies"] = policies

    laptop.change_repository(meddle)
    laptop.set_up()
    again = laptop.repository
    [policy] = again["environments"]["production"]["policies"].values()
    assert policy == {"name": "main", "type": "branch"}
    again["environments"]["production"]["policies"] = first["environments"]["production"]["policies"]
    assert again == first


def test_a_public_one_holds_back_runs_from_outside(laptop: Laptop) -> None:
    laptop.change(plan="free")
    laptop.set_up("--public")
    assert laptop.repository["visibility"] == "PUBLIC"
    approval = laptop.repository["actions/permissions/fork-pr-contributor-approval"]
    assert approval == {"approval_policy": "all_external_contributors"}
    assert len(laptop.repository["rulesets"]) == 3


def test_any_other_failure_ends_it(laptop: Laptop) -> None:
    laptop.change(broken="keys")
    error = laptop.refused()
    assert "error connecting" in error and "keys" in error
    assert laptop.repository["environments"].keys() == {"production", "main", "rollback"}
    assert laptop.repository["rulesets"] == {}


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
        ("RELEASE_KEY=secret", "makes itself"),
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


@pytest.mark.parametrize("visibility", [(), ("--public",)])
def test_printed_commands_do_the_same(laptop: Laptop, visibility: tuple[str, ...]) -> None:
    """With keys of their own, which they leave nowhere else."""
    laptop.install_cosign()
    variables = ("--variable", "TRAINING_RUNNER=a b", "--variable", "AWS_REGION=$HOME")
    script = laptop.set_up("--print", "--approvals", "1", *visibility, *variables)
    assert laptop.calls == [] and laptop.git("remote") == ""
    subprocess.run(["sh", "-e"], input=script, text=True, cwd=laptop.project, env=laptop.environment, check=True)
    assert list(laptop.temporary.iterdir()) == []
    printed = laptop.repository
    assert {"TRAINING_RUNNER": "a b", "AWS_REGION": "$HOME"}.items() <= printed["variable"].items()
    laptop.set_up("--approvals", "1", *visibility)
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
