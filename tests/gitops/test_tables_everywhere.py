"""Training, batch, labels and what `make retrain` appends read and write one notation."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_table
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data, FeatureStore
from gitops.feature_store import feature_store, join
from gitops.inference.source import Source
from gitops.monitoring import labels
from gitops.retraining import facts
from gitops.tabular import append, arrow, cells, parts
from gitops.tabular import table as tables
from table_cases import CLASSES, ROWS, comma, csv, dtypes, read, settings, write

#: How files are written elsewhere.
WRITTEN: list[dict[str, Any]] = [
    {},
    {"delimiter": ";", "decimal": ","},
    {"delimiter": ";", "decimal": ",", "thousands": ".", "encoding": "cp1252"},
    {"delimiter": "\t", "thousands": ",", "encoding": "utf-16"},
]

NUMBERS = [round(1234.5 + 1000.25 * row, 2) for row in range(ROWS)]


def table(path: Path, written: dict[str, Any], numbers: list[Any] = NUMBERS, end: str = "\n") -> Path:
    """Write numbers, codes and classes in a notation."""
    how = csv(**written)
    signs = str.maketrans({",": how.thousands or "", ".": how.decimal})
    texts = [f"{number:,}".translate(signs) for number in numbers]
    rows = [
        how.delimiter.join([text, f"{row:03}", "größe", label])
        for row, (text, label) in enumerate(zip(texts, CLASSES, strict=True))
    ]
    return write(path, how.delimiter.join(["x", "code", "größe", "y"]), rows, how.encoding, end)


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("zipped", [False, True])
def test_batch_reads_a_table_as_training_does(written: dict[str, Any], zipped: bool, tmp_path: Path) -> None:
    """From one file the rows of training and the columns of batch are the same."""
    path = table(tmp_path / "t.csv", written)
    splits, schema = small_table.prepared(settings(path, written))
    assert schema["csv"] == cells.DEFAULT.model_dump() | written
    train = splits["train"]
    if zipped:
        path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_suffix(".csv.gz")
    chunks = [*Source(str(path), cells.csv_of(schema)).chunks()]
    batch = pa.Table.from_batches([chunk.batch for chunk in chunks]).combine_chunks().to_batches()[0]
    checked = arrow.check(batch, schema)
    assert checked.fits.all(), checked.reasons
    frame = arrow.from_frame(train, schema)
    for name, column in checked.columns.items():
        own = [column[row] for row in train["__row__"]]
        assert own == [*frame[name]], name
    assert [*map(float, frame["x"])] == [NUMBERS[row] for row in train["__row__"]]
    assert frame["code"] == [f"{row:03}" for row in train["__row__"]]


def test_batch_says_which_number_does_not_fit(tmp_path: Path) -> None:
    written = {"delimiter": ";", "decimal": ","}
    _, schema = small_table.prepared(settings(table(tmp_path / "t.csv", written), written))
    texts = ["1,5", "1.5", "1.234,5", "?", " 7 ", "1e3"]
    batch = pa.RecordBatch.from_pydict({"x": texts, "code": ["001"] * 6, "größe": ["größe"] * 6})
    checked = arrow.check(batch, schema)
    assert checked.fits.tolist() == [True, False, False, True, True, True]
    assert np.array_equal(checked.columns["x"], [1.5, np.nan, 7, 1000], equal_nan=True)
    assert checked.reasons[0] == "column 'x' is '1.5': a finite number is expected"


def test_batch_refuses_another_notation(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match='the header is one cell, which holds ";"'):
        Source(str(table(tmp_path / "t.csv", {"delimiter": ";", "decimal": ","})))
    with pytest.raises(ProjectError, match=r"byte-order mark of utf-16: set data\.csv\.encoding"):
        Source(str(table(tmp_path / "t.csv", {"encoding": "utf-16"})))
    open_quote = tmp_path / "t.csv"
    open_quote.write_text('x,note\n1,a\n2,"b\n3,c\n4,d\n')
    with pytest.raises(ProjectError, match="a quote in its last row is not closed"):
        [*Source(str(open_quote)).chunks()]
    open_quote.write_text('x,note\n1,a\n2,"b\n"\n')
    assert sum(chunk.batch.num_rows for chunk in Source(str(open_quote)).chunks()) == 2


def test_batch_reads_quotes_after_spaces(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('x, note\n1, "a, b"\n2, "c"\n')
    chunks = [*Source(str(path)).chunks()]
    assert chunks[0].batch.to_pydict() == {"x": ["1", "2"], "note": ["a, b", "c"]}


def append_to(path: Path, rows: list[dict[str, Any]], written: dict[str, Any] | None = None) -> Path:
    """Append rows to a table as a retraining does; data/appended.json then lists the part."""
    data = settings(path, written or {})
    found = facts.of(data)
    added = append.append(data, rows, found.dtypes, 1)
    state = {"table": artifacts.digest(path, "md5"), "parts": [found.rows], "files": [added.name]}
    artifacts.write_json(artifacts.APPENDED, state)
    return added


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_what_is_appended_is_written_as_the_table(
    written: dict[str, Any], end: str, last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row comes back with its values, and the table itself keeps every byte."""
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "t.csv", written, end=end)
    if not last:
        path.write_bytes(path.read_bytes()[: -len(end) * (2 if written.get("encoding") == "utf-16" else 1)])
    before = path.read_bytes()
    row = {"x": 1234567.25, "code": "007", "größe": 'ö "a";b,c\td\n', "y": "yes"}
    added = append_to(path, [row, row | {"x": None, "größe": "größe"}], written)
    assert path.read_bytes() == before
    lines = added.read_bytes().decode(csv(**written).encoding).splitlines(keepends=True)
    assert lines[0] == before.decode(csv(**written).encoding).splitlines(keepends=True)[0]
    frame = read(path, written)
    assert len(frame) == ROWS + 2 and dtypes(frame)["x"] == "number" and dtypes(frame)["code"] == "category"
    assert frame.iloc[-2].tolist() == [1234567.25, "007", 'ö "a";b,c\td', "yes"]
    assert pd.isna(frame["x"].iloc[-1])


