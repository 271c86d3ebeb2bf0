"""`make trace`, both ways: what runs and where it came from, and where a commit, run, digest or table went."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from defaults import ROOT, complete
from gitops.core.artifacts import digest
from gitops.registry import lineage, trace
from releases import DECISION, SCHEMA, SETTINGS, Job, isolate, refused
from test_rollback import revert_by_hand

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def asked(job: Job, what: str | None = None) -> dict[str, Any]:
    with contextlib.chdir(job.path):
        found: dict[str, Any] = trace.trace(what)
    return found


def versions(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["model"]["version"], one["state"]) for one in found["releases"]]


def release(job: Job, model: str, run: str, image: str | None = None, **gate: Any) -> Any:
    """Release a model of a run of its own, and return its record; `gate`: what the gate's result has besides."""
    job.write("model/run.json", json.dumps({"run_id": run}))
    job.merge(f"Change to {model}")
    job.train(model)
    job.gate(**gate)
    assert job.deploy(image) is not None
    return job.production().record


def test_what_runs_and_where_it_came_from(job: Job) -> None:
    first = job.release("model A")
    job.write("params.yaml", yaml.safe_dump(complete(SETTINGS | {"train": {"epochs": 7}})))
    best = {"commit": first, "model_version": job.production().record.model.version}
    record = release(job, "model B", "run-2", best=best)
    tip = job.production().commit
    found = asked(job)
    assert (found["what"], found["note"]) == (None, "")
    (one,) = found["releases"]
    assert (one["state"], one["model"]["sha256"], one["image"]) == ("deployed", record.model.sha256, record.image)
    assert one["main"]["commit"] == record.commit == job.git("rev-parse", "HEAD")
    assert (one["main"]["subject"], one["main"]["author"]) == ("Change to model B", "Tester")
    assert one["training"] == {"trained_on": "branch", "inputs": "1" * 64}
    assert "on a branch, taken over by main, from inputs 111111111111" in lineage.table(one)
    assert one["data"] == {"path": "data/raw.csv", "md5": "d" * 32}
    assert one["rows"] == SCHEMA["rows"]
    assert one["changed_params"] == {"train.epochs": (200, 7)}
    assert one["metrics"] == {"roc_auc": {"value": 0.9, "low": 0.8, "high": 1.0, "better": "higher"}}
    assert one["threshold"] == record.threshold == DECISION["threshold"]
    assert "threshold       0.25" in lineage.table(one)
    decided = {"accepted": True, "mode": "absolute", "reason": "Accepted.", "release": record.previous}
    assert one["gate"] == decided | {"best": best | {"value": None}}
    assert f"best until then {best['model_version']}, commit {first[:12]} of env/production" in lineage.table(one)
    assert one["mlflow"] == {"run_id": "run-2", "address": "sqlite:///mlflow.db"}
    assert one["package"]["md5"] == record.package.md5
    assert one["previous"]["release"] == first
    (period,) = one["deployed"]
    assert (period["started_by"]["commit"], period["started_by"]["author"], period["ended"]) == (tip, "Tester", None)
    text = lineage.table(one)
    assert text.startswith(f"toy {record.model.version}: deployed\n")
    assert "train.epochs 200 -> 7" in text and "0.9000 [0.8000, 1.0000]" in text


@pytest.mark.parametrize("take_back", [Job.rollback, revert_by_hand], ids=["make rollback", "git revert"])
def test_a_deployment_period_ends_by_a_release_or_a_rollback(job: Job, take_back: Any) -> None:
    commits = [job.release(f"model {name}") for name in "ABC"]
    take_back(job)
    back = job.production().commit
    (one,) = asked(job)["releases"]
    assert one["model"]["version"] == versions(asked(job, commits[1]))[0][0]
    (first,), (second_a, second_b), (third,) = (asked(job, commit)["releases"][0]["deployed"] for commit in commits)
    assert (first["ended"]["ended_by"]["commit"], first["ended"]["rolled_back"]) == (commits[1], False)
    assert (second_a["ended"]["ended_by"]["commit"], second_a["ended"]["rolled_back"]) == (commits[2], False)
    assert (third["ended"]["ended_by"]["commit"], third["ended"]["rolled_back"]) == (back, True)
    assert (second_b["started_by"]["commit"], second_b["ended"]) == (back, None)
    text = lineage.table(asked(job, commits[2])["releases"][0])
    assert f"rolled back by Tester, commit {back[:12]}" in text


