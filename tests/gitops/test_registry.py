"""`make register`: MLflow's registered model says what env/production says, however often and whenever it is run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from defaults import complete
from gitops.integrations import dvc, tracking
from gitops.registry import trace, versions
from ports import free_port
from registering import ARCHIVE, Registering
from releases import SETTINGS, Job, isolate, refused
from test_rollback import revert_by_hand


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        tracking.load().search_experiments()
    return path


@pytest.fixture
def lab(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: Path) -> Registering:
    isolate(monkeypatch)
    shutil.copy(empty, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    job = Registering(origin, tmp_path / "lab", tmp_path / "remote")
    monkeypatch.setattr(dvc, "fetch", job.fetch)
    return job


def test_each_release_has_one_version_however_often_it_is_registered(lab: Registering) -> None:
    first, second = lab.release("model A"), lab.release("model B")
    assert lab.sync().created == 2
    known, aliases = lab.seen()
    record = lab.production().record
    assert aliases == {"champion": 2}
    assert [tags["release"] for tags in known.values()] == [first, second]
    assert [tags["state"] for tags in known.values()] == ["superseded", "deployed"]
    assert known[2].pop("model_card") == lab.git("show", f"{second}:model-card.md") + "\n"
    assert known[2] == {
        "release": second,
        "state": "deployed",
        "commit": record.commit,
        "data_md5": "d" * 32,
        "model_sha256": record.model.sha256,
        "image": record.image,
        "gate": "accepted (absolute)",
        "gate_reason": "Accepted.",
        "trained_in_run": record.mlflow_run_id,
    }
    version = lab.client().get_model_version("toy", "2")
    assert version.run_id == record.mlflow_run_id, "a version stands on the training run's own model"
    assert lab.champion() == b"model B"
    before = lab.seen()
    assert lab.sync().created == 0
    assert lab.seen() == before


def test_a_version_shows_the_model_card(lab: Registering) -> None:
    first, second = lab.release("model A"), lab.release("model B")
    lab.sync()
    for number, commit in (("1", first), ("2", second)):
        version = lab.client().get_model_version("toy", number)
        assert version.tags["model_card"] == lab.card(commit)
        assert version.description.startswith("# Model card: toy") and len(version.description) <= versions.DESCRIPTION
        assert version.description.partition("\n## Model\n")[0] in version.tags["model_card"]


def test_a_long_model_card_is_cut_in_the_description_alone(lab: Registering) -> None:
    answers = "".join(f"**Question {number}?**\n\n{'word ' * 200}\n\n" for number in range(10))
    lab.write("docs/model-card.md", f"## Use\n\n{answers}")
    commit = lab.release("model A")
    lab.sync()
    version = lab.client().get_model_version("toy", "1")
    assert len(version.tags["model_card"]) > 10_000 and version.tags["model_card"] == lab.card(commit)
    assert len(version.description) <= versions.DESCRIPTION
    assert version.description.endswith("*The whole card is the tag `model_card` of this version.*")


def test_a_challengers_model_card_gives_way_to_that_of_its_release(lab: Registering) -> None:
    lab.train("model A")
    lab.gate()
    lab.sync()
    candidate = lab.client().get_model_version("toy", "1")
    assert "| verified by main | not yet" in candidate.tags["model_card"]
    lab.write("docs/model-card.md", "## Use\n\n**What is it for?**\n\nTo show it.\n")
    lab.merge("An answer")
    commit = lab.deploy()
    lab.sync()
    released = lab.client().get_model_version("toy", "1")
    assert released.tags["model_card"] == lab.card(commit) and "not yet" not in released.tags["model_card"]
    assert "> To show it." in released.description and "> To show it." not in candidate.description


def test_a_release_without_a_model_card_has_a_version_without_one(lab: Registering) -> None:
    lab.without_card(lab.release("model A"))
    lab.gate(accepted=False, reason="Refused: worse.")  # no challenger
    lab.sync()
    version = lab.client().get_model_version("toy", "1")
    assert "model_card" not in version.tags and not version.description


@pytest.mark.parametrize("take_back", [Job.rollback, revert_by_hand], ids=["make rollback", "git revert"])
def test_the_champion_follows_a_rollback_and_a_new_release(
    lab: Registering, take_back: Callable[[Job], object]
) -> None:
    lab.release("model A")
    lab.release("model B")
    lab.sync()
    take_back(lab)
    mirror = lab.sync()
    known, aliases = lab.seen()
    assert (mirror.created, aliases) == (0, {"champion": 1})
    assert [tags["state"] for tags in known.values()] == ["deployed", "rolled back"]
    assert lab.champion() == b"model A"
    lab.train("model B")
    lab.gate()
    lab.merge("Again")
    assert lab.deploy(redeploy=True)
    assert lab.sync().created == 1, "a release of what was taken back is a release"
    assert lab.seen()[1] == {"champion": 3}
    assert lab.champion() == b"model B"


def test_the_champion_follows_a_merge_of_a_promotion(lab: Registering) -> None:
    first = lab.release("model A")
    lab.git("switch", "--quiet", "--create", "candidate", first)
    record = json.loads((lab.path / "release.json").read_text()) | {"previous": first, "image": "toy:promoted"}
    lab.write("release.json", json.dumps(record))
    lab.git("commit", "--quiet", "--all", "--message", "Candidate")
    lab.git("switch", "--quiet", "--detach", first)
    lab.git("merge", "--quiet", "--no-ff", "--message", "Promote", "candidate")
    lab.git("push", "--quiet", "origin", "HEAD:env/production")
    promotion = lab.git("rev-parse", "HEAD")
    lab.git("switch", "--quiet", "main")
    lab.sync()
    known, aliases = lab.seen()
    assert aliases == {"champion": 2}
    assert (known[2]["release"], known[2]["image"]) == (promotion, "toy:promoted")


def test_a_model_that_was_trained_elsewhere_is_logged_once_from_dvc(lab: Registering) -> None:
    lab.merge("Change")
    lab.train("model A", logged=False)
    lab.gate()
    lab.deploy()
    (lab.path / ARCHIVE).unlink()  # another machine registers
    assert (lab.sync().created, lab.sync().created) == (1, 0)
    version = lab.client().get_model_version("toy", "1")
    run = lab.client().get_run(version.run_id)
    assert version.tags["trained_in_run"] == run.data.tags["trained_in_run"] == "e" * 32
    assert (run.data.params["data.target"], run.data.metrics["test_roc_auc"]) == ("y", 0.9)
    assert lab.champion() == b"model A"


def test_a_logged_model_with_other_bytes_is_not_used(lab: Registering) -> None:
    lab.release("model A")
    logged = next((lab.path / "mlruns").rglob("model.pt2"))
    logged.write_text("somebody else's")
    lab.sync()
    assert lab.champion() == b"model A"
    assert lab.seen()[0][1]["trained_in_run"] != lab.client().get_model_version("toy", "1").run_id


def test_an_archive_with_another_model_is_refused(lab: Registering) -> None:
    lab.merge("Change")
    lab.train("model A", logged=False)
    lab.gate()
    lab.deploy()
    lab.write("model/model.pt2", "model B")
    record = lab.production().record
    lab.train("model B", logged=False)
    shutil.copy(lab.path / ARCHIVE, lab.remote / record.package.md5)
    with refused("holds another model"):
        lab.sync()


def lose(lab: Registering, commit: str) -> None:
    """Let the model of a release be nowhere: not in MLflow, not in DVC."""
    record = json.loads(lab.git("show", f"{commit}:release.json"))
    lab.client().delete_run(record["mlflow_run_id"])
    for logged in (lab.path / "mlruns").rglob("model.pt2"):
        if logged.read_text() == "model A":
            logged.unlink()
    (lab.remote / record["package"]["md5"]).unlink()


def test_a_lost_earlier_model_is_reported_and_the_rest_is_registered(
    lab: Registering, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = lab.release("model A"), lab.release("model B")
    lose(lab, first)
    mirror = lab.sync()
    assert (list(mirror.releases), list(mirror.missing), lab.seen()[1]) == ([second], [first], {"champion": 1})
    assert f"commit {first[:12]} of env/production: object" in capsys.readouterr().err


def test_a_lost_champion_is_an_error_and_leaves_no_alias(lab: Registering) -> None:
    first = lab.release("model A")
    lab.release("model B")
    lose(lab, first)
    lab.sync()
    lab.rollback()
    with refused("champion names no version: toy .* neither in DVC"):
        lab.sync()
    assert lab.seen()[1] == {}


class Killed(BaseException):
    """As a signal would end it."""


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["claim", "create", "tag", "set_alias"])
def test_a_rerun_completes_what_was_killed(
    lab: Registering, monkeypatch: pytest.MonkeyPatch, step: str, late: bool
) -> None:
    """Killed at every call of `step` in turn, until it goes through, the end is that of an unbroken run."""
    lab.release("model A")
    lab.merge("Change")
    lab.train("model B", logged=False)
    lab.gate()
    lab.sync()  # model B is challenger, and adopted below
    lab.deploy()
    lab.release("model C")
    real = getattr(versions.Versions, step)
    calls = 0

    def once(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at and not late:
            raise Killed
        answer = real(*arguments, **named)
        if calls == at:
            raise Killed
        return answer

    monkeypatch.setattr(versions.Versions, step, once)
    at, killed = 1, 0
    while True:
        calls = 0
        try:
            lab.sync()
            break
        except Killed:
            killed, at = killed + 1, at + 1
    assert killed
    monkeypatch.setattr(versions.Versions, step, real)
    known, aliases = lab.seen()
    assert aliases == {"champion": 3}
    assert sorted(tags["state"] for tags in known.values()) == ["deployed", "superseded", "superseded"]
    assert len({tags["release"] for tags in known.values()}) == len(known) == 3
    assert lab.sync().created == 0
    assert lab.seen() == (known, aliases)


def test_a_run_killed_before_the_version_exists_logs_nothing_twice(
    lab: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.merge("Change")
    lab.train("model A", logged=False)
    lab.gate()
    lab.deploy()
    with monkeypatch.context() as patch:
        patch.setattr(versions.Versions, "create", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            lab.sync()
    lab.sync()
    experiment = lab.client().get_experiment_by_name("toy").experiment_id
    assert len(lab.client().search_runs([experiment])) == 1


def test_a_candidate_is_the_challenger_until_it_is_released(lab: Registering) -> None:
    lab.release("model A")
    lab.merge("Change")
    lab.train("model B")
    lab.gate()
    assert (lab.sync().challenger, lab.sync().created) == (2, 0)
    known, aliases = lab.seen()
    assert aliases == {"champion": 1, "challenger": 2}
    assert "release" not in known[2] and known[2]["gate"] == "accepted (absolute)"
    lab.deploy()
    mirror = lab.sync()
    assert (mirror.created, lab.seen()[1]) == (0, {"champion": 2}), "the same version, released"
    lab.rollback()
    assert (lab.sync().challenger, lab.seen()[1]) == (None, {"champion": 1}), "what was taken back is no challenger"


def test_a_candidate_before_any_release(lab: Registering) -> None:
    lab.train("model A")
    assert lab.sync().challenger is None
    lab.gate()
    assert lab.sync().challenger == 1
    assert lab.seen()[1] == {"challenger": 1}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lab: lab.gate(accepted=False, reason="Refused: worse."), "Refused: worse"),
        (lambda lab: lab.gate(model_sha256="0" * 64), "another model"),
        (lambda lab: (lab.path / "reports/gate.json").unlink(), "make gate"),
        (lambda lab: (lab.path / ARCHIVE).unlink(), "make pipeline"),
        (lambda lab: lab.write("params.yaml", (lab.path / "params.yaml").read_text() + "\n"), "params.yaml differ"),
        (lambda lab: lab.git("reset", "--quiet", "--hard", "HEAD^^"), "production runs commit"),
    ],
)
def test_what_is_no_challenger(lab: Registering, change: Callable[[Registering], object], match: str) -> None:
    lab.release("model A")
    lab.merge("Change")
    lab.train("model B")
    lab.gate()
    change(lab)
    mirror = lab.sync()
    assert match in mirror.no_challenger
    assert lab.seen()[1] == {"champion": 1}


def test_two_models_in_one_mlflow(lab: Registering, tmp_path: Path) -> None:
    lab.release("model A")
    lab.sync()
    before = lab.seen()
    lab.write("params.yaml", yaml.safe_dump(complete(SETTINGS | {"package": {"model_name": "other"}})))
    shutil.copy(lab.path / ARCHIVE, lab.path / "package/other.mar")
    lab.merge("Another name")
    lab.gate()
    assert lab.sync().champion == 1
    assert lab.seen() == before
    assert lab.seen("other")[1] == {"champion": 1}


def test_another_projects_model_is_left_alone(lab: Registering) -> None:
    lab.release("model A")
    lab.sync()
    before = lab.seen()
    lab.client().set_registered_model_tag("toy", "project", "f" * 40)
    lab.release("model B")
    with refused("belongs to the project whose first commit is ffffffffffff"):
        lab.sync()
    assert lab.seen() == before


def test_nothing_to_register(lab: Registering, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.sync().champion is None
    assert "Nothing was ever released" in capsys.readouterr().out
    assert lab.client().search_registered_models() == []


def test_trace_names_versions_and_aliases(lab: Registering) -> None:
    lab.release("model A")
    lab.release("model B")
    lab.sync()
    lab.rollback()
    with contextlib.chdir(lab.path):
        found = trace.trace("d" * 32)["releases"]
        trace.add_registry(found)
    assert [(one["mlflow"]["version"], one["mlflow"]["aliases"]) for one in found] == [(1, []), (2, ["champion"])]
    assert [one["state"] for one in found] == ["deployed", "rolled back"], (
        "Git is asked first, and the registry lags behind"
    )


def test_an_unreachable_mlflow_is_an_error_that_hides_its_password(
    lab: Registering, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.release("model A")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hidden@127.0.0.1:{closed.getsockname()[1]}")
        with refused("MLflow at http://127.0.0.1:") as error:
            lab.sync()
    assert "hidden" not in str(error.value)
    assert lab.production().record.model.version, "the release stands"


@pytest.fixture
def server(tmp_path: Path, empty: Path) -> Iterator[str]:
    """An MLflow server; yields its address."""
    shutil.copy(empty, tmp_path / "server.db")
    port = free_port()
    store_options = [f"--backend-store-uri=sqlite:///{tmp_path / 'server.db'}", "--serve-artifacts"]
    options = [*store_options, f"--artifacts-destination={tmp_path / 'artifacts'}", f"--port={port}", "--workers=1"]
    command = [sys.executable, "-m", "mlflow", "server", *options]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_a_server_over_http(lab: Registering, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    lab.release("model A")
    lab.merge("Change")
    lab.train("model B", logged=False)
    lab.gate()
    lab.sync()
    assert lab.seen()[1] == {"champion": 1, "challenger": 2}
    lab.deploy()
    lab.sync()
    assert lab.seen()[1] == {"champion": 2}
    assert lab.champion() == b"model B"
    lab.rollback()
    lab.sync()
    assert (lab.seen()[1], lab.champion()) == ({"champion": 1}, b"model A")
