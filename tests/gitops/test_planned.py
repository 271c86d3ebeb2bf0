"""What lies between `make plan` and `make deploy`: the plan, the archive, another machine, and maybe days."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from defaults import ROOT
from gitops.core.artifacts import ProjectError, digest
from gitops.deployment import archive, planned
from gitops.integrations import dvc, dvc_remote
from holding import began, merge
from releases import TRAINED, Job, isolate, make_origin, refused

DIGEST = f"registry.example/team/toy@sha256:{'a' * 64}"

#: Prints which packages a program has imported, but for Python's own.
IMPORTED = "import sys; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"

#: What these packages consist of.
LIGHT = {"gitops", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "yaml"}


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@pytest.fixture
def ready(job: Job) -> Job:
    """A job that has planned a first release."""
    job.merge("Change to model A")
    job.train("model A")
    job.gate()
    assert job.plan()
    return job


def written(job: Job) -> Any:
    return json.loads((job.path / planned.PATH).read_text())


def changed(**changes: Any) -> Callable[[Job], object]:
    """Return what changes the plan; `candidate` and `gate` are merged with what is there."""

    def change(job: Job) -> None:
        plan = written(job)
        parts = {name: plan[name] | value for name, value in changes.items()}
        job.write(str(planned.PATH), json.dumps(plan | parts))

    return change


def later(job: Job, other: Job) -> None:
    """Bring the plan, and nothing else, to the clone of a later job."""
    other.git("pull", "--quiet", "origin", "main")
    for name in ("model", "package", "evaluation", "data/prepared", "reports"):
        shutil.rmtree(other.path / name, ignore_errors=True)
    shutil.copytree(job.path / planned.FOLDER, other.path / planned.FOLDER)


def test_the_plan_alone_is_released_on_another_machine(ready: Job, other: Job) -> None:
    later(ready, other)
    assert other.carry_out(DIGEST)
    record = other.production().record
    assert record.image == DIGEST
    assert record.training == TRAINED and record.gate.accepted
    assert record.model.sha256 == digest(ready.path / "model/model.pt2")
    assert record.metrics["roc_auc"].better == "higher"
    assert other.carry_out(DIGEST) is None, "the job is run again"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda job: (job.path / planned.PATH).unlink(), "plan.json is missing: run `make plan`"),
        (lambda job: job.write(str(planned.PATH), "{"), "no plan .*Invalid JSON.*: run `make plan` again"),
        (lambda job: job.write(str(planned.PATH), "[1]"), "is no plan .*: run `make plan` again"),
        (lambda job: job.write(str(planned.PATH), '{"gate": {}}'), r"no plan \(candidate: .*: run `make plan` again"),
        (changed(candidate={"training": None}), "verified and accepted"),
        (changed(gate={"accepted": False}), "verified and accepted"),
        (changed(candidate={"package": {"path": "../toy.mar", "md5": "0" * 32}}), "the archive is ../toy.mar"),
        (changed(candidate={"commit": "0" * 40}), "is of commit 000000000000, and .* is checked out: run `make plan`"),
        (changed(candidate={"commit": "::error::x\n::y"}), "is of commit : :error::x"),
        (lambda job: job.merge("Documents, meanwhile"), "is checked out: run `make plan` again"),
        (lambda job: job.write("params.yaml", "a: 1"), "params.yaml"),
        (lambda job: job.git("commit", "--allow-empty", "--quiet", "--message", "Not pushed"), "not on main"),
        (changed(gate={"release": "0" * 40}), "then 000000000000, now no release.*: run `make gate` and `make plan`"),
    ],
)
def test_what_is_not_the_plan_of_this_commit_is_refused(
    ready: Job, change: Callable[[Job], object], reason: str
) -> None:
    change(ready)
    with refused(reason) as error:
        ready.carry_out()
    assert "\n" not in str(error.value)


def test_a_new_plan_begins_without_the_old_one(ready: Job) -> None:
    assert (ready.path / planned.PATH).exists()
    ready.gate(accepted=False, reason="Refused: worse.")
    with refused("Refused: worse."):
        ready.plan()
    assert not (ready.path / planned.FOLDER).exists()


def test_nothing_is_planned_that_cannot_be_pushed(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the record references must be retrievable before the release."""

    def fail() -> None:
        raise ProjectError("DVC cannot push to its remote")

    monkeypatch.setattr(dvc, "push", fail)
    with refused("cannot push"):
        ready.plan()
    assert not (ready.path / planned.PATH).exists()


