"""`make deploy`: what it releases, what it refuses, and that jobs at the same time end well."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from gitops.core.artifacts import digest
from gitops.integrations import dvc, git
from gitops.releases import release
from releases import Job, isolate, refused, render, together


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


def test_a_first_release_holds_the_record_and_the_manifests(job: Job) -> None:
    main = job.merge("Change")
    job.train("model A")
    job.gate()
    commit = job.deploy()
    record = job.production().record
    sha256 = digest(job.path / "model/model.pt2")
    assert job.production().commit == commit
    assert (record.commit, record.previous, record.data.md5) == (main, None, "d" * 32)
    assert (record.model.sha256, record.model.version) == (sha256, sha256[:12])
    assert record.package.md5 == digest(job.path / "package/toy.mar", "md5")
    assert record.metrics["roc_auc"].low == 0.8
    assert record.image.endswith(f":{sha256[:12]}")
    names = job.git("ls-tree", "--name-only", str(commit)).split()
    assert names == ["debt.svg", "manifests", "model-card.md", "release.json"]

    objects = [yaml.safe_load(text) for text in job.manifests(str(commit)).values()]
    pod = next(item for item in objects if item["kind"] == "Deployment")["spec"]["template"]
    [server], [proxy] = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert {"Deployment", "Service", "ConfigMap"} <= {item["kind"] for item in objects}
    assert server["image"] == proxy["image"] == record.image
    keys = {key for item in objects for key in item["metadata"].get("annotations", {})}
    assert not [key for key in keys if key.startswith(("argocd.argoproj.io/", "helm.sh/"))]  # no hook, no wave
    assert pod["metadata"]["annotations"]["model-sha256"] == sha256
    assert job.git("status", "--porcelain") == ""


def test_manifests_and_record_name_the_same_model(job: Job) -> None:
    """The server names the record's model, and nothing names another model or image."""
    for model in ("model A", "model B"):
        commit = job.release(model)
        record = job.production().record
        assert record.model.sha256 == digest(job.path / "model/model.pt2")
        objects = [yaml.safe_load(text) for text in job.manifests(commit).values()]
        [server] = [item["spec"]["template"]["metadata"] for item in objects if item["kind"] == "Deployment"]
        named = {"model-name": record.model.name, "model-sha256": record.model.sha256}
        assert named.items() <= server["annotations"].items()
        assert server["labels"]["app.kubernetes.io/version"] == record.model.version
        pods = [item["spec"]["template"]["spec"] for item in objects if item["kind"] in ("Deployment", "Job")]
        containers = [each for pod in pods for each in (*pod.get("initContainers", []), *pod["containers"])]
        assert {each["image"] for each in containers} == {record.image}


def test_a_second_release_names_the_first(job: Job) -> None:
    first = job.release("model A")
    second = job.release("model B")
    assert job.production().record.previous == first
    assert job.git("rev-parse", f"{second}^") == first


def test_a_release_in_any_clone_writes_the_same_tree(job: Job, other: Job) -> None:
    job.release("model A")
    before = job.manifests(job.production().commit)
    record = job.production().record
    for path in (job.path, other.path):
        with contextlib.chdir(path):
            assert render(record.image, "toy", record.model.sha256) == before


@pytest.mark.parametrize(
    ("image", "rendered"),
    [
        ("localhost:5000/team/toy:1.2", "localhost:5000/team/toy:1.2"),
        (f"registry.example/toy@sha256:{'a' * 64}", f"registry.example/toy@sha256:{'a' * 64}"),
    ],
)
def test_the_image_can_be_given(job: Job, image: str, rendered: str) -> None:
    job.train("model A")
    job.gate()
    commit = job.deploy(image)
    assert f"image: {rendered}".encode() in b"".join(job.manifests(str(commit)).values())


@pytest.mark.parametrize("image", ["toy", "localhost:5000/toy", "toy:1@md5:0", ":1", "toy:"])
def test_an_image_without_tag_or_digest_is_refused(job: Job, image: str) -> None:
    job.train("model A")
    job.gate()
    with refused("IMAGE is"):
        job.deploy(image)


@pytest.mark.parametrize("merge", [False, True], ids=["same commit", "documents changed"])
def test_the_same_inputs_make_no_new_commit(job: Job, merge: bool, capsys: pytest.CaptureFixture[str]) -> None:
    job.release("model A")
    if merge:
        job.merge("Only documents")
    assert job.deploy() is None
    assert job.releases() == 1
    assert "nothing to release" in capsys.readouterr().out


