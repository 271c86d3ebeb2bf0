"""Releases and rollbacks, with real repositories: a bare one as origin, clones as laptops and CI jobs.

Only DVC is left out (tests/test_store.py has it), and the gate's computation, whose verdict is written by hand.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from project import deploy, gate, git, kustomize, params, release, rollback, store
from project.artifacts import ProjectError, digest

SETTINGS = {
    "data": {"path": "data/raw.csv", "target": "y", "task": "binary"},
    "gate": {"metric": "roc_auc", "thresholds": {"roc_auc": 0.5}},
    "package": {"model_name": "toy"},
}


#: kustomize is the slow part, and asked for the same few models again and again.
render = kustomize.render
rendered_once = functools.cache(render)


class Job:
    """A clone of origin in which a pipeline has run, and what people and CI do there."""

    def __init__(self, origin: Path, path: Path) -> None:
        self.path = path
        self.git("clone", "--quiet", str(origin), str(path), at=origin)
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@localhost")
        self.write("model/run.json", '{"run_id": "run-1"}')
        self.write("data/prepared/schema.json", '{"rows": {"raw": 9}, "features": [{"name": "x", "kind": "number"}]}')

    def git(self, *arguments: str, at: Path | None = None) -> str:
        command = ["git", "-C", str(at or self.path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def merge(self, text: str) -> str:
        """Change main, on origin too, and return its commit."""
        self.write("README.md", text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", text)
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def train(self, model: str, handler: str = "") -> None:
        """Leave what the pipeline would, for a model that is but a text."""
        self.write("model/model.pt2", model)
        self.write("package/toy.mar", model + handler)
        self.write("evaluation/predictions.parquet", model)
        score = {"roc_auc": {"value": 0.9, "low": 0.8, "high": 1.0}}
        self.write("evaluation/metrics.json", json.dumps({"test_md5": "0" * 32, "metrics": score}))

    def judge(self, **changes: Any) -> dict[str, Any]:
        """Leave the gate's verdict on the model beside the release that origin has now."""
        with contextlib.chdir(self.path):
            present = release.production()
            verdict: dict[str, Any] = {
                "accepted": True,
                "reason": "Accepted.",
                "mode": "absolute",
                "model_sha256": digest(Path("model/model.pt2")),
                "release": present and present.commit,
            }
        verdict |= changes
        self.write("reports/gate.json", json.dumps(verdict))
        return verdict

    def deploy(self, image: str | None = None, redeploy: bool = False) -> str | None:
        with contextlib.chdir(self.path):
            return deploy.deploy(params.load(), image, redeploy=redeploy)

    def release(self, model: str) -> str:
        """Merge, train, judge and deploy; return the new commit of env/production."""
        self.merge(f"Change to {model}")
        self.train(model)
        self.judge()
        commit = self.deploy()
        assert commit is not None
        return commit

    def rollback(self) -> str | None:
        with contextlib.chdir(self.path):
            return rollback.rollback()

    def production(self) -> release.Production:
        with contextlib.chdir(self.path):
            present = release.production()
        assert present is not None
        return present

    def releases(self) -> int:
        """Return how many commits env/production has on origin."""
        self.production()
        return int(self.git("rev-list", "--count", "origin/env/production"))

    def tree(self, commit: str) -> str:
        return self.git("rev-parse", f"{commit}^{{tree}}")


