"""`make debt`: each of the 28 tests has its evidence, and loses its points with it."""

from __future__ import annotations

import io
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from debts import FULL, World
from defaults import ROOT
from github_server import GitHub
from gitops.core import artifacts
from gitops.core.value import Today
from gitops.debt import evidence_data, evidence_model, score
from gitops.debt.evidence_monitoring import BOT
from gitops.debt.rubric import SECTIONS, TABLE
from gitops.gate import rules
from gitops.integrations import dvc, logged_study
from gitops.releases.record import Deployed
from gitops.reporting.context import Context
from gitops.reporting.debt_section import debt as section
from ports import free_port
from releases import Job, isolate


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    isolate(monkeypatch)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with GitHub(tmp_path) as github:
        for name, value in github.environment.items():
            monkeypatch.setenv(name, value)
        yield World(tmp_path, github)


def condition(world: World, path: Path, check: str) -> None:
    """Take a check's result out of a validation."""
    world.change(path, conditions=[one for one in world.read(path)["conditions"] if one["check"] != check])


def monitored(world: World, check: str) -> None:
    world.change(
        artifacts.MONITOR, checks=[one for one in world.read(artifacts.MONITOR)["checks"] if one["check"] != check]
    )


def released(world: World, **changes: object) -> None:
    for name, value in changes.items():
        setattr(world, name, value)
    world.released()


def remove(world: World, path: Path | str) -> None:
    (world.folder / path).unlink()


#: Test -> what takes its evidence away.
AWAY: dict[str, Callable[[World], object]] = {
    "Data 1": lambda world: remove(world, artifacts.SCHEMA),
    "Data 2": lambda world: world.change(artifacts.EXPLANATIONS, features=[{"name": "x", "importance": 0.0}]),
    "Data 3": lambda world: world.reopen("docs/data-understanding.md", evidence_data.COST),
    "Data 4": lambda world: condition(world, artifacts.DATA_VERDICT, evidence_data.LEAK),
    "Data 5": lambda world: remove(world, "reports/erase.md"),
    "Data 6": lambda world: released(world, columns=["x"]),
    "Data 7": lambda world: remove(world, "tests/test_features.py"),
    "Model 1": lambda world: world.write("params.yaml", "changed: 1\n"),
    "Model 2": lambda world: world.change(artifacts.MONITOR, performance={"passed": False, "reason": "worse"}),
    "Model 3": lambda world: remove(world, artifacts.TUNE),
    "Model 4": lambda world: world.change(artifacts.GATE, releases=[]),
    "Model 5": lambda world: condition(world, artifacts.MODEL_VERDICT, evidence_model.SIMPLE),
    "Model 6": lambda world: world.change(artifacts.METRICS, slices={}),
    "Model 7": lambda world: world.reopen("docs/model-card.md", evidence_model.HARM),
    "Infra 1": lambda world: world.tested(failing="test_the_same_training_is_the_same_file"),
    "Infra 2": lambda world: remove(world, "tests/test_settings.py"),
    "Infra 3": lambda world: world.stale.append("package"),
    "Infra 4": lambda world: remove(world, artifacts.GATE),
    "Infra 5": lambda world: world.archive("handler.py"),
    "Infra 6": lambda world: released(world, kind="Deployment"),
    "Infra 7": lambda world: released(world, rollback=False),
    "Monitor 1": lambda world: remove(world, ".github/dependabot.yaml"),
    "Monitor 2": lambda world: monitored(world, "refused requests"),
    "Monitor 3": lambda world: monitored(world, "feature drift"),
    "Monitor 4": lambda world: released(world, alerts=["ModelSlow"]),
    "Monitor 5": lambda world: world.tested(failing="test_a_column_of_one_value_or_of_none_is_finite"),
    "Monitor 6": lambda world: released(world, alerts=["ModelStale"]),
    "Monitor 7": lambda world: world.change(artifacts.MONITOR, performance=None),
}


def test_the_paper_has_28_tests_seven_of_each_kind() -> None:
    assert [test.id for test in TABLE] == list(FULL)
    assert len(FULL) == 28 and {test.section for test in TABLE} == set(SECTIONS.values())


