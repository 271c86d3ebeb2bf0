"""Shared by the tests of `make replay`: a candidate, a release, and a log that is written as servers write it."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from breast_cancer import features
from conftest import SETTINGS
from gitops.core import artifacts, params
from gitops.integrations import dvc
from gitops.monitoring import compact
from gitops.releases import release
from gitops.releases.record import Deployed, Release
from gitops.replay import replay
from gitops.serving.server import request_log
from gitops.serving.server.request_log import Entry
from gitops.tabular import columns, request_rows
from request_logs import hour_folder

#: An hour that is over, and in the newest day.
OVER = datetime.now(UTC) - timedelta(hours=3)

COMMIT = "e" * 40
PLANS = {"basic": 0.5, "plus": 0.5}

FEATURES: list[dict[str, Any]] = [
    {"name": "income", "dtype": "number"},
    {"name": "plan", "dtype": "category", "categories": PLANS},
    {"name": "member", "dtype": "boolean"},
    {"name": "joined", "dtype": "datetime"},
]


def schema(task: str = "binary", *more: dict[str, Any], without: str = "", **target: Any) -> dict[str, Any]:
    """Return the schema of a model with FEATURES and `more`."""
    classes = {"binary": ["no", "yes"], "multiclass": ["high", "low", "mid"], "regression": []}[task]
    return {
        "task": task,
        "target": {"name": "churned", "classes": classes} | target,
        "features": [feature for feature in (*FEATURES, *more) if feature["name"] != without],
        "slices": ["plan", "member"],
        "id": "customer",
        "timestamp": None,
        "missing_markers": ["", "NA"],
    }


class Linear(torch.nn.Module):
    """A model of the income alone, which counts as 0 where it is missing."""

    def __init__(self, weight: float, bias: float, classes: int) -> None:
        super().__init__()
        self.weight, self.bias, self.classes = weight, bias, classes

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        score = torch.nan_to_num(numbers[:, 0]) * self.weight + self.bias + 0 * categories.sum(dim=1)
        if not self.classes:
            return score
        others = [torch.zeros_like(score) for _ in range(self.classes - 1)]
        return torch.softmax(torch.stack([*others, score], dim=1), dim=1)


@functools.cache
def exported(weight: float, bias: float, classes: int, numbers: int, categories: int) -> bytes:
    """Return the exported model as a file's bytes."""
    example = (torch.zeros(2, numbers, dtype=torch.float64), torch.zeros(2, categories, dtype=torch.int64))
    rows = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Linear(weight, bias, classes), example, dynamic_shapes=(rows, rows))
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def archive(path: Path, its: dict[str, Any], weight: float = 1.0, bias: float = 0.0) -> bytes:
    """Write what a replay reads of an archive, and return its model."""
    dtypes = [feature["dtype"] for feature in its["features"]]
    categories = dtypes.count("category")
    model = exported(weight, bias, len(its["target"]["classes"]), len(dtypes) - categories, categories)
    row = {feature["name"]: None for feature in columns.given(its)}
    encoded = features.encode(columns.from_rows([request_rows.check_row(0, row, its)], its), its)
    outputs = torch.export.load(io.BytesIO(model)).module()(*encoded)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(artifacts.MODEL.name, model)
        file.writestr("schema.json", json.dumps(its))
        file.writestr("golden_request.json", json.dumps({"instances": [row]}))
        file.writestr("golden_response.json", json.dumps({"predictions": features.answer(outputs, its)}))
    return model


