"""Tuning on a small table: what is searched, kept, compared and written. The test split is absent from all of it."""

from __future__ import annotations

import copy
import math
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import yaml
from breast_cancer import train
from conftest import ROOT
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.tuning import tune, tune_params, tune_report, tune_study
from optuna.trial import TrialState
from tuning import PARAMS, make_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root with params.yaml and the prepared splits, but for the test split."""
    monkeypatch.chdir(tmp_path)
    for name in ("TUNE_STORAGE", "TRIALS"):
        monkeypatch.delenv(name, raising=False)
    make_room()
    assert not artifacts.TEST.exists()
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["tune", *arguments])
    return tune.main()


def study() -> optuna.Study:
    return tune_study.open_study(params.load())


def scored(monkeypatch: pytest.MonkeyPatch, loss: Callable[[params.Params], float]) -> None:
    """Put `loss` in training's place."""
    monkeypatch.setattr(tune.Trainer, "loss", lambda _, settings, watcher: loss(settings))


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ({"model.widht": {"low": 1, "high": 2}}, "tune.space names 'model.widht', which is not a setting"),
        ({"width": {"low": 1, "high": 2}}, "tune.space names 'width', which is not a setting"),
        ({"gate.tolerance": {"low": 0.1, "high": 0.2}}, "tune.space names 'gate.tolerance'"),
        ({"train.seed": {"low": 1, "high": 99}}, "tune.space names 'train.seed', which makes no model better"),
        ({"model.dropout": {"low": 0.0, "high": 1.0}}, "tune.space.model.dropout holds 1.0: input should be less"),
        ({"model.width": {"low": 0, "high": 8}}, "tune.space.model.width holds 0: input should be greater"),
        ({"model.width": {"low": 8, "high": 16.5}}, "tune.space.model.width holds 16.5: input should be a valid int"),
        ({"train.batch_size": {"choices": [32, "many"]}}, "tune.space.train.batch_size holds 'many'"),
        ({"train.batch_size": {"choices": [32]}}, "tune.space.train.batch_size.choices"),
        ({"model.width": {"low": 16, "high": 8}}, "tune.space.model.width: low 16 is not below high 8"),
        ({"model.width": {"low": 16}}, "tune.space.model.width: low and high are needed"),
        (
            {"model.width": {"low": 8, "high": 16, "choices": [8, 16]}},
            "tune.space.model.width: choices cannot be combined",
        ),
        ({"train.weight_decay": {"low": 0.0, "high": 1.0, "log": True}}, "tune.space.train.weight_decay: low is 0.0"),
        ({"model.width": {"low": 8, "high": 16, "step": 2}}, "tune.space.model.width.step is not a setting"),
    ],
)
def test_a_space_that_cannot_be_searched_is_named(space: dict[str, Any], named: str) -> None:
    values = yaml.safe_load(PARAMS)
    values["tune"]["space"] = space
    artifacts.PARAMS.write_text(yaml.safe_dump(values))
    with pytest.raises(ProjectError) as error:
        params.load()
    assert named in str(error.value)


def test_the_projects_own_space_holds_its_own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", artifacts.PARAMS)
    settings = params.load()
    assert settings.tune.space
    (waiting,) = study().trials
    assert waiting.system_attrs["fixed_params"] == tune_study.present(settings)


def test_the_first_trial_is_what_the_stage_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        def log(self, entry: dict[str, float]) -> None: ...

        def log_model(self) -> None: ...

        def address(self) -> dict[str, str]:
            return {}

    @contextmanager
    def start(*_: object) -> Iterator[Run]:
        yield Run()

    assert run(monkeypatch, "--trials", "1", "--worker") == 0
    monkeypatch.setattr("project.tracking.start", start)
    train.main()
    curve = [float(line.split(",")[2]) for line in artifacts.LEARNING_CURVE.read_text().splitlines()[1:]]
    (trial,) = study().trials
    assert trial.user_attrs["values"] == {"model.width": 8, "model.dropout": 0.1, "train.learning_rate": 0.002}
    assert trial.value == pytest.approx(min(curve), rel=1e-6)


