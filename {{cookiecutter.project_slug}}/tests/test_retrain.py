"""`make retrain`: what starts it, what holds it back, what it leaves, also when it is killed between any two steps."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from github_server import GitHub
from project import append, artifacts, gate, github, pipeline, proposal, report, retrain, retraining, store
from project.artifacts import ProjectError
from releases import isolate
from retraining_bench import TABLE, Bench


@pytest.fixture
def bench(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    isolate(monkeypatch)
    return Bench(origin, tmp_path, monkeypatch)


@pytest.fixture
def server(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """GitHub, in front of the same origin."""
    folder = tmp_path / "github"
    folder.mkdir()
    with GitHub(folder) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(github, "PAUSE", 0)
        yield made


@pytest.mark.parametrize("why", ["drift", "schedule", "new data", "labels of the spring"])
def test_labelled_requests_become_a_branch(bench: Bench, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("r1", "yes", x=100)
    bench.ask("r2", None)
    assert bench.run(why) == 0
    assert bench.table().decode() == TABLE + "100,a,2026-02-01T00:00:00,yes\n"
    (branch,) = bench.branches()
    assert bench.show(branch, "dvc.lock")
    assert f"Retrain-reason: {why}" in bench.seed.git("log", "-1", "--format=%B", branch, at=bench.origin)
    assert f"git merge origin/{branch}" in capsys.readouterr().out
    assert bench.last() == bench.seed.git("rev-parse", branch, at=bench.origin)


def test_each_request_is_appended_once(bench: Bench) -> None:
    """Also one whose label comes after newer requests were learned from."""
    bench.ask("early", None, on=1)
    bench.ask("late", "no", on=20)
    assert bench.run() == 0
    bench.merge()
    assert bench.run(forced=True) == 0
    assert bench.branches() == {}
    bench.label("early", "yes")
    assert bench.run(forced=True) == 0
    assert bench.table().decode().splitlines()[-2:] == ["1.5,a,2026-02-01T00:00:00,no", "1.5,a,2026-02-01T00:00:00,yes"]
    (branch,) = bench.branches()
    state = json.loads(bench.show(branch, "data/appended.json"))
    assert state["parts"] == [40, 41] and len(state["requests"]) == 2


def test_a_label_that_comes_too_late_is_left_out(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("old", None, on=1)
    bench.ask("new", "no", on=2)
    assert bench.run() == 0
    bench.merge()
    (bench.folder / "requests/log.jsonl").write_text(
        (bench.folder / "requests/log.jsonl").read_text().replace("2026-11-01", "2026-01-01")
    )
    bench.label("old", "yes")
    assert bench.run(forced=True) == 0
    assert bench.branches() == {}
    assert "1 left out: the label came too late" in capsys.readouterr().out


def test_what_does_not_fit_is_left_out_and_counted(bench: Bench) -> None:
    bench.ask("good", "yes")
    bench.ask("masked", "yes", note="masked")
    bench.ask("text", "yes", x="1")
    bench.ask("infinite", "yes", x=float("inf"))
    bench.ask("class", "perhaps")
    bench.ask("date", "yes", day="tomorrow")
    for line in ("no JSON", "[]", '{"request_id": "good", "instance": 0, "inputs": 1}', "[" * 100_000):
        bench.log(line)
    assert bench.run() == 0
    assert bench.table().decode() == TABLE + "1.5,a,2026-02-01T00:00:00,yes\n"
    left_out = json.loads((bench.job.path / artifacts.RETRAIN).read_text())["data"]["left_out"]
    assert left_out == {
        "a value is masked": 1,
        "column 'x' holds no number": 2,
        "a label is no class of the table": 1,
        "column 'day' holds no datetime": 1,
        "not a line of a request log": 4,
    }


def test_a_value_cannot_break_the_table(bench: Bench) -> None:
    bench.ask("r", "yes", note='a",b\n9,b,2026-01-01,no')
    assert bench.run() == 0
    added = bench.table().decode().removeprefix(TABLE)
    assert added == '1.5,"a"",b\n9,b,2026-01-01,no",2026-02-01T00:00:00,yes\n'


def test_a_regression_with_a_timestamp(bench: Bench) -> None:
    """The time of the request is the row's; dropped columns are missing; the file's line ends are kept."""
    table = "when,x,y,junk\r\n" + "".join(f"2026-01-{1 + day:02d},{day},{day / 2},z\r\n" for day in range(28))
    bench.commit(table.encode(), task="regression", timestamp="when", drop=["junk"])
    bench.ask("r", "2.25", x=3)
    bench.ask("words", "many", x=3)
    assert bench.run() == 0
    assert bench.table().decode() == table + "2026-11-01T12:00:00+00:00,3,2.25,\r\n"


def test_parquet_keeps_its_types(bench: Bench, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 30
    columns = {
        "count": pa.array(range(rows), pa.int64()),
        "flag": pa.array([True, False] * 15),
        "note": pa.array(["a", "b", "c"] * 10).dictionary_encode(),
        "moment": pa.array([1_760_000_000_000] * rows, pa.timestamp("ms")),
        "y": pa.array(["1", "2", "3"] * 10),
    }
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table(columns), path)
    bench.commit(path.read_bytes(), "raw.parquet", task="multiclass")
    bench.log(
        json.dumps(
            {
                "time": "2026-11-01T12:00:00Z",
                "request_id": "r",
                "instance": 3,
                "inputs": {"count": 2.0, "flag": True, "note": None, "moment": "2026-02-01T02:00:00+02:00"},
            }
        )
    )
    pq.write_table(pa.table({"request_id": ["r"], "instance": [3], "label": [2.0]}), tmp_path / "labels/a.parquet")
    assert bench.run() == 0
    path.write_bytes(bench.table())
    grown = pq.read_table(path)
    assert grown.schema.field("count").type == pa.int64() and grown.schema.field("moment").type == pa.timestamp("ms")
    *_, last = grown.to_pylist()
    assert (last["count"], last["flag"], last["note"], last["y"]) == (2, True, None, "2")
    assert last["moment"].isoformat() == "2026-02-01T00:00:00"


def test_an_import_is_brought_up_to_date(bench: Bench) -> None:
    pointer = bench.seed.path / "data/raw.csv.dvc"
    pointer.write_text(pointer.read_text() + "deps:\n- path: s3://bucket/raw.csv\nfrozen: true\n")
    bench.seed.merge("Import")
    bench.ask("r", "yes")  # is not appended: the table is kept elsewhere

    def update(path: Path) -> None:
        text = path.with_name("raw.csv.dvc").read_text()
        path.with_name("raw.csv.dvc").write_text(re.sub("md5: .*", f"md5: {'e' * 32}", text))

    bench.monkeypatch.setattr(store, "update", update)
    assert bench.run("new data") == 0
    (branch,) = bench.branches()
    assert "e" * 32 in bench.show(branch, "data/raw.csv.dvc")


def test_nothing_new_is_said_and_nothing_trained(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.monkeypatch.setattr(pipeline, "main", lambda: pytest.fail("trained"))
    assert bench.run("schedule") == 0
    assert "the same inputs give the same model" in capsys.readouterr().out
    assert bench.branches() == {}


def test_settings_are_searched_anew(bench: Bench) -> None:
    """A better set is new even without new data."""
    path = bench.seed.path / "params.yaml"
    path.write_text(path.read_text() + "retrain: {tune_trials: 3}\n")
    bench.seed.merge("Tune")

    def tune(settings: Any) -> int:
        artifacts.PARAMS.write_text(artifacts.PARAMS.read_text() + "model: {width: 8}\n")
        return int(settings.retrain.tune_trials)

    bench.monkeypatch.setattr(retraining, "tune", tune)
    assert bench.run("a person") == 0
    (branch,) = bench.branches()
    assert "width: 8" in bench.show(branch, "params.yaml")


def test_a_refused_candidate_opens_nothing_and_counts(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.accepted = False
    bench.ask("r", "yes")
    bench.monkeypatch.setenv("GITHUB_ACTIONS", "true")
    output = bench.folder / "output"
    bench.monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    assert bench.run() == 0
    assert bench.branches() == {} and "Retrain-result: refused" in bench.refusal()
    assert "::warning title=Retraining::Refused: worse." in capsys.readouterr().out
    assert "refused" in output.read_text()
    assert bench.run() == 0
    assert "less than retrain.cooldown_hours" in capsys.readouterr().out


def test_failed_validation_is_a_refusal_and_a_crash_is_not(bench: Bench) -> None:
    bench.ask("r", "yes")

    def stopped(verdict: dict[str, Any] | None) -> int:
        if verdict:
            artifacts.write_json(artifacts.DATA_VERDICT, verdict)
        return 1

    bench.monkeypatch.setattr(pipeline, "main", lambda: stopped({"passed": False}))
    assert bench.run() == 0
    assert "validate_data failed" in bench.refusal() and bench.branches() == {}
    for verdict in (None, {"passed": True}):
        bench.monkeypatch.setattr(pipeline, "main", lambda verdict=verdict: stopped(verdict))
        with pytest.raises(ProjectError, match="not by a check"):
            bench.run(forced=True)


def test_cooldown(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("r1", "yes")
    assert bench.run() == 0
    bench.merge()
    bench.ask("r2", "no")
    assert bench.run() == 0
    assert bench.branches() == {} and "less than retrain.cooldown_hours (24) ago" in capsys.readouterr().out
    assert bench.run(forced=True) == 0
    assert len(bench.branches()) == 1


def test_one_at_a_time(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("r1", "yes")
    assert bench.run() == 0
    before = bench.branches()
    bench.ask("r2", "no")
    assert bench.run() == 0
    assert bench.branches() == before and "is open: merge or close it first" in capsys.readouterr().out
    assert bench.run(forced=True) == 0
    assert len(bench.branches()) == 2


HOSTILE = "fixes #1 @everyone <img src=x> [a](http://b) $(rm -rf /)\n::error::x\nRetrain-result: y " + "z" * 500


def test_a_hostile_reason_is_only_text(bench: Bench, server: GitHub) -> None:
    bench.ask("r", "yes")
    bench.monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert bench.run(HOSTILE) == 0
    (pull,) = server.pulls
    (branch,) = bench.branches()
    message = bench.seed.git("log", "-1", "--format=%B", branch, at=bench.origin)
    for text in (pull["title"], pull["body"], message):
        assert not re.search(r"#1|@everyone|<img|\]\(|http://|\$\(rm -rf /\)$", text), text
        assert "\n::" not in text and "\nRetrain-result" not in text
    assert len(pull["title"]) < 256


@pytest.mark.parametrize("why", ["", "  \n", "\u202e"])
def test_a_reason_is_needed(why: str) -> None:
    with pytest.raises(ProjectError, match="REASON is not set"):
        retraining.reason(why)


def test_a_pull_request_with_the_monitors_verdict(bench: Bench, server: GitHub) -> None:
    checks = [
        {"check": "feature drift", "column": "x", "value": 0.1, "limit": 0.2, "passed": True},
        {"check": "feature drift", "column": "@note|", "value": 0.34, "limit": 0.2, "passed": False},
    ]
    verdict = {"status": "drift", "from": "2026-11-01", "to": "2026-11-02", "rows": 500, "checks": checks}
    bench.monkeypatch.setenv("MONITOR", json.dumps(verdict))
    bench.ask("r", "yes")
    assert bench.run() == 0
    (pull,) = server.pulls
    assert pull["base"]["ref"] == "main" and pull["head"]["ref"] in bench.branches()
    assert "1 labelled requests appended" in pull["body"] and "| ❌ | feature drift |" in pull["body"]
    assert "1 of 2 checks failed" in pull["body"] and "0.34" in pull["body"] and "0.1 |" not in pull["body"]
    assert "wait for you" in pull["body"] and "@note" not in pull["body"]


def test_a_quiet_monitor_starts_nothing(bench: Bench) -> None:
    bench.monkeypatch.setenv("MONITOR", json.dumps({"status": "quiet", "checks": []}))
    bench.ask("r", "yes")
    assert bench.run() == 0
    assert bench.branches() == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"checks": 3}', '{"status": "drift"}'])
def test_another_verdict_is_told(bench: Bench, text: str) -> None:
    bench.monkeypatch.setenv("MONITOR", text)
    with pytest.raises(ProjectError, match="MONITOR is not the JSON"):
        bench.run()


def test_a_closed_pull_request_stands_in_nobodys_way(bench: Bench, server: GitHub) -> None:
    bench.ask("r", "yes")
    assert bench.run() == 0
    assert bench.run(forced=False) == 0
    assert len(server.pulls) == 1
    server.pulls[0]["state"] = "closed"
    bench.monkeypatch.setattr(proposal, "last", lambda: None)
    assert bench.run() == 0
    assert [pull["state"] for pull in server.pulls] == ["closed", "open"] and len(bench.branches()) == 1


def test_the_setting_that_forbids_pull_requests_is_named(bench: Bench, server: GitHub) -> None:
    server.may_open = False
    bench.ask("r", "yes")
    with pytest.raises(ProjectError, match="Allow GitHub Actions to create and approve pull requests"):
        bench.run()
    server.may_open = True
    assert bench.run() == 0
    assert len(server.pulls) == 1


class Killed(BaseException):
    """As a signal: nothing in the program catches it."""


STEPS = [
    (append, "append"),
    (store, "add"),
    (artifacts, "write_json"),
    (pipeline, "main"),
    (gate, "judge"),
    (report, "main"),
    (store, "push"),
    (proposal, "push"),
    (proposal, "show"),
    (proposal, "record"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("module", "step"), STEPS, ids=[f"{module.__name__}.{step}" for module, step in STEPS])
def test_a_kill_and_a_rerun_end_as_one_run_does(
    module: Any, step: str, after: bool, bench: Bench, server: GitHub
) -> None:
    bench.ask("r1", "yes")
    bench.ask("r2", "no", x=7)
    original = getattr(module, step)
    expected = TABLE + "1.5,a,2026-02-01T00:00:00,yes\n7,a,2026-02-01T00:00:00,no\n"

    def dies(*arguments: Any, **named: Any) -> Any:
        if after:
            original(*arguments, **named)
        raise Killed

    with bench.monkeypatch.context() as patch:
        patch.setattr(module, step, dies)
        with pytest.raises(Killed):
            bench.run()
    assert bench.run() == 0
    assert sorted(bench.table().decode().splitlines()) == sorted(expected.splitlines())
    (pull,) = server.pulls
    (branch,) = bench.branches()
    assert pull["head"]["ref"] == branch
    state = json.loads(bench.show(branch, "data/appended.json"))
    assert state["parts"] == [40] and len(state["requests"]) == 2
    assert bench.last() == bench.seed.git("rev-parse", branch, at=bench.origin)
    assert bench.run() == 0
    assert len(bench.branches()) == len(server.pulls) == 1


def test_without_a_reason_or_an_origin_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REASON", raising=False)
    with pytest.raises(ProjectError, match="REASON is not set"):
        retrain.main()
    bench = tmp_path / "clone"
    bench.mkdir()
    monkeypatch.chdir(bench)
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(ProjectError, match="no remote to propose"):
        retrain.tree()


def test_two_at_once_in_one_repository_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with retrain.only_one(), pytest.raises(ProjectError, match="another `make retrain`"), retrain.only_one():
        pytest.fail("both")
    with retrain.only_one():
        pass


@pytest.mark.parametrize(
    "before", [{}, {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c"}]
)
def test_an_origin_beside_the_repository_is_found(
    before: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    here, place = tmp_path / "project", tmp_path / "project/some/where"
    for command in ("init --quiet --bare origin.git", "init --quiet project"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    subprocess.run(["git", "remote", "add", "origin", "../origin.git"], cwd=here, check=True)
    place.mkdir(parents=True)
    monkeypatch.chdir(here)
    found = retrain.absolute_origin(here, before)
    for name, value in (before | found).items():
        monkeypatch.setenv(name, value)
    subprocess.run(["git", "ls-remote", "origin"], cwd=place, check=True)
    assert int(found["GIT_CONFIG_COUNT"]) == len(before) // 3 + 1
    for elsewhere in ("https://github.example/a/b.git", "git@github.example:a/b.git", str(tmp_path / "origin.git")):
        subprocess.run(["git", "remote", "set-url", "origin", elsewhere], cwd=here, check=True)
        assert retrain.absolute_origin(here, before) == {}
