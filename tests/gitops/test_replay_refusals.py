"""`make replay` where something is refused, missing, or too little to say anything."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.gate import champion_challenger
from gitops.replay import fitting, logged
from replaying import COMMIT, World, label, prepared, schema


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return prepared(tmp_path, monkeypatch)


def test_a_column_that_the_log_lacks(world: World) -> None:
    """It is missing for the candidate, whose server would refuse such rows."""
    world.release()
    world.candidate(schema("binary", {"name": "age", "dtype": "number"}), bias=0.3)
    world.log(world.rows(150))
    found = world.run()
    assert found["status"] == "ok" and found["changed"]["value"] > 0
    needs = {"column": "age", "why": fitting.MISSING, "rows": 150}
    assert found["refusals"]["accepted"] == {"rows": 150, "columns": [needs]}
    assert found["refusals"]["changed_columns"] == ["age"]


def test_a_column_that_the_candidate_does_not_know_or_takes_otherwise(world: World) -> None:
    world.release()
    changed = {"name": "plan", "dtype": "number"}
    its = schema("binary", without="member")
    its["features"] = [changed if feature["name"] == "plan" else feature for feature in its["features"]]
    world.candidate(its | {"slices": []}, bias=0.3)
    world.log(world.rows(140))
    world.log(world.rows(10, plan=None))
    found = world.run()
    assert found["refusals"]["accepted"] == {
        "rows": 150,
        "columns": [
            {"column": "member", "why": fitting.UNKNOWN, "rows": 150},
            {"column": "plan", "why": fitting.UNFIT, "rows": 140},
        ],
    }


def test_refused_requests(world: World) -> None:
    """Those that were refused for nothing but columns that the candidate takes otherwise may be accepted now."""
    world.release()
    world.candidate(schema("binary", {"name": "age", "dtype": "number"}, without="member"), bias=0.3)
    world.log(world.rows(120))
    world.refuse(3, "member")
    world.refuse(2, "member", "age")
    world.refuse(4, "member", "income")
    world.refuse(5, None)
    world.refuse(6, "a column of the client's own")
    world.refuse(7, None, status=500)
    assert world.run()["refusals"]["refused"] == {"requests": 20, "by_changed_columns": 5}


def test_rows_that_production_would_refuse_now(world: World) -> None:
    """An earlier release has answered them, whose clients have changed since; other lines are no server's."""
    world.release(schema("binary", {"name": "age", "dtype": "number"}))
    world.candidate(schema("binary", {"name": "age", "dtype": "number"}), bias=0.3)
    world.log(world.rows(120, age=40.0))
    world.log(world.rows(30), name="earlier")
    path = next(Path("requests").rglob("a.jsonl"))
    path.write_text(path.read_text() + "broken\n{}\n")
    found = world.run()
    assert (found["rows"], found["left_out"], found["logged"]["answered"]) == (120, 30, 150)
    assert found["logged"]["other_form"] == 2 and found["refusals"]["accepted"]["rows"] == 0


def test_labels_that_say_too_little(world: World) -> None:
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    label({f"r{place}": "no" for place in range(1, 50)})
    assert "49 labelled rows" in world.run()["labelled"]["reason"]
    label({f"r{place}": "no" for place in range(1, 150)})
    found = world.run()["labelled"]
    assert found["metrics"].keys() == {"accuracy"} and found["reason"] is None  # one class defines no ROC AUC
    label({f"r{place}": "perhaps" for place in range(1, 150)})
    assert "0 labelled rows" in world.run()["labelled"]["reason"]
    Path("labels/a.csv").write_text("request,class\nr1,no\n")
    assert world.run()["labelled"]["reason"].startswith("LABELS cannot be read")


def test_labels_that_cannot_be_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a part of the replay, and fail by themselves."""

    def failing(*_: object) -> None:
        raise ProjectError("too few resamples")

    monkeypatch.setattr(champion_challenger, "paired", failing)
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    label({f"r{place}": "no" for place in range(1, 150)})
    found = world.run()
    assert found["status"] == "ok" and found["labelled"]["reason"] == "too few resamples"


def test_nothing_to_replay(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No release, no log, the model in production, another task: none is worth a warning."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.candidate()
    assert "nothing is released" in world.run()["reason"]
    world.release()
    assert "REQUEST_LOG is not set" in world.run()["reason"]
    world.log(world.rows(150))
    found = world.run()
    assert (found["status"], found["release"]) == ("none", COMMIT) and "is the model in production" in found["reason"]
    world.settings["data"]["target"] = "another"
    world.candidate(bias=0.3)
    assert world.run()["reason"] == "the release is for another task (data.target changed)"
    assert "::warning" not in capsys.readouterr().out


@pytest.mark.parametrize("rows", [0, 99])
def test_too_few_requests(
    world: World, rows: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    world.release()
    world.candidate(bias=0.3)
    Path("requests").mkdir()
    world.log(world.rows(rows))
    found = world.run()
    assert found["status"] == "too_few" and f"{rows} rows of the last 30 days" in found["reason"]
    assert "::warning title=Replay::Too few requests to replay" in capsys.readouterr().out


def test_log_that_cannot_be_reached(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("REQUEST_LOG", "/no/such/folder")
    world.release()
    world.candidate(bias=0.3)
    found = world.run()
    assert found["status"] == "failed" and "'/no/such/folder': there is no such folder" in found["reason"]
    assert "::warning title=Replay::The replay failed" in capsys.readouterr().out


def test_release_of_other_code(world: World) -> None:
    """This code does not give its golden answer: what it would answer to requests says nothing of production."""
    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    released = Path("remote/released.mar")
    with zipfile.ZipFile(released) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    contents["golden_response.json"] = contents["golden_response.json"].replace(b"0.5", b"0.4")
    with zipfile.ZipFile(released, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    found = world.run()
    assert found["status"] == "failed" and "production's model cannot be run by this code" in found["reason"]
    assert "fails its smoke test" in found["reason"]


def test_the_model_is_missing(world: World) -> None:
    world.release()
    Path("requests").mkdir()
    found = world.run()
    assert (found["status"], found["package_md5"]) == ("failed", None) and "run `make pipeline` first" in found[
        "reason"
    ]


def test_an_unfinished_replay_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    world.release()
    world.candidate(bias=0.3)
    world.log(world.rows(150))
    monkeypatch.setattr(logged, "read", ended)
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert '"it did not finish"' in artifacts.REPLAY.read_text()