def test_the_verification_is_required(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with refused(r"verification.json is missing: run `make verify`"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dvc, "stale", list)
        ready.plan()


def test_a_rollback_while_people_review_holds_the_release_up(job: Job) -> None:
    began(job, "handler")
    merge(job, "data", "1")
    assert job.plan()
    job.rollback()
    with refused("rolled back toy .* still holds that change"):
        job.carry_out()
    with refused("production has changed .* run `make gate` and `make plan` again"):
        job.carry_out(redeploy=True)
    job.gate()
    assert job.plan(redeploy=True) and job.carry_out(redeploy=True)
    assert job.production().record.lifts


def test_a_promotion_while_people_review_a_release_to_staging(tmp_path: Path) -> None:
    """The gate compares with production, in a project with staging too."""
    job = Job(make_origin(tmp_path, staging=True), tmp_path / "job")
    job.merge("Change")
    job.train("model A")
    job.gate()
    staged = job.deploy()
    assert staged
    job.merge("Change to model B")
    job.train("model B")
    job.gate()
    assert job.plan()
    job.git("push", "--quiet", "origin", f"{staged}:refs/heads/env/production")
    with refused("production has changed"):
        job.carry_out()


# The archive, for the machine that builds the image


def test_the_archive_travels_with_the_plan_where_the_remote_lies_in_the_repository(
    ready: Job, other: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_remote, "in_repository", lambda: True)
    assert ready.plan()
    later(ready, other)
    for _ in range(2):
        with contextlib.chdir(other.path):
            archive.main()
        assert (other.path / "package/toy.mar").read_text() == "model A"


def test_nothing_of_the_model_travels_where_the_remote_is_elsewhere(
    ready: Job, other: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [path.name for path in (ready.path / planned.FOLDER).iterdir()] == ["plan.json"]
    later(ready, other)
    remote = tmp_path / "object"
    remote.write_text("model A")
    monkeypatch.setattr(dvc, "fetch", lambda md5: {digest(remote, "md5"): remote}[md5])
    with contextlib.chdir(other.path):
        archive.main()
    assert (other.path / "package/toy.mar").read_text() == "model A"


def test_the_archive_that_is_there_is_not_fetched(ready: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc, "fetch", None)
    before = (ready.path / "package/toy.mar").stat()
    with contextlib.chdir(ready.path):
        archive.main()
    assert (ready.path / "package/toy.mar").stat() == before


def test_another_archive_is_refused_and_the_one_that_is_there_stays(
    ready: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_remote, "in_repository", lambda: True)
    assert ready.plan()
    ready.write("package/toy.mar", "of a branch")
    ready.write(str(planned.ARCHIVES / "toy.mar"), "forged")
    with contextlib.chdir(ready.path), refused("is not the planned archive"):
        archive.main()
    assert (ready.path / "package/toy.mar").read_text() == "of a branch"
    (ready.path / planned.ARCHIVES / "toy.mar").unlink()
    with contextlib.chdir(ready.path), refused("toy.mar is missing: run `make plan` again"):
        archive.main()


# The environment of the job that may push to the environments' branches


def run(job: Job, *command: str, **variables: str) -> str:
    """Run Python in the environment `release`, whose `make` is the project's, and return its output."""
    python = str(ROOT / ".venv/release/bin/python")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), **variables}
    environment["PATH"] = f"{ROOT / '.venv/bin'}:{environment['PATH']}"
    done = subprocess.run(
        [python, *command], cwd=job.path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_releases_need_pydantic_and_yaml_alone(ready: Job) -> None:
    """Run for real: what is imported late counts too."""
    run(ready, "-m", "gitops.deployment.deploy", IMAGE=DIGEST)
    assert ready.production().record.image == DIGEST
    ready.merge("Change to model B")
    ready.train("model B")
    ready.gate()
    assert ready.plan()
    run(ready, "-m", "gitops.deployment.deploy")
    proposal = (
        "from gitops.deployment import promote; from gitops.releases import release; "
        "record = release.production().record; assert promote.rendered(record); "
        "assert 'auc ↑' in promote.body(record, release.production()); "
    )
    assert {*run(ready, "-c", proposal + IMPORTED).split()} <= LIGHT | _of_python(ready)
    assert "Rolled back" in run(ready, "-m", "gitops.deployment.rollback", ENVIRONMENT="production")
    assert ready.production().record.image == DIGEST
    every = "from gitops.deployment import archive, deploy, promote, rollback; "
    assert {*run(ready, "-c", every + IMPORTED).split()} <= LIGHT | _of_python(ready)


def _of_python(job: Job) -> set[str]:
    """Return the modules that are there before anything is imported, and those that PyYAML's own build brings."""
    return {*run(job, "-c", f"import sysconfig, yaml; sysconfig.get_config_vars(); {IMPORTED}").split()}