def test_with_all_evidence_all_points_are_there(world: World) -> None:
    found = world.debt()
    assert {test["id"]: test["value"] for test in found["tests"]} == FULL
    assert all(test["known"] for test in found["tests"])
    assert found["sections"] == {"data": 6.5, "model": 7, "infrastructure": 7, "monitoring": 7}
    assert found["score"] == 6.5 and found["cheapest"] == []


@pytest.mark.parametrize("name", FULL)
def test_without_its_evidence_a_test_loses_points(world: World, name: str) -> None:
    AWAY[name](world)
    assert world.points()[name] < FULL[name]


@pytest.mark.parametrize(
    ("step", "names"),
    [
        ("Tests", ["Data 7", "Infra 1", "Infra 2", "Monitor 5"]),
        ("Pipeline", ["Data 1", "Data 2", "Data 4", "Model 5", "Infra 3", "Infra 5"]),
        ("Gate", ["Model 4", "Model 6", "Model 7", "Infra 4"]),
        ("Release", ["Data 6"]),
        ("Retrain", ["Model 3"]),
        ("Roll back", ["Infra 7"]),
        ("Monitor", ["Model 2", "Monitor 2", "Monitor 3", "Monitor 7"]),
    ],
)
def test_what_no_run_has_repeated_has_half_a_point(world: World, step: str, names: list[str]) -> None:
    world.repeated(without=step)
    lost = {name for name, points in world.points().items() if points < FULL[name]}
    assert lost == set(names) and {world.points()[name] for name in names} == {0.5}


def settings(world: World, section: str, **changes: object) -> None:
    changed = getattr(world.settings, section).model_copy(update=changes)
    world.settings = world.settings.model_copy(update={section: changed})


@pytest.mark.parametrize(
    ("names", "change"),
    [
        (["Data 4"], lambda world: world.reopen("docs/data-understanding.md", evidence_data.KNOWN)),
        (["Data 5"], AWAY["Data 5"]),
        (["Model 1"], lambda world: world.github.rules.clear()),
        (["Model 3"], lambda world: settings(world, "retrain", tune_trials=0)),
        (["Model 5"], lambda world: settings(world, "value", today=Today(answer="no"))),
        (["Model 6", "Model 7"], lambda world: settings(world, "gate", slices={})),
        (["Infra 6", "Monitor 4", "Monitor 6"], lambda world: world.github.deployments.clear()),
        (
            ["Infra 6", "Monitor 4", "Monitor 6"],  # that a job has ended says nothing of the cluster
            lambda world: world.github.deployments[0]["creator"].update(login="github-actions[bot]"),
        ),
        (
            ["Infra 6", "Monitor 4", "Monitor 6"],
            lambda world: world.github.report(world.git("rev-parse", "HEAD"), "production", "failure"),
        ),
        (["Monitor 1"], AWAY["Monitor 1"]),
    ],
)
def test_a_part_of_the_evidence_has_half_a_point(
    world: World, names: list[str], change: Callable[[World], object]
) -> None:
    change(world)
    assert {name: points for name, points in world.points().items() if points < FULL[name]} == dict.fromkeys(names, 0.5)


def test_a_workflow_without_the_step_repeats_nothing(world: World) -> None:
    """Even where its runs of before had it."""
    path = world.folder / ".github/workflows/ci.yaml"
    path.write_text(path.read_text().replace("run: make gate\n", "run: make lint\n"))
    assert world.points()["Infra 4"] == 0.5


def test_a_forks_run_does_not_count(world: World) -> None:
    for run in world.github.runs:
        run["head_repository"] = {"full_name": "stranger/name"}
    assert world.points()["Infra 4"] == 0.5


def test_without_github_what_it_shows_is_not_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in world.github.environment:
        monkeypatch.delenv(name, raising=False)
    found = world.debt()
    assert found["sections"] == {"data": 4, "model": 3.5, "infrastructure": 3.5, "monitoring": 4}
    points = {test["id"]: (test["value"], test["known"]) for test in found["tests"]}
    assert points["Infra 4"] == (0.5, False) and points["Data 5"] == (1, True)
    (first,) = (step for step in found["cheapest"] if step["command"] == "make github")
    assert "Infra 4" in first["tests"] and first["gain"] > 3