def test_a_study_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIALS", "2")
    assert run(monkeypatch, "--worker") == 0
    assert run(monkeypatch, "--worker", "--trials", "4") == 0
    assert run(monkeypatch, "--worker", "--trials", "3") == 0
    trials = study().trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert sum(tune_study.values_of(trial) == tune_study.present(params.load()) for trial in trials) == 1


def test_trials_of_another_study_are_not_mixed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another split, another space and other settings that are not searched are another study; searched ones not."""
    settings = params.load()
    name = tune_study.study_name(settings)
    assert tune_study.study_name(tune_study.with_values(settings, {"model.width": 16, "train.device": "cpu"})) == name
    assert tune_study.study_name(tune_study.with_values(settings, {"train.epochs": 5})) != name
    values = settings.model_dump()
    values["tune"]["space"]["model.width"]["high"] = 64
    assert tune_study.study_name(params.Params.model_validate(values)) != name
    shutil.copy(artifacts.VAL, artifacts.TRAIN)
    assert tune_study.study_name(settings) != name


def test_a_training_that_falls_behind_is_pruned() -> None:
    settings, made = params.load(), study()
    objective = tune_study.Objective(settings, tune_study.Trainer(settings))
    for rate in (0.011, 0.012, 0.013, 0.014, 0.00001):
        made.enqueue_trial({**tune_study.present(settings), "train.learning_rate": rate})
    made.optimize(objective, n_trials=6)
    *_, last = made.trials
    assert last.state == TrialState.PRUNED
    assert last.last_step < settings.train.epochs
    assert f"pruned in epoch {last.last_step}" in tune_report.line(last)


def test_a_training_that_diverges_counts_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, made = params.load(), study()
    fit = train.fit

    def explode(model: Any, rows: Any, val: Any, settings: Any, *others: Any) -> Any:
        return fit(model, rows, val, settings.model_copy(update={"learning_rate": 1e30}), *others)

    monkeypatch.setattr(train, "fit", explode)
    trainer = tune_study.Trainer(settings)
    assert tune.search(made, tune_study.Objective(settings, trainer), 2)
    assert {trial.state for trial in made.trials} == {TrialState.PRUNED}
    assert "the loss became" in made.trials[0].user_attrs["diverged"]
    with pytest.raises(ProjectError, match="no trial was trained to its end"):
        tune.compare(made, settings, trainer)


def test_the_best_set_is_written_with_every_comment_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, lambda settings: abs(math.log(settings.model.width / 24)) + settings.train.seed % 3 / 1000)
    assert run(monkeypatch, "--trials", "12") == 0
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    best = report["comparison"]["best"]
    assert report["comparison"]["better"] and report["finished"] == 12 and report["importances"]
    assert len(best["losses"]) == 3 and best["mean"] < report["comparison"]["present"]["mean"]
    expected = PARAMS
    for key, before in (("width", "8 "), ("dropout", "0.1"), ("learning_rate", "0.002")):
        after = next(str(value) for name, value in best["values"].items() if name.endswith(key))
        expected = expected.replace(f"{key}: {before}", f"{key}: {after.ljust(len(before))}")
    assert artifacts.PARAMS.read_text() == expected != PARAMS
    assert artifacts.TUNE_HTML.read_text().count("<img ") == 2 + 3

    # What is written is the present set of the same study then, and not trained again in it.
    assert run(monkeypatch, "--trials", "12") == 0
    assert artifacts.read_json(artifacts.TUNE, "make tune")["comparison"]["better"] is False
    assert artifacts.PARAMS.read_text() == expected


def test_a_set_that_only_had_luck_with_its_seed_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(settings: params.Params) -> float:
        lucky = settings.train.seed == params.load().train.seed and settings.model.width != 8
        return 0.1 if lucky else 0.5 + settings.train.seed % 3 / 100 + (settings.model.width == 8) / 1000

    scored(monkeypatch, loss)
    assert run(monkeypatch, "--trials", "5") == 0
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    assert report["comparison"]["best"]["mean"] < report["comparison"]["present"]["mean"]
    assert "No better beyond the spread" in report["verdict"]
    assert artifacts.PARAMS.read_text() == PARAMS


def test_a_set_that_diverges_from_another_seed_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(settings: params.Params) -> float:
        if settings.model.width != 8 and settings.train.seed > 2 * tune.APART:
            raise train.Diverged("the loss became nan")
        return 0.5 if settings.model.width == 8 else 0.1

    scored(monkeypatch, loss)
    assert run(monkeypatch, "--trials", "5") == 0
    assert artifacts.PARAMS.read_text() == PARAMS
    assert "diverged" in artifacts.TUNE_HTML.read_text()


def test_ctrl_c_keeps_what_is_done_and_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def loss(settings: params.Params) -> float:
        calls.append(settings.model.width)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1 / settings.model.width

    scored(monkeypatch, loss)
    assert run(monkeypatch, "--trials", "4") == 130
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    assert report["finished"] == 2 and report["comparison"] is None
    assert artifacts.TUNE_HTML.exists()
    assert artifacts.PARAMS.read_text() == PARAMS
    assert run(monkeypatch, "--trials", "4") == 0
    assert artifacts.read_json(artifacts.TUNE, "make tune")["finished"] == 4


def test_only_the_values_change_in_the_projects_own_file() -> None:
    text = (ROOT / "params.yaml").read_text()
    artifacts.PARAMS.write_text(text)
    settings = params.load()
    changed = tune_study.with_values(settings, {"model.width": 128, "train.learning_rate": 1e-5})
    tune_params.write(changed)
    assert params.load() == changed
    pairs = zip(text.splitlines(), artifacts.PARAMS.read_text().splitlines(), strict=True)
    differ = [(old, new) for old, new in pairs if old != new]
    assert len(differ) == 2
    for old, new in differ:
        assert old.partition("#")[2] == new.partition("#")[2]
        assert "#" not in old or new.index("#") == old.index("#")
    tune_params.write(settings)
    assert params.load() == settings


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  width: 8  ", "  #idth: 8  ", "tune.space names model.width, which the file does not set"),
        ("model:\n  width: 8  ", "model:\n  width: &eight 8\n  depth: *eight ", "by a reference"),
    ],
)
def test_a_file_that_cannot_be_edited_stays_as_it_was(old: str, new: str, named: str) -> None:
    text = PARAMS.replace(old, new)
    assert text != PARAMS
    artifacts.PARAMS.write_text(text)
    settings = params.load()
    with pytest.raises(ProjectError, match=named):
        tune_params.write(tune_study.with_values(settings, {"model.width": 16, "model.depth": 1}))
    assert artifacts.PARAMS.read_text() == text


def test_a_present_value_outside_the_space_is_named() -> None:
    artifacts.PARAMS.write_text(PARAMS.replace("width: 8 ", "width: 999 "))
    with pytest.raises(ProjectError, match=r"tune\.space\.model\.width does not hold the present value 999"):
        study()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.VAL.unlink()
    with pytest.raises(ProjectError, match=r"val\.parquet is missing: run `make pipeline` first"):
        run(monkeypatch)
    values = copy.deepcopy(yaml.safe_load(PARAMS))
    values["tune"]["space"] = {}
    artifacts.PARAMS.write_text(yaml.safe_dump(values))
    with pytest.raises(ProjectError, match=r"tune\.space is empty"):
        run(monkeypatch)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("a secret", "TUNE_STORAGE is no address such as postgresql://"),
        ("postgresql://user:a%20secret@127.0.0.1:1/tune", r"user:\*\*\*@127\.0\.0\.1:1/tune cannot be used"),
        ("nothing://user:a%20secret@host/tune", "cannot be used: Can't load plugin"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(
    address: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_STORAGE", address)
    monkeypatch.setattr("project.tune_storage.time.sleep", lambda seconds: None)
    with pytest.raises(ProjectError, match=named) as error:
        study()
    assert "secret" not in str(error.value)


def test_no_stage_reads_the_settings_of_tuning() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    read = {name for stage in stages.values() for name in stage["params"]}
    assert "model" in read
    assert "tune" not in read
