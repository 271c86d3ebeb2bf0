"""Which rows come together into a split, in random and in chronological splits, and which are left out and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from breast_cancer import prepare
from defaults import complete
from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.sections import Data
from gitops.tabular import groups, keys, split, streamed, table

Prepared = tuple[dict[str, pd.DataFrame], dict[str, Any]]

ROWS = 1000


def data_of(**settings: Any) -> Data:
    return Data(**complete({"data": {"path": "raw.parquet", "target": "y", "task": "binary", **settings}})["data"])


def prepared(frame: pd.DataFrame, appended: tuple[int, ...] = (), **settings: Any) -> Prepared:
    data = data_of(**settings)
    return prepare.prepare(table.of_frame(frame.copy(), data), data, {}, appended)


def people(rows: int = ROWS, seed: int = 0, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "colour": rng.choice([*"abcdefghijkl"], rows)})
    return frame.assign(y=np.where(rng.random(rows) < 0.3, "yes", "no"), **columns)


def repeated(fraction: float = 0.27) -> pd.DataFrame:
    """Return a table of which this fraction repeats another row, as the table of wines does, some with another class.

    Some values are missing.
    """
    frame = people()
    copies = round(ROWS * fraction)
    frame.loc[::9, "x"] = None
    frame.loc[4::27, "colour"] = None
    source = np.random.default_rng(1).integers(0, ROWS - copies, copies)
    frame.loc[ROWS - copies :, ["x", "colour", "y"]] = frame.loc[source, ["x", "colour", "y"]].to_numpy()
    frame.loc[ROWS - 20 :, "y"] = frame.loc[ROWS - 20 :, "y"].map({"yes": "no", "no": "yes"})
    return frame.sample(frac=1, random_state=2, ignore_index=True)


def features(split_: pd.DataFrame) -> set[tuple[str, str]]:
    return {*zip(split_["x"].astype(str), split_["colour"].astype(str), strict=True)}


def shared(splits: dict[str, pd.DataFrame]) -> int:
    """Return how many sets of features are in more than one split."""
    found = [features(part) for part in splits.values()]
    return sum(map(len, found)) - len(set.union(*found))


def splits_of(splits: dict[str, pd.DataFrame]) -> pd.Series[Any]:
    return pd.concat([part.assign(split=name) for name, part in splits.items()]).set_index(ROW)["split"]


def sizes(schema: dict[str, Any]) -> list[int]:
    return [schema["rows"][name] for name in ("train", "val", "test")]


def test_rows_equal_in_all_features_stay_in_one_split() -> None:
    frame = repeated()
    splits, schema = prepared(frame)
    assert shared(splits) == 0
    assert sizes(schema) == pytest.approx([650, 150, 200], abs=15)
    assert schema["rows"]["dropped_duplicates"] == 0
    for part in splits.values():
        assert (part["y"] == "yes").mean() == pytest.approx((frame["y"] == "yes").mean(), abs=0.08)


def test_equal_rows_are_left_out_by_a_setting() -> None:
    frame = repeated()
    splits, schema = prepared(frame, duplicates="drop")
    rows = pd.concat(splits.values())
    assert shared(splits) == 0
    assert schema["rows"]["dropped_duplicates"] == frame.duplicated().sum() > 200
    assert sum(sizes(schema)) + schema["rows"]["dropped_duplicates"] == schema["rows"]["raw"] == ROWS
    assert set(rows[ROW]) == set(frame.index[~frame.duplicated()])  # the first of them stays
    # Equal features with another class are not the same: they stay, in one group.
    both = rows.groupby(GROUP)["y"].nunique()
    assert (both == 2).sum() > 10


def test_equal_rows_may_be_spread_by_a_setting() -> None:
    splits, schema = prepared(repeated(), duplicates="keep")
    assert shared(splits) > 50
    assert schema["rows"]["dropped_duplicates"] == 0
    assert pd.concat(splits.values())[GROUP].is_unique


def test_groups_connect_ids_and_equal_rows() -> None:
    frame = people(60, patient=[f"p{row}" for row in range(60)])
    frame.loc[1, "patient"] = frame.loc[0, "patient"]  # 0 and 1 share an id
    frame.loc[2, ["x", "colour"]] = frame.loc[1, ["x", "colour"]]  # 1 and 2 are equal
    frame.loc[3, "patient"] = frame.loc[2, "patient"]  # 2 and 3 share an id
    frame.loc[[4, 5], "patient"] = None  # no id: each by itself
    splits, _ = prepared(frame, id="patient")
    rows = pd.concat(splits.values()).sort_values(ROW).set_index(ROW)
    assert rows[GROUP].dtype == np.int64
    assert rows[GROUP].iloc[:6].tolist() == [0, 0, 0, 0, 1, 2]
    assert splits_of(splits)[[0, 1, 2, 3]].nunique() == 1


def test_numbers_of_equal_rows_are_exact() -> None:
    frame = pd.DataFrame(
        {
            "a": [1.0, 1.0 + 1e-15, 1.0, np.nan, np.nan, 0.0, -0.0],
            "b": pd.array([True, True, True, None, None, False, False], dtype="boolean"),
            "c": ["x", "x", "x", None, None, "y", "y"],
        }
    )
    hashes = groups.hashes(streamed.Held(frame).table)
    assert groups.numbered(hashes).tolist() == [0, 1, 0, 2, 2, 3, 3]


@pytest.mark.parametrize("duplicates", ["together", "drop", "keep"])
def test_appended_rows_follow_their_group_and_move_no_older_row(duplicates: str) -> None:
    frame = people(1200, patient=np.random.default_rng(3).integers(0, 500, 1200))
    frame.loc[900:999, ["x", "colour", "y"]] = frame.loc[100:199, ["x", "colour", "y"]].to_numpy()
    starts = (800, 810, 900, 901, 1000, 1100)
    options = {"id": "patient", "duplicates": duplicates}
    older: pd.Series[Any] | None = None
    for stop in (*starts[1:], 1200):
        splits, _ = prepared(frame[:stop], tuple(start for start in starts if start < stop), **options)
        now = splits_of(splits)
        if older is not None:
            assert now[older.index].equals(older)
        older = now
    assert older is not None
    # A patient of older rows is where these are, unless equal rows connect it with another patient's.
    latest = frame.assign(split=older).loc[1000:].dropna()
    first = frame.assign(split=older).dropna().groupby("patient")["split"].first()
    assert (latest["split"] == first[latest["patient"]].to_numpy()).mean() > (0.99 if duplicates == "keep" else 0.9)
    if duplicates == "together":
        assert (older[range(900, 1000)].to_numpy() == older[range(100, 200)].to_numpy()).mean() > 0.75


def test_a_large_group_is_for_training_and_the_others_fill_the_splits() -> None:
    frame = people(patient=[f"p{row}" for row in range(ROWS)])
    frame.loc[300:599, "patient"] = "large"
    splits, schema = prepared(frame, id="patient")
    assert "large" in set(splits["train"]["patient"])
    assert sizes(schema) == pytest.approx([650, 150, 200], abs=5)


def test_a_group_that_leaves_a_split_half_empty_is_refused() -> None:
    frame = people(patient=[f"p{row}" for row in range(ROWS)])
    frame.loc[:899, "patient"] = "large"
    with pytest.raises(ProjectError, match=r"the (val|test) split has \d+ rows") as error:
        prepared(frame, id="patient")
    assert "share data.id 'patient'" in str(error.value)
    assert "up to 900 of them: set data.duplicates to keep, or more rows" in str(error.value)
    few = people().assign(x=0.0, colour=np.arange(ROWS) % 3 == 0)
    with pytest.raises(ProjectError, match="equal in all features stay together") as error:
        prepared(few)
    assert "data.duplicates to keep" in str(error.value)
    assert sizes(prepared(few, duplicates="keep")[1]) == pytest.approx([650, 150, 200], abs=5)


def panel(months: int = 24, *, terminal: bool, seed: int = 0) -> pd.DataFrame:
    """Return a row a month for each of many customers, 5 % of them positive in each month.

    A customer ends with its event, or goes on where the event is not `terminal`; new ones take the places.
    """
    rng = np.random.default_rng(seed)
    places, rows, newest = np.arange(600), [], 600
    for month in range(months):
        event = rng.random(len(places)) < 0.05
        when = pd.Timestamp("2024-01-01", tz="UTC") + pd.DateOffset(months=month)
        rows.append(pd.DataFrame({"customer": places, "month": when, "y": np.where(event, "yes", "no")}))
        if terminal:
            places = places.copy()
            places[event] = newest + np.arange(event.sum())
            newest += int(event.sum())
    frame = pd.concat(rows, ignore_index=True)
    return frame.assign(x=rng.normal(size=len(frame)))


CUSTOMERS = {"id": "customer", "timestamp": "month", "val_size": 0.25, "test_size": 0.25}


def test_ids_that_end_with_their_event_are_not_split_by_it() -> None:
    """The safe setting is refused with what it would do; the other gives every split the truth, 5 %."""
    frame = panel(terminal=True)
    with pytest.raises(ProjectError) as error:
        prepared(frame, **CUSTOMERS)
    assert "rows of the train split are of a data.id ('customer') that a later split has too" in str(error.value)
    assert "the fraction of 'yes' in data.target 'y' goes from 0.0" in str(error.value)
    assert str(error.value).endswith("Set data.repeated_ids to keep")
    splits, schema = prepared(frame, **CUSTOMERS, repeated_ids="keep")
    assert sum(sizes(schema)) == len(frame)
    for part in splits.values():
        assert (part["y"] == "yes").mean() == pytest.approx(0.05, abs=0.01)
    months = [part["month"] for part in splits.values()]
    assert months[0].max() < months[1].min() <= months[1].max() < months[2].min()


def test_earlier_rows_of_an_id_are_left_out_and_counted() -> None:
    """A fifth of the customers come again: their earlier rows go, by whatever split has them later."""
    rng = np.random.default_rng(5)
    customer = np.where(rng.random(ROWS) < 0.2, rng.integers(0, 40, ROWS), np.arange(100, 100 + ROWS))
    days = pd.date_range("2025-01-01", periods=ROWS, freq="h", tz="UTC")
    frame = people(customer=customer, day=days)
    splits, schema = prepared(frame, id="customer", timestamp="day")
    ids = [set(part["customer"]) for part in splits.values()]
    assert not ids[0] & (ids[1] | ids[2]) and not ids[1] & ids[2]
    assert sizes(schema)[2] == 200  # the last one loses nothing
    assert schema["rows"]["dropped_repeated_ids"] == ROWS - sum(sizes(schema)) > 50
    assert schema["repeated_ids"] == "drop"
    kept, described = prepared(frame, id="customer", timestamp="day", repeated_ids="keep")
    assert sizes(described) == [650, 150, 200]
    assert described["repeated_ids"] == "keep"
    # What stays is what time alone gives.
    assert splits_of(splits).equals(splits_of(kept)[splits_of(splits).index])


def test_equal_rows_of_a_later_split_are_left_out_and_counted() -> None:
    days = pd.date_range("2025-01-01", periods=ROWS, freq="h", tz="UTC")
    frame = repeated().assign(day=days)
    splits, schema = prepared(frame, timestamp="day")
    assert shared(splits) == 0
    assert schema["rows"]["dropped_duplicates"] == ROWS - sum(sizes(schema)) > 50
    assert schema["rows"]["dropped_repeated_ids"] == 0
    assert shared(prepared(frame, timestamp="day", duplicates="keep")[0]) > 50
    first, described = prepared(frame, timestamp="day", duplicates="drop")
    assert shared(first) == 0
    assert described["rows"]["dropped_duplicates"] >= frame.drop(columns="day").duplicated().sum()


def test_equal_times_are_not_cut_apart() -> None:
    days = pd.date_range("2025-01-01", periods=20, tz="UTC")
    frame = people(day=np.repeat(days, 50)).sample(frac=1, random_state=0, ignore_index=True)
    splits, schema = prepared(frame, timestamp="day", val_size=0.17, test_size=0.22)
    assert sizes(schema) == [650, 150, 200]
    parts = [*splits.values()]
    assert parts[0]["day"].max() < parts[1]["day"].min() <= parts[1]["day"].max() < parts[2]["day"].min()
    with pytest.raises(ProjectError, match=r"up to 500 rows of the same data\.timestamp are not cut apart"):
        prepared(people(day=np.repeat(days[:2], 500)), timestamp="day")


def test_a_split_that_loses_most_rows_to_later_ones_is_refused() -> None:
    """Everybody is in the table every month, and nothing ends."""
    with pytest.raises(ProjectError, match="the train split is empty") as error:
        prepared(panel(terminal=False), **CUSTOMERS)
    assert "rows of a data.id ('customer') that a later split has too are left out: set data.repeated_ids to keep" in (
        str(error.value)
    )


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_is_left_out_at_random_is_no_alarm(task: str) -> None:
    """Two hundred tables whose ids come again at random, in clusters that share a class: hardly any is refused."""
    refused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        customer = rng.integers(0, 400, 600)
        level = rng.normal(size=400)[customer] + rng.normal(size=600)
        classes = np.array(["low", "middle", "high"])[np.digitize(level, [-1, 1])]
        target = {"binary": np.where(level > 1, "yes", "no"), "multiclass": classes, "regression": level}[task]
        days = pd.date_range("2025-01-01", periods=600, freq="h", tz="UTC")
        frame = pd.DataFrame({"x": rng.normal(size=600), "customer": customer, "day": days, "y": target})
        data = data_of(task=task, id="customer", timestamp="day", val_size=0.1, test_size=0.1)
        try:
            found, _ = keys.of(streamed.Held(table.of_frame(frame, data)), data)
            codes, _ = split.assign(found, data)
        except ProjectError:
            refused += 1
        else:
            assert split.counts(codes)["dropped_repeated_ids"] > 60
    assert refused <= 6


def test_a_number_that_decides_who_comes_again_is_noticed() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=ROWS)
    customer = np.where(value > 0.3, np.arange(ROWS) % 60, np.arange(100, 100 + ROWS))
    days = pd.date_range("2025-01-01", periods=ROWS, freq="h", tz="UTC")
    frame = pd.DataFrame({"x": rng.normal(size=ROWS), "customer": customer, "day": days, "y": value})
    with pytest.raises(ProjectError, match=r"the median of data\.target 'y' goes from") as error:
        prepared(frame, task="regression", id="customer", timestamp="day")
    assert "Set data.repeated_ids to keep" in str(error.value)
