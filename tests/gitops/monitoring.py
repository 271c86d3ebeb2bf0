"""Shared by the tests of `make monitor`: a release, a request log and labels that are written here."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import SETTINGS
from gitops.core import artifacts
from gitops.integrations import dvc
from gitops.monitoring import monitor
from gitops.releases import release
from gitops.releases.record import Deployed, Release

NOW = datetime.now(UTC)
VERSION, OTHER = "a" * 12, "b" * 12

SCHEMA: dict[str, Any] = {
    "task": "binary",
    "target": {"name": "churned", "classes": ["yes", "no"]},  # not in the order of the alphabet
    "features": [
        {"name": "income", "dtype": "number", "missing": 0.0, "min": -4.0, "max": 4.0},
        {"name": "prediction", "dtype": "category", "missing": 0.0, "categories": {"basic": 0.5, "plus": 0.5}},
        {"name": "member", "dtype": "boolean", "missing": 0.0, "mean": 0.5},
        {"name": "joined", "dtype": "datetime", "missing": 0.0},
    ],
    "missing_markers": ["", "NA"],
    "rows": {"train": 400},
}

Line = dict[str, Any]


def people(rows: int, seed: int) -> pd.DataFrame:
    """Return rows of one population, whose labels depend on income."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({artifacts.ROW: np.arange(rows), "income": rng.normal(size=rows).clip(-4, 4)})
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
        """Write the labels of the rows made with `label=True`."""
        Path("labels").mkdir(exist_ok=True)
        Path("labels/a.csv").write_text("\n".join(self.labels) + "\n")

    def run(self) -> tuple[int, dict[str, Any]]:
        """Run the monitor and return its exit status and its result."""
        status = monitor.main()
        result: dict[str, Any] = json.loads(artifacts.MONITOR.read_text())
        return status, result

    def offsets(self) -> dict[str, int]:
        offsets: dict[str, int] = json.loads(self.state.read_text())["offsets"]
        return offsets


def failed(result: dict[str, Any]) -> set[tuple[str, str | None]]:
    return {(check["check"], check["column"]) for check in result["checks"] if not check["passed"]}


def settings(**monitored: Any) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(SETTINGS | {"monitor": {"min_rows": 50, **monitored}}))


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A release; Deepchecks does not run, its step finds nothing."""
    monkeypatch.chdir(folder)
    for name in ("REQUEST_LOG", "LABELS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    settings()
    test = people(150, seed=1)
    test.to_parquet("test.parquet")
    p = probability(test["income"])
    guesses = pd.DataFrame(
        {"row": test[artifacts.ROW], "split": "test", "target": test["churned"], "p_yes": p, "p_no": 1 - p}
    )
    guesses.assign(prediction=np.where(p > 0.5, "yes", "no")).to_parquet("predictions.parquet")
    with zipfile.ZipFile("toy.mar", "w") as archive:
        archive.writestr("schema.json", json.dumps(SCHEMA))
    files = {name: Path(name) for name in ("test.parquet", "predictions.parquet", "toy.mar")}
    record = Release.model_validate(
        {
            "commit": "c" * 40,
            "model": {"name": "toy", "version": VERSION, "sha256": VERSION, "md5": "m"},
            "package": {"path": "package/toy.mar", "md5": "toy.mar"},
            "predictions": {"path": "evaluation/predictions.parquet", "md5": "predictions.parquet"},
            "test_md5": "test.parquet",
            "data": {"path": "data/raw.csv", "md5": "d"},
            "params": SETTINGS | {"request_log": {"redact": ["prediction"]}},
            "metrics": {"roc_auc": {"value": 0.95, "low": 0.9, "high": 0.98}},
            "mlflow_run_id": None,
            "image": "toy:a",
            "gate": {"accepted": True, "mode": "absolute", "reason": "Accepted."},
            "previous": None,
        }
    )
    monkeypatch.setattr(release, "production", lambda: Deployed("e" * 40, record))
    monkeypatch.setattr(dvc, "fetch", files.__getitem__)
    monkeypatch.setattr(monitor, "run_drift_checks", found_nothing)
    return World()


def found_nothing() -> None:
    artifacts.write_json(artifacts.MONITOR_CHECKS, {"checks": [], "notes": []})
