"""Tuning on a small table: what is searched, kept, compared and written. The test split is absent from all of it."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
import torch
import yaml
from breast_cancer import evaluate, features, metrics, train
from breast_cancer.settings import Settings
from conftest import ROOT
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.integrations import logged_study, tracking
from gitops.tabular import decision
from gitops.tuning import judge, report, tune
from gitops.tuning import study as studies
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
    return studies.open_study(params.load(), tune.connect())


#: What the answers of tuning.py's table are worth.
VALUE: dict[str, Any] = {
    "unit": "EUR",
    "decisions": 400,
    "running_cost": 0,
    "answers": {"True": {"True": 10, "False": -50}, "False": {"True": -10, "False": 0}},
    "error": None,
    "today": {"answer": "False"},
}


def optimise(metric: str, decisions: int = 400) -> None:
    """Set tune.metric in params.yaml, and `value`."""
    text = PARAMS.replace("tune:\n", f"tune:\n  metric: {metric}\n")
    value = json.dumps(VALUE | {"decisions": decisions})
    artifacts.PARAMS.write_text(text.replace("value: null\n", f"value: {value}\n"))


def scored(
    monkeypatch: pytest.MonkeyPatch, score: Callable[[Any], float], held_out: Callable[[Any], float] | None = None
) -> None:
    """Replace training and scoring by `score`, and on held-out rows by `held_out`, the same by default."""
    last = held_out or score
    monkeypatch.setattr(studies.Trainer, "score", lambda _, settings, trial=None: score(settings))
    monkeypatch.setattr(studies.Trainer, "held_out", lambda _, settings, fraction: (last(settings), fraction))


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ({"model.widht": {"low": 1, "high": 2}}, "tune.space names 'model.widht', which is not a setting"),
        ({"width": {"low": 1, "high": 2}}, "tune.space names 'width', which is not a setting"),
        ({"gate.tolerance": {"low": 0.1, "high": 0.2}}, "tune.space names 'gate.tolerance'"),
        ({"train.seed": {"low": 1, "high": 99}}, "tune.space names 'train.seed', which is not tunable"),
        ({"train.processes": {"low": 1, "high": 4}}, "tune.space names 'train.processes', which is not tunable"),
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


def test_a_metric_that_the_task_does_not_have_is_named() -> None:
    optimise("acuracy")
    with pytest.raises(ProjectError, match=r"tune\.metric names 'acuracy', which task 'binary' does not have"):
        params.load()


def test_the_projects_own_space_holds_its_own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", artifacts.PARAMS)
    settings = params.load()
    assert settings.tune.space
    (waiting,) = study().trials
    assert waiting.system_attrs["fixed_params"] == studies.present(settings)


@pytest.mark.parametrize("metric", [None, "brier", "roc_auc", "expected_value"])
def test_the_first_trial_is_what_the_stage_trains(metric: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        def log(self, entry: dict[str, float]) -> None: ...

        def log_epochs(self, history: list[dict[str, float]]) -> None: ...

        def log_model(self) -> None: ...

        def log_files(self, *paths: Path) -> None: ...

        def address(self) -> dict[str, str]:
            return {}

    @contextmanager
    def start(*_: object) -> Iterator[Run]:
        yield Run()

    if metric:
        optimise(metric)
    assert run(monkeypatch, "--trials", "1", "--worker") == 0
    monkeypatch.setattr(tracking, "start", start)
    train.main()
    expected = min(float(line.split(",")[2]) for line in artifacts.LEARNING_CURVE.read_text().splitlines()[1:])
    if metric:
        schema, val = decision.schema(), artifacts.read_parquet(artifacts.VAL)
        outputs = evaluate.predict(torch.export.load(artifacts.MODEL).module(), val, schema)
        actual, predicted = features.encode_target(val["top"], schema).numpy(), features.decide(outputs, schema)
        known = metrics.of("binary", schema["target"]["classes"], params.load().value)
        expected = known[metric].score(actual, outputs, predicted)
    (trial,) = study().trials
    assert trial.user_attrs["values"] == {"model.width": 8, "model.dropout": 0.1, "train.learning_rate": 0.002}
    assert trial.value == pytest.approx(expected, rel=1e-5)


def test_another_value_is_another_study_where_a_metric_is_optimised() -> None:
    """Any: the threshold may be chosen by it. The validation loss does not hang on it."""
    for metric, names in (("brier", 2), ("null", 1)):
        found = set()
        for decisions in (400, 500):
            optimise(metric, decisions)
            found.add(studies.study_name(params.load()))
        assert len(found) == names


def test_a_study_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIALS", "2")
    assert run(monkeypatch, "--worker") == 0
    assert run(monkeypatch, "--worker", "--trials", "4") == 0
    assert run(monkeypatch, "--worker", "--trials", "3") == 0
    trials = study().trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert sum(studies.values_of(trial) == studies.present(params.load()) for trial in trials) == 1


def test_trials_of_another_study_are_not_mixed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another split, space, metric or setting that is not searched makes another study; a searched setting does not."""
    settings = params.load()
    name = studies.study_name(settings)
    names = {name}
    assert studies.study_name(studies.with_values(settings, {"model.width": 16, "train.device": "cpu"})) == name
    assert studies.study_name(studies.with_values(settings, {"train.epochs": 5})) != name
    values = settings.model_dump()
    values["tune"]["space"]["model.width"]["high"] = 64
    assert studies.study_name(Settings.model_validate(values)) != name
    values = settings.model_dump()
    for metric in ("brier", "roc_auc"):
        values["tune"]["metric"] = metric
        names.add(studies.study_name(Settings.model_validate(values)))
    assert len(names) == 3
    shutil.copy(artifacts.VAL, artifacts.TRAIN)
    assert studies.study_name(settings) != name


