"""What is reported of a model: metrics with intervals, slices, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TARGETS, VALUES, prepared, settings
from project import evaluate, features, metrics

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.tabular import in_parts


def evaluated(task: str, path: Path, evaluate_: dict[str, Any] | None = None, **data: Any) -> tuple[Any, Any]:
    """Return the contents of metrics.json for random outputs, and the test split; `data` are settings."""
    splits, schema = prepared(task, **data)
    artifacts.write_parquet(artifacts.TEST, splits["test"])
    artifacts.write_text(artifacts.MODEL, "a model")
    classes, rows = schema["target"]["classes"], len(splits["test"])
    rng = np.random.default_rng(0)
    outputs = rng.dirichlet(np.ones(len(classes)), rows) if classes else rng.normal(size=rows)
    chosen = settings(task, data=data, evaluate=evaluate_ or {})
    result = evaluate.evaluate(chosen, schema, splits["test"], outputs)
    table = evaluate.prediction_table(splits["test"], outputs, "test", schema)
    assert [*table] == ["row", "split", "target", "prediction", *(f"p_{name}" for name in classes)]
    return result, splits["test"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", TARGETS)
def test_metrics_have_intervals_also_in_slices(task: str, folder: Path) -> None:
    result, test = evaluated(task, folder, slices=["colour", "member"])
    assert [*result["metrics"]] == [*metrics.METRICS[task]]
    for score in result["metrics"].values():
        assert score["low"] < score["value"] < score["high"]
    assert result["rows"] == result["groups"] == len(test)
    assert [*result["slices"]] == ["colour", "member"]
    assert {*result["slices"]["colour"]} == {*test["colour"].fillna("(missing)")}
    for values in result["slices"].values():
        assert sum(part["rows"] for part in values.values()) == len(test)
        for part in values.values():
            assert (part["metrics"] is None) == (part["rows"] < 30)
            for name, score in (part["metrics"] or {}).items():
                whole = result["metrics"][name]
                assert score["low"] < score["value"] < score["high"]
                assert score["high"] - score["low"] > whole["high"] - whole["low"] or name == "r2"


@pytest.mark.parametrize("task", TARGETS)
def test_what_answers_are_worth_is_a_metric_and_compared_with_today(task: str, folder: Path) -> None:
    splits, schema = prepared(task, slices=["member"])
    artifacts.write_parquet(artifacts.TEST, splits["test"])
    artifacts.write_text(artifacts.MODEL, "a model")
    actual = features.encode_target(splits["test"][TARGETS[task]], schema).numpy()
    outputs = (
        np.eye(len(schema["target"]["classes"]))[actual]
        if task != "regression"
        else actual + 0.01 * np.resize([1, -2], len(actual))
    )
    result = evaluate.evaluate(settings(task, value=VALUES[task]), schema, splits["test"], outputs)
    score, value = result["metrics"]["expected_value"], result["value"]
    assert {*value} == {"unit", "decisions", "running_cost", "model", "today", "gain"}
    assert value["model"] == {key: score[key] for key in ("value", "low", "high")}
    assert value["gain"]["value"] == pytest.approx(score["value"] - value["today"]["value"])
    assert value["gain"]["low"] < value["gain"]["value"] <= value["gain"]["high"]
    assert value["gain"]["value"] > 0 > value["today"]["value"] or task == "multiclass"
    for part in result["slices"]["member"].values():
        assert part["metrics"] is None or "expected_value" in part["metrics"]
    assert "value" not in evaluate.evaluate(settings(task), schema, splits["test"], outputs)


def test_slices_below_the_least_size_have_rows_alone(folder: Path) -> None:
    result, _ = evaluated("binary", folder, {"min_slice_rows": 40}, slices=["colour"])
    sizes = {value: part["rows"] for value, part in result["slices"]["colour"].items()}
    assert min(sizes.values()) < 40
    assert {value for value, part in result["slices"]["colour"].items() if part["metrics"] is None} == {
        value for value, rows in sizes.items() if rows < 40
    }


def test_a_column_that_the_model_does_not_see_has_slices(folder: Path) -> None:
    others = ["value", "top", "colour"]
    splits, schema = prepared("multiclass", drop=others, slices=["colour"])
    assert "colour" not in {feature["name"] for feature in schema["features"]} and schema["slices"] == ["colour"]
    assert "colour" in splits["test"]
    result, test = evaluated("multiclass", folder, drop=others, slices=["colour"])
    assert sum(part["rows"] for part in result["slices"]["colour"].values()) == len(test)


def test_rows_of_a_group_count_once(folder: Path) -> None:
    """Ten rows of an id each, all alike: the interval is as wide as that of a tenth of the rows, or wider."""
    splits, schema = prepared("regression")
    test = splits["test"]
    artifacts.write_parquet(artifacts.TEST, test)
    artifacts.write_text(artifacts.MODEL, "a model")
    outputs = np.random.default_rng(0).normal(size=len(test))
    alone = evaluate.evaluate(settings("regression"), schema, test, outputs)
    repeated = test.loc[test.index.repeat(10)]
    together = evaluate.evaluate(settings("regression"), schema, repeated, outputs.repeat(10))
    assert together["rows"] == 10 * together["groups"] == 10 * len(test)
    for name, score in together["metrics"].items():
        assert score["high"] - score["low"] == pytest.approx(
            alone["metrics"][name]["high"] - alone["metrics"][name]["low"], rel=0.05
        )


class Halves(torch.nn.Module):
    """A model whose probabilities hang on each row alone."""

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of both classes."""
        first = torch.sigmoid(numbers.nan_to_num().sum(dim=1, keepdim=True))
        return torch.cat([first, 1 - first], dim=1)


