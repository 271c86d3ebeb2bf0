"""A log by date and hour that the tests of compaction and of large logs write, and all that a run finds in it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gitops.core import artifacts
from gitops.monitoring import (
    ground_truth,
)
from monitoring import NOW, OTHER, World
from request_logs import hour_folder

#: An hour that is over, and in the window.
OVER = NOW - timedelta(hours=2)


def place(world: World, lines: list[Any], name: str = "a.jsonl") -> Path:
    """Add lines to a file in the folder of OVER."""
    world.log(lines, f"{hour_folder(OVER)}/{name}")
    return Path("requests", hour_folder(OVER), name)


@pytest.fixture(autouse=True)
def folders(world: World) -> None:
    Path("requests", hour_folder(OVER)).mkdir(parents=True)


def files() -> list[str]:
    return sorted(str(path.relative_to("requests")) for path in Path("requests").rglob("*") if path.is_file())


def tables() -> list[Path]:
    return sorted(Path("requests").rglob("*.parquet"))


def hostile(world: World) -> list[str]:
    """Return lines of every kind that a reader must survive, and good ones among them."""
    good = world.lines(60, label=True)
    for each in good[:20]:
        each["client"] = "10.0.0.1"
    for position, value in enumerate(
        [None, "NA", "much", True, 7, 10**400, 2**60, -0.0, 1e300, [1], {"a": 1}, "redacted", " "]
    ):
        good[position]["inputs"]["income"] = value
    for position, value in enumerate([" gold ", "", "NA", 5, "x" * 10_001, "\ud800", "é" * 10, "a\u0000b", None], 20):
        good[position]["inputs"]["prediction"] = value
    for position, value in enumerate(
        ["2024-02-30", "2024-02-01", "2024-01-01T00:00+05:30", "now", 5, "20240101", "0001-01-01T00:00:00+14:00"], 30
    ):
        good[position]["inputs"]["joined"] = value
    good[40]["inputs"]["surprise"] = None
    good[41]["prediction"] = 0.5
    good[42]["prediction"]["probabilities"] = {"yes": "0.25", "no": 0.75}
    good[43]["prediction"]["label"] = "perhaps"
    good[44]["prediction"]["probabilities"].pop("no")
    good[45]["extra"] = 1
    good[46]["instance"] = 2**70
    good[47].pop("instance")
    good[48]["time"] = good[48]["time"].replace("+00:00", "")
    good[49]["request_id"] = "\ud800"
    good[50]["prediction"]["label"] = ["yes"]
    good[51]["inputs"] = {}
    again = [good[52] | {"inputs": good[52]["inputs"] | {"income": 1.25}}, good[53], good[54] | {"client": "other"}]
    reordered = good[55] | {"inputs": dict(reversed(good[55]["inputs"].items()))}
    others = [*world.lines(5, OTHER), *world.refused(4, "income"), *world.refused(2, "\ud800")]
    odd = world.line() | {"request_id": "odd", "status": 400, "errors": [{"column": 5}, 7, {"column": "income"}]}
    nothing = world.line() | {"request_id": "nothing", "status": 500, "errors": []}
    nested = json.dumps(good[56] | {"request_id": "deep"}).replace(
        '"income": ', '"income": ' + "[" * 3000 + "]" * 3000 + ', "x": '
    )
    twice = json.dumps(good[57] | {"request_id": "twice"}).replace('"income": ', '"income": 3.5, "income": ')
    comma = json.dumps(good[58] | {"request_id": "comma"})[:-1] + ",}"
    constant = json.dumps(
        good[59] | {"request_id": "constant"} | {"inputs": good[59]["inputs"] | {"income": float("nan")}}
    )
    raw = ["}", "[1]", '"\\ud800"', "", "[" * 100_000, '{"time": "yesterday", "request_id": "a", "model_version": "b"}']
    return [json.dumps(each) for each in (*good, *again, reordered, *others, odd, nothing)] + [
        *(nested, twice, comma, constant, *raw)
    ]


def outcome(world: World) -> dict[str, Any]:
    """Return all that a run finds, but not its time, and the tables that it leaves."""
    world.state.unlink(missing_ok=True)
    result = world.run()[1]
    result.pop("time")
    context = json.loads(artifacts.MONITOR_CONTEXT.read_text())
    for key in ("offsets", "tables", "read"):
        context.pop(key)
    for key in ("refused_for", "unreadable"):
        context[key] = sorted(map(repr, dict(context[key]).items()))
    frames: dict[str, Any] = {
        path.name: artifacts.read_parquet(path).to_json(double_precision=15)
        for path in (artifacts.MONITOR_CURRENT, artifacts.MONITOR_CURRENT_OUTPUTS, artifacts.MONITOR_LABELLED)
    }
    for name, after in (("all", None), ("later", OVER + timedelta(seconds=30))):
        found = ground_truth.read(after, ())
        rows = [(row.request_hash, row.client, row.time, json.dumps(row.inputs), row.label) for row in found.rows]
        frames[f"labelled: {name}"] = (rows, found.left_out)
    return {"result": result, "context": context} | frames