@pytest.mark.parametrize("metric", [None, "roc_auc", "brier"])
def test_a_training_that_falls_behind_is_pruned(metric: str | None) -> None:
    if metric:
        optimise(metric)
    settings, made = params.load(), study()
    for rate in (0.011, 0.012, 0.013, 0.014, 0.00001):
        made.enqueue_trial({**studies.present(settings), "train.learning_rate": rate})
    made.optimize(studies.Trainer(settings).objective, n_trials=6)
    *_, last = made.trials
    assert last.state == TrialState.PRUNED
    assert last.last_step < settings.train.epochs
    assert f"pruned in epoch {last.last_step}" in tune._line(last)


def test_a_training_that_diverges_counts_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, made = params.load(), study()
    fit = train.fit_model

    def explode(settings: Settings, *others: Any) -> Any:
        return fit(studies.with_values(settings, {"train.learning_rate": 1e30}), *others)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "fit_model", explode)
    trainer = studies.Trainer(settings)
    assert tune.search(made, trainer, 2)
    assert {trial.state for trial in made.trials} == {TrialState.PRUNED}
    assert "the loss became" in made.trials[0].user_attrs["no_score"]
    assert "no score (the loss became" in tune._line(made.trials[0])
    with pytest.raises(ProjectError, match=r"no trial has a score \(the loss became"):
        tune.compare(made, settings, trainer)