def test_what_the_encoding_lacks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "t.csv", {"encoding": "cp1252"})
    with pytest.raises(ProjectError) as error:
        append_to(path, [{"x": 1.0, "code": "1", "größe": "→", "y": "yes"}], {"encoding": "cp1252"})
    assert "column 'größe' has characters that data.csv.encoding (cp1252) lacks" in str(error.value)
    assert "→" not in str(error.value) and not parts.FOLDER.exists()


def test_what_is_appended_to_parquet_keeps_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "t.parquet"
    moments = pd.date_range("2024-01-01", periods=ROWS, unit="s")
    frame = pd.DataFrame({"x": range(ROWS), "moment": moments, "y": CLASSES}).rename_axis("customer")
    frame.to_parquet(path)
    append_to(path, [{"customer": 99, "x": 1, "moment": datetime(3000, 1, 1, tzinfo=UTC), "y": "no"}])
    found = read(path)
    assert found.iloc[-1][["customer", "x", "y"]].tolist() == [99, 1, "no"]
    assert found["moment"].iloc[-1].isoformat() == "3000-01-01T00:00:00+00:00"
    assert found["customer"].tolist()[:3] == [0, 1, 2]
    frame.set_index([[f"c{row}" for row in range(ROWS)]]).to_parquet(path)
    append_to(path, [{"x": 1, "y": "no"}])
    assert [*read(path)] == ["x", "moment", "y"]


