"""The measures of `make explore`: association with the target, drift between splits, rows that are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gitops.exploration import drift, profiles, redundant, repetition, tables, targets
from gitops.exploration.tables import Split
from gitops.exploration.targets import Target
from scipy.stats import ks_2samp
from sklearn.metrics import mutual_info_score


def split(path: Path, columns: dict[str, Any], name: str = "train", group: int = 64) -> Split:
    """Write columns in several row groups, and return them as a split."""
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return Split(name, path)


def of_classes(codes: Any, classes: int = 2) -> Target:
    return Target("y", [str(at) for at in range(classes)], np.asarray(codes), None)


@pytest.fixture
def dice() -> np.random.Generator:
    return np.random.default_rng(5)


def test_association_is_one_for_the_target_itself_and_about_zero_for_noise(dice: np.random.Generator) -> None:
    codes = dice.integers(0, 2, 5000)
    assert targets.association(codes, 2, of_classes(codes)) == pytest.approx(1, abs=0.001)
    values = Target("y", [], None, codes.astype(float))
    assert targets.association(codes, 2, values) == pytest.approx(1, abs=0.001)
    for target in (of_classes(codes), values):
        noise = [targets.association(dice.integers(0, 500, 5000), 500, target) for _ in range(50)]
        assert np.mean(noise) < 0.01  # without its correction 0.07 and 0.1


def test_association_is_the_mutual_information_over_the_entropy(dice: np.random.Generator) -> None:
    codes = dice.integers(0, 3, 100_000)
    bins = np.where(dice.random(100_000) < 0.5, codes, dice.integers(0, 3, 100_000))
    wanted = mutual_info_score(codes, bins) / mutual_info_score(codes, codes)
    assert targets.association(bins, 3, of_classes(codes, 3)) == pytest.approx(wanted, abs=1e-3)


def test_association_with_a_number_is_the_variance_between_bins(dice: np.random.Generator) -> None:
    bins = dice.integers(0, 4, 100_000)
    values = bins + dice.normal(size=100_000)
    between = np.var([0, 1, 2, 3])
    target = Target("y", [], None, values)
    assert targets.association(bins, 4, target) == pytest.approx(between / (between + 1), abs=0.01)


def test_association_with_a_constant_or_nothing_is_none() -> None:
    assert targets.association(np.array([0, 1, 0]), 2, of_classes([1, 1, 1])) is None
    assert targets.association(np.array([0, 1, 0]), 2, of_classes([-1, -1, -1])) is None
    assert targets.association(np.array([0, 1, 0]), 2, Target("y", [], None, np.full(3, np.nan))) is None


def test_rows_without_a_target_do_not_count(dice: np.random.Generator) -> None:
    bins, codes = dice.integers(0, 3, 1000), dice.integers(0, 2, 1000)
    lost = dice.random(1000) < 0.3
    some = of_classes(np.where(lost, -1, codes))
    assert targets.association(bins, 3, some) == targets.association(bins[~lost], 3, of_classes(codes[~lost]))
    assert np.sum(targets.by_bin(bins, 3, some)) == 1000 - lost.sum()


def test_quartiles_by_bin(dice: np.random.Generator) -> None:
    bins, values = dice.integers(0, 3, 1000), dice.normal(size=1000)
    found = targets.by_bin(bins, 4, Target("y", [], None, values))
    for at in range(3):
        assert found[at] == pytest.approx(np.quantile(values[bins == at], [0.25, 0.5, 0.75]))
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize("sizes", [(500, 300), (300, 500), (1, 7)])
def test_drift_of_numbers_is_that_of_kolmogorov_and_smirnov(dice: np.random.Generator, sizes: tuple[int, int]) -> None:
    """With many equal values, too."""
    for shift in (0, 0.5, 9):
        first, second = dice.normal(size=sizes[0]).round(1), (dice.normal(size=sizes[1]) + shift).round(1)
        found = drift.kolmogorov_smirnov(np.sort(first), np.sort(second))
        assert found == pytest.approx(ks_2samp(first, second).statistic)


def test_drift_of_categories() -> None:
    same = {"a": 600, "b": 400}
    assert drift.cramers_v(same, {"a": 60, "b": 40}) == 0
    assert drift.cramers_v(same, {"c": 100}) == pytest.approx(1, abs=0.01)
    assert 0.2 < drift.cramers_v(same, {"a": 300, "b": 700}) < 0.4


def test_chance_alone_is_seldom_beyond_its_limit(dice: np.random.Generator) -> None:
    """In 2,000 pairs without drift, at a level of 0.05: the statistic's own is never larger."""
    beyond = {"numbers": 0, "categories": 0}
    for _ in range(2000):
        first, second = np.sort(dice.normal(size=200)), np.sort(dice.normal(size=80))
        beyond["numbers"] += drift.kolmogorov_smirnov(first, second) > drift.by_chance(200, 80, None, 0.05)
        counts = [
            {str(name): int(count) for name, count in enumerate(dice.multinomial(rows, [0.4, 0.3, 0.2, 0.1])) if count}
            for rows in (200, 80)
        ]
        beyond["categories"] += drift.cramers_v(*counts) > drift.by_chance(200, 80, 4, 0.05)
    assert all(count < 0.065 * 2000 for count in beyond.values()), beyond
    assert drift.by_chance(0, 10, None, 0.05) == 1