@pytest.mark.parametrize(("better", "width"), [("higher", 32), ("lower", 4)])
def test_a_projects_own_metric_is_tunable_by_its_name(better: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is the width, which the validation loss, the same for all, says nothing of."""

    def fit(settings: Settings, splits: Any, checkpoint: Path, callback: Any) -> tuple[Any, list[dict[str, float]]]:
        entry = {"epoch": 1.0, "train_loss": 0.5, "val_loss": 0.5}
        callback.log(entry)
        return settings.model.width + settings.train.seed % 3 / 100, [entry]

    actual = np.array([0, 1])
    monkeypatch.setattr(train, "fit_model", fit)
    monkeypatch.setattr(train, "predict", lambda model, splits, rows: (actual, np.full((2, 2), model), actual))
    own = metrics.Metric(lambda actual, outputs, predicted: float(outputs.mean()), better)
    monkeypatch.setitem(metrics.METRICS["binary"], "mean_output", own)
    monkeypatch.setitem(Settings.metrics["binary"], "mean_output", better)
    optimise("mean_output")

    study().enqueue_trial({"model.width": width, "model.dropout": 0.1, "train.learning_rate": 0.002})
    assert run(monkeypatch, "--trials", "12") == 0
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    assert (report["objective"], report["direction"][:3]) == ("mean_output", "max" if better == "higher" else "min")
    assert report["verdict"].startswith("Better: mean_output ")
    assert report["comparison"]["best"]["values"]["model.width"] == width
    for trial in report["trials"]:
        assert round(trial["score"]) == trial["values"]["model.width"]
    assert params.load().model.width == width  # type: ignore[attr-defined]
    page = artifacts.TUNE_HTML.read_text()
    assert "mean_output" in page and "validation loss" not in page


def test_a_metric_that_is_never_defined_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    undefined = metrics.Metric(lambda actual, outputs, predicted: math.nan, "lower")
    monkeypatch.setitem(metrics.METRICS["binary"], "brier", undefined)
    optimise("brier")
    with pytest.raises(ProjectError, match=r"no trial has a score \(the validation rows do not define brier: raise"):
        run(monkeypatch, "--trials", "2")


def test_the_best_set_is_written_with_every_comment_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(settings: Settings) -> float:
        distance = abs(math.log(settings.model.width / 24)) + abs(settings.train.learning_rate - 0.01)
        return distance + settings.train.seed % 3 / 1000

    scored(monkeypatch, loss)
    # The search draws without a seed, so the best set is given to it.
    found = {"model.width": 24, "model.dropout": 0.25, "train.learning_rate": 0.01}
    study().enqueue_trial(found)
    assert run(monkeypatch, "--trials", "12") == 0
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    best = report["comparison"]["best"]
    assert report["comparison"]["better"] and report["finished"] == 12 and report["importances"]
    assert (report["objective"], report["direction"]) == ("validation loss", "minimize")
    assert best["values"] == found
    assert len(best["scores"]) == 3 and best["mean"] < report["comparison"]["present"]["mean"]
    expected = PARAMS.replace("width: 8                    # units", "width: 24                   # units")
    expected = expected.replace("dropout: 0.1", "dropout: 0.25").replace("learning_rate: 0.002", "learning_rate: 0.01")
    assert artifacts.PARAMS.read_text() == expected
    assert artifacts.TUNE_HTML.read_text().count("<img ") == 2 + 3

    # What is written is the present set of the same study then, and not trained again in it. MLflow hears of it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert logged_study.finished(params.load()) == 0
    assert run(monkeypatch, "--trials", "12") == 0
    assert artifacts.read_json(artifacts.TUNE, "make tune")["comparison"]["better"] is False
    assert artifacts.PARAMS.read_text() == expected
    assert logged_study.finished(params.load()) == 12


def noise(settings: Any) -> float:
    """Return a number that depends on the seed and the width, as if the rows' and the seed's luck did."""
    return float(np.random.default_rng([settings.train.seed, settings.model.width]).normal())


@pytest.mark.parametrize(("gain", "better"), [(0.0, False), (0.3, False), (3.0, True)])
def test_a_set_that_is_better_where_it_was_chosen_is_written_if_it_is_so_on_rows_that_did_not_choose(
    gain: float, better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen_by(settings: Settings) -> float:
        return 5.0 if settings.model.width == 8 else 0.1

    def held_out(settings: Settings) -> float:
        return 5 + noise(settings) - gain * (settings.model.width != 8)

    scored(monkeypatch, chosen_by, held_out)
    assert run(monkeypatch, "--trials", "5") == 0
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    judged = report["comparison"]["judged"]
    assert report["comparison"]["best"]["mean"] < report["comparison"]["present"]["mean"]
    assert report["comparison"]["better"] is judged["better"] is better
    assert (judged["bound"] > 0) is (judged["p_value"] < 0.05) is better
    assert len(judged["present"]) == len(judged["best"]) == len(set(judged["seeds"])) == judge.REPEATS >= 5
    assert not {*judged["seeds"]} & {*report["comparison"]["seeds"], params.load().train.seed}
    assert (artifacts.PARAMS.read_text() != PARAMS) is better
    if not better:
        assert "No improvement" in report["verdict"] and "which may be chance (95 % bound " in report["verdict"]
    assert "held out of training" in artifacts.TUNE_HTML.read_text()


def test_where_the_present_set_is_the_best_nothing_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_held_out(settings: Settings) -> float:
        raise AssertionError

    scored(monkeypatch, lambda settings: 0.1 if settings.model.width == 8 else 0.2, none_held_out)
    assert run(monkeypatch, "--trials", "5") == 0
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    assert report["comparison"]["judged"] is None and report["comparison"]["better"] is False
    assert report["verdict"].startswith("No improvement")


@pytest.mark.parametrize(("without", "better"), [("present", True), ("best", False)])
def test_a_set_without_a_score_on_held_out_rows_is_the_worse_one(
    without: str, better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held_out(settings: Settings) -> float:
        if (settings.model.width == 8) == (without == "present"):
            raise studies.NoScore("the loss became nan")
        return 0.3

    scored(monkeypatch, lambda settings: 0.5 if settings.model.width == 8 else 0.1, held_out)
    assert run(monkeypatch, "--trials", "5") == 0
    report = artifacts.read_json(artifacts.TUNE, "make tune")
    assert report["comparison"]["better"] is better
    assert "had no score" in report["verdict"] and "no score" in artifacts.TUNE_HTML.read_text()


@pytest.mark.parametrize("metric", [None, "roc_auc"])
def test_both_sets_are_scored_on_the_same_rows_which_neither_has_seen(
    metric: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if metric:
        optimise(metric)
    seen: list[tuple[Any, ...]] = []
    fit, hold_out = train.fit_model, train.hold_out

    def spy_hold_out(splits: Any, fraction: float, seed: int) -> Any:
        rest, rows = hold_out(splits, fraction, seed)
        seen.append((seed, rest, rows))
        return rest, rows

    def spy_fit(settings: Settings, splits: Any, *others: Any) -> Any:
        assert splits is seen[-1][1] and settings.train.seed == seen[-1][0]
        return fit(settings, splits, *others)

    monkeypatch.setattr(train, "hold_out", spy_hold_out)
    monkeypatch.setattr(train, "fit_model", spy_fit)
    monkeypatch.setattr(judge, "REPEATS", 2)
    settings = params.load()
    now = studies.present(settings)
    result = judge.judge(settings, studies.Trainer(settings), now, {**now, "model.width": 16}, first=4)
    assert [seed for seed, *_ in seen] == [seed for seed in result["seeds"] for _ in range(2)]
    for (_, _, rows), (_, _, others) in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(rows.target, others.target)
    assert not np.array_equal(*(next(seen[at][2].parts(50)).numbers.nan_to_num() for at in (0, 2)))
    assert result["held_out"] == pytest.approx(judge.HELD_OUT, abs=0.01)
    for score in (*result["present"], *result["best"]):
        assert 0 < score < (1 if metric else 2)
    better = 1 if metric else -1
    pairs = zip(result["present"], result["best"], strict=True)
    assert result["difference"] == pytest.approx(np.mean([better * (new - old) for old, new in pairs]))


def test_a_set_without_a_score_from_another_seed_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(settings: Settings) -> float:
        if settings.model.width != 8 and settings.train.seed > 2 * studies.APART:
            raise studies.NoScore("the loss became nan")
        return 0.5 if settings.model.width == 8 else 0.1

    scored(monkeypatch, loss)
    assert run(monkeypatch, "--trials", "5") == 0
    assert artifacts.PARAMS.read_text() == PARAMS
    assert "no score" in artifacts.TUNE_HTML.read_text()


def test_ctrl_c_keeps_what_is_done_and_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def loss(settings: Settings) -> float:
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
    changed = studies.with_values(settings, {"model.width": 128, "train.learning_rate": 1e-5})
    report.write_params(changed)
    assert params.load() == changed
    pairs = zip(text.splitlines(), artifacts.PARAMS.read_text().splitlines(), strict=True)
    differ = [(old, new) for old, new in pairs if old != new]
    assert len(differ) == 2
    for old, new in differ:
        assert old.partition("#")[2] == new.partition("#")[2]
        assert "#" not in old or new.index("#") == old.index("#")
    report.write_params(settings)
    assert params.load() == settings


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("width: 8  ", "<<: {width: 8}  ", "tune.space names model.width, which the file does not set"),
        ("8                    # units\n  depth: 1", "&eight 8\n  depth: *eight", "by a reference"),
    ],
)
def test_a_file_that_cannot_be_edited_stays_as_it_was(old: str, new: str, named: str) -> None:
    text = PARAMS.replace(old, new)
    assert text != PARAMS
    artifacts.PARAMS.write_text(text)
    settings = params.load()
    with pytest.raises(ProjectError, match=named):
        report.write_params(studies.with_values(settings, {"model.width": 16, "model.depth": 1}))
    assert artifacts.PARAMS.read_text() == text


def test_a_present_value_outside_the_space_is_named() -> None:
    artifacts.PARAMS.write_text(PARAMS.replace("width: 8 ", "width: 999 "))
    with pytest.raises(ProjectError, match=r"tune\.space\.model\.width does not contain the present value 999"):
        study()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.VAL.unlink()
    with pytest.raises(ProjectError, match=r"val\.parquet is missing: run `make pipeline` first"):
        run(monkeypatch)
    values = yaml.safe_load(PARAMS)
    values["tune"]["space"] = {}
    artifacts.PARAMS.write_text(yaml.safe_dump(values))
    with pytest.raises(ProjectError, match=r"tune\.space is empty"):
        run(monkeypatch)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("a secret", "TUNE_STORAGE is not an address such as postgresql://"),
        ("postgresql://user:a%20secret@127.0.0.1:1/tune", r"user:\*\*\*@127\.0\.0\.1:1/tune cannot be used"),
        ("nothing://user:a%20secret@host/tune", "cannot be used: Can't load plugin"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(
    address: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_STORAGE", address)
    monkeypatch.setattr(tune.time, "sleep", lambda seconds: None)
    with pytest.raises(ProjectError, match=named) as error:
        study()
    assert "secret" not in str(error.value)


def test_no_stage_reads_the_settings_of_tuning() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    read = {name for stage in stages.values() for name in stage["params"]}
    assert "model" in read
    assert "tune" not in read
