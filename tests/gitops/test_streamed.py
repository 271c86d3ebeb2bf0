"""A parquet table that is read in parts gives what it gives when it is held in memory: splits, schema, statistics."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import split_cases
import torch
from breast_cancer import prepare
from defaults import ROOT
from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.sections import Data
from gitops.tabular import numbers, parquet_files, row_groups, streamed
from gitops.tabular.columns import Derived
from table_cases import CLASSES, ROWS, settings

FILES = (artifacts.TRAIN, artifacts.VAL, artifacts.TEST, artifacts.NUMBERS)

Outcome = tuple[dict[str, pa.Table], dict[str, Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(data: Data, appended: tuple[int, ...] = (), features: dict[str, Derived] | None = None) -> Outcome | str:
    """Return the files that the stage writes and the schema, or its error."""
    try:
        splits, described = prepare.prepare(prepare.read(data), data, features or {}, appended)
        numbers.write(artifacts.NUMBERS, numbers.of_split(streamed.held(splits["train"]), described))
        for path in FILES[:3]:
            row_groups.write(path, splits[path.stem])
    except ProjectError as error:
        return str(error)
    return {path.stem: pq.read_table(str(path), memory_map=False) for path in FILES}, described


def assert_same(
    monkeypatch: pytest.MonkeyPatch, data: Data, appended: tuple[int, ...] = (), **features: Derived
) -> Outcome | str:
    """Assert that parts of a few rows give what the whole table gives, and return that."""
    whole = made(data, appended, features)
    with monkeypatch.context() as patch:
        patch.setattr(streamed, "BUDGET", 0)
        patch.setattr(streamed, "PART", 2000)
        patch.setattr(row_groups, "BYTES", 3000)
        patch.setattr(streamed.table, "read", None)
        parts = made(data, appended, features)
    if isinstance(whole, str) or isinstance(parts, str):
        assert parts == whole
        return whole
    assert parts[1] == whole[1] and [*parts[1]["features"]] == [*whole[1]["features"]]
    for name, table in whole[0].items():
        assert parts[0][name].schema.equals(table.schema) and parts[0][name].equals(table), name
        assert parts[0][name].to_pandas().dtypes.equals(table.to_pandas().dtypes)
    return whole


def parquet(path: Path, table: pa.Table, rows: int | None = None) -> Path:
    pq.write_table(table, path, row_group_size=rows)
    return path


@pytest.mark.parametrize("number", split_cases.GOLDEN)
def test_splits_are_those_of_older_versions_and_the_same_in_parts(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = split_cases.case(number)
    case.frame.to_parquet(folder / "t.parquet", row_group_size=97)
    found = assert_same(monkeypatch, settings(folder / "t.parquet", **case.settings), case.appended)
    if isinstance(found, str):
        assert found.startswith(split_cases.GOLDEN[number])
        return
    rows = pa.concat_tables([found[0][name].select([ROW, GROUP]) for name in ("train", "val", "test")])
    codes = np.repeat([0, 1, 2], [found[0][name].num_rows for name in ("train", "val", "test")])
    assert split_cases.digest(rows[ROW], codes, rows[GROUP]) == split_cases.GOLDEN[number]


MOMENTS = [datetime(1066, 10, 14, tzinfo=UTC) + timedelta(hours=row) for row in range(ROWS)]

#: A column of each of Arrow's types that has a dtype.
TYPED: dict[str, pa.Array] = {
    "x": pa.array(np.arange(ROWS) / 7),
    "nan": pa.array([np.nan, 1.5, -0.0] * (ROWS // 3)),
    "half": pa.array(np.arange(ROWS, dtype=np.float16)),
    "whole": pa.array([None, *range(1, ROWS)], pa.int32()),
    "decimal": pa.array([Decimal(row) / 4 for row in range(ROWS)], pa.decimal128(10, 2)),
    "flag": pa.array([True, False, None] * (ROWS // 3)),
    "day": pa.array([date(2024, 1, 1) + timedelta(row) for row in range(ROWS)]),
    "fine": pa.array(MOMENTS, pa.timestamp("us", "Asia/Tokyo")),
    "text": pa.array([" a", "b ", None, "?"] * (ROWS // 4)),
    "large": pa.array(["c", "d"] * (ROWS // 2), pa.large_string()),
    "kind": pa.array(["e", "f", None] * (ROWS // 3)).dictionary_encode(),
    "code": pa.array([7.0, None, 8.0] * (ROWS // 3)),
}


def test_columns_of_every_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(folder / "t.parquet", pa.table(TYPED | {"y": CLASSES}), 11)
    found = assert_same(monkeypatch, settings(path, categorical=["code"], slices=["text"], drop=["large"]))
    assert not isinstance(found, str)
    assert {each["dtype"] for each in found[1]["features"]} == {"number", "boolean", "datetime", "category"}
    assert found[0]["numbers"]["name"].to_pylist() == ["x", "nan", "half", "whole", "decimal", "flag", "day", "fine"]


def test_texts_whose_dtype_follows_from_all_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A regression's target in texts, and a time, of which the first part alone would be something else."""
    times = [f"2024-01-{1 + row // 3:02}" for row in range(ROWS)]
    values = [*["1"] * 20, *(str(row / 8) for row in range(ROWS - 20))]
    path = parquet(folder / "t.parquet", pa.table({"x": np.arange(ROWS), "at": times, "y": values}))
    found = assert_same(monkeypatch, settings(path, task="regression", timestamp="at", duplicates="keep"))
    assert not isinstance(found, str) and found[0]["numbers"]["name"].to_pylist() == ["x", "y"]
    parquet(path, pa.table({"x": np.arange(ROWS), "at": [*times[:-1], "soon"], "y": values}))
    assert "'at'" in str(assert_same(monkeypatch, settings(path, task="regression", timestamp="at")))