def test_a_number_is_counted_exactly(tmp_path: Path, dice: np.random.Generator) -> None:
    values = np.where(dice.random(1000) < 0.1, np.nan, dice.normal(size=1000))
    other = split(tmp_path / "b.parquet", {"x": dice.normal(size=300)}, "test")
    found = profiles.of("x", [split(tmp_path / "a.parquet", {"x": pa.array(values)}), other], None, 0.01)
    known = values[~np.isnan(values)]
    assert found.missing == {"train": int(np.isnan(values).sum()), "test": 0}
    assert (found.distinct, sum(found.counts["train"]), sum(found.counts["test"])) == (len(known), len(known), 300)
    assert found.statistics["min"] == known.min() and found.statistics["max"] == known.max()
    assert found.drift["test"] == pytest.approx(ks_2samp(known, other.column("x").to_numpy()).statistic)


def test_bins_hold_the_rows_that_their_labels_say(tmp_path: Path, dice: np.random.Generator) -> None:
    """Also where most values are the same, where there are few, and where the target or the feature is missing."""
    columns = {
        "skewed": np.where(dice.random(1000) < 0.85, 0.0, dice.exponential(size=1000)),
        "capped": np.minimum(dice.normal(size=1000), -1.5),
        "few": dice.integers(1, 4, 1000).astype(float),
        "one": np.ones(1000),
        "none": pa.array([None] * 1000, pa.float64()),
        "gaps": pa.array(np.where(dice.random(1000) < 0.5, np.nan, dice.normal(size=1000)), from_pandas=True),
    }
    table, target = split(tmp_path / "a.parquet", columns), of_classes(dice.integers(-1, 2, 1000))
    found = {name: profiles.of(name, [table], target, 0.01) for name in columns}
    assert [(label, rows) for label, rows, _ in found["one"].bins] == [("1", 1000)]
    assert [label for label, *_ in found["few"].bins] == ["1", "2", "3"]
    assert found["none"].bins == [] and found["none"].missing == {"train": 1000}
    assert found["gaps"].bins[-1][0] == profiles.MISSING and len(found["gaps"].bins) == profiles.BINS + 1
    assert found["gaps"].bins[-1][1] == found["gaps"].missing["train"]
    zero = [rows for label, rows, _ in found["skewed"].bins if label == "≤ 0"]
    assert zero == [int((columns["skewed"] == 0).sum())]
    assert [rows for _, rows, _ in found["capped"].bins][-1] == int((columns["capped"] == -1.5).sum())
    for name in ("skewed", "capped", "few", "one", "gaps"):
        assert sum(rows for _, rows, _ in found[name].bins) == 1000
        assert all(rows for _, rows, _ in found[name].bins)


def test_rare_categories_are_one_bar_and_all_count(tmp_path: Path, dice: np.random.Generator) -> None:
    codes = dice.integers(0, 40, 4000)
    texts = [f"text {code}" for code in codes]
    other = split(tmp_path / "b.parquet", {"c": ["text 1", "new", None] * 20}, "test")
    found = profiles.of("c", [split(tmp_path / "a.parquet", {"c": texts}), other], of_classes(codes % 2), 0.01)
    assert found.distinct == 40 and len(found.labels) == profiles.BINS and found.labels[-1] == profiles.OTHER
    assert sum(found.counts["train"]) == 4000 and sum(found.counts["test"]) == 40
    assert found.association == pytest.approx(1, abs=0.01)  # each text decides; the ten bars would not
    assert found.new == {"test": 20}


def test_booleans_and_dates(tmp_path: Path) -> None:
    times = pd.to_datetime(["2026-01-01", None, "2026-03-01T12:30:00"], utc=True, format="ISO8601").as_unit("us")
    table = split(tmp_path / "a.parquet", {"b": [True, None, False], "t": pa.array(times)})
    flag, moment = (profiles.of(name, [table], of_classes([0, 1, 1]), 0.01) for name in ("b", "t"))
    assert flag.dtype == "boolean" and sorted(flag.labels) == ["false", "true"] and flag.missing == {"train": 1}
    assert moment.dtype == "datetime" and moment.labels == ["2026-01-01", "2026-03-01 12:30"]


def test_equal_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is there three times repeats twice; rows of two targets conflict, all of them."""
    columns = {
        "a": [1.0, 1.0, 1.0, 2.0, 3.0, None],
        "b": ["x", "x", "x", "x", None, None],
        "y": [*"ppqppp"],
    }
    other = {"a": [1.0, 9.0, None], "b": ["x", "x", None], "y": ["p", "p", "p"]}
    splits = [split(tmp_path / "a.parquet", columns, group=2), split(tmp_path / "b.parquet", other, "test")]
    monkeypatch.setattr(tables, "PART", 48)  # two rows at a time
    found = repetition.count(splits, ["a", "b"], "y")
    assert found["train"] == repetition.Repetition(repeated=2, conflicting=3, shared=None)
    assert found["test"] == repetition.Repetition(repeated=0, conflicting=0, shared=2)


def test_a_sample_is_drawn_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PART", 1600)  # a hundred rows of two columns at a time
    table = split(tmp_path / "a.parquet", {"x": np.arange(1000.0), "c": [str(at) for at in range(1000)]})
    some = table.sample(["c", "x"], 100)
    assert len(some) == 100 and some["x"].is_monotonic_increasing and some["x"].is_unique
    assert (some["c"].astype(float) == some["x"]).all() and some.equals(table.sample(["c", "x"], 100))
    assert len(table.sample(["x"], 5000)) == 1000


def test_columns_that_say_the_same(tmp_path: Path, dice: np.random.Generator) -> None:
    x = dice.normal(size=500)
    columns = {"x": x, "cube": x**3, "other": dice.normal(size=500), "minus": -x, "constant": np.ones(500)}
    table = split(tmp_path / "a.parquet", columns)
    assert redundant.groups(table, [*columns]) == [["x", "cube", "minus"]]