def test_each_name_of_a_release_leads_to_it(job: Job) -> None:
    release(job, "model A", "run-1")
    image = f"registry.example/toy@sha256:{DIGEST}"
    record = release(job, "model B", "run-2", image)
    tip = job.production().commit
    for what in (
        record.commit,
        record.commit[:7],
        tip,
        tip[:8],
        record.model.sha256,
        record.model.version,
        record.model.md5,
        "run-2",
        image,
        f"sha256:{DIGEST}",
        f"sha256:{DIGEST[:9]}",
        DIGEST,
        record.package.md5,
        record.predictions.md5,
        "HEAD",
    ):
        assert versions(asked(job, what)) == [(record.model.version, "deployed")], what


def test_a_table_leads_to_all_releases_trained_on_it(job: Job) -> None:
    first, second = release(job, "model A", "run-1").model.version, release(job, "model B", "run-2").model.version
    job.rollback()
    found = asked(job, "dddd")
    assert versions(found) == [(first, "deployed"), (second, "rolled back")]
    assert found["note"] == f"{'d' * 32}: md5 of a table"


def test_appended_rows_are_found_by_their_md5(job: Job) -> None:
    """And the release names both: its table is that of the release before."""
    listing = f"{'a' * 32}.dir"
    job.release("model A")
    job.write("data/appended.dvc", f"outs:\n- md5: {listing}\n  path: appended\n")
    job.write("data/appended/1.csv", "x,y\n1,yes\n")
    job.write("data/appended.json", json.dumps({"table": "d" * 32, "parts": [9], "files": ["1.csv"]}))
    job.release("model B")
    record = job.production().record
    assert (record.data.md5, record.appended.md5, record.data_md5) == ("d" * 32, listing, f"{'d' * 32}+{listing}")
    found = asked(job, listing)
    assert found["note"] == f"{listing}: md5 of rows appended to a table" and len(found["releases"]) == 1
    assert f"appended rows   data/appended, md5 {listing}" in lineage.table(found["releases"][0])
    assert [state for _, state in versions(asked(job, "d" * 32))] == ["superseded", "deployed"]


def test_an_ambiguous_beginning_is_refused(job: Job) -> None:
    release(job, "model A", "run-1")
    release(job, "model B", "run-2")
    with refused("is ambiguous: MLflow run run-1, MLflow run run-2"):
        asked(job, "run-")
    release(job, "model C", "run-1-again")
    assert len(asked(job, "run-1")["releases"]) == 1, "the whole of one is not the beginning of another"


@pytest.mark.parametrize("what", ["abc", "", "--output=x", "\x1b[31mred"])
def test_an_impossible_name_is_refused(job: Job, what: str) -> None:
    job.release("model A")
    with refused("WHAT is"):
        asked(job, what)


def test_an_error_says_where_an_unknown_name_was_looked_for(job: Job) -> None:
    job.release("model A")
    with refused("'0123456789abcdef', which is neither a commit of this clone nor in the 1 release records"):
        asked(job, "0123456789abcdef")


def test_nothing_released(job: Job) -> None:
    with refused("nothing was ever released"):
        asked(job)


def test_commits_of_main_that_no_record_names(job: Job) -> None:
    before = job.git("rev-parse", "HEAD")
    first = release(job, "model A", "run-1")
    documents = job.merge("Only documents")
    skipped = job.merge("Also skipped")
    job.write("src/x.py", "a change that runs")
    overtaken = job.merge("Overtaken")
    second = release(job, "model B", "run-2")
    job.write("src/x.py", "another one")
    waiting = job.merge("Waiting")
    for commit, releases, why in (
        (before, [(first.model.version, "superseded")], f"{first.commit[:12]} came after it on main"),
        (
            documents,
            [(second.model.version, "deployed")],
            f"it changes nothing that is deployed since {first.commit[:12]}",
        ),
        (skipped, [(second.model.version, "deployed")], "it changes nothing that is deployed"),
        (
            overtaken,
            [(second.model.version, "deployed")],
            f"{second.commit[:12]} came after it on main and was released",
        ),
        (waiting, [], "its deployment is still running, was refused or failed"),
    ):
        found = asked(job, commit[:10])
        assert versions(found) == releases, why
        assert why in found["note"]
    job.git("commit", "--quiet", "--allow-empty", "--message", "Not pushed")
    found = asked(job, "HEAD")
    assert (found["releases"], "is not on main of origin" in found["note"]) == ([], True)


def test_a_commit_of_production_that_changes_only_manifests(job: Job) -> None:
    job.release("model A")
    version = job.production().record.model.version
    job.git("switch", "--quiet", "--detach", "origin/env/production")
    job.write("manifests/extra.yaml", "kind: ConfigMap")
    job.git("add", "--all")
    job.git("commit", "--quiet", "--message", "By hand")
    job.git("push", "--quiet", "origin", "HEAD:env/production")
    by_hand = job.git("rev-parse", "HEAD")
    job.git("switch", "--quiet", "main")
    found = asked(job, by_hand)
    assert versions(found) == [(version, "deployed")]
    assert "changes only manifests" in found["note"]


