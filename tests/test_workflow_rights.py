"""Who may do what: every job's token, secrets, environment and caches, as the workflows say it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

#: Every job that a project has, and what its token may; the reasons stand beside each in the workflow.
TOKENS = {
    "ci.yaml test": "contents: read",
    "ci.yaml pipeline": "actions: read, contents: read, deployments: read, id-token: write, pull-requests: read",
    "ci.yaml pass": "",
    "ci.yaml verify": "actions: read, contents: read, deployments: read, id-token: write, pull-requests: read",
    "ci.yaml build": "contents: read, id-token: write, packages: write",
    "ci.yaml release": "contents: write, deployments: read, pull-requests: write",
    "ci.yaml register": "contents: read, id-token: write",
    "locks.yaml lock": "contents: read",
    "locks.yaml propose": "actions: write, contents: write, pull-requests: write",
    "monitor.yaml monitor": "contents: read, id-token: write",
    "monitor.yaml record": "contents: write",
    "promote.yaml promote": "contents: write, deployments: read, pull-requests: write",
    "report.yaml comment": "actions: read, contents: read, pull-requests: write",
    "retrain.yaml propose": "actions: write, contents: write, pull-requests: write",
    "retrain.yaml retrain": "actions: read, contents: read, deployments: read, id-token: write, pull-requests: read",
    "rollback.yaml rollback": "contents: write",
}

#: What runs code that learns or judges, or what was just downloaded from a package index.
HEAVY = {
    "lint",
    "test",
    "pipeline",
    "gate",
    "replay",
    "report",
    "share",
    "verify",
    "plan",
    "archive",
    "register",
    "lock",
    "monitor",
}

#: What pushes to the repository.
PUSHING = {"deploy", "rollback", "promote", "propose", "propose-locks", "record-monitor"}

SECRETS = {
    "ci.yaml pipeline": {"MLFLOW_TRACKING_PASSWORD"},
    "ci.yaml verify": {"MLFLOW_TRACKING_PASSWORD"},
    "ci.yaml build": {"REGISTRY_PASSWORD", "COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD"},
    "ci.yaml release": {"RELEASE_KEY"},
    "ci.yaml register": {"MLFLOW_TRACKING_PASSWORD"},
    "promote.yaml promote": {"RELEASE_KEY"},
    "retrain.yaml retrain": {"MLFLOW_TRACKING_PASSWORD"},
    "rollback.yaml rollback": {"RELEASE_KEY"},
}

ENVIRONMENTS = {
    "ci.yaml build": "main",
    "ci.yaml register": "main",
    "ci.yaml release": "${{ vars.FIRST_ENVIRONMENT || 'production' }}",
    "promote.yaml promote": "staging",
    "rollback.yaml rollback": "rollback",
}


@pytest.fixture(scope="module")
def jobs(projects: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Return every job of a project that has all workflows, by its file and name."""
    files = sorted((projects["staging"] / ".github/workflows").iterdir())
    return {
        f"{file.name} {name}": job
        for file in files
        for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items()
    }


def commands(job: dict[str, Any]) -> set[str]:
    """Return the targets of make that a job runs."""
    return {found[1] for step in job["steps"] if (found := re.match(r"make ([a-z-]+)", step.get("run", "")))}


def test_tokens(jobs: dict[str, dict[str, Any]]) -> None:
    found = {
        name: ", ".join(f"{key}: {value}" for key, value in sorted(job["permissions"].items()))
        for name, job in jobs.items()
    }
    assert found == TOKENS


def test_what_writes_trains_and_judges_nothing(jobs: dict[str, dict[str, Any]]) -> None:
    """And signs in to no cloud; whoever signs in to one, or builds, cannot write to the repository."""
    for name, job in jobs.items():
        if job["permissions"].get("contents") == "write":
            assert not commands(job) & HEAVY, name
            assert "id-token" not in job["permissions"] and "packages" not in job["permissions"], name
        else:
            assert not commands(job) & PUSHING, name


def test_secrets(jobs: dict[str, dict[str, Any]]) -> None:
    """Each is named by the jobs that need it alone, and given to a single step of them."""
    found = {name: set(re.findall(r"secrets\.(\w+)", yaml.safe_dump(job))) for name, job in jobs.items()}
    assert {name: secrets for name, secrets in found.items() if secrets} == SECRETS
    for name, job in jobs.items():
        assert "secrets." not in yaml.safe_dump({key: value for key, value in job.items() if key != "steps"}), name


def test_environments(jobs: dict[str, dict[str, Any]]) -> None:
    """No job says that something is live: the cluster does. Of these only the first one may have reviewers."""
    found = {name: job["environment"] for name, job in jobs.items() if "environment" in job}
    assert {name: environment["name"] for name, environment in found.items()} == ENVIRONMENTS
    assert all(environment["deployment"] is False for environment in found.values())
    for name in found:  # an environment of main's is asked for on main alone
        assert "github.ref == 'refs/heads/main'" in jobs[name]["if"], name


def test_nothing_but_packages_is_cached(jobs: dict[str, dict[str, Any]]) -> None:
    """A fork restores what main's runs have kept, so no results are kept, and no release restores anything."""
    for name, job in jobs.items():
        used = [step for step in job["steps"] if "uses" in step]
        assert not [step["uses"] for step in used if step["uses"].startswith("actions/cache")], name
        for step in used:
            options = step.get("with", {})
            if step["uses"].startswith("astral-sh/setup-uv"):
                assert set(options) <= {"enable-cache", "cache-dependency-glob"}, name  # uv's own folder, of packages
                assert options["enable-cache"] is (name in ("ci.yaml test", "ci.yaml pipeline", "monitor.yaml monitor"))
            else:
                assert not [key for key in options if "cache" in key], (name, step["name"])


def test_credentials_are_kept_by_those_that_push_with_the_key(jobs: dict[str, dict[str, Any]]) -> None:
    for name, job in jobs.items():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                keyed = SECRETS.get(name) == {"RELEASE_KEY"}
                assert step["with"].get("persist-credentials", True) is keyed, name
                assert ("ssh-key" in step["with"]) is keyed, name


def test_every_artifact_may_be_written_again(jobs: dict[str, dict[str, Any]]) -> None:
    """A name is taken once in a run, and a run may be started again."""
    steps = [step for job in jobs.values() for step in job["steps"]]
    uploads = [step["with"] for step in steps if step.get("uses", "").startswith("actions/upload-artifact")]
    assert len(uploads) == 9 and all(upload["overwrite"] is True for upload in uploads)


def test_required_check_is_never_skipped(jobs: dict[str, dict[str, Any]]) -> None:
    """Its name is one that GitHub shows for a job that ran, and no other job has it."""
    assert [name for name, job in jobs.items() if job["name"] == "pass"] == []
    assert [name for name, job in jobs.items() if "'pass'" in job["name"]] == ["ci.yaml pass"]
    condition = jobs["ci.yaml pass"]["if"].removeprefix("always() && ")
    assert condition == "needs.pipeline.result != 'skipped'"
    assert jobs["ci.yaml pass"]["name"].startswith("${{ needs.pipeline.result == 'skipped' && ")


def test_events(projects: dict[str, Path]) -> None:
    """No workflow filters by path: what is required has to run; and none runs a fork's code with rights."""
    for file in (projects["staging"] / ".github/workflows").iterdir():
        triggers = yaml.safe_load(file.read_text(encoding="utf-8"))[True]
        assert "pull_request_target" not in triggers
        for filters in triggers.values():
            assert not isinstance(filters, dict) or not {"paths", "paths-ignore"} & set(filters), file