@dataclass
class World:
    """A release, a candidate and a request log in the present folder."""

    monkeypatch: pytest.MonkeyPatch
    settings: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(SETTINGS)))
    logged: int = 0

    def candidate(self, its: dict[str, Any] | None = None, **linear: float) -> None:
        """Make the workspace's model."""
        model = archive(Path("package/tumour.mar"), its or schema(), **linear)
        artifacts.MODEL.parent.mkdir(exist_ok=True)
        artifacts.MODEL.write_bytes(model)

    def release(self, its: dict[str, Any] | None = None, redact: Iterable[str] = (), **linear: float) -> None:
        """Release a model to production."""
        model = archive(Path("remote/released.mar"), its or schema(), **linear)
        given = json.loads(json.dumps(self.settings)) | {"request_log": {"sample": 1.0, "redact": [*redact]}}
        record = {
            "commit": "c" * 40,
            "model": {"name": "tumour", "version": "v", "sha256": sha256(model).hexdigest(), "md5": "m"},
            "package": {"path": "package/tumour.mar", "md5": "released.mar"},
            "predictions": {"path": "p", "md5": "p"},
            "test_md5": "t",
            "data": {"path": "data/raw.csv", "md5": "d"},
            "params": given,
            "metrics": {"roc_auc": {"value": 0.95, "low": 0.9, "high": 0.98}},
            "mlflow_run_id": None,
            "image": "toy:a",
            "gate": {"accepted": True, "mode": "absolute", "reason": "Accepted."},
            "previous": None,
        }
        present = Deployed(COMMIT, Release.model_validate(record))
        self.monkeypatch.setattr(release, "production", lambda: present)

    def task(self, task: str) -> None:
        """Make it another task."""
        metric = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}[task]
        self.settings["data"] |= {"task": task}
        self.settings["gate"] = {"primary_metric": metric, "thresholds": {metric: 0.5}}

    def rows(self, count: int, seed: int = 0, **fixed: Any) -> list[dict[str, Any]]:
        """Return rows of requests; `fixed` columns have that value in all of them."""
        rng = np.random.default_rng(seed)
        return [
            {
                "income": float(rng.normal()),
                "plan": str(rng.choice([*PLANS])),
                "member": bool(rng.random() > 0.5),
                "joined": "2024-05-06T00:00:00+00:00",
            }
            | fixed
            for _ in range(count)
        ]

    def log(
        self,
        rows: list[dict[str, Any]],
        redact: Iterable[str] = (),
        when: datetime = OVER,
        name: str = "a",
        answer: Any = None,
        **entry: Any,
    ) -> None:
        """Log a request for each row as the server does; what was answered then is of no matter."""
        answer = {"label": "no", "probabilities": {"no": 0.5, "yes": 0.5}} if answer is None else answer
        path = Path("requests", hour_folder(when), f"{name}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            for row in rows:
                self.logged += 1
                given = {"request_id": f"r{self.logged}", "rows": [row], "predictions": [answer], "client": "team-a"}
                made = Entry(**(given | {"time": when.timestamp()} | entry))
                file.writelines(request_log.lines(made, "a" * 12, [*redact]))

    def refuse(self, count: int, *at_fault: str | None, text: str = "is wrong", status: int = 400) -> None:
        """Log refused requests, whose errors name these columns."""
        problems = [{"instance": 0, "column": column, "error": text} for column in at_fault]
        for _ in range(count):
            self.log([{}], status=status, problems=problems)

    def run(self) -> dict[str, Any]:
        """Run the replay and return its result."""
        Path("params.yaml").write_text(yaml.safe_dump(self.settings))
        replay.main()
        result: dict[str, Any] = json.loads(artifacts.REPLAY.read_text())
        return result


def compacted() -> None:
    """Put the log into parquet files."""
    compact.main()
    assert not [*Path("requests").rglob("*.jsonl")] and [*Path("requests").rglob("*.parquet")]


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world without a release, a model or a log in `folder`."""
    monkeypatch.chdir(folder)
    for name in ("REQUEST_LOG", "LABELS", "GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    world = World(monkeypatch)
    world.settings["evaluate"] |= {"bootstrap": 1000}
    world.settings["data"] |= {"target": "churned"}
    monkeypatch.setattr(release, "production", lambda: None)
    monkeypatch.setattr(dvc, "fetch", lambda md5: folder / "remote" / md5)
    artifacts.TEST.parent.mkdir(parents=True)
    pd.DataFrame({"churned": np.random.default_rng(9).normal(scale=2.0, size=400)}).to_parquet(artifacts.TEST)
    assert params.package() == "breast_cancer"
    return world


def label(texts: dict[str, str]) -> None:
    Path("labels").mkdir(exist_ok=True)
    lines = "".join(f"{request},{text}\n" for request, text in texts.items())
    Path("labels/a.csv").write_text(f"request_id,label\n{lines}")
