"""The request log by itself: lines, redaction, sampling, rotation, and failures that no request notices."""

from __future__ import annotations

import atexit
import json
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gitops.serving.server import metrics as server_metrics
from gitops.serving.server import request_log, request_log_files
from gitops.serving.server.request_log import Entry, RequestLog

PHONE = "0049-30-901820"
ROW = {"age": 40, "phone": PHONE}
Start = Callable[..., RequestLog]


@pytest.fixture
def lost() -> Counter[str]:
    """Dropped requests by their reason."""
    return Counter()


@pytest.fixture
def start(lost: Counter[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a log; all that were started are closed at the end."""
    monkeypatch.setattr(request_log, "POLL_INTERVAL", 0.01)
    started = []

    def begin(address: object, sample: float = 1.0, redact: tuple[str, ...] = ()) -> RequestLog:
        def drop(reason: str, requests: int) -> None:
            lost[reason] += requests

        started.append(RequestLog(str(address), {"sample": sample, "redact": list(redact)}, "3f9a0c1d2e4b", drop))
        return started[-1]

    yield begin
    for each in started:
        each.close()
        atexit.unregister(each.close)


def good(name: str, **row: Any) -> Entry:
    return Entry(name, [ROW | row], [{"label": "yes"}], size=100)


def files(folder: Path) -> list[Path]:
    """Return the files of the log, the oldest first."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of all files, whole ones only, as the monitor reads them."""
    texts = [path.read_bytes().rpartition(b"\n")[0] for path in files(folder)]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def test_each_instance_is_a_line(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "new/folder")
    log.add(Entry("a", [ROW, {"age": None, "phone": "ü"}], [{"label": "yes"}, 0.5], time=1795521600.1239))
    log.close()

    first, second = read(tmp_path / "new/folder")
    assert first == {
        "time": "2026-11-24T12:00:00.123Z",
        "request_id": "a",
        "instance": 0,
        "model_version": "3f9a0c1d2e4b",
        "inputs": ROW,
        "prediction": {"label": "yes"},
    }
    assert (second["instance"], second["inputs"], second["prediction"]) == (1, {"age": None, "phone": "ü"}, 0.5)


def test_refused_request_leaves_its_errors(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path)
    problem = {"instance": 2, "column": "age", "error": "instance 2: column 'age' is 'old': a number is expected"}
    log.add(Entry("a", status=400, problems=[problem]))
    log.close()
    [line] = read(tmp_path)
    assert set(line) == {"time", "request_id", "model_version", "status", "errors"}
    assert (line["status"], line["errors"]) == (400, [problem])


def test_redacted_columns_are_in_no_line(start: Start, tmp_path: Path) -> None:
    """Not as a value, nor in an error that quotes it, nor in one that quotes a row that is no object."""
    log = start(tmp_path, redact=("phone",))
    log.add(good("a"))
    problems = [
        {"instance": 0, "column": "phone", "error": f"instance 0: column 'phone' is {PHONE}: text is expected"},
        {"instance": 1, "column": None, "error": f"instance 1: [40, '{PHONE}'] is not an object"},
        {"instance": 2, "column": "age", "error": "instance 2: column 'age' is missing"},
    ]
    log.add(Entry("b", status=400, problems=problems))
    log.close()
    answered, refused = read(tmp_path)
    assert answered["inputs"] == {"age": 40, "phone": "redacted"}
    assert [error["error"] for error in refused["errors"]] == ["redacted", "redacted", problems[2]["error"]]
    assert PHONE not in "".join(path.read_text() for path in files(tmp_path))


@pytest.mark.parametrize(
    ("redact", "row", "client", "inputs"),
    [
        ((), {"age": 40}, "team-a", {"age": 40}),
        (("client",), {"age": 40}, "redacted", {"age": 40}),
        (("client",), {"client": "shop", "age": 40}, "redacted", {"client": "redacted", "age": 40}),
        (("age",), {"client": "shop", "age": 40}, "team-a", {"client": "shop", "age": "redacted"}),
    ],
)
def test_client_is_logged_unless_redacted(
    start: Start, tmp_path: Path, redact: tuple[str, ...], row: dict[str, Any], client: str, inputs: dict[str, Any]
) -> None:
    """As a column of that name is; inputs get no column that the request has not."""
    log = start(tmp_path, redact=redact)
    log.add(Entry("a", [row], [0.5], client="team-a"))
    log.add(Entry("b", status=400, client="team-a"))
    log.add(Entry("c", status=400))
    log.close()
    answered, refused, unknown = read(tmp_path)
    assert (answered["client"], answered["inputs"], refused["client"]) == (client, inputs, client)
    assert "client" not in unknown


def test_a_redacted_column_that_no_row_has_is_in_no_line(start: Start, tmp_path: Path) -> None:
    """Such as the id of a feature store, which errors name and rows do not hold: the monitor would not know it."""
    log = start(tmp_path, redact=("customer",))
    log.add(good("a"))
    log.add(Entry("b", status=400, problems=[{"instance": 0, "column": "customer", "error": f"no {PHONE}"}]))
    log.close()
    answered, refused = read(tmp_path)
    assert answered["inputs"] == ROW
    assert refused["errors"] == [{"instance": 0, "column": "customer", "error": "redacted"}]


def test_sample_is_chosen_by_id(start: Start, tmp_path: Path) -> None:
    names = [f"request-{number}" for number in range(1000)]
    for folder in ("one", "other"):
        log = start(tmp_path / folder, sample=0.2)
        for name in names:
            log.add(Entry(name, [ROW, ROW], [1.0, 2.0]))
        log.close()
    one, other = ([line["request_id"] for line in read(tmp_path / folder)] for folder in ("one", "other"))
    assert one == other
    assert set(Counter(one).values()) == {2}  # a request is logged with all its instances
    assert 150 < len(set(one)) < 250
    assert all(request_log.sampled(name, 1.0) and not request_log.sampled(name, 0.0) for name in names)


def test_smoke_test_and_empty_address_leave_nothing(start: Start, tmp_path: Path) -> None:
    off, log = start(""), start(tmp_path)
    off.add(good("a"))
    assert not off.entries and not off.thread.is_alive()
    log.add(good(request_log.GOLDEN))
    log.close()
    assert read(tmp_path) == []


def test_files_are_rotated_and_bounded(
    start: Start, lost: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "CHUNK_BYTES", 1)  # an entry at a time
    monkeypatch.setattr(request_log_files, "FILE_BYTES", 1000)
    monkeypatch.setattr(request_log_files, "FOLDER_BYTES", 5000)
    (tmp_path / "mine.jsonl").write_text("x" * 10_000)
    log = start(tmp_path)
    for number in range(200):
        log.add(good(f"{number}"))
    log.close()
    (tmp_path / "mine.jsonl").unlink()  # it was left alone, and not counted

    sizes = [path.stat().st_size for path in files(tmp_path)]
    assert len(sizes) > 4
    assert max(sizes) <= 1000
    assert sum(sizes) <= 6000
    names = [int(line["request_id"]) for line in read(tmp_path)]
    assert sorted(names) == list(range(200 - len(names), 200))
    assert not lost


def test_old_file_is_followed_by_a_new_one(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log_files, "FILE_SECONDS", 0.0)
    log = start(tmp_path)
    for name in ("a", "b"):
        log.add(good(name))
        waited(lambda name=name: any(line["request_id"] == name for line in read(tmp_path)))
    assert len(files(tmp_path)) == 2


class Clock:
    """The time as the log's files see it; it stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1795521599.5  # half a second before 2026-11-24, 12:00 UTC
        real = request_log_files.time

        class Time:
            time, monotonic, gmtime, strftime = lambda _: self.now, real.monotonic, real.gmtime, real.strftime

        monkeypatch.setattr(request_log_files, "time", Time())


def test_a_file_lies_in_the_hour_in_which_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not continued in the next one, of which compaction knows nothing yet."""
    clock = Clock(monkeypatch)
    folder = request_log_files.Folder(tmp_path)
    folder.write(b"1\n", 1)
    folder.write(b"2\n", 1)
    clock.now += 1
    folder.write(b"3\n", 1)
    texts = {str(path.parent.relative_to(tmp_path)): path.read_text() for path in files(tmp_path)}
    assert texts == {"date=2026-11-24/hour=11": "1\n2\n", "date=2026-11-24/hour=12": "3\n"}


def test_the_oldest_hours_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of earlier versions, which lie in no hour, are older still; empty folders go, other files stay."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(request_log_files, "FOLDER_BYTES", 3000)
    flat = tmp_path / "20261101T000000-pod-1-000001.jsonl"
    flat.write_bytes(b"x" * 1000)
    (tmp_path / "date=2026-11-24/hour=13").mkdir(parents=True)
    (tmp_path / "date=2026-11-24/hour=13/mine.txt").write_text("mine")
    folder = request_log_files.Folder(tmp_path)
    for _ in range(30):
        folder.write(b"x" * 999 + b"\n", 1)
        clock.now += 3600
    assert not flat.exists()
    hours = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("date=*/hour=*"))
    assert hours == ["date=2026-11-24/hour=13", *(f"date=2026-11-25/hour={hour}" for hour in (13, 14, 15, 16))]


def test_a_file_address_gets_folders_too(tmp_path: Path) -> None:
    sink = request_log_files.sink(f"file://{tmp_path}/log")
    sink.write(b"{}\n", 1, last=True)
    assert read(tmp_path / "log") == [{}]


def waited(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_requests_beyond_the_queue_are_dropped_and_counted(start: Start, lost: Counter[str], tmp_path: Path) -> None:
    log = start(tmp_path)
    log.close()  # nobody empties the queue
    each = 2**20
    began = time.perf_counter()
    for number in range(1000):
        log.add(Entry(f"{number}", [ROW], [1.0], size=each))
    assert time.perf_counter() - began < 5
    assert lost["full"] == 1000 - len(log.entries)
    assert len(log.entries) * each <= request_log.QUEUE_BYTES + each


def test_failed_writes_to_a_folder_are_reported_once_and_counted(
    start: Start, lost: Counter[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log_files, "RETRY_INTERVAL", 0.0)
    (tmp_path / "file").write_text("")
    log = start(tmp_path / "file/folder")
    for number in range(20):
        log.add(good(f"{number}"))
        time.sleep(0.02)
    log.close()
    assert lost == {"failed": 20}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(tmp_path / "file/folder") in caplog.text


def test_full_disk_tears_only_the_last_line(
    start: Start, lost: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on a process's files stands for the disk's end: a write is cut short, then refused."""
    monkeypatch.setattr(request_log, "CHUNK_BYTES", 1)
    monkeypatch.setattr(request_log_files, "RETRY_INTERVAL", 0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        log = start(tmp_path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        for number in range(50):
            log.add(good(f"{number}"))
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    there = {line["request_id"] for line in read(tmp_path)}
    assert there
    assert lost["failed"] == 50 - len(there) > 0
    assert any(not path.read_bytes().endswith(b"\n") for path in files(tmp_path))


def test_folder_is_not_written_soon_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = request_log_files.Folder(tmp_path / "file/folder")
    with pytest.raises(request_log_files.LostError, match="Not a directory") as error:
        folder.write(b"{}\n", 1)
    assert error.value.entries == 1
    (tmp_path / "file").unlink()
    with pytest.raises(request_log_files.LostError, match="failed less than 5 s ago"):
        folder.write(b"{}\n", 1)
    folder.retry_at = 0.0
    folder.write(b"{}\n", 1)
    assert read(tmp_path / "file/folder") == [{}]


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, in place of a cloud's."""
    import fsspec

    system = fsspec.filesystem("memory")
    yield system
    system.rm("/log", recursive=True)


def objects(system: Any) -> list[list[str]]:
    """Return the request ids in each object."""
    found = sorted(system.find("/log"), key=lambda path: path.rpartition("/")[2])
    texts = [system.cat_file(path) for path in found]
    assert all(text.endswith(b"\n") for text in texts)
    return [[json.loads(line)["request_id"] for line in text.splitlines()] for text in texts]


def test_address_gets_whole_objects(
    start: Start, lost: Counter[str], memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log_files, "OBJECT_SECONDS", 0.2)
    log = start("memory://log/model")
    for name in ("a", "b"):
        log.add(good(name))
    waited(lambda: memory.exists("/log/model"))
    log.add(good("c"))
    log.close()  # does not wait for OBJECT_SECONDS
    assert objects(memory) == [["a", "b"], ["c"]]
    for path in memory.find("/log/model"):
        day, hour, name = path.removeprefix("/log/model/").split("/")
        assert request_log_files.NAME.fullmatch(name)
        assert (day, hour) == (f"date={name[:4]}-{name[4:6]}-{name[6:8]}", f"hour={name[9:11]}")
    assert not lost


def test_failed_write_to_an_address_is_retried(
    start: Start,
    lost: Counter[str],
    memory: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(request_log_files, "OBJECT_SECONDS", 0.05)
    put, tries = type(memory).pipe_file, []

    def fails(self: Any, path: str, value: bytes) -> None:
        tries.append(len(value))
        if len(tries) < 4:
            raise RuntimeError("no such bucket")
        put(self, path, value)

    monkeypatch.setattr(type(memory), "pipe_file", fails)
    log = start("memory://log")
    log.add(good("a"))
    waited(lambda: len(tries) >= 4)
    log.close()
    assert objects(memory) == [["a"]]
    assert not lost
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "RuntimeError: no such bucket" in caplog.text


def test_address_that_never_answers_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log_files, "KEPT_BYTES", 1000)
    monkeypatch.setattr(request_log_files, "OBJECT_SECONDS", 0.0)
    sink = request_log_files.sink("memory://log")
    assert isinstance(sink, request_log_files.Objects)
    monkeypatch.setattr(type(sink.system), "pipe_file", lambda *_: 1 / 0)
    lost = 0
    for _ in range(50):
        with pytest.raises(request_log_files.LostError, match="division by zero") as error:
            sink.write(b"x" * 99 + b"\n", 1)
        lost += error.value.entries
        assert len(sink.lines) <= 1100
    assert lost + sink.entries == 50
    assert lost > 0


def test_close_reports_what_it_could_not_write(
    start: Start, lost: Counter[str], memory: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory.mkdir("/log")
    monkeypatch.setattr(type(memory), "pipe_file", lambda *_: 1 / 0)
    log = start("memory://log")
    for name in ("a", "b"):
        log.add(good(name))
    log.close()
    assert (
        caplog.messages[-1] == "The last 2 requests are missing from the request log: memory://log did not accept them"
    )


def test_unknown_protocol_is_counted_as_failed(
    start: Start, lost: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = start("nowhere://bucket")
    log.add(good("a"))
    log.close()
    assert lost == {"failed": 1}
    assert "nowhere" in caplog.text


class Cache:
    """Stands in for TorchServe's cache of metrics: adds the reported values up."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def add_metric_to_cache(self, name: str, unit: str, labels: list[str]) -> Any:
        cache = self

        class Metric:
            def add_or_update(self, value: float, values: list[str]) -> None:
                assert len(values) == len(labels)
                key = (name, *values)
                cache.values[key] = cache.values.get(key, 0) + value

        return Metric()


def test_metrics_begin_at_zero_and_add_up() -> None:
    cache = Cache()
    metrics = server_metrics.Metrics(cache, ["no", "a|b,c:#d"])
    assert set(cache.values.values()) == {0}
    of_numbers = {"model_predictions_sum_total", "model_predictions_squares_total"}
    assert {key[0] for key in cache.values} == set(server_metrics.METRICS) - of_numbers
    before = set(cache.values)

    metrics.answered(0.0015, 3)
    metrics.answered(100.0, 1)
    metrics.predicted([{"label": "no"}, {"label": "a|b,c:#d"}, {"label": "no"}])
    metrics.refused()
    metrics.dropped("full", 2)
    for _ in range(2):
        metrics.flush()

    assert set(cache.values) == before
    buckets = {le: cache.values["model_request_seconds_bucket", le] for le in ("0.001", "0.002", "60.0", "+Inf")}
    assert buckets == {"0.001": 0, "0.002": 3, "60.0": 3, "+Inf": 4}
    assert cache.values["model_request_seconds_count",] == 4
    assert cache.values["model_request_seconds_sum",] == pytest.approx(100.0045)
    assert cache.values["model_predictions_total", "no"] == 2
    assert cache.values["model_predictions_total", "a_b_c__d"] == 1
    assert cache.values["model_refused_total",] == 1
    assert cache.values["model_request_log_dropped_total", "full"] == 2


def test_labels_of_many_classes_are_bounded() -> None:
    cache = Cache()
    metrics = server_metrics.Metrics(cache, [f"class {number}" for number in range(500)])
    metrics.predicted([{"label": f"class {number}"} for number in range(500)])
    metrics.flush()
    series = [key for key in cache.values if key[0] == "model_predictions_total"]
    assert len(series) == server_metrics.MAX_LABELS + 1
    assert cache.values["model_predictions_total", "other"] == 400


def test_numbers_are_counted_without_a_label_and_summed_by_sign() -> None:
    cache = Cache()
    metrics = server_metrics.Metrics(cache, [])
    metrics.predicted([1.5, 2.5, -3])
    metrics.predicted([1e200])  # whose square is infinite
    metrics.flush()
    assert cache.values["model_predictions_total", "number"] == 4
    assert cache.values["model_predictions_sum_total", "+"] == 1e200
    assert cache.values["model_predictions_sum_total", "-"] == 3
    assert cache.values["model_request_rows_squared_total",] == 3**2 + 1
    assert cache.values["model_predictions_squares_total",] == 0
    metrics.predicted([0.5])
    metrics.flush()
    assert cache.values["model_predictions_squares_total",] == 0.25
