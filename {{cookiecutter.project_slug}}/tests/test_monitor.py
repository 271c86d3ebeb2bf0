"""`make monitor` on logs, labels and a release that are written here; Deepchecks runs in the validate environment."""

from __future__ import annotations

import http.server
import json
import multiprocessing
import os
import signal
import subprocess
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PACKAGE, ROOT, SETTINGS
from project import artifacts, logged, monitor, params, release, store
from project.artifacts import ProjectError

PYTHON = ROOT / ".venv/validate/bin/python"
WITH_DEEPCHECKS = monitor.deepchecks
NOW = datetime.now(UTC)
VERSION, OTHER = "a" * 12, "b" * 12

SCHEMA: dict[str, Any] = {
    "task": "binary",
    "target": {"name": "churned", "classes": ["yes", "no"]},  # not in the order of the alphabet
    "features": [
        {"name": "income", "kind": "number", "missing": 0.0, "min": -4.0, "max": 4.0},
        {"name": "prediction", "kind": "category", "missing": 0.0, "categories": {"basic": 0.5, "plus": 0.5}},
        {"name": "member", "kind": "boolean", "missing": 0.0, "mean": 0.5},
        {"name": "joined", "kind": "datetime", "missing": 0.0},
    ],
    "missing_markers": ["", "NA"],
    "rows": {"train": 400},
}

#: Prints every sample of a text for Prometheus, which must be well-formed.
PARSE = """
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    print(*family.samples, sep="\\n")
"""

Line = dict[str, Any]


def people(rows: int, seed: int) -> pd.DataFrame:
    """Return a table of the one population, with labels that go with income."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"row": np.arange(rows), "income": rng.normal(size=rows).clip(-4, 4)})
    table["prediction"] = rng.choice(np.array(["basic", "plus"], dtype=object), rows)
    table["member"] = pd.array(rng.random(rows) > 0.5, dtype="boolean")
    table["joined"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 1000, rows), unit="D")
    table["churned"] = np.where(table["income"] + 0.5 * rng.normal(size=rows) > 0, "yes", "no")
    return table


def probability(income: Any) -> Any:
    """Return the model's probability of "yes"."""
    return 1 / (1 + np.exp(-3 * income))


@dataclass
class World:
    """A release, a log and labels in the present folder."""

    state: Path = Path("requests/monitor-state.json")
    labels: list[str] = field(default_factory=lambda: ["request_id,label"])
    requests: int = 0

    def lines(self, rows: int, version: str = VERSION, label: bool = False, **columns: Any) -> list[Line]:
        """Return log lines of requests of one row each; `columns` replace the logged values."""
        made = []
        for _, row in people(rows, seed=100 + self.requests).iterrows():
            self.requests += 1
            p = float(probability(row["income"]))
            inputs = {"income": row["income"], "prediction": row["prediction"], "member": bool(row["member"])}
            inputs |= {"joined": row["joined"].isoformat()} | columns
            if label:
                self.labels.append(f"r{self.requests},{row['churned']}")
            made.append(
                self.line(version)
                | {
                    "instance": 0,
                    "inputs": inputs,
                    "prediction": {"label": "yes" if p > 0.5 else "no", "probabilities": {"yes": p, "no": 1 - p}},
                }
            )
        return made

    def line(self, version: str = VERSION) -> Line:
        moment = NOW - timedelta(hours=2) + timedelta(seconds=self.requests)
        return {"time": moment.isoformat(), "request_id": f"r{self.requests}", "model_version": version}

    def refused(self, count: int, column: str) -> list[Line]:
        """Return log lines of requests that lack a column."""
        lines = []
        for _ in range(count):
            self.requests += 1
            problem = {"instance": 0, "column": column, "error": f"column {column!r} is missing"}
            lines.append(self.line() | {"status": 400, "errors": [problem]})
        return lines

    def log(self, lines: list[Line], name: str = "a.jsonl", end: str = "") -> None:
        """Add lines, and an end that may be anything, to a file of the log."""
        path = Path("requests", name)
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines) + end)

    def label(self) -> None:
        """Write the labels of the rows that were to have one."""
        Path("labels").mkdir(exist_ok=True)
        Path("labels/a.csv").write_text("\n".join(self.labels) + "\n")

    def run(self) -> tuple[int, dict[str, Any]]:
        """Run the monitor and return its exit status and its verdict."""
        status = monitor.main()
        verdict: dict[str, Any] = json.loads(artifacts.MONITOR.read_text())
        return status, verdict

    def judged(self) -> dict[str, int]:
        ends: dict[str, int] = json.loads(self.state.read_text())["judged"]
        return ends


