"""A project with persons in its table, its log and its labels, with the real DVC: for the tests of `make erase`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from defaults import complete
from dvc.repo import Repo
from gitops.core import artifacts, params
from gitops.core.artifacts import APPENDED
from gitops.integrations import dvc, git
from gitops.monitoring import compact
from gitops.privacy import erase
from gitops.releases.record import RECORD, File, GateResult, Model, Release
from gitops.retraining import ingest
from gitops.tabular import parts
from request_logs import hour_folder

#: Rows of the table, of which every second person has two.
ROWS = 60

#: Whose data is erased: in the table, in rows that were appended, in the log, in labels.
WHO = "person-7@example.org"

NOW = datetime.now(UTC)
OVER = NOW - timedelta(hours=3)


def person(row: int) -> str:
    return WHO if row in (7, 31) else f"other-{row // 2}"


def frame() -> pd.DataFrame:
    """Return the table: ids, a number, a text, a class."""
    rows = range(ROWS)
    columns = {"person": map(person, rows), "x": [row + 0.5 for row in rows], "note": ["a", "b"] * (ROWS // 2)}
    return pd.DataFrame(columns | {"y": ["yes" if row % 3 else "no" for row in rows]})


def csv_text() -> str:
    """Return the table as CSV in an odd form: quotes in some cells, a line break in one, no line end at the end."""
    lines = ["person, x,note,y"]
    for row in frame().itertuples():
        note = '"a\nb, ""c"""' if row.Index == 6 else f'"{row.note}"' if row.Index % 2 else row.note
        lines.append(f"{row.person},{row.x},{note},{row.y}")
    return "\r\n".join(lines)


def line(request: str, who: str | None, moment: datetime = OVER, **inputs: Any) -> dict[str, Any]:
    """Return a line of the log."""
    given = {"x": 1.25, "note": "a"} | ({} if who is None else {"person": who}) | inputs
    answer = {"label": "no", "probabilities": {"no": 0.75, "yes": 0.25}}
    common = {"time": moment.isoformat(), "request_id": request, "client": "team-a", "instance": 0}
    return common | {"model_version": "0" * 12, "inputs": given, "prediction": answer}


def refused(request: str, error: str, column: str | None = "person") -> dict[str, Any]:
    """Return the line of a request without an answer."""
    problem = {"instance": 0, "column": column, "error": error}
    common = {"time": OVER.isoformat(), "request_id": request, "model_version": "0" * 12}
    return common | {"status": 400, "errors": [problem]}


def write_log(lines: list[Any], name: str = "a.jsonl", moment: datetime = OVER, end: str = "") -> Path:
    """Write lines, which are texts or JSON, to a file in the folder of an hour, and return its path."""
    path = Path("requests", hour_folder(moment), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (each if isinstance(each, str) else json.dumps(each) for each in lines)
    path.write_text("".join(f"{text}\n" for text in texts) + end, encoding="utf-8")
    return path


def write_labels(rows: list[str], name: str = "a.csv", header: str = "request_id,label") -> Path:
    Path("labels").mkdir(exist_ok=True)
    path = Path("labels", name)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def settings(path: str, person: str | None = "person") -> None:
    """Write params.yaml and dvc.yaml."""
    gate = {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.5}}
    data = {"path": path, "target": "y", "task": "binary", "id": person, "timestamp": None}
    values = complete({"data": data, "gate": gate, "package": {"model_name": "toy"}})
    Path("params.yaml").write_text(yaml.safe_dump(values | {"retrain": {"max_logged": 1.0}}))
    outs = [f"data/prepared/{name}" for name in ("schema.json", "test.parquet", "train.parquet", "val.parquet")]
    stage = {"cmd": f"{sys.executable} -m breast_cancer.prepare", "params": ["data"], "outs": outs}
    stage["deps"] = [path, "data/appended", str(APPENDED)]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))


