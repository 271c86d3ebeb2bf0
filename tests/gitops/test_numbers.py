"""Statistics of the training rows' numbers, against NumPy's and PyTorch's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_table
import torch
import tuning
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.tabular import numbers, streamed
from table_cases import settings

RNG = np.random.default_rng(0)
GAPS = np.where(RNG.random(1501) < 0.2, np.nan, RNG.normal(size=1501).round(1))

COLUMNS = {
    "normal": RNG.normal(size=1500),
    "odd": RNG.normal(size=1501),
    "ties": RNG.integers(0, 5, 1500).astype(float),
    "gaps": GAPS,
    "one": np.array([3.0]),
    "two": np.array([3.0, 4.0]),
    "one known": np.array([np.nan, -2.5, np.nan]),
    "constant": np.full(77, 1.25),
    "signs": np.array([0.0, -0.0, np.nan, 1.0, -1.0]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_each_statistic(name: str) -> None:
    """The median is PyTorch's of the known values; the others are of these and the median for each missing one."""
    column = COLUMNS[name]
    found = numbers.describe([(name, column)])
    median = torch.from_numpy(column).nanquantile(0.5).item()
    assert found.median[0] == median
    filled = np.where(np.isnan(column), median, column)
    assert found.mean[0] == pytest.approx(filled.mean(), abs=1e-15)
    assert found.std[0] == pytest.approx(filled.std(), abs=1e-15)
    wanted = np.arange(numbers.LEVELS + 1) / numbers.LEVELS * (len(filled) - 1)
    ranked = np.array(sorted(filled))
    assert found.quantiles[0].tolist() == [ranked[round(rank)] for rank in wanted]


def test_a_column_without_a_value_counts_as_zeros() -> None:
    found = numbers.describe([("empty", np.full(5, np.nan))])
    assert (found.median[0], found.mean[0], found.std[0]) == (0, 0, 0) and not found.quantiles.any()


def test_columns_come_one_by_one_and_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "numbers.parquet"
    numbers.write(path, numbers.describe(COLUMNS.items()))
    again = numbers.read(path)
    assert again.names == [*COLUMNS] and again.quantiles.shape == (len(COLUMNS), numbers.LEVELS + 1)
    two = again.of(["ties", "one"])
    assert two.names == ["ties", "one"] and two.median.tolist() == [np.median(COLUMNS["ties"]), 3]
    assert two.quantiles[1].tolist() == [3] * (numbers.LEVELS + 1)
    with pytest.raises(ProjectError, match=r"numbers\.parquet lacks the column 'other': run `make pipeline`"):
        again.of(["one", "other"])
    with pytest.raises(ProjectError, match=r"none\.parquet is missing: run `make pipeline` first"):
        numbers.read(tmp_path / "none.parquet")
    numbers.write(path, numbers.describe([]))
    assert numbers.read(path).names == []


@pytest.mark.parametrize(("target", "task"), [("value", "regression"), ("top", "binary")])
def test_those_of_a_split_are_in_the_encoders_units(target: str, task: str, tmp_path: Path) -> None:
    """Dates in seconds, booleans 1 or 0, and a regression's target; categories have none."""
    small_table.write_table(tmp_path / "t.csv")
    others = [name for name in ("value", "grade", "top") if name != target]
    splits, schema = small_table.prepared(settings(tmp_path / "t.csv", target=target, task=task, drop=others))
    flags = pd.array([True, None, False, True] * 400, dtype="boolean")
    train = splits["train"].assign(flag=flags[: len(splits["train"])])
    schema["features"].append({"name": "flag", "dtype": "boolean"})
    found = numbers.of_split(streamed.held(train), schema)
    assert found.names == ["size", "since", "flag", *(["value"] if task == "regression" else [])]
    seconds = train["since"].map(pd.Timestamp.timestamp)
    assert found.median[1] == np.median(seconds)
    assert found.quantiles[1][[0, -1]].tolist() == [seconds.min(), seconds.max()]
    assert found.median[2] == 1 and {*found.quantiles[2]} == {0, 1}
    if task == "regression":
        assert found.mean[3] == pytest.approx(train["value"].mean())
        assert found.std[3] == pytest.approx(train["value"].std(ddof=0))


def test_the_stage_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tuning.make_room()
    schema = artifacts.read_json(artifacts.SCHEMA, "")
    again = numbers.of_split(streamed.held(artifacts.read_parquet(artifacts.TRAIN)), schema)
    found = numbers.read()
    assert found.names == again.names == ["size", "since"]
    for key in ("median", "mean", "std", "quantiles"):
        assert np.array_equal(getattr(found, key), getattr(again, key))
