"""How `make monitor` reads the request log: which lines count, and which were evaluated before."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.monitoring import labels, log_files, monitor, request_ids
from monitoring import NOW, OTHER, VERSION, World, failed


def test_too_few_rows_are_kept_for_the_next_run(world: World) -> None:
    world.log(world.lines(30))
    status, result = world.run()
    assert (status, result["status"], result["rows"]) == (0, "too_small", 30)
    assert not world.state.exists()
    assert artifacts.MONITOR_HTML.exists() and "model_monitor_status" in artifacts.MONITOR_METRICS.read_text()
    world.log(world.lines(30))
    status, result = world.run()
    assert (status, result["status"], result["rows"]) == (0, "ok", 60)
    world.log(world.lines(7), "b.jsonl")
    assert world.run()[1]["rows"] == 7


def test_times_are_utc(world: World) -> None:
    lines = world.lines(60)
    for line in lines:
        line["time"] = (NOW - timedelta(hours=2)).astimezone(timezone(timedelta(hours=-9))).isoformat()
    world.log(lines)
    result = world.run()[1]
    assert result["from"] == result["to"] == (NOW - timedelta(hours=2)).isoformat()
    assert f"{result['from'][:16].replace('T', ' ')} UTC" in artifacts.MONITOR_HTML.read_text()


def test_lines_of_other_models_and_old_ones_are_counted(world: World) -> None:
    old = [line | {"time": (NOW - timedelta(days=31)).isoformat()} for line in world.lines(7)]
    world.log([*world.lines(40, OTHER), *world.lines(60), *old])
    result = world.run()[1]
    context = json.loads(artifacts.MONITOR_CONTEXT.read_text())
    assert (result["rows"], context["other_versions"], context["too_old"]) == (60, 40, 7)
    assert result["from"] >= (NOW - timedelta(hours=3)).isoformat()


BROKEN = [
    "}",
    "[1]",
    '"\\ud800"',
    json.dumps({"time": "yesterday", "request_id": "a", "model_version": VERSION}),
    json.dumps({"time": NOW.isoformat(), "request_id": 7, "model_version": VERSION}),
    json.dumps({"time": NOW.isoformat(), "request_id": "a", "model_version": VERSION, "inputs": {}}),
    "[" * 100_000,
]


def test_broken_lines_are_counted(world: World) -> None:
    """None is fatal, too many fail a check. A line that is still being written is read once it is complete."""
    odd = world.lines(3)
    odd[0]["inputs"]["income"] = "much"
    odd[1]["prediction"] = {"label": "perhaps", "probabilities": {}}
    odd[2]["inputs"]["surprise"] = 1
    half = json.dumps(world.lines(1)[0])
    world.log(world.lines(300))
    world.log(odd, end="\n".join([*BROKEN, ""]) + half[:50])
    status, result = world.run()
    assert (status, result["rows"]) == (0, 300)
    context = json.loads(artifacts.MONITOR_CONTEXT.read_text())
    assert sum(context["unreadable"].values()) == len(BROKEN) + len(odd)
    with Path("requests/a.jsonl").open("a") as file:
        file.write(half[50:] + "\n")
    assert world.run()[1]["rows"] == 1
    world.log([], end="}\n" * 60)
    assert failed(world.run()[1]) == {("unreadable lines", None)}


def test_column_that_the_log_lacks_is_missing(world: World) -> None:
    lines = world.lines(60)
    for line in lines:
        del line["inputs"]["income"]
    world.log(lines)
    assert world.run()[1]["rows"] == 60
    assert artifacts.read_parquet(artifacts.MONITOR_CURRENT)["income"].isna().all()


def test_file_that_became_shorter_is_read_from_its_start(world: World) -> None:
    world.log(world.lines(80))
    world.run()
    Path("requests/a.jsonl").unlink()
    world.log(world.lines(60))
    assert world.run()[1]["rows"] == 60


def test_log_on_any_address(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log, state and metrics lie where fsspec says, here in memory."""
    import fsspec

    memory = fsspec.filesystem("memory")
    world.log(world.lines(60))
    memory.pipe_file("/bucket/log/pod/a.jsonl", Path("requests/a.jsonl").read_bytes())
    monkeypatch.setenv("REQUEST_LOG", "memory://bucket/log/")
    assert world.run()[1]["rows"] == 60
    assert json.loads(memory.cat_file("/bucket/log/monitor-state.json"))["offsets"].keys() == {"pod/a.jsonl"}
    assert memory.cat_file("/bucket/log/monitor.prom") == artifacts.MONITOR_METRICS.read_bytes()
    assert world.run()[1]["rows"] == 0
    memory.pipe_file("/bucket/log/monitor-state.json", b"{}")
    with pytest.raises(ProjectError, match="delete it"):
        monitor.main()