def row(table: pa.Table, **values: Any) -> pa.Table:
    """Return the table with other values in its rows 41, 47 and 53."""
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for name, value in values.items():
        for place in (41, 47, 53):
            columns[name][place] = value
    return pa.table({name: pa.array(columns[name], table[name].type) for name in columns})


SMALL = pa.table({"x": np.arange(ROWS) / 7, "whole": np.arange(ROWS), "kind": ["a", "b", "c"] * 20, "y": CLASSES})
FAR = pa.array([0] * 50 + [2**50] * 10, pa.int64()).cast(pa.timestamp("s"))
LISTS = pa.array([[1]] * ROWS)

#: Tables that are refused: with the numbers of all rows, and of the first column at fault.
REFUSED: dict[str, tuple[pa.Table, dict[str, Any], str]] = {
    "infinite": (row(SMALL, x=np.inf), {}, "column 'x' of .* is infinite in 3 rows, the first is row 41 "),
    "beyond 2**53": (row(SMALL, whole=2**60), {}, "column 'whole' .* beyond 2.*53, .* in 3 rows, the first is row 41 "),
    "two columns": (row(SMALL, x=np.inf, whole=2**60), {}, "column 'x' of .* is infinite in 3 rows"),
    "codes": (row(SMALL, x=2.0**60), {"categorical": ["x"]}, "column 'x' .* has lost digits"),
    "years": (SMALL.append_column("far", FAR), {}, "'far' .* outside of the years 1 to 9999 in 10 rows, .* row 50 "),
    "lists": (SMALL.append_column("list", LISTS), {}, "column 'list' .* has the type list"),
    "doubtful classes": (row(SMALL, y="?"), {}, r"a text of data\.missing \('\?'\) in 3 rows, the first is row 41 "),
    "lost": (row(SMALL, y=None), {"max_lost": 0.01}, "is missing in 3 rows, the first is row 41 .*, which is 5% of 60"),
    "no target": (SMALL.set_column(3, "y", pa.nulls(ROWS, pa.string())), {}, "'y' is missing in every row"),
    "text target": (SMALL, {"task": "regression"}, "not a number in every row"),
    "time missing": (
        row(SMALL.append_column("at", pa.array(MOMENTS)), at=None),
        {"timestamp": "at"},
        "data.timestamp 'at' is missing in 3 rows, the first is row 41",
    ),
    "no time": (SMALL, {"timestamp": "whole"}, "'whole' is not an ISO 8601 date or time"),
    "no column": (SMALL, {"drop": ["z"]}, "data.drop names column 'z'"),
    "constant": (SMALL.set_column(3, "y", pa.array(["a"] * ROWS)), {}, "has one value only"),
    "nothing to learn": (SMALL, {"drop": ["x", "whole", "kind"]}, "no column left to learn from"),
    "no value": (SMALL.set_column(0, "x", pa.nulls(ROWS, pa.float64())), {}, "column 'x' has no value"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_same_errors(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where equal rows do not count, so that no pass over the features comes before the splits are written."""
    table, changes, message = REFUSED[case]
    for duplicates in ("together", "keep"):
        data = settings(parquet(folder / "t.parquet", table), duplicates=duplicates, **changes)
        assert re.search(message, str(assert_same(monkeypatch, data)))
        assert [*folder.iterdir()] == [folder / "t.parquet"] or not [*(folder / "data/prepared").iterdir()]


def test_rows_far_from_the_training_ones_do_not_count_as_categories(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many texts are an error before all rows are written, and nothing is left of them."""
    frame = pd.DataFrame({"x": np.arange(2000.0), "id": [f"c{row}" for row in range(2000)], "y": ["a", "b"] * 1000})
    frame.to_parquet(folder / "t.parquet")
    monkeypatch.setattr(streamed, "BUDGET", 0)
    monkeypatch.setattr(streamed, "PART", 2000)
    few = settings(folder / "t.parquet", max_categories=50)
    error = str(made(few))
    assert "column 'id' has " in error and "distinct texts in some of the training rows, more than" in error
    assert error.endswith("add it to data.drop if it is an id or free text, or raise the limit")
    assert not [*(folder / "data/prepared").iterdir()]
    seen = frame.assign(id=np.where(frame.index < 1900, "c", frame["id"]), at=pd.date_range("2024", periods=2000))
    seen.to_parquet(folder / "t.parquet")
    assert not isinstance(
        assert_same(monkeypatch, settings(folder / "t.parquet", max_categories=5, timestamp="at")), str
    )


def twice(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 3, x * 2, torch.nan)


def initial(kind: list[str | None]) -> list[str | None]:
    return [None if text == "b" else text for text in kind]


def test_derived_features(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(folder / "t.parquet", row(SMALL, y=None))
    derived = {"twice": Derived(("x",), twice), "initial": Derived(("kind",), initial)}
    found = assert_same(monkeypatch, settings(path), **derived)
    assert not isinstance(found, str) and [*found[0]["val"].column_names][-2:] == ["twice", "initial"]
    mean = {"mean": Derived(("x",), lambda x: x - x.mean())}
    assert "depends on other rows" in str(assert_same(monkeypatch, settings(path), **mean))
    taken = {"x": Derived(("x",), twice)}
    assert "has a column of this name" in str(assert_same(monkeypatch, settings(path), **taken))


@pytest.mark.parametrize("root", ["raw", "memory://other/raw"])
@pytest.mark.parametrize("other", ["day=1/b.parquet", "day=1/x=2/b.parquet", "b.csv", "b.csv.gz"])
def test_rows_that_a_folder_would_leave_unread_are_an_error(root: str, other: str, folder: Path) -> None:
    filesystem, path = fsspec.core.url_to_fs(root)
    filesystem.mkdirs(f"{path}/_temporary/0", exist_ok=True)
    for name in ("a.parquet", "_temporary/0/b.parquet", ".b.csv", "note.txt"):
        pq.write_table(pa.table({"x": [1.0, 2.0], "y": ["a", "b"]}), f"{path}/{name}", filesystem=filesystem)
    assert len(streamed.opened(settings(root)).columns) == 2
    filesystem.mkdirs(f"{path}/{other}".rpartition("/")[0], exist_ok=True)
    filesystem.pipe_file(f"{path}/{other}", b"")
    try:
        with pytest.raises(ProjectError, match=rf"data\.path is '{root}': .* so {re.escape(other)} would not be read"):
            streamed.opened(settings(root))
    finally:
        filesystem.rm(path, recursive=True)


def test_a_pattern_of_all_folders_takes_each_depth_and_nothing_unfinished(folder: Path) -> None:
    for row, name in enumerate(("a.parquet", "d=1/b.parquet", "d=1/e=2/c.parquet", "_tmp/d.parquet", "d=1/.e.parquet")):
        Path("raw", name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [float(row)], "y": ["a"]}), Path("raw", name))
    assert streamed.opened(settings("raw/**/*.parquet"))["x"].tolist() == [0.0, 1.0, 2.0]


def test_a_folder_and_a_pattern_are_the_files_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are numbered on through the files; an index that is a range goes on in each."""
    (folder / "raw").mkdir()
    frame = pd.DataFrame({"x": np.arange(90.0), "y": ["a", "b", "b"] * 30})
    for part, start in enumerate((0, 10, 60)):
        some = frame[start : (10, 60, 90)[part]]
        some.set_index(pd.RangeIndex(start, start + len(some), name="n")).to_parquet(f"raw/part-{part}.parquet")
    Path("raw/_SUCCESS").touch()
    Path("raw/.part.parquet").write_text("unfinished")
    for path in ("raw", "raw/", "raw/part-*.parquet"):
        found = assert_same(monkeypatch, settings(path))
        assert not isinstance(found, str)
        rows = pa.concat_tables([found[0][name].select([ROW, "x", "n"]) for name in ("train", "val", "test")])
        assert rows[ROW].to_pylist() == rows["x"].to_pylist() == rows["n"].to_pylist()
        assert sorted(rows[ROW].to_pylist()) == [*range(90)]


def test_files_that_do_not_fit_together_are_named(folder: Path) -> None:
    (folder / "raw").mkdir()
    parquet(Path("raw/a.parquet"), SMALL)
    data = settings("raw")
    for other in (SMALL.drop_columns("x"), SMALL.set_column(0, "x", SMALL["kind"])):
        parquet(Path("raw/b.parquet"), other)
        assert made(data) == "data.path is 'raw': raw/b.parquet has other columns or types than raw/a.parquet"
    Path("raw/b.parquet").write_text("no parquet")
    assert str(made(data)).startswith("data.path is 'raw': not a readable parquet table (")
    assert "no file matches 'raw/*.parq'" in str(made(data.model_copy(update={"path": "raw/*.parq"})))
    assert "no file matches 'none/*.parquet'" in str(made(data.model_copy(update={"path": "none/*.parquet"})))
    assert "there is no such file" in str(made(data.model_copy(update={"path": "none"})))
    parquet(Path("raw/a.parquet"), SMALL[:0])
    Path("raw/b.parquet").unlink()
    assert made(data) == "data.path is 'raw': the table has no rows"


def test_columns_of_one_name_and_names_with_spaces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [*SMALL.columns, SMALL["x"], SMALL["whole"]]
    parquet(folder / "t.parquet", pa.table(columns, names=[" x ", "whole", "kind", "y", "z", "z"]))
    found = assert_same(monkeypatch, settings(folder / "t.parquet", drop=["z"]))
    assert not isinstance(found, str) and [each["name"] for each in found[1]["features"]] == ["x", "whole", "kind"]
    assert "columns 5 and 6 are both called 'z'" in str(assert_same(monkeypatch, settings(folder / "t.parquet")))


def test_object_storage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any file system that fsspec knows; here its own in memory."""
    import fsspec

    store = fsspec.filesystem("memory")
    for part, start in enumerate((0, 25)):
        with store.open(f"/bucket/raw/{part}.parquet", "wb") as file:
            pq.write_table(SMALL.slice(start, (25, ROWS)[part]), file)
    alone = assert_same(monkeypatch, settings(parquet(folder / "t.parquet", SMALL)))
    for path in ("memory://bucket/raw", "memory://bucket/raw/*.parquet"):
        found = assert_same(monkeypatch, settings(path))
        assert not isinstance(found, str) and not isinstance(alone, str)
        assert all(found[0][name].equals(alone[0][name]) for name in alone[0])
    assert "data.path is 'memory://bucket/none'" in str(made(settings("memory://bucket/none")))
    assert "data.path is 'nowhere://x'" in str(made(settings("nowhere://x")))


@pytest.mark.parametrize(
    "path", ["raw.csv", "raw.parquet", "raw", "raw/", "raw/*.parquet", "s3://b/raw", "s3://b/a.parquet"]
)
def test_what_a_table_may_be_called(path: str) -> None:
    assert settings(path).path == path


@pytest.mark.parametrize("path", ["raw.xlsx", "raw/*", "raw/*.csv", "s3://b/raw.csv", "", "s3://b/*.json"])
def test_what_a_table_may_not_be_called(path: str) -> None:
    with pytest.raises(ValueError, match=r"path is .*: a file that ends in \.csv or \.parquet is needed"):
        settings(path)


def test_the_size_in_memory_is_about_right(folder: Path) -> None:
    rng = np.random.default_rng(0)
    values = pa.table({"x": rng.normal(size=10_000), "n": np.zeros(10_000, np.int32), "flag": [True] * 10_000})
    assert parquet_files.ParquetFiles([str(parquet(folder / "t.parquet", values))], "x").size == 10_000 * 13
    texts = pa.table({"t": [f"text {row}" for row in range(10_000)]})
    size = parquet_files.ParquetFiles([str(parquet(folder / "t.parquet", texts))], "x").size
    assert 10_000 * 70 < size < 10_000 * 90


PEAK = """
import resource, sys
from pathlib import Path
from breast_cancer import prepare
from gitops.tabular import row_groups, streamed
streamed.BUDGET = 2**24
streamed.PART = row_groups.BYTES = 2**20

def data():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024

resource.setrlimit(resource.RLIMIT_DATA, (data() + int(sys.argv[1]),) * 2)
prepare.main()
"""


def test_a_table_that_is_larger_than_the_memory_that_there_is(folder: Path) -> None:
    """In memory the table has 160 MB; the process may take 100 MB for data beside its code, and prepares all of it."""
    rows, columns = 500_000, 40
    rng, schema = np.random.default_rng(0), pa.schema([(f"x{number}", pa.float64()) for number in range(columns)])
    schema = schema.append(pa.field("y", pa.int64()))
    with pq.ParquetWriter("t.parquet", schema, use_dictionary=False) as writer:
        for _ in range(10):
            some = [rng.normal(size=rows // 10) for _ in range(columns)]
            writer.write_table(pa.table([*some, pa.array((some[0] > 0) * 1)], schema=schema))
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("path: data/raw.csv", "path: t.parquet").replace("target: diagnosis", "target: y")
    Path("params.yaml").write_text(text.replace("positive: malignant", "positive: null"), encoding="utf-8")
    environment = {"ARROW_DEFAULT_MEMORY_POOL": "system", "PATH": "", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "MALLOC_ARENA_MAX": "1"}
    stacks = "ulimit -s 512 && exec "  # those of threads count too

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        command = stacks + shlex.join([sys.executable, "-c", PEAK, str(limit)])
        return subprocess.run(["/bin/sh", "-c", command], env=environment, text=True, capture_output=True)

    ended = run(100 * 2**20)
    assert ended.returncode == 0, ended.stderr
    assert f"raw {rows}" in ended.stdout
    assert sum(pq.read_metadata(str(path)).num_rows for path in FILES[:3]) == rows
    groups = pq.read_metadata(str(artifacts.TRAIN))
    assert groups.num_row_groups > 50
    assert run(5 * 2**20).returncode != 0, "the limit does not count"


def test_columns_that_an_owner_adds_to_a_frame() -> None:
    """Of other types of pandas' than `table.read` returns."""
    days = pd.date_range("2024-01-01", periods=ROWS)
    added = {
        "kind": pd.Categorical(["a", "b", None] * (ROWS // 3)),
        "fine": days + pd.Timedelta(1, "ns"),
        "local": days.tz_localize("Asia/Tokyo"),
        "date": days.date,
        "count": np.arange(ROWS),
        "small": np.arange(ROWS, dtype=np.float32),
        "large": np.arange(ROWS) > 5,
    }
    splits, described = prepare.prepare(pd.DataFrame({"y": CLASSES, **added}), settings("t.parquet"), {})
    dtypes = {each["name"]: each["dtype"] for each in described["features"]}
    assert [*dtypes.values()] == ["category", *["datetime"] * 3, "number", "number", "boolean"]
    first = splits["train"].iloc[0]
    number = first[ROW]
    assert first["kind"] == ["a", "b", None][number % 3] and first["count"] == first["small"] == number
    assert first["fine"] == first["date"] == days[number].tz_localize("UTC")
    assert first["local"] == days[number].tz_localize("Asia/Tokyo")