def failed(verdict: dict[str, Any]) -> set[tuple[str, str | None]]:
    return {(check["check"], check["column"]) for check in verdict["checks"] if not check["passed"]}


def settings(**monitored: Any) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(SETTINGS | {"monitor": {"min_rows": 50, **monitored}}))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A release; Deepchecks is left out, its step finds nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("REQUEST_LOG", "LABELS", "PUSHGATEWAY", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    settings()
    test = people(150, seed=1)
    test.to_parquet("test.parquet")
    p = probability(test["income"])
    guesses = pd.DataFrame({"row": test["row"], "split": "test", "target": test["churned"], "p_yes": p, "p_no": 1 - p})
    guesses.assign(prediction=np.where(p > 0.5, "yes", "no")).to_parquet("predictions.parquet")
    with zipfile.ZipFile("toy.mar", "w") as archive:
        archive.writestr("schema.json", json.dumps(SCHEMA))
    files = {name: Path(name) for name in ("test.parquet", "predictions.parquet", "toy.mar")}
    record = release.Release.model_validate(
        {
            "commit": "c" * 40,
            "model": {"name": "toy", "version": VERSION, "sha256": VERSION, "md5": "m"},
            "package": {"path": "package/toy.mar", "md5": "toy.mar"},
            "predictions": {"path": "evaluation/predictions.parquet", "md5": "predictions.parquet"},
            "test_md5": "test.parquet",
            "data": {"path": "data/raw.csv", "md5": "d"},
            "params": SETTINGS | {"request_log": {"mask": ["prediction"]}},
            "metrics": {"roc_auc": {"value": 0.95, "low": 0.9, "high": 0.98}},
            "mlflow_run_id": None,
            "image": "toy:a",
            "gate": {"accepted": True, "mode": "absolute", "reason": "Accepted."},
            "previous": None,
        }
    )
    monkeypatch.setattr(release, "production", lambda: release.Production("e" * 40, record))
    monkeypatch.setattr(store, "fetch", files.__getitem__)
    monkeypatch.setattr(monitor, "deepchecks", found_nothing)
    return World()


def found_nothing() -> None:
    artifacts.write_json(artifacts.MONITOR_CHECKS, {"checks": [], "notes": []})


def test_drift_is_told_and_remembered(world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """With Deepchecks, all the way: verdict, page, metrics, the step's outputs, state, exit status."""
    monkeypatch.setattr(monitor, "deepchecks", WITH_DEEPCHECKS)
    monkeypatch.setattr(monitor, "PYTHON", PYTHON)
    monkeypatch.setattr(monitor, "__package__", PACKAGE)
    monkeypatch.setenv("GITHUB_OUTPUT", "output.txt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    lines = world.lines(200, label=True)
    for line in lines:
        line["inputs"]["income"] += 1.5
    lines[0]["inputs"]["joined"] = None
    for line in lines[:40]:
        line["inputs"]["prediction"] = 'gold "+"'
    world.log(lines)
    world.label()
    status, verdict = world.run()
    assert (status, verdict["status"], verdict["rows"], verdict["release"]) == (3, "drift", 200, "e" * 40)
    assert failed(verdict) >= {("feature drift", "income"), ("unseen categories", "prediction")}
    assert {column for _, column in failed(verdict)} == {"income", "prediction"}
    assert {check["check"] for check in verdict["checks"]} >= {"prediction drift", "label drift", "missing values"}
    assert verdict["performance"]["passed"] is True
    assert "feature drift: income" in capsys.readouterr().out
    assert "status<<" in Path("output.txt").read_text() and "\ndrift\n" in Path("output.txt").read_text()
    assert "Drift" in Path("summary.md").read_text()
    page = artifacts.MONITOR_HTML.read_text()
    assert page.count("data:image/png") == 3  # the answers, income, prediction
    assert "http" not in page
    assert world.judged() == {"a.jsonl": Path("requests/a.jsonl").stat().st_size}
    text = artifacts.MONITOR_METRICS.read_text()
    parsed = subprocess.run([PYTHON, "-c", PARSE], input=text, capture_output=True, text=True, check=True).stdout
    assert f"name='model_monitor_status', labels={{'model': 'toy', 'version': '{VERSION}'}}, value=1," in parsed
    assert "name='model_monitor_last_run_timestamp_seconds'" in parsed
    assert "'column': 'income'}, value=0." in parsed


def test_injected_drifts_are_named_and_others_are_not() -> None:
    """The template's benchmark has two hundred windows, here are fewer; see monitor_simulation.py."""
    command = [PYTHON, ROOT / "tests/monitor_simulation.py", "--windows", "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert (result["windows"], result["alarms"]) == (40, 0), result["false"]
    assert all(result["named"].values()) and len(result["named"]) == 9, result["found"]


def test_too_few_rows_wait_for_more(world: World) -> None:
    world.log(world.lines(30))
    status, verdict = world.run()
    assert (status, verdict["status"], verdict["rows"]) == (0, "too_small", 30)
    assert not world.state.exists()
    assert artifacts.MONITOR_HTML.exists() and "model_monitor_status" in artifacts.MONITOR_METRICS.read_text()
    world.log(world.lines(30))
    status, verdict = world.run()
    assert (status, verdict["status"], verdict["rows"]) == (0, "quiet", 60)
    world.log(world.lines(7), "b.jsonl")
    assert world.run()[1]["rows"] == 7


def test_refused_requests_name_the_column(world: World) -> None:
    """A client that leaves a column out is drift, even where nothing else came."""
    world.log(world.refused(60, "income"))
    status, verdict = world.run()
    assert (status, verdict["rows"], verdict["refused"]) == (3, 0, 60)
    assert failed(verdict) == {("refused requests", "income")}
    world.log([*world.lines(98), *world.refused(2, "income")])
    assert world.run()[1]["status"] == "quiet"


def test_labels_are_joined_by_request_and_instance(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that come after their rows were judged count all the same."""
    lines = world.lines(120)
    for number, line in enumerate(lines):  # two rows a request
        line |= {"request_id": f"two-{number // 2}", "instance": number % 2}
    world.log(lines)
    assert world.run()[1]["performance"] is None
    labels = pd.DataFrame(
        {
            "request_id": [line["request_id"] for line in lines],
            "instance": [line["instance"] for line in lines],
            "label": [line["prediction"]["label"] for line in lines],
        }
    )
    Path("labels").mkdir()
    pd.concat([labels, labels[:5].assign(request_id="unknown")]).to_parquet("labels/a.parquet")
    performance = world.run()[1]["performance"]
    assert (performance["rows"], performance["value"], performance["passed"]) == (120, 1.0, True)
    wrong = labels["label"].map({"yes": "no", "no": "yes"})
    labels.assign(label=wrong).to_csv("labels/b.csv", index=False)  # a later file corrects an earlier one
    status, verdict = world.run()
    assert status == 3 and verdict["performance"]["value"] == 0.0
    assert verdict["performance"]["passed"] is False and verdict["performance"]["drop"] > 0.9
    settings(skip=["performance"])
    status, verdict = world.run()
    assert status == 0 and verdict["performance"] is None and "performance" in " ".join(verdict["notes"])


def test_few_labels_are_not_judged(world: World) -> None:
    world.log(world.lines(60, label=True))
    world.labels = [*world.labels[:10], "r11,perhaps"]
    world.label()
    performance = world.run()[1]["performance"]
    assert performance["passed"] is None and performance["rows"] == 9 and "50 are needed" in performance["reason"]
    Path("labels/b.csv").write_text("id,label\n1,yes\n")
    with pytest.raises(ProjectError, match=r"b\.csv have no column request_id"):
        monitor.main()


def test_performance_of_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a lower error is better, and chance alone is no alarm."""
    rng = np.random.default_rng(0)
    facts = {"schema": SCHEMA | {"task": "regression", "target": {"name": "y", "classes": []}}, "metric": "rmse"}
    facts["recorded"] = {"value": 1.0}
    old = pd.DataFrame({"target": rng.normal(size=200), "prediction": 0.0})
    artifacts.write_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS, old)
    for spread, passed in ((1.05, True), (1.6, False), (0.5, True)):
        new = pd.DataFrame({"target": spread * rng.normal(size=200), "prediction": 0.0})
        artifacts.write_parquet(artifacts.MONITOR_LABELLED, new)
        measured = monitor.monitor_performance.measure(params.load(), facts)
        assert measured is not None and measured["passed"] is passed, spread
        assert measured["low"] < measured["value"] < measured["high"]


def test_masked_columns_are_skipped_and_told(world: World) -> None:
    """A category is masked only where the release says so; the other column's masked value cannot be a number."""
    world.log(world.lines(60, prediction="masked", income="masked"))
    status, verdict = world.run()
    assert status == 0 and verdict["rows"] == 60
    assert json.loads(artifacts.MONITOR_FACTS.read_text())["masked"] == ["income", "prediction"]
    assert "income is masked in the log: not judged" in verdict["notes"]


def test_lines_of_other_models_and_old_ones_are_counted(world: World) -> None:
    old = [line | {"time": (NOW - timedelta(days=31)).isoformat()} for line in world.lines(7)]
    world.log([*world.lines(40, OTHER), *world.lines(60), *old])
    verdict = world.run()[1]
    facts = json.loads(artifacts.MONITOR_FACTS.read_text())
    assert (verdict["rows"], facts["other_versions"], facts["too_old"]) == (60, 40, 7)
    assert verdict["from"] >= (NOW - timedelta(hours=3)).isoformat()


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
    """None is fatal; too many are an alarm of their own. A line that is still being written waits for its end."""
    odd = world.lines(3)
    odd[0]["inputs"]["income"] = "much"
    odd[1]["prediction"] = {"label": "perhaps", "probabilities": {}}
    odd[2]["inputs"]["surprise"] = 1
    half = json.dumps(world.lines(1)[0])
    world.log(world.lines(300))
    world.log(odd, end="\n".join([*BROKEN, ""]) + half[:50])
    status, verdict = world.run()
    assert (status, verdict["rows"]) == (0, 300)
    facts = json.loads(artifacts.MONITOR_FACTS.read_text())
    assert sum(facts["broken"].values()) == len(BROKEN) + len(odd)
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
    assert artifacts.read_parquet(artifacts.MONITOR_WINDOW)["income"].isna().all()


def test_file_that_begins_anew_is_read_from_its_start(world: World) -> None:
    world.log(world.lines(80))
    world.run()
    Path("requests/a.jsonl").unlink()
    world.log(world.lines(60))
    assert world.run()[1]["rows"] == 60


def test_log_on_any_address(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log and its state lie where fsspec says, here in memory."""
    import fsspec

    memory = fsspec.filesystem("memory")
    world.log(world.lines(60))
    memory.pipe_file("/bucket/log/pod/a.jsonl", Path("requests/a.jsonl").read_bytes())
    monkeypatch.setenv("REQUEST_LOG", "memory://bucket/log/")
    assert world.run()[1]["rows"] == 60
    assert json.loads(memory.cat_file("/bucket/log/monitor-state.json"))["judged"].keys() == {"pod/a.jsonl"}
    assert world.run()[1]["rows"] == 0
    memory.pipe_file("/bucket/log/monitor-state.json", b"{}")
    with pytest.raises(ProjectError, match="delete it"):
        monitor.main()


def test_what_is_judged_is_read_again_only_for_labels(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket's log has very many objects. Their ends stay known all the same."""
    import fsspec

    memory = fsspec.filesystem("memory")
    world.log(world.lines(60, label=True))
    for name in "abc":
        memory.pipe_file(f"/bucket/read/{name}.jsonl", Path("requests/a.jsonl").read_bytes())
    monkeypatch.setenv("REQUEST_LOG", "memory://bucket/read")
    monkeypatch.setattr(logged, "FILES", 2)
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
    assert json.loads(memory.cat_file("/bucket/read/monitor-state.json"))["judged"].keys() == set(
        map("{}.jsonl".format, "abcd")
    )
    world.label()
    assert world.run()[1]["rows"] == 0
    assert sum(map(len, reads)) == 3 + 1 + 4


def test_labels_are_texts_of_requests(world: World) -> None:
    """What pandas would take for missing is a class; without an instance it is the first; the later of two counts."""
    Path("labels").mkdir()
    Path("labels/a.csv").write_text(
        "request_id,instance,label\na,,NA\nb,1,x\n,0,x\nc,one,x\nd,0, \n", encoding="utf-8-sig"
    )
    pd.DataFrame({"request_id": ["b", "e"], "instance": [1.0, None], "label": [7.0, 0.1]}).to_parquet(
        "labels/b.parquet"
    )
    found, left_out = logged.labels()
    assert found.values.tolist() == [["a", 0, "NA"], ["b", 1, "7"], ["e", 0, "0.1"]]
    assert left_out == 3


@pytest.mark.parametrize("variable", ["REQUEST_LOG", "LABELS"])
@pytest.mark.parametrize("address", ["nowhere", "gopher://nowhere"])
def test_address_that_is_none(variable: str, address: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.log(world.lines(60))
    monkeypatch.setenv(variable, address)
    with pytest.raises(ProjectError, match=f"{variable} is '{address}'"):
        monitor.main()


def test_first_run_without_a_log(world: World) -> None:
    with pytest.raises(ProjectError, match="REQUEST_LOG is 'requests': there is no such folder"):
        monitor.main()


def test_no_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "production", lambda: None)
    with pytest.raises(ProjectError, match="nothing is released"):
        monitor.main()


def test_failure_leaves_no_verdict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that do not run are a failure, not silence, and the requests are judged by the next run."""
    world.log(world.lines(60))
    world.run()
    world.log(world.lines(60))
    before = world.judged()
    monkeypatch.setattr(monitor, "deepchecks", WITH_DEEPCHECKS)
    with pytest.raises(ProjectError, match="make setup"):
        monitor.main()
    monkeypatch.setattr(monitor, "PYTHON", Path("/bin/false"))
    with pytest.raises(ProjectError, match="nothing is judged"):
        monitor.main()
    assert not artifacts.MONITOR.exists() and world.judged() == before


def test_skip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(skip=["refused requests"])
    world.log([*world.lines(60), *world.refused(60, "income")])
    assert world.run()[1]["status"] == "quiet"
    checks = monitor.monitor_performance.FALSE_ALARM  # the module is read without Deepchecks
    assert 0 < checks < 0.01
    settings(skip=["feature drifts: income"])
    with pytest.raises(ProjectError, match="'feature drifts: income', which is no check"):
        params.load()


@pytest.fixture
def gateway() -> Any:
    """A Pushgateway: `taken` holds path and text of each request, `status` is its answer."""

    class Gateway(http.server.BaseHTTPRequestHandler):
        taken: ClassVar[list[tuple[str, str]]] = []
        status = 200

        def do_PUT(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            Gateway.taken.append((self.path, text))
            self.send_response(Gateway.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Gateway.address = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        yield Gateway
        server.shutdown()


def test_metrics_are_pushed(world: World, gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gateway does not take them, the window is not remembered as judged."""
    monkeypatch.setenv("PUSHGATEWAY", f"{gateway.address}/")
    gateway.status = 500
    world.log(world.lines(60))
    with pytest.raises(ProjectError, match="did not take the metrics"):
        monitor.main()
    assert not world.state.exists()
    gateway.status = 202
    assert world.run()[0] == 0
    assert gateway.taken[-1] == ("/metrics/job/monitor/model/toy", artifacts.MONITOR_METRICS.read_text())
    assert world.state.exists()


def killed_at(turn: int, action: Callable[[], object]) -> int | None:
    """Run `action` in a process that is killed just before (even turn) or after (odd) it puts a file in its place."""

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
    """Every file is written by a rename: killed at each, the next run ends as one that was never killed."""
    world.log([*world.lines(60, label=True), *world.refused(1, "income")], end="}\n")
    world.label()
    status, verdict = world.run()
    state, page = world.judged(), artifacts.MONITOR_HTML.read_text()
    kept = {path: path.read_bytes() for path in sorted(Path("monitoring").iterdir())}
    for turn in range(100):
        world.state.unlink()
        exitcode = killed_at(turn, monitor.main)
        if exitcode == 0:
            break
        assert exitcode == -signal.SIGKILL
        if not world.state.exists():  # the kill came before the end
            assert world.run() == (status, verdict)
        assert world.judged() == state and artifacts.MONITOR_HTML.read_text() == page
        assert {path: path.read_bytes() for path in Path("monitoring").iterdir() if path in kept} == kept
    assert turn == 2 * 11  # renames: seven files in monitoring/, three reports, the state