def test_an_older_commit_never_replaces_a_newer_release(
    job: Job, other: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.release("model A")
    other.train("model 0")
    other.gate()
    assert other.deploy() is None
    assert job.releases() == 1
    assert "is newer than" in capsys.readouterr().out


def test_a_rewritten_main_is_an_error(job: Job, other: Job) -> None:
    job.release("model A")
    other.write("README.md", "Another history")
    other.git("add", "--all")
    other.git("commit", "--quiet", "--message", "Another history")
    other.git("push", "--quiet", "--force", "origin", "HEAD:main")
    other.train("model B")
    other.gate()
    with refused("was main rewritten"):
        other.deploy()


@pytest.mark.parametrize(("lost_by_newer", "releases"), [(True, 3), (False, 2)])
def test_of_two_jobs_the_newer_one_wins(
    job: Job, other: Job, monkeypatch: pytest.MonkeyPatch, lost_by_newer: bool, releases: int
) -> None:
    """Whichever pushes first. Where that is the older one, the newer one has to be better than it: it plans again."""
    job.release("model A")
    other.git("pull", "--quiet", "origin", "main")
    other.merge("Change to model B")
    job.git("pull", "--quiet", "origin", "main")
    job.merge("Change to model C")
    for each, model in ((job, "model C"), (other, "model B")):
        each.train(model)
        each.gate()
        each.plan()
    loser, winner = (job, other) if lost_by_newer else (other, job)
    push = git.push

    def outrun(commit: str, branch: str) -> None:
        monkeypatch.setattr(git, "push", push)
        assert winner.carry_out()
        push(commit, branch)

    monkeypatch.setattr(git, "push", outrun)
    if lost_by_newer:
        with refused("production has changed since the gate compared .*`make gate` and `make plan` again"):
            loser.carry_out()
        with refused("another release than production's: run `make gate` again"):
            loser.plan()
        loser.gate()
        assert loser.deploy()
    else:
        assert loser.carry_out() is None
    assert job.production().record.model.sha256 == digest(job.path / "model/model.pt2")
    assert job.releases() == releases


def test_concurrent_jobs_all_end_well(origin: Path, tmp_path: Path) -> None:
    jobs = []
    for number in range(3):
        jobs.append(Job(origin, tmp_path / f"job-{number}"))
        jobs[-1].merge(f"Change {number}")
        jobs[-1].train(f"model {number}")
        jobs[-1].gate()
        jobs[-1].plan()
    assert together([each.compete for each in jobs]) == [0, 0, 0]
    assert jobs[0].production().record.model.sha256 == digest(jobs[2].path / "model/model.pt2")


def test_a_push_that_is_always_refused_is_an_error(job: Job, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = origin / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho protected branch >&2\nexit 1\n")
    hook.chmod(0o755)
    job.train("model A")
    job.gate()
    monkeypatch.setattr(release.time, "sleep", lambda seconds: None)
    with refused("protected branch"):
        job.deploy()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda job: job.write("params.yaml", (job.path / "params.yaml").read_text() + "\n"), "params.yaml"),
        (lambda job: job.write("notes.txt", "not tracked"), "notes.txt"),
        (lambda job: (job.path / "model/model.pt2").unlink(), "model.pt2 is missing"),
        (lambda job: (job.path / "package/toy.mar").unlink(), "toy.mar is missing"),
        (lambda job: (job.path / "reports/gate.json").unlink(), "make gate"),
        (lambda job: job.gate(accepted=False, reason="Refused: worse."), "Refused: worse."),
        (lambda job: job.gate(model_sha256="0" * 64), "another model"),
        (lambda job: job.gate(release="0" * 40), "another release"),
        (lambda job: job.git("commit", "--allow-empty", "--quiet", "--message", "Not pushed"), "not on main"),
        (lambda job: job.git("push", "--quiet", "origin", ":main"), "no branch main"),
        (lambda job: job.git("remote", "remove", "origin"), "no remote"),
        (lambda job: job.git("remote", "set-url", "origin", "/nowhere"), "cannot be read"),
    ],
)
def test_a_release_is_refused(job: Job, change: Callable[[Job], object], match: str) -> None:
    job.train("model A")
    job.gate()
    change(job)
    with refused(match):
        job.deploy()


def test_a_stale_pipeline_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.train("model A")
    job.gate()
    monkeypatch.setattr(dvc, "stale", lambda: ["train"])
    with refused("train: out of date"):
        job.deploy()


def test_the_lock_file_may_differ_because_nobody_commits_it_in_ci(job: Job) -> None:
    job.train("model A")
    job.gate()
    job.write("dvc.lock", "schema: '2.0'")
    assert job.deploy() is not None


def test_a_runner_without_a_name_can_release(job: Job) -> None:
    job.train("model A")
    job.gate()
    job.git("config", "--unset", "user.name")
    job.git("config", "--unset", "user.email")
    job.git("config", "user.useConfigOnly", "true")
    assert job.deploy() is not None


def test_no_release_is_distinguished_from_unknown(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(job.path):
        assert release.production() is None
        job.git("remote", "set-url", "origin", "/nowhere")
        with refused("cannot be read"):
            release.production()
        job.git("remote", "remove", "origin")
        assert release.production() is None
    assert "no remote named origin" in capsys.readouterr().err
