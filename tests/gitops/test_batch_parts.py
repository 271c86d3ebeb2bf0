"""`make batch` in the pods of an Indexed Job: each predicts its part of a partitioned table, a finished one once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.inference import batch, parts, source
from gitops.inference.model import Model
from test_batch import HEADER, ROWS, archive, read, write
from test_batch import model as model

FILES = 5


@pytest.fixture(autouse=True)
def _table(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five files, the third of which has a row that does not fit; pods have the released model's archive."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("MODEL_SHA256", artifacts.digest(artifacts.MODEL))
    for number in range(FILES):
        rows = [[f"{number}{row}", str(10 * number + row), "gold", ""] for row in range(number + 3)]
        write(table(number), rows + [ROWS[3]] * (number == 2))


def table(number: int) -> str:
    Path(f"in/day={number % 2}").mkdir(parents=True, exist_ok=True)
    return f"in/day={number % 2}/{number}.parquet"


def pod(index: int, count: int, monkeypatch: pytest.MonkeyPatch, output: str = "out", *arguments: str) -> None:
    """Run the pod `index` of `count`."""
    monkeypatch.setenv(parts.INDEX, str(index))
    monkeypatch.setenv(parts.COMPLETIONS, str(count))
    options = ["--input", "in/*/*.parquet", "--output", output, "--archive", str(archive()), *arguments]
    monkeypatch.setattr(sys, "argv", ["batch", *options])
    batch.main()


def written(folder: str = "out") -> dict[str, int]:
    """Return the files in a folder, hidden ones too, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}


def test_the_parts_together_are_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row once, as a single run predicts it, with the file and the row's number there."""
    for index in range(3):
        pod(index, 3, monkeypatch, "out/")
    assert {*written()} == {*(f"part-0000{index}.parquet" for index in range(3)), "part-00001.rejected.parquet"}
    found = read("out/part-00000.parquet")
    assert found.columns.tolist() == ["file", "row", "id", "note", "prediction", "p_no", "p_yes", "model_version"]
    names = [f"day={number % 2}/{number}.parquet" for number in (0, 2, 4, 1, 3)]  # in the order of their names
    assert Counter(found["file"]) == {names[0]: 3, names[3]: 4}
    assert found[found["file"] == names[3]]["row"].tolist() == [0, 1, 2, 3]
    rejected = read("out/part-00001.rejected.parquet")
    assert rejected[["file", "row"]].to_numpy().tolist() == [["day=0/2.parquet", 5]]
    assert rejected.columns.tolist() == ["file", "row", "rejected_column", "rejected_reason", *HEADER]

    pod(0, 1, monkeypatch, "all.parquet")  # as without completions
    together = pd.concat([read(f"out/part-0000{index}.parquet") for index in range(3)])
    whole = read("all.parquet")
    assert whole.columns.tolist() == ["row", *found.columns.tolist()[2:]]
    answers = ["id", "prediction", "p_no", "p_yes", "model_version"]
    pd.testing.assert_frame_equal(
        together[answers].sort_values("id", ignore_index=True), whole[answers].sort_values("id", ignore_index=True)
    )
    as_one = pq.ParquetDataset([f"out/part-0000{index}.parquet" for index in range(3)]).read()
    assert len(as_one) == len(whole), "a folder of parts is a table"


def test_a_finished_part_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Until model, files or limit are others."""

    def again(*arguments: str) -> bool:
        before = written()
        time.sleep(0.01)
        pod(1, 3, monkeypatch, "out", *arguments)
        said = capsys.readouterr().out
        assert ("out/part-00001.parquet: finished before, of the same files by" in said) == (before == written())
        return before != written()

    pod(1, 3, monkeypatch)
    capsys.readouterr()
    assert not again()
    assert again("--max-rejected", "0.3") and not again("--max-rejected", "0.3")
    assert again()
    path = Path(table(2))
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"\0" + content[-8:])  # of the same size
    path.write_bytes(content)
    assert again() and not again()
    write(table(0), ROWS[:1])
    assert not again(), "not one of its files: those are 2 and 3"
    write(table(3), ROWS[:3])
    assert again() and not again()
    write("in/day=0/00.parquet", ROWS[:1])  # the files are dealt anew
    assert again() and not again()
    real = batch.load
    version = "0" * 12

    def later(*arguments: Any) -> Model:
        found = real(*arguments)
        return Model(found.program, found.schema, version)

    monkeypatch.setattr(batch, "load", later)
    assert again() and not again()
    assert set(read("out/part-00001.parquet")["model_version"]) == {version}

    def with_threshold(*arguments: Any) -> Model:
        found = later(*arguments)
        found.schema["target"]["threshold"] = 0.3
        return found

    monkeypatch.setattr(batch, "load", with_threshold)
    assert again() and not again()
    Path("out/part-00001.parquet").write_text("something else")
    assert again()


def test_a_file_system_that_cannot_tell_versions_finishes_no_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "STAMPS", ("ETag",))
    for _ in range(2):
        pod(0, 3, monkeypatch)
        assert "rows predicted" in capsys.readouterr().out


def test_parts_in_a_bucket(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    memory = fsspec.filesystem("memory")
    for number in range(FILES):
        memory.pipe_file(f"/parts/in/{number}.parquet", Path(table(number)).read_bytes())
    for _ in range(2):
        pod(0, 2, monkeypatch, "memory://parts/out", "--input", "memory://parts/in")
    assert "finished before" in capsys.readouterr().out
    assert sorted(memory.ls("/parts/out", detail=False)) == [
        "/parts/out/part-00000.parquet",
        "/parts/out/part-00000.rejected.parquet",
    ]
    assert set(read("memory://parts/out/part-00000.parquet")["file"]) == {"0.parquet", "2.parquet", "4.parquet"}


def test_parts_that_are_no_longer_made_are_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a folder that is read as one table has their rows twice. Files of another name stay."""
    for index in range(5):
        pod(index, 5, monkeypatch)
    Path("out/part-x.parquet").touch()
    Path("out/notes.txt").touch()
    pod(1, 2, monkeypatch)
    assert "part-00004.parquet" in written(), "the first one removes them"
    pod(0, 2, monkeypatch)
    parquet = {name for name in written() if re.match(r"part-\d", name)}
    assert parquet == {f"part-0000{index}.parquet" for index in (0, 1)} | {"part-00001.rejected.parquet"}
    for number in range(1, FILES):
        Path(table(number)).unlink()
    capsys.readouterr()
    pod(1, 2, monkeypatch)
    assert "nothing to predict, as INPUT has 1 files for 2 parts" in capsys.readouterr().out
    assert {*written()} == {"part-00000.parquet", "part-x.parquet", "notes.txt"}


