"""`make batch`: the served predictions for whole tables; bad rows go to a file beside them, no file is incomplete."""

from __future__ import annotations

import csv
import gzip
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
import torch
from breast_cancer import features
from conftest import ROOT
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.inference import batch, sink, source
from gitops.inference.model import Model, load
from gitops.integrations import dvc
from gitops.releases import release
from gitops.releases.record import Deployed
from gitops.serving import package
from gitops.tabular import decision

HEADER = ["id", "age", "customer's plan", "note"]
ROWS = [
    ["007", " 30 ", "gold", 'said "hi", twice'],
    ["008", "NA", "", ""],
    ["009", "4e1", " NA", "two\nlines"],
    ["010", "old", "gold", "the age is a word"],
    ["011", str(tiny_model.UNLUCKY), "gold", "the model fails"],
    ["012", "50", "gold", "NA"],
]
GOOD, BAD = [0, 1, 2, 5], [3, 4]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of the archive that `make pipeline` has left in the workspace."""
    monkeypatch.chdir(tmp_path)
    for name in (".venv", "serving", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in (artifacts.MODEL, artifacts.TEST):
        path.parent.mkdir(parents=True, exist_ok=True)
    tiny_model.save(artifacts.MODEL)
    artifacts.write_json(artifacts.SCHEMA, tiny_model.SCHEMA)
    artifacts.write_json(artifacts.DECISION, {"threshold": 0.625, "metric": "f1", "value": 0.5})
    artifacts.write_json(artifacts.FEATURE_VIEW, {})  # goes along where the project has a feature store
    pd.DataFrame({"age": [30.0, None], "customer's plan": ["gold", None]}).to_parquet(artifacts.TEST)
    package.main()
    return load(archive(), artifacts.digest(artifacts.MODEL))


def archive() -> Path:
    return next(Path("package").glob("*.mar"))


def write(path: str, rows: list[list[str]] = ROWS, header: list[str] = HEADER) -> str:
    """Write a table in the form that its name says, and return its name."""
    if path.endswith(".parquet"):
        numbers = [None if row[1] == "NA" else float("inf") if row[1] == "old" else float(row[1]) for row in rows]
        texts = {name: pa.array([row[index] for row in rows]) for index, name in enumerate(header) if name != "age"}
        table = pa.table(texts | {"age": pa.array(numbers)}).select(header)
        with fsspec.open(path, "wb") as file:
            pq.write_table(table, file)
        return path
    with fsspec.open(path, "wt", compression="infer", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read(path: str) -> pd.DataFrame:
    with fsspec.open(path, "rb", compression="infer") as file:
        if path.endswith(".parquet"):
            return pd.read_parquet(file)
        return pd.read_csv(file, dtype={"id": str, "model_version": str})  # which may be digits alone


def run(table: str, output: str, model: Model) -> tuple[int, int]:
    return batch.predict(source.Source(table), output, model, max_rejected=0.5)


@pytest.mark.parametrize(
    ("table", "output"),
    [
        ("t.csv", "out/o.csv"),
        ("t.csv.gz", "o.parquet"),
        ("t.parquet", "o.csv.gz"),
        ("memory://in/t.csv.gz", "memory://out/o.csv"),
        ("memory://in/t.parquet", "memory://o.parquet"),
    ],
)
def test_rows_get_the_served_predictions(table: str, output: str, model: Model) -> None:
    assert run(write(table), output, model) == (len(GOOD), len(BAD))
    rows = [
        {"age": age, "customer's plan": plan} for age, plan in ((30, "gold"), (None, None), (40, None), (50, "gold"))
    ]
    served = package.respond({"instances": rows}, decision.schema())
    assert served["threshold"] == 0.625
    assert [answer["label"] for answer in served["predictions"]] == ["yes", "no", "no", "yes"]

    found = read(output)
    assert found.columns.tolist() == ["row", "id", "note", "prediction", "p_no", "p_yes", "model_version"]
    assert found["row"].tolist() == GOOD
    assert found["id"].tolist() == [ROWS[row][0] for row in GOOD]
    assert found["note"].tolist()[0] == ROWS[0][3] and found["note"].tolist()[2] == ROWS[2][3]
    assert found["prediction"].tolist() == [answer["label"] for answer in served["predictions"]]
    for name in ("no", "yes"):
        expected = [answer["probabilities"][name] for answer in served["predictions"]]
        assert found[f"p_{name}"].tolist() == pytest.approx(expected, abs=1e-6)
    assert set(found["model_version"]) == {served["model_version"]}

    rejected = read(sink.rejected(output))
    assert rejected.columns.tolist() == ["row", "rejected_column", "rejected_reason", *HEADER]
    assert rejected["row"].tolist() == BAD
    assert rejected["rejected_reason"].tolist() == [
        f"column 'age' is {'inf' if table.endswith('parquet') else repr('old')}: a finite number is expected",
        "the model's answer is not a finite number",
    ]
    assert rejected["rejected_column"].tolist()[0] == "age" and pd.isna(rejected["rejected_column"].tolist()[1])
    assert rejected["note"].tolist() == [ROWS[row][3] for row in BAD]


def test_malformed_lines_are_rejected_with_their_numbers(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CSV_BLOCK", 512)  # so that there are many chunks
    lines, expected = [",".join(['"id"', "age", "customer's plan"])], {}
    for row in range(2000):
        if row % 97 == 5 or 700 < row < 760 or row > 1990:
            lines.append(f"{row},1" if row % 2 else f"{row},1,gold,more")
            expected[row] = f"{2 if row % 2 else 4} cells where 3 are expected"
        elif row % 89 == 7:
            lines.append(f"{row},x,gold")
            expected[row] = "column 'age' is 'x': a finite number is expected"
        else:
            lines.append(f'"{row}",1,"go\nld"' if row % 50 == 7 else f"{row},1,gold")
        lines += [""] * (row % 300 == 20)  # an empty line is not counted
    Path("t.csv").write_text("\r\n".join(lines))
    assert run("t.csv", "o.csv", model) == (2000 - len(expected), len(expected))
    rejected, found = read("o.rejected.csv"), read("o.csv")
    assert dict(zip(rejected["row"], rejected["rejected_reason"], strict=True)) == expected
    assert rejected["row"].is_monotonic_increasing
    assert found["row"].astype(str).tolist() == found["id"].tolist()
    assert set(found["row"]) | set(expected) == set(range(2000))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_named_like_the_outputs_are_carried_by_other_names(suffix: str, model: Model) -> None:
    header = ["row", "age", "customer's plan", "prediction"]
    assert run(write(f"t{suffix}", header=header), "o.csv", model) == (len(GOOD), len(BAD))
    found, rejected = read("o.csv"), read("o.rejected.csv")
    own = ["prediction", "p_no", "p_yes", "model_version"]
    assert found.columns.tolist() == ["row", "input_row", "input_prediction", *own]
    assert found["row"].tolist() == GOOD
    assert found["input_row"].astype(str).str.zfill(3).tolist() == [ROWS[row][0] for row in GOOD]
    assert set(found["prediction"]) <= {"no", "yes"}
    assert rejected.columns.tolist() == [
        *("row", "rejected_column", "rejected_reason"),
        *("input_row", "age", "customer's plan", "prediction"),
    ]
    assert rejected["input_row"].astype(str).str.zfill(3).tolist() == [ROWS[row][0] for row in BAD]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_the_same_input_gives_the_same_bytes_in_whatever_order_chunks_are_done(
    suffix: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CSV_BLOCK", 1024)
    monkeypatch.setattr(source, "PARQUET_ROWS", 50)
    monkeypatch.setattr(sink, "ROW_GROUP", 120)
    table = write(f"t{suffix}", [[str(row), str(row % 90), "gold", ""] for row in range(1000)])
    run(table, f"o{suffix}", model)
    first = Path(f"o{suffix}").read_bytes()
    assert read(f"o{suffix}")["id"].astype(int).tolist() == list(range(1000))
    real = model.predict

    def uneven(*tensors: torch.Tensor) -> Any:
        time.sleep(len(tensors[0]) % 3 / 100)
        return real(*tensors)

    object.__setattr__(model, "predict", uneven)
    run(table, f"o{suffix}", model)
    assert Path(f"o{suffix}").read_bytes() == first


def test_a_folder_is_one_table(model: Model) -> None:
    Path("in").mkdir()
    write("in/b.parquet", ROWS[3:])
    write("in/a.parquet", ROWS[:3])
    Path("in/_SUCCESS.parquet").touch()
    for table in ("in", "in/*.parquet"):
        assert run(table, "o.csv", model) == (len(GOOD), len(BAD))
        assert read("o.csv")["row"].tolist() == GOOD
        assert read("o.rejected.csv")["row"].tolist() == BAD
    with pytest.raises(ProjectError, match="part of the input"):
        run("in", "in/o.parquet", model)
    Path("in/more").mkdir()
    for other in ("in/c.csv", "in/more/c.parquet"):
        write(other, ROWS)
        with pytest.raises(ProjectError, match=rf"INPUT is 'in': .*{Path(other).relative_to('in')} would not be read"):
            run("in", "o.csv", model)
        Path(other).unlink()
    write("in/c.parquet", ROWS, ["id", "age", "customer's plan", "comment"])
    with pytest.raises(ProjectError, match=r"c\.parquet has other columns or types than"):
        run("in", "o.csv", model)


def test_a_bad_table_is_an_error_before_anything_is_computed(model: Model) -> None:
    object.__setattr__(model, "predict", None)
    for header, said in (
        (["id", "Age", "plan", "note"], "t.csv lacks columns that the model needs: 'age', \"customer's plan\""),
        (["row", "age", "customer's plan", "input_row"], "rename 'input_row'"),
        (["age", "age ", "customer's plan", "note"], r"columns \['age'\] appear more than once"),
    ):
        with pytest.raises(ProjectError, match=said):
            run(write("t.csv", header=header), "o.csv", model)
    for table, output, said in (
        ("none.csv", "o.csv", "INPUT is 'none.csv': there is no such file"),
        ("t.xlsx", "o.csv", r"INPUT is '.*t\.xlsx': a name that ends in \.csv, \.csv\.gz, \.parquet is needed"),
        ("t.csv", "o.json", "OUTPUT is 'o.json': a name that ends in"),
        ("t.csv", "t.csv", "OUTPUT is 't.csv', which is part of the input"),
        ("nowhere://t.csv", "o.csv", "INPUT is 'nowhere://t.csv', which cannot be opened"),
    ):
        Path("t.xlsx").touch()
        write("t.csv")
        with pytest.raises(ProjectError, match=said):
            run(table, output, model)
    for content in (b"", b"PAR1 not at all", gzip.compress(b"a,b\n1,2\n")[:-9]):
        Path("broken.csv.gz").write_bytes(content)
        Path("broken.parquet").write_bytes(content)
        for table in ("broken.csv.gz", "broken.parquet"):
            with pytest.raises(ProjectError, match=r"is not a readable table|lacks columns"):
                run(table, "o.csv", model)
    assert not list(Path().glob("*o.*")), "nothing is left"


def test_a_table_whose_end_is_broken_leaves_what_was_there(model: Model) -> None:
    Path("o.csv").write_text("of yesterday")
    write("t.csv.gz", ROWS * 1000)
    Path("t.csv.gz").write_bytes(Path("t.csv.gz").read_bytes()[:-100])
    with pytest.raises(ProjectError, match=r"t\.csv\.gz is not a readable table"):
        run("t.csv.gz", "o.csv", model)
    assert Path("o.csv").read_text() == "of yesterday"
    assert [path.name for path in Path().iterdir() if "o." in path.name] == ["o.csv"]


def test_without_a_good_row_there_is_no_output_and_without_a_bad_one_no_other_file(model: Model) -> None:
    with pytest.raises(ProjectError, match=r"none of 1 rows fits: o\.rejected\.csv says why"):
        run(write("t.csv", [ROWS[3]]), "o.csv", model)
    assert not Path("o.csv").exists() and Path("o.rejected.csv").exists()
    assert run(write("t.csv", [ROWS[0]]), "o.csv", model) == (1, 0)
    assert not Path("o.rejected.csv").exists(), "an earlier run's"
    assert run(write("t.csv", []), "o.csv", model) == (0, 0)
    assert Path("o.csv").read_text().count("\n") == 1, "the header"
    assert [path.name for path in Path().iterdir() if path.name.startswith(".") and path.name != ".venv"] == []


def test_more_than_a_fifth_rejected_is_an_error(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OUTPUT stays as it was, the rejected rows are written; MAX_REJECTED is the limit."""
    Path("o.csv").write_text("of yesterday")
    good = [ROWS[0]] * 7
    table = write("t.csv", [*good, *ROWS[3:4] * 2])
    with pytest.raises(ProjectError) as error:
        batch.predict(source.Source(table), "o.csv", model)
    assert str(error.value) == (
        "2 of 9 rows do not fit, more than MAX_REJECTED (0.2) allows: o.rejected.csv says why, o.csv is unchanged"
    )
    assert Path("o.csv").read_text() == "of yesterday"
    assert read("o.rejected.csv")["row"].tolist() == [7, 8]
    table = write("t.csv", [*good, ROWS[0], *ROWS[3:4] * 2])
    assert batch.predict(source.Source(table), "o.csv", model) == (8, 2), "a fifth"
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for limit, arguments in (("0.1", []), ("1", ["--max-rejected", "0.1"])):
        monkeypatch.setenv("MAX_REJECTED", limit)
        monkeypatch.setattr(sys, "argv", ["batch", "--input", table, "--output", "o.csv", *arguments])
        with pytest.raises(ProjectError, match=r"2 of 10 rows do not fit, more than MAX_REJECTED \(0\.1\) allows"):
            batch.main()
    for wrong in ("many", "1.5", "nan"):
        monkeypatch.setenv("MAX_REJECTED", wrong)
        monkeypatch.setattr(sys, "argv", ["batch", "--input", table, "--output", "o.csv"])
        with pytest.raises(ProjectError, match=f"MAX_REJECTED is '{wrong}': a number from 0 to 1 is needed"):
            batch.main()


