"""From a raw table to splits and schema: dtypes, missing values, splits, and every bad table that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_table
from defaults import complete
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data

Prepare = Callable[..., tuple[dict[str, pd.DataFrame], dict[str, Any]]]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """Prepare a table given as text, bytes or frame."""

    def run(table: str | bytes | pd.DataFrame, suffix: str = ".csv", **settings: Any) -> Any:
        path = tmp_path / f"raw{suffix}"
        if isinstance(table, pd.DataFrame):
            table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)
        else:
            path.write_bytes(table if isinstance(table, bytes) else table.encode())
        return small_table.prepared(settings_of(path, **settings))

    return run


def settings_of(path: Path, **settings: Any) -> Data:
    return Data(**complete({"data": {"path": str(path), "target": "y", "task": "binary", **settings}})["data"])


def table(rows: int = 200, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "y": np.where(rng.random(rows) < 0.3, "yes", "no")})
    return frame.assign(**columns)


def dtypes(schema: dict[str, Any]) -> dict[str, str]:
    return {feature["name"]: feature["dtype"] for feature in schema["features"]}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_appended_rows_leave_older_rows_in_their_splits(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Thirty appends of 1 to 30 rows: the splits keep about their sizes, and no older row moves."""
    monkeypatch.setattr(artifacts, "APPENDED", tmp_path / "appended.json")
    frame = table(700)
    if task == "regression":
        frame["y"] = frame["x"]
    parts = [200 + sum(range(1, number)) for number in range(1, 32)]

    def splits_of(rows: int) -> pd.Series[Any]:
        artifacts.APPENDED.unlink(missing_ok=True)
        prepared(frame[:rows], task=task)
        md5 = artifacts.digest(tmp_path / "raw.csv", "md5")
        starts = [start for start in parts if start < rows]
        artifacts.write_json(artifacts.APPENDED, {"table": md5, "parts": starts})
        splits, _ = prepared(frame[:rows], task=task)
        return pd.concat([part.assign(split=name) for name, part in splits.items()]).set_index(artifacts.ROW)["split"]

    older, newer = splits_of(parts[10]), splits_of(parts[-1])
    assert (newer[older.index] == older).all()
    assert splits_of(200).equals(older[older.index.isin(range(200))].loc[splits_of(200).index])
    fractions = newer[newer.index >= 200].value_counts(normalize=True)
    assert np.allclose([fractions["train"], fractions["val"], fractions["test"]], [0.65, 0.15, 0.2], atol=0.06)