def test_a_split_is_predicted_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few bytes, here; the predictions and the file are those of all rows at once."""
    splits, schema = prepared("binary")
    for name, path in (("train", artifacts.TRAIN), ("test", artifacts.TEST)):
        artifacts.write_parquet(path, splits[name])
    expected = [
        evaluate.prediction_table(splits[name], evaluate.predict(Halves(), splits[name], schema), name, schema)
        for name in ("train", "test")
    ]
    seen = []
    predict = evaluate.predict
    monkeypatch.setattr(
        evaluate, "predict", lambda program, frame, schema: seen.append(len(frame)) or predict(program, frame, schema)
    )
    monkeypatch.setattr(in_parts, "PART", 8 * 10 * len(splits["test"].columns))
    monkeypatch.setattr(evaluate, "BATCH_BYTES", 8 * 3 * len(schema["features"]))
    with in_parts.writing(artifacts.PREDICTIONS) as write:
        for path in (artifacts.TRAIN, artifacts.TEST):
            outputs = evaluate.predict_split(Halves(), path, schema, write)
    assert max(seen) == 10 and len(seen) >= (len(splits["train"]) + len(splits["test"])) / 10
    pd.testing.assert_frame_equal(artifacts.read_parquet(artifacts.PREDICTIONS), pd.concat(expected, ignore_index=True))
    assert outputs == pytest.approx(predict(Halves(), splits["test"], schema))


def test_a_value_and_a_missing_one_of_the_same_name_are_one_slice() -> None:
    frame = pd.DataFrame({"colour": ["red", None, "(missing)", "blue", "red"]})
    found = {value: rows.tolist() for _, value, rows in evaluate.slices_of(frame, {"slices": ["colour"]})}
    assert found == {
        "(missing)": [False, True, True, False, False],
        "blue": [False, False, False, True, False],
        "red": [True, False, False, False, True],
    }


def test_rows_that_do_not_define_a_metric_are_an_error(folder: Path) -> None:
    splits, schema = prepared("binary")
    test = splits["test"][splits["test"]["top"] == "no"]
    outputs = np.tile([0.4, 0.6], (len(test), 1))
    with pytest.raises(ProjectError, match=r"do not define roc_auc, pr_auc"):
        evaluate.evaluate(settings("binary"), schema, test, outputs)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("size", "'size', a number: a categorical or boolean column is needed"),
        ("since", "'since', a datetime"),
        ("top", "'top', which is the target"),
        ("weight", "'weight', which table.parquet lacks"),
    ],
)
def test_a_slice_by_no_category_is_refused(column: str, message: str) -> None:
    with pytest.raises(ProjectError, match=rf"data\.slices names {message}"):
        prepared("binary", slices=[column])