@pytest.mark.parametrize(
    ("subject", "origin_address", "address"),
    [
        ("Better (#12)", "git@github.com:team/toy.git", "https://github.com/team/toy/pull/12"),
        ("Better (#12)", "https://user:hidden@github.example/team/toy", "https://github.example/team/toy/pull/12"),
        (
            "Merge pull request #12 from team/x",
            "ssh://git@git.example:22/team/toy.git",
            "https://git.example/team/toy/pull/12",
        ),
        ("Merge pull request #12 from team/x", "/somewhere/team/toy.git", None),
    ],
)
def test_the_pull_request(
    job: Job, monkeypatch: pytest.MonkeyPatch, subject: str, origin_address: str, address: str | None
) -> None:
    job.merge(subject)
    job.train("model A")
    job.gate()
    job.deploy()
    run = lineage.git.run
    monkeypatch.setattr(
        lineage.git, "run", lambda *call, **kw: origin_address if "get-url" in call else run(*call, **kw)
    )
    (one,) = asked(job)["releases"]
    assert one["main"]["pull_request"] == {"number": 12, "address": address}
    assert "hidden" not in json.dumps(one)


def test_no_pull_request(job: Job) -> None:
    job.release("model A (#x)")
    assert asked(job)["releases"][0]["main"]["pull_request"] is None


def test_reports_are_those_of_the_lock_that_made_the_model(job: Job) -> None:
    job.train("model A")
    md5 = digest(job.path / "model/model.pt2", "md5")
    outs = [{"path": "model/model.pt2", "md5": md5}, {"path": "reports/validate_model.html", "md5": "c" * 32}]
    job.write("dvc.lock", yaml.safe_dump({"stages": {"train": {"outs": outs}}}))
    release(job, "model A", "run-1")
    assert asked(job)["releases"][0]["reports"] == [{"path": "reports/validate_model.html", "md5": "c" * 32}]
    release(job, "model B", "run-2")
    assert asked(job)["releases"][0]["reports"] == [], "the lock is of another model"


def test_main_was_rewritten(job: Job) -> None:
    """What is deployed is printed without details of the commit that no clone has any more."""
    job.release("model A")
    lost = job.production().record.commit
    job.git("push", "--quiet", "--force", "origin", f"{lost}^:main")
    job.git("reset", "--quiet", "--hard", "HEAD^")
    for command in (
        "update-ref -d refs/remotes/origin/main",
        "reflog expire --expire=now --all",
        "gc --quiet --prune=now",
    ):
        job.git(*command.split())
    (one,) = asked(job)["releases"]
    assert (one["main"]["commit"], one["main"]["time"]) == (lost, None)
    assert "not in this clone" in lineage.table(one)


def test_an_unreadable_earlier_record(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.release("model A")
    job.git("switch", "--quiet", "--detach", "origin/env/production")
    for text in ("no JSON", None):
        job.write("release.json", text) if text else job.git("rm", "--quiet", "release.json")
        job.git("add", "--all")
        job.git("commit", "--quiet", "--message", "Broken \x1b[31m")
    job.git("revert", "--no-edit", "HEAD", "HEAD^")
    job.git("push", "--quiet", "origin", "HEAD:env/production")
    job.git("switch", "--quiet", "main")
    assert [one["state"] for one in asked(job)["releases"]] == ["deployed"]
    assert capsys.readouterr().err.count("no readable release record") == 3


def test_a_clone_without_history_is_refused(job: Job, origin: Path, tmp_path: Path) -> None:
    job.release("model A")
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{origin}", tmp_path / "shallow"], check=True)
    with contextlib.chdir(tmp_path / "shallow"), refused("--unshallow"):
        trace.trace(None)


def test_the_command(job: Job, tmp_path: Path) -> None:
    """In a process, in a second, without MLflow; what is looked for comes in through the environment."""
    version = release(job, "model A", "run-1").model.version
    command = [sys.executable, "-X", "importtime", "-m", "gitops.registry.trace"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "WHAT": version}
    done = subprocess.run(
        [*command, "--json"], cwd=job.path, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["releases"][0]["model"]["version"] == version
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in loaded and not loaded & {"mlflow", "torch", "pandas", "dvc", "numpy"}
    environment["WHAT"] = "; touch hit #"
    done = subprocess.run(command, cwd=job.path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "WHAT is '; touch hit #', which is neither" in done.stderr
    assert not (job.path / "hit").exists()