def test_evaluated_files_are_read_again_only_for_labels(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket's log has very many objects. The offsets of those that are not read are kept."""
    import fsspec

    memory = fsspec.filesystem("memory")
    world.log(world.lines(60, label=True))
    for name in "abc":
        memory.pipe_file(f"/bucket/read/{name}.jsonl", Path("requests/a.jsonl").read_bytes())
    monkeypatch.setenv("REQUEST_LOG", "memory://bucket/read")
    monkeypatch.setattr(log_files, "FILES", 2)
    reads: list[list[str]] = []
    plain = type(memory).cat_ranges

    def counted(self: Any, paths: list[str], *rest: Any) -> Any:
        reads.append(paths)
        return plain(self, paths, *rest)

    monkeypatch.setattr(type(memory), "cat_ranges", counted)
    assert world.run()[1]["rows"] == 180
    assert [len(paths) for paths in reads] == [2, 1]
    memory.pipe_file("/bucket/read/d.jsonl", Path("requests/a.jsonl").read_bytes())
    assert world.run()[1]["rows"] == 60
    assert reads[2:] == [["/bucket/read/d.jsonl"]]
    assert json.loads(memory.cat_file("/bucket/read/monitor-state.json"))["offsets"].keys() == set(
        map("{}.jsonl".format, "abcd")
    )
    world.label()
    assert world.run()[1]["rows"] == 0
    assert sum(map(len, reads)) == 3 + 1 + 4


def test_labels_are_texts_of_requests(world: World) -> None:
    """A text that pandas reads as missing is a class; the instance is 0 by default; the later of two labels counts."""
    Path("labels").mkdir()
    Path("labels/a.csv").write_text(
        "request_id,instance,label\na,,NA\nb,1,x\n,0,x\nc,one,x\nd,0, \n", encoding="utf-8-sig"
    )
    pd.DataFrame({"request_id": ["b", "e"], "instance": [1.0, None], "label": [7.0, 0.1]}).to_parquet(
        "labels/b.parquet"
    )
    found, invalid = labels.read()
    assert found.values.tolist() == [["a", 0, "NA"], ["b", 1, "7"], ["e", 0, "0.1"]]
    assert invalid == 3


@pytest.mark.parametrize("variable", ["REQUEST_LOG", "LABELS"])
@pytest.mark.parametrize("address", ["nowhere", "gopher://nowhere"])
def test_address_that_cannot_be_used(
    variable: str, address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.log(world.lines(60))
    monkeypatch.setenv(variable, address)
    with pytest.raises(ProjectError, match=f"{variable} is '{address}'"):
        monitor.main()


def test_first_run_without_a_log(world: World) -> None:
    with pytest.raises(ProjectError, match="REQUEST_LOG is 'requests': there is no such folder"):
        monitor.main()


def killed_at(turn: int, action: Callable[[], object]) -> int | None:
    """Run `action` in a process that is killed just before (even turn) or after (odd) a rename."""

    def act() -> None:
        replace, left = Path.replace, [turn // 2]

        def replacing(path: Path, target: Any) -> Path:
            if left[0] == 0 and turn % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            done = replace(path, target)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return done

        Path.replace = replacing  # type: ignore[method-assign]
        action()

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join(60)
    return process.exitcode


def test_killed_anywhere_and_run_again(world: World) -> None:
    """Every file is written by a rename: killed at any of them, the next run ends like one that was never killed."""
    world.log([*world.lines(60, label=True), *world.refused(1, "income")], end="}\n")
    world.label()
    status, result = world.run()
    state, page = world.offsets(), artifacts.MONITOR_HTML.read_text()
    kept = {path: path.read_bytes() for path in sorted(Path("monitoring").iterdir())}
    for turn in range(100):
        world.state.unlink()
        exitcode = killed_at(turn, monitor.main)
        if exitcode == 0:
            break
        assert exitcode == -signal.SIGKILL
        if not world.state.exists():  # the kill came before the end
            again, found = world.run()
            assert (again, found | {"time": result["time"]}) == (status, result)
        assert world.offsets() == state and artifacts.MONITOR_HTML.read_text() == page
        assert {path: path.read_bytes() for path in Path("monitoring").iterdir() if path in kept} == kept
    assert turn == 2 * 12  # renames: seven files in monitoring/, three reports, metrics and state beside the log


@pytest.mark.parametrize(
    ("log", "labels"),
    [
        ("requests", "requests"),
        ("requests/", "requests"),
        ("requests", "requests/labels"),
        ("labels/requests", "labels"),
        ("requests", "other/../requests/labels"),
        ("requests", "{here}/requests/labels"),
        ("requests", "file://{here}/requests"),
        ("link", "requests/labels"),
        ("requests", "link/labels"),
        (".", "labels"),
        ("memory://bucket/a", "memory://bucket/a/"),
        ("memory://bucket/a", "memory://bucket/a/labels"),
        ("memory://bucket/a/log/", "memory://bucket/a"),
        ("memory://bucket", "memory://bucket/labels"),
        ("memory://bucket/a", "memory://bucket/b/../a/labels"),
    ],
)
def test_labels_and_log_that_lie_in_one_another_are_refused(
    log: str, labels: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What writes requests could write labels there."""
    import fsspec

    for folder in ("requests/labels", "labels/requests", "other"):
        Path(folder).mkdir(parents=True)
    Path("link").symlink_to("requests")
    for address in (log, labels):
        if address.startswith("memory://"):
            fsspec.filesystem("memory").pipe_file(f"{address.removeprefix('memory:/').rstrip('/')}/x", b"")
    monkeypatch.setenv("REQUEST_LOG", log.format(here=tmp_path))
    monkeypatch.setenv("LABELS", labels.format(here=tmp_path))
    with pytest.raises(ProjectError, match=r"^LABELS is .* and REQUEST_LOG .*: neither may lie in the other"):
        monitor.main()


@pytest.mark.parametrize(
    ("log", "address"),
    [
        ("requests", "requests-labels"),
        ("not/there/yet", "labels"),
        ("memory://bucket/a", "memory://bucket/a-labels"),
        ("requests", "memory://bucket/requests"),
    ],
)
def test_labels_and_log_beside_one_another(
    log: str, address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    for folder in ("requests", "requests-labels", "labels"):
        Path(folder).mkdir()
    fsspec.filesystem("memory").pipe_file("/bucket/a-labels/x", b"")
    monkeypatch.setenv("REQUEST_LOG", log)
    monkeypatch.setenv("LABELS", address)
    found, invalid = labels.read()
    assert (len(found), invalid) == (0, 0)


@pytest.mark.parametrize("again", [{"income": 4.0}, {}], ids=["values", "client"])
@pytest.mark.parametrize("version", [VERSION, OTHER], ids=["this model", "another model"])
@pytest.mark.parametrize("evaluated", [False, True], ids=["new", "evaluated before"])
def test_a_label_does_not_count_for_whoever_sends_its_id(
    world: World, again: dict[str, float], version: str, evaluated: bool
) -> None:
    """The line of another, its inputs or its client being different, takes the id out of the performance."""
    honest = [line | {"client": "10.0.0.1"} for line in world.lines(200, label=True)]
    world.log(honest)
    world.label()
    if evaluated:
        assert world.run()[1]["performance"]["rows"] == 200
    stolen = [
        line
        | {"inputs": line["inputs"] | again, "model_version": version, "client": "10.0.0.1" if again else "10.9.9.9"}
        | {"prediction": {"label": "no", "probabilities": {"yes": 0.0, "no": 1.0}}}
        for line in honest[:40]
    ]
    world.log(stolen, "b.jsonl")
    result = world.run()[1]
    assert result["performance"]["rows"] == 160
    (note,) = [note for note in result["notes"] if "left out of the performance" in note]
    assert ": 40, the request id was sent again" in note


def test_a_request_that_was_sent_again_unchanged_counts_once(world: World) -> None:
    lines = [line | {"client": "10.0.0.1"} for line in world.lines(100, label=True)]
    world.log([*lines, *lines[:30]])
    world.label()
    result = world.run()[1]
    assert (result["rows"], result["performance"]["rows"]) == (130, 100)
    assert not [note for note in result["notes"] if "left out" in note]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [10, 100_000])
def test_inputs_nested_too_deeply_stop_nothing(depth: int) -> None:
    """Such a line can be read and not be compared, where Python's limit is in between."""
    uses = request_ids.Uses([("r1", 0)])
    uses.add({"request_id": "r1", "inputs": {"income": nested(depth)}})
    uses.add({"request_id": "r1", "inputs": {"income": 1}})
    assert uses.reused == ({"r1"} if depth == 10 else set())
