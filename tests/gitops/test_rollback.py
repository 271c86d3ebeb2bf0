"""`make rollback` and `git revert`: what comes back, and that the next merge does not bring out again what went."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from gitops.deployment import rollback
from gitops.integrations import git, kustomize
from gitops.releases import history, release
from releases import Job, isolate, make_origin, refused, render, together


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


def test_rollback_restores_the_previous_tree_exactly_and_repeatedly(job: Job) -> None:
    first, second, third = (job.release(f"model {name}") for name in "ABC")
    back = job.rollback()
    assert job.tree(str(back)) == job.tree(second)
    assert job.git("rev-parse", f"{back}^") == third
    again = job.rollback()
    assert job.tree(str(again)) == job.tree(first)
    with refused("none to go back to"):
        job.rollback()


def revert_by_hand(job: Job, environment: str = "production") -> None:
    job.git("fetch", "--quiet", "origin")
    job.git("switch", "--quiet", "--detach", f"origin/env/{environment}")
    merge = ["-m", "1"] if len(job.git("log", "-1", "--format=%P").split()) > 1 else []
    job.git("revert", "--no-edit", *merge, "HEAD")
    job.git("push", "--quiet", "origin", f"HEAD:env/{environment}")
    job.git("switch", "--quiet", "main")


@pytest.mark.parametrize("take_back", [Job.rollback, revert_by_hand], ids=["make rollback", "git revert"])
def test_argo_cd_gets_the_earlier_releases_manifests_exactly(
    job: Job, take_back: Callable[[Job], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object: names, contents and modes of all files in the folder that the Application names."""
    monkeypatch.setattr(kustomize, "render", render)  # anew each time: what is rendered changes
    application = yaml.safe_load((ROOT / "k8s/argocd/application.yaml").read_text())["spec"]["source"]
    assert (application["targetRevision"], application["path"]) == ("env/production", release.MANIFESTS)
    first = job.release("model A")
    service = job.path / "k8s/base/service.yaml"
    service.write_text(service.read_text().replace("metadata:", "metadata:\n  annotations: {changed: too}", 1))
    (job.path / "k8s/base/more.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: more}}")
    kustomization = job.path / "k8s/base/kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("  - service.yaml", "  - service.yaml\n  - more.yaml"))
    second = job.release("model B")
    before, between = job.manifests(first), job.manifests(second)
    assert before.keys() < between.keys()
    changed = [name for name, text in before.items() if between[name] != text]
    for kind in ("deployment", "service_"):
        assert any(kind in name for name in changed), changed

    take_back(job)
    back = job.production().commit
    assert back not in (first, second)
    listed = [job.git("ls-tree", "-r", "-z", f"{commit}:{application['path']}") for commit in (first, back)]
    assert listed[0] == listed[1] and listed[0].count("100644 blob") == len(before)
    for name, text in before.items():
        command = ["git", "-C", str(job.path), "show", f"{back}:{application['path']}/{name}"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == text, name


def test_rollback_says_what_it_rolled_back(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.release("model A")
    job.write("src/model.py", "B")
    job.release("model B")
    unwanted = job.production().record
    back = job.rollback()
    text = job.git("log", "-1", "--format=%B", str(back))
    assert text.startswith(f'Revert "Release toy {unwanted.model.version}"')
    trailer = job.git("log", "-1", "--format=%(trailers:key=Rolled-back-model,valueonly)", str(back))
    assert trailer == unwanted.model.sha256
    trailer = job.git("log", "-1", "--format=%(trailers:key=Rolled-back-commit,valueonly)", str(back))
    assert trailer == unwanted.commit
    trailer = job.git("log", "-1", "--format=%(trailers:key=Back-to-commit,valueonly)", str(back))
    assert trailer == job.production().record.commit
    assert (
        f"until main undoes it (`git revert {unwanted.commit[:12]}`)\nor REDEPLOY=1 is set" in capsys.readouterr().out
    )


def test_rollback_without_a_release(job: Job) -> None:
    with refused("nothing was ever released"):
        job.rollback()


def test_what_was_taken_back_is_no_release_to_compare_with(job: Job) -> None:
    for name in "AB":
        job.release(f"model {name}")
    job.rollback()
    with contextlib.chdir(job.path):
        [standing] = history.standing(job.production().commit)
    assert standing.state == "deployed" and standing.record == job.production().record
    job.release("model C")
    with contextlib.chdir(job.path):
        found = history.standing(job.production().commit)
    assert [one.state for one in found] == ["superseded", "deployed"]
    assert [one.record.model.md5 for one in found] == [standing.record.model.md5, job.production().record.model.md5]


def test_a_rollback_after_a_rollback_and_a_release(job: Job) -> None:
    first = job.release("model A")
    job.release("model B")
    job.rollback()
    job.release("model C")
    assert job.tree(str(job.rollback())) == job.tree(first)


def test_two_concurrent_rollbacks_go_back_once(job: Job, other: Job) -> None:
    for name in "AB":
        job.release(f"model {name}")
    second = job.production().commit
    job.release("model C")
    assert together([job.rollback, other.rollback]) == [0, 0]
    assert job.tree(job.production().commit) == job.tree(second)


def test_rollback_does_not_roll_back_a_concurrent_release(
    job: Job, other: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "AB":
        job.release(f"model {name}")
    push = git.push

    def outrun(commit: str, branch: str) -> None:
        monkeypatch.setattr(git, "push", push)
        job.release("model C")
        push(commit, branch)

    monkeypatch.setattr(git, "push", outrun)
    with refused("released meanwhile"):
        other.rollback()


@pytest.mark.parametrize("take_back", [Job.rollback, revert_by_hand], ids=["make rollback", "git revert"])
def test_what_was_rolled_back_is_not_released_again_by_the_next_merge(
    job: Job, take_back: Callable[[Job], object]
) -> None:
    job.release("model A")
    job.release("model B")
    take_back(job)
    job.merge("Only documents")
    job.gate()
    with refused("REDEPLOY=1"):
        job.deploy()
    job.train("model A")
    assert job.deploy() is None, "main was reverted: production runs that model already"
    job.train("model B")
    job.gate()
    assert job.deploy(redeploy=True) is not None
    job.release("model A")  # main changed its mind twice, and nothing was rolled back since
    job.release("model B")


def test_an_archive_that_was_rolled_back_is_refused_with_the_same_model(job: Job) -> None:
    job.release("model A")
    job.merge("Another handler")
    job.train("model A", handler="broken")
    job.gate()
    job.deploy("toy:2")
    job.rollback()
    job.gate()
    with refused("rolled back toy .* the same archive: .* REDEPLOY=1"):
        job.deploy("toy:2")


def test_rollback_works_after_a_revert_by_hand(job: Job) -> None:
    first = job.release("model A")
    job.release("model B")
    job.release("model C")
    revert_by_hand(job)
    assert job.tree(str(job.rollback())) == job.tree(first)


@pytest.mark.parametrize("asked", ["option", "variable"])
def test_the_environment_can_be_named(tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an option, or by the variable that a workflow sets to its input."""
    job = Job(make_origin(tmp_path, staging=True), tmp_path / "job")
    first = job.release("model A")
    job.release("model B")
    monkeypatch.setenv("ENVIRONMENT", "staging" if asked == "variable" else "production")
    monkeypatch.setattr("sys.argv", ["rollback", *(["--environment", "staging"] if asked == "option" else [])])
    with contextlib.chdir(job.path):
        rollback.main()
    assert job.tree(job.production("staging").commit) == job.tree(first)


@pytest.mark.parametrize("named", ["staging", "prod", "../main", "::error::x\n::y"])
def test_an_environment_that_the_project_does_not_have_is_refused(
    job: Job, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.release("model A")
    job.release("model B")
    monkeypatch.setenv("ENVIRONMENT", named)
    monkeypatch.setattr("sys.argv", ["rollback"])
    with contextlib.chdir(job.path), refused("ENVIRONMENT is .*: production is needed") as error:
        rollback.main()
    assert "\n" not in str(error.value)
    assert job.releases() == 2