def test_labels_are_read_as_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers in the notation, classes as they are, whatever wrote the file."""
    monkeypatch.chdir(tmp_path)
    Path("labels").mkdir()
    for written in WRITTEN[1:]:
        how = csv(**written)
        rows = [
            how.delimiter.join(cells_)
            for cells_ in (["a", "1", comma("2.5") if how.decimal == "," else "2.5"], ["b", "", "ü"])
        ]
        rows += ["c", how.delimiter.join(["d", "0", "x", "more"])]
        write(Path("labels/a.csv"), how.delimiter.join(["request_id", "instance", "label"]), rows, how.encoding)
        pq.write_table(pa.table({"request_id": ["e"], "label": [2.5]}), "labels/b.parquet")
        data = settings(tmp_path / "t.csv", written)
        found, invalid = labels.read(data=data)
        assert found.values.tolist() == [
            ["a", 1, "2,5" if how.decimal == "," else "2.5"],
            ["b", 0, "ü"],
            ["e", 0, "2.5"],
        ]
        assert invalid == 2, "two rows with another number of cells"
        numbers, _ = labels.read(data=data.model_copy(update={"task": "regression"}))
        assert numbers["label"].tolist() == ["2.5", "ü", "2.5"]


def test_labels_without_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels").mkdir()
    Path("labels/a.csv").write_text("request_id,label")
    found, invalid = labels.read()
    assert (len(found), invalid) == (0, 0)


def test_rows_of_many_blocks_keep_their_order(tmp_path: Path) -> None:
    """Arrow reads blocks of a file in threads."""
    path = tmp_path / "t.csv"
    rows = 200_000
    path.write_text("x,y\n" + "".join(f"{row},{'yes' if row % 2 else 'no'}\n" for row in range(rows)))
    assert np.array_equal(read(path)["x"], np.arange(rows))


@dataclass
class Store:
    """As much of the settings as the feature store's tables need."""

    data: Data
    feature_store: FeatureStore


def test_the_tables_of_a_feature_store(tmp_path: Path) -> None:
    """They are read in the table's notation; times are as Feast has them; dates come back out of the store."""
    written = {"delimiter": ";", "decimal": ","}
    observations = write(tmp_path / "l.csv", "customer;asked;y", ["007;2026-01-31;yes", "008;2026-02-01T12:00:00Z;no"])
    history = ["007;2026-01-01;1,5;1066-10-14T12:00:00.5;?", "008;2026-01-01;2,5;;x"]
    features = write(tmp_path / "f.csv", "customer;event_timestamp;x;since;kind", history)
    data = settings(tmp_path / "joined.parquet", written, id="customer", timestamp="asked")
    store = Store(data, FeatureStore(labels=str(observations), features=str(features), ttl_days=None))
    found = feature_store.read_labels(store)  # type: ignore[arg-type]
    assert found["asked"].dtype == "datetime64[ns, UTC]" and found["customer"].tolist() == ["007", "008"]
    found = feature_store.read_features(store)  # type: ignore[arg-type]
    view = {"features": {name: tables.dtype(found[name]) for name in ("x", "since", "kind")}}
    assert view["features"] == {"x": "number", "since": "datetime", "kind": "category"}
    assert found["x"].tolist() == [1.5, 2.5]
    stored = feature_store._storable(found, view)
    pd.testing.assert_frame_equal(feature_store.restored(stored.copy(), found, view), found)
    write(observations, "customer;asked;y", ["007;1066-10-14;yes"])
    with pytest.raises(ProjectError, match=r"column 'asked' of .*l\.csv has times outside of the years 1678 to 2261"):
        feature_store.read_labels(store)  # type: ignore[arg-type]


def test_observations_without_features_beyond_the_limit(tmp_path: Path) -> None:
    """Most likely the ids or the times of a feature store's two tables do not fit."""
    data = settings(tmp_path / "joined.parquet", id="customer", timestamp="asked", max_lost=0.4)
    times = pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"] * 3, utc=True)
    observations = pd.DataFrame({"customer": [*"aaabbbccc"], "asked": times})
    found = observations.drop(index=[4, 7, 8])
    join.check_lost(observations, found, data)
    with pytest.raises(ProjectError) as error:
        join.check_lost(observations, found, data.model_copy(update={"max_lost": 0.3}))
    assert str(error.value) == (
        "feature_store.labels: 3 of 9 observations have no features at their time, the first is row 4 (counted from 0 "
        "after the header), more than data.max_lost (0.3) allows: correct 'customer' or the times in the two tables, "
        "or raise the limit"
    )