def write_table(path: Path) -> None:
    """Write the table as CSV, as a parquet file, or as a folder of two."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".csv":
        path.write_bytes(csv_text().encode())
    elif path.name == "one.parquet":
        frame().to_parquet(path, index=False)
    else:
        path.mkdir()
        frame()[:20].to_parquet(path / "a.parquet", index=False)
        frame()[20:].to_parquet(path / "z.parquet", index=False)


class Project:
    """The present folder: a repository with a table that DVC tracks, an origin and a DVC remote beside it."""

    def __init__(self, path: str, person: str | None = "person") -> None:
        self.path = Path(path)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@localhost")
        subprocess.run(["git", "init", "--quiet", "--bare", "../origin.git"], check=True)
        self.git("remote", "add", "origin", "../origin.git")
        with Repo.init() as repository, repository.config.edit() as config:
            config["core"] = {"remote": "storage", "analytics": False}
            config["remote"]["storage"] = {"url": "../storage"}
        Path(".gitignore").write_text("/data/prepared\n/reports\n/evaluation\n/requests\n/labels\n/monitoring\n")
        write_table(self.path)
        settings(path, person)
        parts.FOLDER.mkdir()
        (parts.FOLDER / "README.md").write_text("Appended rows\n")
        artifacts.write_json(APPENDED, {"table": None, "parts": [], "until": None, "requests": {}})
        with Repo() as repository:
            repository.add([path, "data/appended"])
        self.commit("Begin")

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str) -> None:
        dvc.push()
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "main")

    def prepare(self) -> pd.DataFrame:
        """Run the stage if it is stale, and return the rows of the splits."""
        subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "--pull"], check=True)
        return self.splits()

    def splits(self) -> pd.DataFrame:
        frames = [pd.read_parquet(f"data/prepared/{name}.parquet") for name in ("train", "val", "test")]
        return pd.concat(frames).sort_values(artifacts.ROW, ignore_index=True)

    def append(self) -> None:
        """Append the labelled requests of the log, as a retraining does."""
        ingest.update_tables(params.load())
        self.commit("Retrain")

    def release(self) -> str:
        """Release a model of the table as it is, and return the commit of env/production."""
        data = params.load().data
        file = File(path="x", md5="1" * 32)
        appended = parts.version(data)
        record = Release(
            commit=self.git("rev-parse", "HEAD"),
            model=Model(
                name="toy", version=f"{self.git('rev-list', '--count', 'HEAD'):0>12}", sha256="0", md5="2" * 32
            ),
            package=file,
            predictions=file,
            test_md5="3" * 32,
            data=File(path=data.path, md5=artifacts.tracked_md5(Path(data.path))),
            appended=File(path="data/appended", md5=appended) if appended else None,
            params=params.load().model_dump(mode="json"),
            metrics={},
            mlflow_run_id="run-1",
            image="image",
            gate=GateResult(accepted=True, mode="absolute", reason="Accepted."),
            previous=None,
        )
        parent = git.fetch("env/production")
        tree = git.write_tree({RECORD: record.model_dump_json().encode()})
        commit = git.write_commit(tree, parent, "Release")
        git.push(commit, "env/production")
        return commit


def litter(who: str = WHO) -> None:
    """Write results of every kind that hold rows, and what a killed compaction leaves."""
    for name in (
        "reports/monitor.html",
        "reports/errors/x.txt",
        "build/report.md",
        ".checkpoints/a",
        "evaluation/m.json",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"a row of {who}")
    for name in ("monitoring/current.parquet", "evaluation/predictions.parquet"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"person": [who]}).to_parquet(name)
    if Path("requests").exists():
        shutil.copy("monitoring/current.parquet", f"requests/{hour_folder(OVER)}/.made-abc.parquet")


def fill_log(who: str | None = WHO, request: str = "mine") -> None:
    """Write a log in every form: compacted, JSON of an hour that is over, a file that a server writes, a flat one."""
    write_log([line("before", "other-1"), line(request, who), line("after", "other-2")])
    compact.compact(NOW)
    write_log(
        [line("later", "other-3", x=3.5), line(f"{request}-2", who, x=2.5), refused("no", f"{who!r} is none")],
        "b.jsonl",
    )
    write_log([line("now", "other-4", NOW)], "c.jsonl", NOW, end=f'{{"inputs": {{"person": "{who}"')
    Path("requests/old.jsonl").write_text(
        json.dumps(line("flat", "other-5")) + "\n" + json.dumps(line("x", who)) + "\n"
    )
    write_labels(["before,no", f"{request},yes", "later,yes", f"{request}-2,no"])


def run(monkeypatch: pytest.MonkeyPatch, value: str, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["erase", *arguments])
    monkeypatch.setenv("ID", value)
    return erase.main()


def holding(text: str, *folders: str, leave_out: tuple[str, ...] = (".git",)) -> list[str]:
    """Return the files below folders that hold a text: in their bytes, the cells of a parquet file, an archive."""
    found = []
    for folder in folders:
        away = tuple(Path(folder, each) for each in leave_out)
        paths = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
        found += [str(path) for path in paths if not any(map(path.is_relative_to, away)) and text in _contents(path)]
    return found


def _contents(path: Path) -> str:
    content = path.read_bytes()
    if content[:4] == b"PAR1":
        table = pq.read_table(pa.BufferReader(content))
        return str(table.to_pylist()) + str(table.schema.metadata) + content.decode("latin-1")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "".join(archive.read(name).decode("latin-1") for name in archive.namelist())
    return content.decode("utf-8", "replace")


def files(*folders: str) -> dict[str, bytes]:
    """Return the contents of all files below folders, but for what names the time or another run."""
    kept = {}
    for folder in folders:
        for path in Path(folder).rglob("*"):
            if path.is_file() and path.name not in ("erase.md", "retrain.lock"):
                kept[str(path)] = path.read_bytes()
    return kept


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project of the test's own."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    for name in ("REQUEST_LOG", "LABELS", "FEATURE_STORE_REDIS"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return tmp_path / "project"