@pytest.fixture(autouse=True)
def _no_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep out the settings of whoever runs the tests, and DVC."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(kustomize, "PROGRAM", ROOT / kustomize.PROGRAM)
    monkeypatch.setattr(store, "stale", list)
    monkeypatch.setattr(store, "push", lambda: None)
    monkeypatch.setattr(kustomize, "render", rendered_once)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository whose main holds what a release is rendered from."""
    bare, first = tmp_path / "origin.git", tmp_path / "first"
    for path, options in ((bare, ["--bare"]), (first, [])):
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", *options, path], check=True)
    shutil.copytree(ROOT / "k8s", first / "k8s")
    (first / "serving").mkdir()
    for name in (".gitignore", "serving/kustomization.yaml", "serving/config.properties"):
        shutil.copy(ROOT / name, first / name)
    (first / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    (first / "data").mkdir()
    (first / "data/raw.csv.dvc").write_text(f"outs:\n- md5: {'d' * 32}\n  path: raw.csv\n")
    subprocess.run(["git", "-C", bare, "config", "receive.denyDeleteCurrent", "ignore"], check=True)
    commands = ["add --all", "-c user.name=Tester -c user.email=t@localhost commit -qm First", f"push -q {bare} main"]
    for command in commands:
        subprocess.run(["git", "-C", first, *command.split()], check=True)
    return bare


@pytest.fixture
def job(origin: Path, tmp_path: Path) -> Job:
    return Job(origin, tmp_path / "job")


@pytest.fixture
def other(origin: Path, tmp_path: Path) -> Job:
    return Job(origin, tmp_path / "other")


def refused(match: str) -> Any:
    return pytest.raises(ProjectError, match=match)


def test_a_first_release_holds_the_record_and_the_manifests(job: Job) -> None:
    main = job.merge("Change")
    job.train("model A")
    job.judge()
    commit = job.deploy()
    record = job.production().record
    sha256 = digest(job.path / "model/model.pt2")
    assert job.production().commit == commit
    assert (record.commit, record.previous, record.data.md5) == (main, None, "d" * 32)
    assert (record.model.sha256, record.model.version) == (sha256, sha256[:12])
    assert record.package.md5 == digest(job.path / "package/toy.mar", "md5")
    assert record.metrics["roc_auc"].low == 0.8
    assert record.image.endswith(f":{sha256[:12]}")
    assert job.git("ls-tree", "--name-only", str(commit)).split() == ["manifests", "release.json"]

    objects = [yaml.safe_load(text) for text in manifests(job, str(commit)).values()]
    server = next(item for item in objects if item["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {"Deployment", "Service", "ConfigMap"} <= {item["kind"] for item in objects}
    assert server["image"] == record.image
    assert {"name": "MODEL_SHA256", "value": sha256} in server["env"]
    assert job.git("status", "--porcelain") == ""


def manifests(job: Job, commit: str) -> dict[str, bytes]:
    with contextlib.chdir(job.path):
        return release.manifests(commit)


def test_a_second_release_names_the_first(job: Job) -> None:
    first = job.release("model A")
    second = job.release("model B")
    assert job.production().record.previous == first
    assert job.git("rev-parse", f"{second}^") == first


def test_a_release_in_any_clone_writes_the_same_tree(job: Job, other: Job) -> None:
    job.release("model A")
    before = manifests(job, job.production().commit)
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
    job.judge()
    commit = job.deploy(image)
    assert f"image: {rendered}".encode() in b"".join(manifests(job, str(commit)).values())


@pytest.mark.parametrize("image", ["toy", "localhost:5000/toy", "toy:1@md5:0", ":1", "toy:"])
def test_an_image_without_tag_or_digest_is_refused(job: Job, image: str) -> None:
    job.train("model A")
    job.judge()
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
    other.judge()
    assert other.deploy() is None
    assert job.releases() == 1
    assert "newer" in capsys.readouterr().out


def test_a_rewritten_main_is_an_error(job: Job, other: Job) -> None:
    job.release("model A")
    other.write("README.md", "Another history")
    other.git("add", "--all")
    other.git("commit", "--quiet", "--message", "Another history")
    other.git("push", "--quiet", "--force", "origin", "HEAD:main")
    other.train("model B")
    other.judge()
    with refused("was main rewritten"):
        other.deploy()


@pytest.mark.parametrize(("lost_by_newer", "releases"), [(True, 3), (False, 2)])
def test_a_lost_race_ends_well(
    job: Job, other: Job, monkeypatch: pytest.MonkeyPatch, lost_by_newer: bool, releases: int
) -> None:
    job.release("model A")
    other.git("pull", "--quiet", "origin", "main")
    other.merge("Change to model B")
    job.git("pull", "--quiet", "origin", "main")
    job.merge("Change to model C")
    job.train("model C")
    other.train("model B")
    job.judge()
    other.judge()
    loser, winner = (job, other) if lost_by_newer else (other, job)
    push = git.push

    def outrun(commit: str, branch: str) -> None:
        monkeypatch.setattr(git, "push", push)
        winner.deploy()
        push(commit, branch)

    monkeypatch.setattr(git, "push", outrun)
    monkeypatch.setattr(gate, "judge", lambda settings: loser.judge())
    loser.deploy()
    assert job.production().record.model.sha256 == digest(job.path / "model/model.pt2")
    assert job.releases() == releases


def test_jobs_at_the_same_time_all_end_well(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = []
    for number in range(3):
        jobs.append(Job(origin, tmp_path / f"job-{number}"))
        jobs[-1].merge(f"Change {number}")
        jobs[-1].train(f"model {number}")
        jobs[-1].judge()
    monkeypatch.setattr(gate, "judge", lambda settings: Job.judge(next(it for it in jobs if it.path == Path.cwd())))
    assert together([each.deploy for each in jobs]) == [0, 0, 0]
    assert jobs[0].production().record.model.sha256 == digest(jobs[2].path / "model/model.pt2")


def together(actions: list[Callable[[], object]]) -> list[int | None]:
    """Run each action in a process of its own, all at the same time, and return their exit statuses."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(actions))

    def act(action: Callable[[], object]) -> None:
        start.wait()
        action()

    processes = [context.Process(target=act, args=(action,)) for action in actions]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_a_push_that_is_refused_for_good_is_told(job: Job, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = origin / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho protected branch >&2\nexit 1\n")
    hook.chmod(0o755)
    job.train("model A")
    job.judge()
    monkeypatch.setattr(release.time, "sleep", lambda seconds: None)
    with refused("protected branch"):
        job.deploy()


def test_rollback_restores_the_previous_tree_to_the_byte_and_goes_on(job: Job) -> None:
    first, second, third = (job.release(f"model {name}") for name in "ABC")
    back = job.rollback()
    assert job.tree(str(back)) == job.tree(second)
    assert job.git("rev-parse", f"{back}^") == third
    again = job.rollback()
    assert job.tree(str(again)) == job.tree(first)
    with refused("none to go back to"):
        job.rollback()


def test_rollback_says_what_it_took_back(job: Job) -> None:
    job.release("model A")
    job.release("model B")
    unwanted = job.production().record
    back = job.rollback()
    text = job.git("log", "-1", "--format=%B", str(back))
    assert text.startswith(f'Revert "Release toy {unwanted.model.version}"')
    trailer = job.git("log", "-1", "--format=%(trailers:key=Rolled-back-model,valueonly)", str(back))
    assert trailer == unwanted.model.sha256


def test_rollback_without_a_release(job: Job) -> None:
    with refused("nothing was ever released"):
        job.rollback()


def test_a_release_after_a_rollback_goes_back_to_what_was_rolled_back_to(job: Job) -> None:
    first = job.release("model A")
    job.release("model B")
    job.rollback()
    job.release("model C")
    assert job.tree(str(job.rollback())) == job.tree(first)


def test_two_rollbacks_at_the_same_time_go_back_once(job: Job, other: Job) -> None:
    for name in "AB":
        job.release(f"model {name}")
    second = job.production().commit
    job.release("model C")
    assert together([job.rollback, other.rollback]) == [0, 0]
    assert job.tree(job.production().commit) == job.tree(second)


def test_rollback_does_not_take_back_a_release_that_came_meanwhile(
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


def revert_by_hand(job: Job) -> None:
    job.git("fetch", "--quiet", "origin")
    job.git("switch", "--quiet", "--detach", "origin/env/production")
    job.git("revert", "--no-edit", "HEAD")
    job.git("push", "--quiet", "origin", "HEAD:env/production")
    job.git("switch", "--quiet", "main")


@pytest.mark.parametrize("take_back", [Job.rollback, revert_by_hand], ids=["make rollback", "git revert"])
def test_what_was_rolled_back_is_not_released_again_by_the_next_merge(
    job: Job, take_back: Callable[[Job], object]
) -> None:
    job.release("model A")
    job.release("model B")
    take_back(job)
    job.merge("Only documents")
    job.judge()
    with refused("REDEPLOY=1"):
        job.deploy()
    job.train("model A")
    assert job.deploy() is None, "main was reverted: production runs that model already"
    job.train("model B")
    job.judge()
    assert job.deploy(redeploy=True) is not None
    job.release("model A")  # main changed its mind twice, and nothing was rolled back since
    job.release("model B")


def test_an_archive_that_was_rolled_back_is_refused_with_the_same_model(job: Job) -> None:
    job.release("model A")
    job.merge("Another handler")
    job.train("model A", handler="broken")
    job.judge()
    job.deploy("toy:2")
    job.rollback()
    job.judge()
    with refused("archive of toy .* REDEPLOY=1"):
        job.deploy("toy:2")


def test_rollback_works_after_a_revert_by_hand(job: Job) -> None:
    first = job.release("model A")
    job.release("model B")
    job.release("model C")
    revert_by_hand(job)
    assert job.tree(str(job.rollback())) == job.tree(first)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda job: job.write("params.yaml", (job.path / "params.yaml").read_text() + "\n"), "params.yaml"),
        (lambda job: job.write("notes.txt", "not tracked"), "notes.txt"),
        (lambda job: (job.path / "model/model.pt2").unlink(), "model.pt2 is missing"),
        (lambda job: (job.path / "package/toy.mar").unlink(), "toy.mar is missing"),
        (lambda job: (job.path / "reports/gate.json").unlink(), "make gate"),
        (lambda job: job.judge(accepted=False, reason="Refused: worse."), "Refused: worse."),
        (lambda job: job.judge(model_sha256="0" * 64), "another model"),
        (lambda job: job.judge(release="0" * 40), "another release"),
        (lambda job: job.git("commit", "--allow-empty", "--quiet", "--message", "Not pushed"), "not on main"),
        (lambda job: job.git("push", "--quiet", "origin", ":main"), "no branch main"),
        (lambda job: job.git("remote", "remove", "origin"), "no remote"),
        (lambda job: job.git("remote", "set-url", "origin", "/nowhere"), "cannot be read"),
    ],
)
def test_a_release_is_refused(job: Job, change: Callable[[Job], object], match: str) -> None:
    job.train("model A")
    job.judge()
    change(job)
    with refused(match):
        job.deploy()


def test_a_stale_pipeline_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.train("model A")
    job.judge()
    monkeypatch.setattr(store, "stale", lambda: ["train"])
    with refused("train: out of date"):
        job.deploy()


def test_the_lock_file_may_differ_because_nobody_commits_it_in_ci(job: Job) -> None:
    job.train("model A")
    job.judge()
    job.write("dvc.lock", "schema: '2.0'")
    assert job.deploy() is not None


def test_a_runner_without_a_name_can_release(job: Job) -> None:
    job.train("model A")
    job.judge()
    job.git("config", "--unset", "user.name")
    job.git("config", "--unset", "user.email")
    job.git("config", "user.useConfigOnly", "true")
    assert job.deploy() is not None


def test_production_tells_no_release_from_not_known(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(job.path):
        assert release.production() is None
        job.git("remote", "set-url", "origin", "/nowhere")
        with refused("cannot be read"):
            release.production()
        job.git("remote", "remove", "origin")
        assert release.production() is None
    assert "no remote named origin" in capsys.readouterr().err