@pytest.mark.parametrize(("workflow", "job"), [("ci", "pipeline"), ("ci", "verify"), ("retrain", "retrain")])
def test_each_job_that_scores_may_read_all_that_the_score_asks_for(world: World, workflow: str, job: str) -> None:
    """The gate holds a limit in each of them: one that sees less than the others would refuse what they accept."""
    path = ROOT / f".github/workflows/{workflow}.yaml"
    granted = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"][job]["permissions"]
    world.git(
        *["-c", "user.name=O", "-c", "user.email=@", "commit", "--quiet", "--amend", "--no-edit", "--author=O<@>"]
    )
    world.released()
    world.github.open_pull(1, "a" * 40, "dependabot/uv")["user"] = {"login": BOT}  # no commit of it answers for GitHub
    world.github.permissions[world.github.token] = granted
    assert world.points() == FULL
    for name in ("actions", "deployments", "pull-requests"):
        world.github.permissions[world.github.token] = granted | {name: "none"}
        assert any(not test["known"] for test in world.debt()["tests"]) and world.points() != FULL


def test_a_study_that_was_made_elsewhere_is_found_in_mlflow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    study = world.folder / artifacts.TUNE
    kept = study.rename(study.with_name("kept.json"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    for name, value in logged_study.IMPATIENT.items():
        monkeypatch.setenv(name, value)

    def seen() -> tuple[float, bool, str]:
        (test,) = (test for test in world.debt()["tests"] if test["id"] == "Model 3")
        return test["value"], test["known"], test["evidence"]

    assert seen()[:2] == (0, False) and "cannot be reached (connection refused)" in seen()[2]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{world.folder}/mlflow.db")
    assert seen() == (0, True, "MLflow has 0 trials")
    kept.rename(study)
    for finished in (12, 5):
        logged_study.log(world.settings, "study", finished)
    study.unlink()
    assert seen()[:2] == (1, True) and "MLflow has 12 trials; retrain.tune_trials is 10" in seen()[2]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert seen()[:2] == (0, False) and "MLFLOW_TRACKING_URI is not set" in seen()[2]


def test_a_study_that_cannot_be_logged_is_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    logged_study.log(world.settings, "study", 12)
    assert "warning: the study is not logged: MLflow at http://127.0.0.1:" in capsys.readouterr().err


def test_the_monitors_result_is_fetched_from_github(world: World) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(world.folder / artifacts.MONITOR, "monitor.json")
    remove(world, artifacts.MONITOR)
    assert world.points()["Monitor 7"] == 0
    world.github.store("monitor", packed.getvalue())
    assert world.points()["Monitor 7"] == 1


def test_results_of_a_stage_that_is_out_of_date_do_not_count(world: World) -> None:
    world.stale += ["prepare", "validate_data", "train", "evaluate", "validate_model", "package"]
    lost = {name for name, points in world.points().items() if points == 0}
    assert lost == {"Data 1", "Data 2", "Model 4", "Model 5", "Model 6", "Infra 3", "Infra 4", "Infra 5"}


def test_tests_that_are_older_than_the_code_do_not_count_here(world: World) -> None:
    world.repeated(without="Tests")
    (world.folder / "tests/test_more.py").write_text("")
    assert world.points()["Infra 2"] == 0


def test_damaged_evidence_is_not_known(world: World) -> None:
    world.write("package/tumour.mar", "no archive")
    world.write(artifacts.EXPLANATIONS, {"of": "another version"})
    found = {test["id"]: test for test in world.debt()["tests"]}
    assert [(found[name]["value"], found[name]["known"]) for name in ("Data 2", "Infra 5")] == [(0, False)] * 2


def test_the_cheapest_three_points(world: World) -> None:
    """A command stands once, commands before answers and answers before what must be set up; no more than is needed."""
    for name in ("Data 3", "Infra 3", "Infra 4", "Infra 5", "Infra 6", "Infra 7", "Model 3"):
        AWAY[name](world)
    steps = [(step["command"], step["gain"], step["tests"]) for step in world.debt()["cheapest"]]
    assert steps[:2] == [("make pipeline", 1, ["Infra 3", "Infra 5"]), ("make gate", 0.5, ["Infra 4"])]
    assert [tests for _, _, tests in steps[2:]] == [["Model 3"], ["Data 3"], ["Infra 6"]]


def test_the_gate_holds_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc, "stale", list)
    result = world.read(artifacts.GATE)
    remove(world, artifacts.GATE)  # it is being made
    for limit, passed in ((6.5, True), (6.6, False)):
        gate = world.settings.gate.model_copy(update={"debt": limit})
        (rule,) = rules.debt(world.settings.model_copy(update={"gate": gate}), result)
        assert rule.passed is passed and rule.value == 6.5
    assert "the ML Test Score is 6.5, and 6.6 is needed (gate.debt)" in rule.failure
    assert rules.debt(world.settings, result) == []


def test_the_report_tells_what_has_changed(world: World) -> None:
    before = {"infrastructure": 6.0, "data": 6.5, "model": 7.0, "monitoring": 7.0}
    tests = FULL | {"Infra 7": 0.0}
    record = world.record("v1", ["x"]).model_copy(update={"debt": before, "debt_tests": tests})
    text = section(Context(world.settings, [], Deployed("e" * 40, record), debt=world.debt()))
    assert "ML Test Score 6.5 of 7" in text
    assert "| infrastructure | 6 | 7 | Serving models can be rolled back (0 to 1) |" in text
    assert "| data | 6.5 | 6.5 |  |" in text
    first = section(Context(world.settings, [], None, debt=world.debt()))
    assert "| data | – | 6.5 |  |" in first
    assert section(Context(world.settings, [], None)) == ""


def test_the_trend_is_that_of_the_releases(world: World) -> None:
    """A release before there was a score has none."""
    assert score.recorded(world.debt())["debt_tests"] == FULL
    assert world.debt()["trend"] == []
    world.debts = {"v1": world.debt()}
    world.released()
    assert world.debt()["trend"] == [{"release": "tumour v1", "score": 6.5}]
    assert "Releases: tumour v1 6.5." in section(Context(world.settings, [], None, debt=world.debt()))


def test_a_project_in_which_nothing_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """What its documents say of the bundled table, and that it is committed."""
    isolate(monkeypatch)
    for name in ("GITHUB_TOKEN", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("docs", "tests", ".github", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for command in ("init -q", "add --all", "-c user.name=Tester -c user.email=t@localhost commit -qm First"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc, "stale", lambda: ["prepare", "validate_data", "train", "evaluate", "package"])
    score.main()
    found = artifacts.read_json(artifacts.DEBT, "make debt")
    assert found["sections"] == {"data": 0.5, "model": 1, "infrastructure": 0, "monitoring": 0}
    assert [step["command"] for step in found["cheapest"]] == ["make pipeline", "make test"]
    printed = capsys.readouterr().out
    assert "0.5? Model 1: Model specs are reviewed and submitted (committed; whether main asks" in printed
    assert "GitHub was not asked" in printed and "ML Test Score 0 of 7" in printed
    assert "MLOps maturity: level 0 of 2; level 0 lacks a prediction service (" in printed  # of what is copied here


def test_the_page_lists_each_test_and_where_it_is_looked_up() -> None:
    text = (ROOT / "docs/debt.md").read_text(encoding="utf-8")
    for test in TABLE:
        assert f"| {test.id} | {test.text} | {test.where} |\n" in text


def test_a_release_records_the_score_and_brings_a_badge(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    commit = job.release("model A")
    record = job.production().record
    assert record.debt and {*record.debt} == {*SECTIONS.values()} and len(record.debt_tests) == 28
    shown = job.git("show", f"{commit}:debt.svg")
    assert "<title>ML Test Score: 0 of 7</title>" in shown
    ElementTree.fromstring(shown)  # noqa: S314
