"""Names and values of a table, of requests and of a reason that command GitHub's runner, through the whole loop."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from projects import environment, generate, make
from test_retraining_real import QUICK, Room

pytestmark = [pytest.mark.real, pytest.mark.full]

#: New names of columns, one with a line break; each begins a line wherever it is printed by itself.
NAMES = {
    "mean radius": "::error::mean radius",
    "mean texture": "mean texture\n::warning title=x::y",
    "mean area": "##[error]mean area",
}
PLANS = ["::add-mask::e", "##[group]plan", "plain\r::stop-commands::z"]


def hostile_table(path: Path) -> list[dict[str, str]]:
    """Rewrite a table with these names, a column of ids and one of texts, and return its rows."""
    with path.open(newline="", encoding="utf-8") as file:
        old = [*csv.DictReader(file)]
    rows = [
        {NAMES.get(name, name): value for name, value in row.items()}
        | {"patient": f"::error::patient-{number}", "::notice::plan": PLANS[number % len(PLANS)]}
        for number, row in enumerate(old)
    ]
    path.unlink()  # it may be a link to DVC's cache
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.fixture
def room(identity: None, tmp_path: Path) -> Room:
    """A project with such a table, not trained yet."""
    room = Room(tmp_path, generate(tmp_path, dvc_remote=str(tmp_path / "storage")))
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", room.origin], check=True)
    room.git("remote", "add", "origin", str(room.origin))
    make(room.project, "setup")
    return room


def told(room: Room, *command: str, status: int = 0, **variables: str) -> str:
    """Return what a command says in a job on GitHub, after a look at each of its lines as a runner reads them."""
    done = subprocess.run(
        ["make", *command],
        cwd=room.project,
        env=environment() | {"GITHUB_ACTIONS": "true"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    text = done.stdout.decode()
    assert done.returncode == status, text
    for line in re.split(r"\r\n|\r|\n", text):
        ours = re.match(r"::warning title=(Before this is released|Monitor|Retraining)::", line)
        assert ours or not line.strip().startswith("::"), line
        assert "##[" not in line, line
    return text


def log(folder: Path, rows: list[dict[str, str]], version: str) -> None:
    """Write a log: the rows as requests whose values have moved, with labels, and refused requests with odd columns."""
    lines, labels = [], ["request_id,label"]
    common = {"time": datetime.now(UTC).isoformat(), "model_version": version}
    for number, row in enumerate(rows):
        inputs = {
            name: value if name == "::notice::plan" else float(value) * 3
            for name, value in row.items()
            if name not in ("patient", "diagnosis")
        }
        inputs["::notice::plan"] = "new\n::error::plan"
        certain = {"malignant": 0.5, "benign": 0.5}
        prediction = {"label": "benign", "probabilities": certain}
        lines.append(common | {"request_id": f"r{number}", "instance": 0, "inputs": inputs, "prediction": prediction})
        labels.append(f"r{number},{row['diagnosis']}")
        problem = {"instance": 0, "column": "\n::add-mask::refused ##[error]", "error": "\n::error::"}
        lines.append(common | {"request_id": f"x{number}", "status": 400, "errors": [problem]})
    for name, content in (("requests/a.jsonl", [json.dumps(line) for line in lines]), ("labels/a.csv", labels)):
        (folder / name).parent.mkdir()
        (folder / name).write_text("\n".join(content) + "\n")


def test_nothing_of_the_loop_commands_a_runner(room: Room) -> None:
    room.dvc("pull", "--quiet", "data/raw.csv.dvc")
    rows = hostile_table(room.project / "data/raw.csv")
    room.dvc("add", "--quiet", "data/raw.csv")
    room.change(QUICK | {"id: null": "id: patient", "slices: []": 'slices: ["::notice::plan"]'})
    said = told(room, "pipeline")
    assert "Running stage 'validate_data'" in said
    room.commit("Train")
    told(room, "verify")
    told(room, "gate")
    assert "add-mask" in told(room, "report")
    told(room, "plan")
    told(room, "deploy")
    version = json.loads(room.git("show", "env/production:release.json", at=room.origin))["model"]["version"]
    log(room.project, rows[:150], version)
    said = told(room, "monitor")
    for name in ("feature drift: : :error::mean radius", "refused requests: : :add-mask::refused ## [error]", "Drift"):
        assert name in said, said
    said = told(room, "retrain", REASON="::error::why\n::stop-commands::x ##[error]")
    assert "Running stage 'train'" in said and "retrain/" in said
