"""The request log and labels without a person's lines: in each form of the log, and its readers see nothing odd."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from erasing import NOW, WHO, fill_log, holding, line, litter, refused, settings, write_labels, write_log
from erasing import here as here
from gitops.core import params
from gitops.core.artifacts import ProjectError
from gitops.monitoring import compact, ground_truth, labels, log_entries, request_log
from gitops.privacy import label_rows, log_lines
from gitops.privacy.subject import Subject
from table_cases import csv
from test_erase_rows import HOSTILE

PERSON = Subject(WHO, "person")


@pytest.fixture(autouse=True)
def _project(here: Path) -> None:
    settings("data/raw.csv")


def read() -> tuple[list[str], int]:
    """Return the ids of the requests that readers see, and how many lines they cannot read."""
    unreadable: Counter[str] = Counter()
    with request_log.read(None) as log:
        found = [entry["request_id"] for entry in log_entries.each(log.lines, unreadable)]
        if log.lines.groups:
            found += [row[0] for row in log.lines.rows(log.lines.each("request_id", "line IS NULL"))]
    return sorted(found), unreadable.total()


def test_every_form_of_the_log(here: Path) -> None:
    fill_log()
    litter()
    (table,) = [path for path in Path("requests").rglob("*.parquet") if not path.name.startswith(".")]
    assert len(holding(WHO, "requests")) == 5
    before, torn = read()
    assert torn == 0
    sizes = {path: path.stat().st_size for path in Path("requests").rglob("*.jsonl")}
    with request_log.opened("REQUEST_LOG") as folder:
        (described,) = folder.tables([folder.name(str(table.absolute()))])
        assert log_lines.search(PERSON).lines == 5 and len(holding(WHO, "requests")) == 5
        found = log_lines.erase(PERSON)
        (now,) = folder.tables([described.name])
    assert found.keys == {("mine", 0), ("mine-2", 0), ("x", 0)} and (found.files, found.named) == (4, True)
    assert holding(WHO, "requests") == holding("mine", "requests") == []
    assert read() == (sorted({*before} - {"mine", "mine-2", "x", "no"}), 0)
    assert (now.rows, now.sources, now.columns) == (described.rows - 1, described.sources, described.columns)
    assert sizes == {path: path.stat().st_size for path in Path("requests").rglob("*.jsonl")}
    again = log_lines.erase(PERSON)
    assert (again.lines, again.keys) == (0, set())


def test_a_line_that_was_evaluated_is_not_evaluated_again(here: Path) -> None:
    """Offsets into files, and what compaction has of them, hold after an erasure."""
    write_log([line("a", WHO), line("b", "other"), line("c", WHO), line("d", "other")])
    with request_log.read(None) as log:
        evaluated = log.evaluated
    request_log.save(evaluated, NOW)
    log_lines.erase(PERSON)
    with request_log.read(None) as log:
        assert [*log.lines.rows(log.lines.each("request_id", "new"))] == [] if log.lines.groups else True
        assert log.evaluated.offsets == evaluated.offsets
    done = compact.compact(NOW)
    assert (done.files, done.lines) == (1, 2) and not [*Path("requests").rglob("*.jsonl")]
    assert read() == (["b", "d"], 0)


def test_a_file_of_one_person_alone(here: Path) -> None:
    path = write_log([line("a", WHO), line("b", WHO)])
    log_lines.erase(PERSON)
    assert path.read_bytes().strip() == b"" and read() == ([], 0)
    assert compact.compact(NOW).lines == 0 and read() == ([], 0)
    write_log([line("c", WHO)])
    compact.compact(NOW)
    log_lines.erase(PERSON)
    assert read() == ([], 0)


def test_a_server_goes_on_writing_to_its_file(here: Path) -> None:
    path = write_log([line("a", WHO), line("b", "other")], moment=NOW)
    with path.open("ab", buffering=0) as server:
        log_lines.erase(PERSON)
        server.write(json.dumps(line("c", "other", NOW)).encode() + b"\n")
    assert read() == (["b", "c"], 0)


def test_a_line_that_is_half_erased_is_finished(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a run that was killed within a write: the id is gone, and other values of the line are there."""
    path = write_log([line("a", "other"), line("b", WHO, note="secret"), line("c", "other")])
    calls: list[int] = []
    write = os.pwrite

    def killed(descriptor: int, content: bytes, offset: int) -> int:
        calls.append(len(content))
        if len(content) > 1:
            write(descriptor, content[: len(content) * 4 // 5], offset)
            raise KeyboardInterrupt
        return write(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", killed)
    with pytest.raises(KeyboardInterrupt):
        log_lines.erase(PERSON)
    assert len(calls) == 2 and WHO not in path.read_text() and "probabilities" in path.read_text().splitlines()[1]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    log_lines.erase(PERSON)
    assert path.read_text().splitlines()[1].strip() == "" and read() == (["a", "c"], 0)


@pytest.mark.parametrize("who", HOSTILE)
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_an_id_may_be_any_text(here: Path, who: str, form: str) -> None:
    lines = [line("a", f"{who}x"), line("b", who), line("c", f" {who} "), line("d", None), line("e", "other", note=who)]
    write_log(lines)
    if form == "parquet":
        compact.compact(NOW)
    found = log_lines.erase(Subject(who, "person"))
    assert found.lines == 2 and read() == (["a", "d", "e"], 0)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_an_id_may_be_a_number(here: Path, form: str) -> None:
    values: list[Any] = [7, 7.0, 70, 0.7, 71, 7.5, -7, None]
    write_log([line(str(at), "x", person=value) for at, value in enumerate(values)])
    if form == "parquet":
        compact.compact(NOW)
    assert log_lines.erase(Subject("7", "person")).lines == 2 and read()[0] == list("234567")


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_request_is_erased_by_its_id(here: Path, form: str) -> None:
    """All of its instances, and its refusals; what another request has in a column is not its id."""
    whole = [line("r", "p") | {"instance": at} for at in range(3)]
    write_log([*whole, refused("r", "no number"), line("rr", "r"), refused("s", "'r' is none")])
    if form == "parquet":
        compact.compact(NOW)
    found = log_lines.erase(Subject("r", None))
    assert found.keys == {("r", 0), ("r", 1), ("r", 2)} and found.lines == 4
    assert read() == (["rr", "s"], 0)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_only_the_persons_row_of_a_request_goes(here: Path, form: str) -> None:
    write_log([line("r", "other"), line("r", WHO) | {"instance": 1}, line("r", "third") | {"instance": 2}])
    write_labels(["r,0,yes", "r,1,no", "r,2,yes", "s,0,no"], header="request_id,instance,label")
    if form == "parquet":
        compact.compact(NOW)
    keys = log_lines.erase(PERSON).keys
    assert keys == {("r", 1)} and read() == (["r", "r"], 0)
    assert label_rows.erase(PERSON, keys, csv()).labels == 1
    assert Path("labels/a.csv").read_text() == "request_id,instance,label\nr,0,yes\nr,2,yes\ns,0,no\n"


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_what_cannot_be_read_goes_if_the_id_is_in_it(here: Path, form: str) -> None:
    odd = [
        f'{{"person": "{WHO}", ',
        json.dumps({"who": WHO}),
        json.dumps([WHO]),
        json.dumps(line("e", "other") | {"time": WHO}),
        "other",
        f"x{WHO}x",
    ]
    write_log([*odd, line("good", "other")])
    if form == "parquet":
        compact.compact(NOW)
    assert log_lines.erase(PERSON).lines == 4 and read() == (["good"], 2)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_errors_may_quote_the_id(here: Path, form: str) -> None:
    """Of its column, or of a row as a whole; other columns, and texts that hold it within a word, are others'."""
    quoting = [refused("a", f"{WHO!r} is none"), refused("b", f"a row is {{'person': {WHO!r}}}", None)]
    write_log([*quoting, refused("c", f"{WHO}x is none"), refused("d", f"{WHO} is none", "note")])
    if form == "parquet":
        compact.compact(NOW)
    assert log_lines.erase(PERSON).lines == 2
    with request_log.read(None) as log:
        assert [*log.lines.rows(log.lines.each("request_id", "errors IS NOT NULL") + " ORDER BY 1")] == [("c",), ("d",)]


def test_at_an_address(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_log()
    memory = fsspec.filesystem("memory")
    for folder in ("requests", "labels"):
        memory.put(folder, f"/{here.name}/{folder}", recursive=True)
        monkeypatch.setenv({"requests": "REQUEST_LOG", "labels": "LABELS"}[folder], f"memory://{here.name}/{folder}")
    before = read()[0]
    found = log_lines.erase(PERSON)
    assert found.lines == 5 and label_rows.erase(PERSON, found.keys, csv()).labels == 2
    memory.get(f"/{here.name}", "fetched", recursive=True)
    assert holding(WHO, "fetched") == holding("mine", "fetched") == []
    assert read() == (sorted({*before} - {"mine", "mine-2", "x", "no"}), 0)
    assert [*labels.read()[0]["request_id"]] == ["before", "later"]


def test_labels_of_the_persons_requests(here: Path) -> None:
    """CSV keeps the bytes of its other rows; a column with ids counts, a row that lacks cells stays."""
    path = Path("labels/a.csv")
    write_labels([])
    path.write_bytes(b'label,"request_id"\r\nyes,a\r\n"no", b\r\nyes\r\nyes,c')
    pd.DataFrame({"request_id": ["a", "b", "c"], "instance": [0, 1, 0], "label": ["x", "y", "z"]}).to_parquet(
        "labels/b.parquet"
    )
    write_labels([f"z,no,{WHO}", "y,no,other"], "c.csv", header="request_id,label,person")
    keys = {("b", 0), ("a", 0)}
    assert (label_rows.search(PERSON, keys, csv()).labels, len(path.read_bytes())) == (4, 46)
    assert label_rows.erase(PERSON, keys, csv()).files == 3
    assert path.read_bytes() == b'label,"request_id"\r\nyes\r\nyes,c'
    assert pd.read_parquet("labels/b.parquet")["label"].tolist() == ["y", "z"]
    assert Path("labels/c.csv").read_text() == "request_id,label,person\ny,no,other\n"
    assert label_rows.erase(PERSON, keys, csv()).labels == 0


def test_labels_of_a_request(here: Path) -> None:
    write_labels(["r,yes", "rr,no", " r ,no"])
    assert label_rows.erase(Subject("r", None), set(), csv()).labels == 2
    assert labels.read()[0]["request_id"].tolist() == ["rr"]
    write_labels(["r,yes"])
    label_rows.erase(Subject("r", None), set(), csv())
    assert labels.read()[0].empty, "a file may lose all of its rows"


def test_retraining_appends_what_is_left(here: Path) -> None:
    fill_log()
    before = ground_truth.read(None, ())
    keys = log_lines.erase(PERSON).keys
    label_rows.erase(PERSON, keys, csv())
    after = ground_truth.read(None, ())
    assert len(before.rows) == 4 and [row.inputs["person"] for row in after.rows] == ["other-1", "other-3"]
    assert not after.left_out


def test_a_log_that_does_not_have_ids(here: Path) -> None:
    write_log([line("a", None)])
    assert not log_lines.search(PERSON).named
    compact.compact(NOW)
    found = log_lines.search(PERSON)
    assert not found.named and not found.empty and params.load().data.id == "person"


def test_a_log_that_cannot_be_read_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUEST_LOG", "nowhere")
    with pytest.raises(ProjectError, match="REQUEST_LOG is 'nowhere'"):
        log_lines.search(PERSON)