@pytest.mark.parametrize(
    ("index", "count", "said"),
    [
        ("3", "3", "JOB_COMPLETION_INDEX is '3': a number from 0 to 2 is needed"),
        ("-1", "3", "JOB_COMPLETION_INDEX is '-1'"),
        ("", "3", "JOB_COMPLETION_INDEX is ''"),
        ("0", "0", "COMPLETIONS is '0': a number from 1 to 99999"),
        ("0", "many", "COMPLETIONS is 'many'"),
        ("0", "2.0", "COMPLETIONS is '2.0'"),
    ],
)
def test_index_and_completions_are_numbers(index: str, count: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(parts.INDEX, index)
    monkeypatch.setenv(parts.COMPLETIONS, count)
    with pytest.raises(ProjectError, match=re.escape(said)):
        parts.this()


def test_output_is_a_folder_apart_from_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProjectError, match=r"OUTPUT is 'out\.parquet': 2 parts \(COMPLETIONS\) need a folder"):
        pod(0, 2, monkeypatch, "out.parquet")
    for index in range(2):  # also of another part's files
        with pytest.raises(ProjectError, match="part of the input"):
            pod(index, 2, monkeypatch, "in/day=1")


def test_a_part_has_the_columns_of_the_tables_first_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("in/day=1/9.parquet", ROWS[:1], ["id", "age", "customer's plan", "comment"])
    pod(0, 6, monkeypatch)
    with pytest.raises(ProjectError, match=r"day=1/9\.parquet has other columns or types than .*day=0/0\.parquet"):
        pod(5, 6, monkeypatch)
    assert {*written()} == {"part-00000.parquet"}


def test_csv_counts_rows_and_malformed_lines_in_each_file(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lines").mkdir()
    for name in ("a", "b"):
        Path(f"lines/{name}.csv").write_text("age,customer's plan\n1,gold\n2\n3,gold\n")
    found = source.Source("lines/*.csv", part=parts.Part(0, 1))
    chunks = [*found.chunks()]
    assert [(chunk.file, row) for chunk in chunks for row in chunk.rows] == [
        ("a.csv", 0), ("a.csv", 2), ("b.csv", 0), ("b.csv", 2)
    ]  # fmt: skip
    assert [(chunk.file, row) for chunk in chunks for row, _ in chunk.malformed] == [("a.csv", 1), ("b.csv", 1)]
    batch.predict(found, "lines.parquet", model, max_rejected=0.5)
    assert read("lines.rejected.parquet")[["file", "row"]].to_numpy().tolist() == [["a.csv", 1], ["b.csv", 1]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_pod_leaves_nothing_to_the_next_one(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that are finished stay; the one that is not is made anew by the next pod of its index."""
    pod(0, 2, monkeypatch)
    finished = written()
    write(table(1), [[str(row), "1", "gold", ""] for row in range(300_000)])
    arguments = ["--input", "in/*/*.parquet", "--output", "out", "--archive", str(archive())]
    environment = os.environ | {parts.INDEX: "1", parts.COMPLETIONS: "2"}
    process = subprocess.Popen([sys.executable, "-m", "gitops.inference.batch", *arguments], env=environment)
    while process.poll() is None and not list(Path("out").glob(".*-part-00001.rejected.parquet")):
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 1)
    assert {name for name in written() if not name.startswith(".")} == {*finished}
    pod(0, 2, monkeypatch)
    pod(1, 2, monkeypatch)
    assert {*written()} == {*finished, "part-00001.parquet", "part-00001.rejected.parquet"}
    assert len(read("out/part-00001.parquet")) == 300_005