def test_the_parts_of_another_table_count_for_nothing(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = table(200)
    alone, _ = prepared(frame)
    monkeypatch.setattr(artifacts, "APPENDED", tmp_path / "appended.json")
    artifacts.write_json(artifacts.APPENDED, {"table": "0" * 32, "parts": [100]})
    splits, _ = prepared(frame)
    assert all(splits[name].equals(alone[name]) for name in alone)


def test_dtypes_of_csv_columns(prepared: Prepare) -> None:
    rows = 60
    frame = table(
        rows,
        whole=range(rows),
        text=["A", "B"] * 30,
        flag=["True", "false", "TRUE"] * 20,
        day=["2026-01-31", "2026-02-01 12:30:00"] * 30,
        moment=["2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00", ""] * 20,
        gaps=["1.5", "?", " 2 "] * 20,
        code=[101, 102, 103] * 20,
    )
    splits, schema = prepared(frame, categorical=["code"])
    assert dtypes(schema) == {
        "x": "number",
        "whole": "number",
        "text": "category",
        "flag": "boolean",
        "day": "datetime",
        "moment": "datetime",
        "gaps": "number",
        "code": "category",
    }
    train = splits["train"]
    assert set(train["code"]) == {"101", "102", "103"}
    assert train["gaps"].isna().mean() == pytest.approx(1 / 3, abs=0.15)
    assert str(train["day"].dtype) == "datetime64[us, UTC]"


def test_a_parquet_table_has_types(prepared: Prepare) -> None:
    frame = table(60, text=["1", "2", None] * 20, flag=[True, False] * 30, day=pd.date_range("2026-01-01", periods=60))
    _, schema = prepared(frame, ".parquet")
    assert dtypes(schema) == {"x": "number", "text": "category", "flag": "boolean", "day": "datetime"}


def test_quoted_and_padded_texts_are_the_same_category(prepared: Prepare) -> None:
    csv = "x, y, colour\n" + '1, yes, "dark, red"\n2, no,  "dark, red" \n3,no ,blue\n' * 30
    splits, schema = prepared(csv, duplicates="keep")
    assert set(schema["features"][1]["categories"]) == {"dark, red", "blue"}
    assert set(splits["test"]["y"]) == {"yes", "no"}


def test_rows_without_a_target_are_dropped_and_counted(prepared: Prepare) -> None:
    frame = table(100)
    frame.loc[[3, 7, 11], "y"] = "?"
    splits, schema = prepared(frame, missing_target=["?"])
    assert schema["rows"]["raw"] == 100
    assert schema["rows"]["dropped_missing_target"] == 3
    assert not set(pd.concat(splits.values())[artifacts.ROW]) & {3, 7, 11}


def test_splits_are_stratified_disjoint_and_the_same_every_time(prepared: Prepare) -> None:
    frame = table(1000)
    splits, _ = prepared(frame)
    again, _ = prepared(frame)
    assert sum(map(len, splits.values())) == 1000
    assert len(pd.concat(splits.values())[artifacts.ROW].unique()) == 1000
    fraction = (frame["y"] == "yes").mean()
    for name, size in (("train", 650), ("val", 150), ("test", 200)):
        assert len(splits[name]) == pytest.approx(size, abs=3)
        assert (splits[name]["y"] == "yes").mean() == pytest.approx(fraction, abs=0.01)
        pd.testing.assert_frame_equal(splits[name], again[name])


def test_rows_that_share_an_id_stay_together(prepared: Prepare) -> None:
    splits, schema = prepared(table(300, patient=np.repeat(range(75), 4)), id="patient")
    ids = [set(split["patient"]) for split in splits.values()]
    assert sum(map(len, ids)) == 75
    assert "patient" not in dtypes(schema)


def test_a_timestamp_makes_the_splits_chronological(prepared: Prepare) -> None:
    days = pd.date_range("2025-01-01", periods=200).strftime("%Y-%m-%d").to_numpy()
    frame = table(200, day=days).sample(frac=1, random_state=1)
    splits, schema = prepared(frame, timestamp="day")
    assert splits["train"]["day"].max() < splits["val"]["day"].min()
    assert splits["val"]["day"].max() < splits["test"]["day"].min()
    assert "day" not in dtypes(schema)


def test_rare_classes_are_learned_before_they_are_scored(prepared: Prepare) -> None:
    frame = table(200, y=["a", "b"] * 98 + ["only", "once", "two", "two"])
    splits, schema = prepared(frame, task="multiclass")
    assert {"only", "once", "two"} <= set(splits["train"]["y"])
    assert schema["target"]["classes"] == sorted(schema["target"]["classes"])


def test_the_positive_class_comes_last(prepared: Prepare) -> None:
    assert prepared(table())[1]["target"]["classes"] == ["no", "yes"]  # the rarer one
    assert prepared(table(), positive="no")[1]["target"]["classes"] == ["yes", "no"]


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no target column": (table(), {"target": "label"}, "data.target names column 'label'"),
    "renamed column": (table(), {"drop": ["old_name"]}, "data.drop names column 'old_name'"),
    "constant target": (table(y="no"), {}, "one value only"),
    "constant number": (table(y=1.0), {"task": "regression"}, "one value only"),
    "target always missing": (table(y=""), {}, "is missing in every row"),
    "three classes": (table(201, y=["a", "b", "c"] * 67), {}, "has 3 classes: use 'multiclass'"),
    "unknown positive": (table(), {"positive": "maybe"}, "data.positive is 'maybe'"),
    "text target": (table(), {"task": "regression"}, "not a number in every row"),
    "infinite target": (table(y=[np.inf] + [1.0, 2.0] * 99 + [3.0]), {"task": "regression"}, "column 'y'"),
    "infinite feature": (table(x=[-np.inf] + [1.0] * 199), {}, "column 'x'"),
    "number with markers": (table(x=["1.5"] * 195 + ["unknown"] * 5), {}, "texts in 5 rows, the first is line 197"),
    "10,000 categories": (
        table(30_000, x=[f"c{number % 10_000}" for number in range(30_000)]),
        {},
        "data.max_categories",
    ),
    "column wholly missing": (table(x="?"), {}, "has no value in the training rows"),
    "no feature": (table(), {"drop": ["x"]}, "no column left"),
    "two rows": (table().head(2), {}, "split is empty"),
    "timestamp is no date": (table(day="soon"), {"timestamp": "day"}, "data.timestamp 'day'"),
    "timestamp with gaps": (table(day=["2026-01-01"] * 199 + [""]), {"timestamp": "day"}, "is missing in 1 rows"),
    "empty file": ("", {}, "the file is empty"),
    "header alone": ("x,y\n", {}, "no rows"),
    "same name twice": ("x,x ,y\n1,2,yes\n", {}, "columns 1 and 2 are both called 'x'"),
    "ragged rows": ("x,y\n1,yes\n1,2,3,no\n", {}, "1 rows do not have the 2 cells of the header, the first in line 3"),
    "not text": (b"x,y\n\xff\xfe\x00,\x80\n", {}, "line 2 holds a zero byte"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_table_is_refused_with_its_column(prepared: Prepare, case: str) -> None:
    content, settings, message = REFUSED[case]
    with pytest.raises(ProjectError) as error:
        prepared(content, **settings)
    assert message in str(error.value)


def test_a_broken_or_missing_file_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="not a readable parquet"):
        prepared(b"PAR1 this is no parquet file PAR1", ".parquet")
    with pytest.raises(ProjectError, match="there is no such file"):
        small_table.prepared(settings_of(tmp_path / "none.csv"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_slices_that_the_model_does_not_see_is_in_the_splits_alone(prepared: Prepare, suffix: str) -> None:
    """Also one of codes, and beside another column of data.drop, which is nowhere."""
    frame = table(region=np.arange(200) % 3, other=range(200))
    columns = {"drop": ["region", "other"], "slices": ["region"], "categorical": ["region"]}
    splits, schema = prepared(frame, suffix, **columns)
    assert schema["slices"] == ["region"]
    assert not {"region", "other"} & {feature["name"] for feature in schema["features"]}
    for split in splits.values():
        assert {*split["region"]} == {"0", "1", "2"} and "other" not in split
    with pytest.raises(ProjectError, match=r"data\.slices names 'region', a number: .* add it to data\.categorical"):
        prepared(frame, suffix, **columns | {"categorical": []})