@pytest.mark.parametrize("fails", ["open", "write", "close", "mv"])
def test_a_cloud_that_fails_is_named(fails: str, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cloud's library has errors of its own, which are no OSErrors."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/out/o.csv", b"of yesterday")
    table = write("t.csv", ROWS * 1000)

    class CloudError(Exception):
        """As botocore's."""

    def fail(*_: Any, **__: Any) -> None:
        raise CloudError("no way there")

    of = fsspec.implementations.memory.MemoryFile if fails in ("write", "close") else type(memory)
    monkeypatch.setattr(of, fails, fail)
    said = r"^OUTPUT is 'memory://out/o(\.rejected)?\.csv', which cannot be used: .*no way"
    with pytest.raises(ProjectError, match=said):
        run(table, "memory://out/o.csv", model)
    monkeypatch.undo()
    assert memory.cat_file("/out/o.csv") == b"of yesterday"
    for name in ("isfile", "open"):
        monkeypatch.setattr(type(memory), name, fail)
        with pytest.raises(ProjectError, match=r"^INPUT.*no way"):
            source.Source("memory://out/o.csv")


def test_a_model_that_is_not_the_expected_one_is_an_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = artifacts.digest(artifacts.MODEL)
    with pytest.raises(ProjectError, match=f"holds a model with sha256 {sha256}, and 0000 is expected"):
        load(archive(), "0000")
    with pytest.raises(ProjectError, match=r"none\.mar is not a model archive"):
        load(Path("none.mar"), sha256)
    monkeypatch.setattr(features, "category_code", lambda text: 0)  # a later version of this code
    with pytest.raises(ProjectError, match="fails its smoke test"):
        load(archive(), sha256)


def test_the_released_model(model: Model, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    sha256 = artifacts.digest(artifacts.MODEL)

    class Record:
        """As much of a release as is asked for."""

        package = type("File", (), {"md5": "abc"})
        model = type("Model", (), {"sha256": sha256})

    monkeypatch.setattr(release, "present", lambda environment: Deployed("commit", Record))  # type: ignore[arg-type]
    monkeypatch.setattr(dvc, "fetch", lambda md5: Path(f"{md5}.object"))
    archive().rename("abc.object")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["batch", "--environment", "production"])
    monkeypatch.setenv("INPUT", write("t.csv"))
    monkeypatch.setenv("OUTPUT", "o.csv")
    monkeypatch.setenv("MAX_REJECTED", "0.4")
    batch.main()
    printed = capsys.readouterr()
    assert f"o.csv: 4 rows predicted by {sha256[:12]}" in printed.out
    assert "2 rows were REJECTED: o.rejected.csv has them" in printed.err

    monkeypatch.setattr(sys, "argv", ["batch", "--archive", "abc.object"])
    monkeypatch.delenv("MODEL_SHA256", raising=False)
    with pytest.raises(ProjectError, match="MODEL_SHA256 is not set"):
        batch.main()
    monkeypatch.setenv("MODEL_SHA256", sha256)
    batch.main()
    monkeypatch.setattr(release, "present", lambda environment: None)
    monkeypatch.setattr(sys, "argv", ["batch", "--environment", "production"])
    with pytest.raises(ProjectError, match="nothing is released to production yet"):
        batch.main()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_what_was_there(number: signal.Signals, model: Model) -> None:
    Path("t.csv").write_text("age,customer's plan\n" + "1,gold\n" * 3_000_000)
    Path("o.csv").write_text("of yesterday")
    command = [sys.executable, "-m", "gitops.inference.batch", "--input", "t.csv", "--output", "o.csv"]
    process = subprocess.Popen(command)
    while process.poll() is None and not list(Path().glob(".*-o.rejected.csv")):
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 1)
    assert Path("o.csv").read_text() == "of yesterday"
    left = [path.name for path in Path().glob(".*") if path.name != ".venv"]
    assert left == [] if number == signal.SIGTERM else len(left) == 2, left
