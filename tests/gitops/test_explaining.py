"""Which columns decide, and over which values: on models of which that is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from breast_cancer import evaluate, features
from breast_cancer.settings import Settings
from conftest import SETTINGS
from gitops.core import artifacts
from gitops.explaining import dependence, explanations, importance
from gitops.explaining.importance import Scorer
from gitops.tabular import arrow, numbers
from gitops.tabular.columns import Columns, Derived

Array = Any


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("sizes", [[1] * 9, [3, 3, 1, 2, 1], [4, 4], [1]])
def test_each_shuffle_gives_each_value_once_to_a_row_of_another_group(sizes: list[int]) -> None:
    groups = rng().permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    found = importance.pairs(groups, 4, rng())
    rows, donors = found.rows.reshape(4, -1), found.donors.reshape(4, -1)
    assert (rows == np.arange(len(groups))).all() and (np.sort(donors) == rows).all()
    assert len(groups) == 1 or (groups[rows] != groups[donors]).all()
    assert len(groups) < 9 or len({*map(tuple, donors)}) == 4


@pytest.mark.parametrize(("groups", "blocks"), [(400, 50), (60, 12), (9, 1)])
def test_values_are_exchanged_within_blocks_of_whole_groups(groups: int, blocks: int) -> None:
    """So that the blocks are independent, of which the interval makes use."""
    group = np.arange(800) % groups
    found = importance.pairs(group, 2, rng())
    assert (found.blocks[found.rows] == found.blocks[found.donors]).all()
    assert {*found.blocks} == {*range(blocks)}
    assert len({*zip(group, found.blocks, strict=True)}) == groups


def negative_mse(actual: Array, outputs: Array) -> float:
    return -float(((actual - outputs) ** 2).mean())


def scored(x: Array, noise: Array, groups: Array, seed: int) -> dict[str, importance.Importance]:
    """Return the importance of columns of which the model 2 * first + second knows the truth but for noise."""
    actual, outputs = 2 * x[:, 0] + x[:, 1] + noise, 2 * x[:, 0] + x[:, 1]
    by = importance.pairs(groups, 3, rng(seed))
    scorer = Scorer(negative_mse, actual, outputs, by)
    shuffled = {
        "first": 2 * x[by.donors, 0] + x[by.rows, 1],
        "second": 2 * x[by.rows, 0] + x[by.donors, 1],
        "unused": outputs[by.rows],
    }
    return {name: scorer.importance(its) for name, its in shuffled.items()}


@pytest.mark.parametrize("groups", [200, 60])
def test_intervals_hold_the_true_importance_as_often_as_they_say(groups: int) -> None:
    """The truth is twice the variance times the squared weight: 8 and 2. 300 repetitions err by 3 % (two sigma)."""
    held = {"first": 0, "second": 0}
    for seed in range(300):
        source, group = rng(seed), np.arange(200) % groups

        def normal(columns: int) -> Array:
            common = source.normal(size=(groups, columns))[group]  # noqa: B023  called within the repetition
            own = source.normal(size=(200, columns))  # noqa: B023
            return common if groups == 200 else np.sqrt(0.5) * (common + own)

        found = scored(normal(2), normal(1)[:, 0], group, seed)
        assert abs(found["unused"].high) + abs(found["unused"].low) < 1e-12
        for name, truth in (("first", 8), ("second", 2)):
            held[name] += found[name].low <= truth <= found[name].high
    assert all(0.9 <= count / 300 <= 0.985 for count in held.values()), held


def test_few_rows_have_a_value_and_what_is_not_defined_has_none() -> None:
    alone = scored(np.ones((1, 2)), np.zeros(1), np.zeros(1), 0)["first"]
    assert alone == importance.Importance(0, 0, 0)
    by = importance.pairs(np.arange(40), 1, rng())
    undefined = Scorer(lambda actual, outputs: np.nan, np.zeros(40), np.zeros(40), by)
    assert np.isnan(undefined.importance(np.zeros(40)).value)


def test_of_many_columns_those_are_tried_that_tell_about_the_outputs() -> None:
    codes = {f"x{index}": rng(index).integers(0, 5, 1000) for index in range(30)}
    outputs = np.stack([codes["x7"] == 2, codes["x7"] != 2], axis=1) + 0.5 * (codes["x3"] % 2)[:, None]
    assert importance.shortlist(codes, outputs, 2) == ["x3", "x7"]
    assert importance.shortlist(codes, outputs[:, 0], 2) == ["x3", "x7"]
    assert importance.shortlist(codes, outputs, 30) == [*codes]


def twins() -> Columns:
    """Two columns that are the same but for a hundredth: rows in which they differ much do not exist."""
    first = torch.from_numpy(rng().normal(size=2000))
    return {"first": first, "second": first + 0.01 * torch.from_numpy(rng(1).normal(size=2000))}


def test_effects_are_those_of_rows_that_exist() -> None:
    """Where the columns disagree this model answers nonsense, which partial dependence would average."""

    def predict(columns: Columns) -> Array:
        first, second = (np.asarray(columns[name]) for name in ("first", "second"))
        return 3 * first + 1000 * (np.abs(first - second) > 1)

    columns = twins()
    quantiles = np.quantile(columns["first"], np.linspace(0, 1, 1025))
    at = dependence.edges(quantiles, 2000)
    x, y = dependence.of_numbers(predict, columns, predict(columns), "first", at)
    assert len(x) == 21 and x[0] == pytest.approx(quantiles[26], abs=0.05)
    assert np.diff(y[:, 0]) == pytest.approx(3 * np.diff(x))
    assert np.interp(columns["first"], x, y[:, 0]).mean() == pytest.approx(predict(columns).mean(), abs=0.1)


def test_edges_are_no_values_of_rows_but_those_that_many_share() -> None:
    values = np.sort(rng().normal(size=400))
    quantiles = values[np.round(np.linspace(0, 399, 1025)).astype(int)]
    at = dependence.edges(quantiles, 400)
    assert len(at) == 21 and not {*at} & {*values}
    assert dependence.edges(np.repeat([1.0, 2.0, 3.0], [500, 500, 25]), 400).tolist() == [1, 2, 3]
    assert dependence.edges(np.ones(1025), 400).tolist() == [1]


def test_values_without_rows_between_them_are_one_bin() -> None:
    columns: Columns = {"x": torch.tensor([0.5, 2.5, 2.6, np.nan, 9.0], dtype=torch.float64)}

    def predict(columns: Columns) -> Array:
        return np.stack([np.nan_to_num(columns["x"]), -np.nan_to_num(columns["x"])], axis=1)

    def curve(*at: float) -> tuple[Array, Array]:
        return dependence.of_numbers(predict, columns, predict(columns), "x", np.array(at))

    x, y = curve(0.0, 1.0, 2.0, 3.0, 4.0)
    assert x.tolist() == [0, 1, 3] and np.diff(y, axis=0) == pytest.approx(np.array([[1, -1], [2, -2]]))
    assert len(curve(5.0, 6.0)[0]) == len(curve(0.5)[0]) == 0


# From here on the whole file, of a table with each dtype and a model that is a formula.

FEATURES = [
    {"name": "size", "dtype": "number"},
    {"name": "noise", "dtype": "number"},
    {"name": "old", "dtype": "boolean"},
    {"name": "when", "dtype": "datetime"},
    {"name": "kind", "dtype": "category", "categories": {"plain": 0.7, "fancy": 0.3}},
    {"name": "squared", "dtype": "number", "derived": ["size"]},
]
SCHEMA = {"task": "binary", "target": {"name": "sold", "classes": ["no", "yes"]}, "features": FEATURES}
DAY = 86_400


class Formula(torch.nn.Module):
    """Probability of yes: by squared, which is derived from size, old, kind and the day, and not by noise."""

    def forward(self, values: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        squared, old, day = values[:, 4], values[:, 2], values[:, 3].nan_to_num() / DAY
        fancy = (categories[:, 0] == features.category_code("fancy")).double()
        yes = torch.sigmoid(2 * squared.nan_to_num() - 2 + old.nan_to_num() + fancy + (day - 50) / 50)
        return torch.stack([1 - yes, yes], dim=1)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The test split of 600 rows, on disk with what `evaluate` has; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(features.DERIVED, "squared", Derived(("size",), lambda size: size**2))
    source, rows = rng(), 600
    frame = pd.DataFrame(
        {
            "size": np.where(source.random(rows) < 0.1, np.nan, source.normal(size=rows)),
            "noise": source.normal(size=rows),
            "old": pd.array(source.random(rows) < 0.5, dtype="boolean"),
            "when": pd.to_datetime(source.integers(0, 100, rows) * DAY, unit="s", utc=True).astype(
                "datetime64[us, UTC]"
            ),
            "kind": np.where(source.random(rows) < 0.7, "plain", "fancy"),
            artifacts.ROW: np.arange(rows),
            artifacts.GROUP: np.arange(rows) // 2,
        }
    )
    frame["squared"] = frame["size"] ** 2
    frame.loc[3, "old"], frame.loc[4, "kind"], frame.loc[5, "when"] = pd.NA, None, pd.NaT
    chance = evaluate.predict(Formula(), frame, SCHEMA)[:, 1]
    frame["sold"] = np.where(source.random(rows) < chance, "yes", "no")
    artifacts.write_parquet(artifacts.TEST, frame)
    columns = arrow.from_frame(frame, SCHEMA)
    known = ((name, np.asarray(columns[name])) for name in ("size", "noise", "old", "when"))
    numbers.write(artifacts.NUMBERS, numbers.describe(known))
    artifacts.MODEL.parent.mkdir()
    artifacts.MODEL.write_bytes(b"model")
    return frame


def explain(**changes: Any) -> dict[str, Any]:
    explanations.write(Settings.model_validate(SETTINGS | changes), SCHEMA, Formula())
    found: dict[str, Any] = json.loads(artifacts.EXPLANATIONS.read_text())
    return found


def test_the_file_has_the_columns_of_the_table_most_important_first(table: pd.DataFrame) -> None:
    found = explain()
    by_name = {feature["name"]: feature for feature in found["features"]}
    names = [*by_name]
    assert names[0] == "size" and names[-1] == "noise" and {*names} == {"size", "noise", "old", "when", "kind"}
    assert by_name["noise"] == {"name": "noise", "importance": 0, "low": 0, "high": 0}
    assert by_name["size"]["low"] > 0.05
    assert all(each["low"] <= each["importance"] <= each["high"] for each in found["features"])
    assert (found["metric"], found["rows"], found["of_rows"], found["repeats"]) == ("roc_auc", 600, 600, 3)
    assert (found["of_columns"], found["model_sha256"]) == (5, artifacts.digest(artifacts.MODEL))
    assert explain() == found


def test_the_file_has_the_answers_over_the_values_of_each_dtype(table: pd.DataFrame) -> None:
    curves = explain()["dependence"]
    assert {curve["of"] for curve in curves.values()} == {"yes"}
    assert curves["kind"]["x"] == ["plain", "fancy"] and curves["old"]["x"] == [False, True]
    assert curves["when"]["x"][0].startswith("1970-01-0") and curves["when"]["x"] == sorted(curves["when"]["x"])
    for name in ("kind", "old", "when"):
        assert curves[name]["y"] == sorted(curves[name]["y"])
    low, middle, high = np.interp([-1.5, 0, 1.5], curves["size"]["x"], curves["size"]["y"])
    assert min(low, high) > middle + 0.2  # the derived feature follows
    assert np.ptp(curves["noise"]["y"]) == 0
    assert not {*curves["size"]["x"]} & {*table["size"]}


def test_a_metric_that_is_better_when_lower_counts_losses_alike(table: pd.DataFrame) -> None:
    gate = SETTINGS["gate"] | {"primary_metric": "brier", "thresholds": {"brier": 1.0}, "guardrail_metrics": {}}
    found = explain(gate=gate)
    assert found["metric"] == "brier" and found["features"][0]["name"] == "size"
    assert found["features"][0]["low"] > 0


def test_a_large_and_wide_table_is_sampled_and_says_so(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "CELLS", 2000)
    monkeypatch.setattr(explanations, "FEWEST", 2)
    calls: list[int] = []
    encode = features.encode

    def counted(columns: Columns, schema: Any) -> Any:
        calls.append(len(columns["size"]))
        return encode(columns, schema)

    monkeypatch.setattr(features, "encode", counted)
    found = explain()
    assert (found["rows"], found["of_rows"], found["repeats"], found["of_columns"]) == (200, 600, 1, 5)
    assert len(found["features"]) == 2 and found["features"][0]["name"] == "size"
    assert sum(calls) * 5 <= 5 * 2000


def test_a_sample_has_whole_groups_and_the_rows_of_the_file(table: pd.DataFrame) -> None:
    total, frame = explanations.sample(artifacts.TEST, 100, rng(1))
    assert total == 600 and len(frame) == 100
    assert {*frame[artifacts.GROUP].value_counts()} == {2}
    assert frame.equals(table.loc[frame[artifacts.ROW], frame.columns].reset_index(drop=True).astype(frame.dtypes))
    assert len(explanations.sample(artifacts.TEST, 1000, rng(1))[1]) == 600


def test_rows_of_one_class_have_no_importance(table: pd.DataFrame) -> None:
    artifacts.write_parquet(artifacts.TEST, table[table["sold"] == "yes"])
    found = explain()
    assert (found["features"], found["dependence"]) == ([], {})
