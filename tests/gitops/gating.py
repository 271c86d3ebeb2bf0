"""Shared by the tests of the gate: a candidate and the releases before it, made here by hand; no pipeline runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from breast_cancer import metrics
from defaults import complete
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError, digest
from gitops.gate import gate
from gitops.integrations import dvc
from gitops.releases import history, release
from gitops.releases.history import Entry, Period, Released
from gitops.releases.record import Deployed, Release

ROWS = 300
CLASSES = ["benign", "malignant"]
SETTINGS: dict[str, Any] = {
    "data": {"path": "data/raw.csv", "target": "diagnosis", "task": "binary", "positive": "malignant"},
    "evaluate": {"bootstrap": 100},
    "gate": {
        "primary_metric": "roc_auc",
        "tolerance": 0.01,
        "thresholds": {"roc_auc": 0.7},
        "guardrail_metrics": {"brier": 0.02},
    },
    "package": {"model_name": "toy"},
}
SCHEMA = {
    "task": "binary",
    "target": {"name": "diagnosis", "classes": CLASSES, "dtype": "category"},
    "features": [{"name": "x", "dtype": "number"}],
}
PASSED = {"passed": True, "conditions": [], "not_run": []}

rng = np.random.default_rng(0)
ACTUAL = rng.integers(0, 2, ROWS)
NOISE = rng.normal(size=ROWS)


def outputs(skill: float, seed: int = 0) -> metrics.Array:
    """Return probabilities; the greater `skill`, the better they tell the classes apart; their noise is the seed's."""
    noise = np.random.default_rng(seed).normal(size=ROWS) if seed else NOISE
    positive = 1 / (1 + np.exp(-(skill * (2 * ACTUAL - 1) + noise)))
    return np.stack([1 - positive, positive], axis=1)


def predictions(path: Path, skill: float, seed: int = 0) -> Path:
    """Write a predictions.parquet whose rows come in another order than the split's."""
    table = pd.DataFrame({"row": range(ROWS), "split": "test"})
    for place, name in enumerate(CLASSES):
        table[f"p_{name}"] = outputs(skill, seed)[:, place]
    table["prediction"] = np.array(CLASSES, dtype=object)[outputs(skill, seed).argmax(axis=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    table.iloc[::-1].to_parquet(path)
    return path


class World:
    """A workspace with an evaluated candidate, and the release on origin."""

    def __init__(self) -> None:
        self.settings = json.loads(json.dumps(SETTINGS))
        self.releases: list[Released] = []  # of env/production that no rollback has taken back, the deployed one last
        self.objects: dict[str, Path] = {}  # what the DVC remote holds, by md5
        self.fetched: list[str] = []
        test = pd.DataFrame({"x": NOISE, "diagnosis": [CLASSES[place] for place in ACTUAL], artifacts.ROW: range(ROWS)})
        test[artifacts.GROUP] = range(ROWS)
        artifacts.TEST.parent.mkdir(parents=True)
        test.to_parquet(artifacts.TEST)
        artifacts.write_json(artifacts.SCHEMA, SCHEMA)
        for path in (artifacts.DATA_VERDICT, artifacts.MODEL_VERDICT):
            artifacts.write_json(path, PASSED)
        self.evaluate(skill=1.0)

    def scores(self, skill: float, seed: int = 0) -> dict[str, dict[str, float]]:
        values = metrics.score("binary", ACTUAL, outputs(skill, seed), outputs(skill, seed).argmax(axis=1))
        return {name: {"value": value, "low": value - 0.05, "high": value + 0.05} for name, value in values.items()}

    def evaluate(self, skill: float, seed: int = 0) -> None:
        artifacts.write_text(artifacts.MODEL, f"candidate of skill {skill}")
        predictions(artifacts.PREDICTIONS, skill, seed)
        evaluated = {"test_md5": digest(artifacts.TEST, "md5"), "model_sha256": digest(artifacts.MODEL)}
        artifacts.write_json(artifacts.METRICS, evaluated | {"metrics": self.scores(skill, seed)})

    def released(self, skill: float, **changes: Any) -> None:
        """Make production a release of that skill, the first one; its predictions are in the remote (`follow`)."""
        self.releases = []
        self.follow(skill, **changes)

    def follow(self, skill: float, **changes: Any) -> str:
        """Release a model of that skill after the others, on the same test split; return the release's commit."""
        number = len(self.releases) + 1
        table = predictions(Path(f"old/{number}.parquet"), skill)
        self.objects[digest(table, "md5")] = table
        values = {
            "commit": "c" * 40,
            "model": {"name": "toy", "version": f"{number:012}", "sha256": f"{number:064}", "md5": "0" * 32},
            "package": {"path": "package/toy.mar", "md5": f"{number:032}"},
            "predictions": {"path": "evaluation/predictions.parquet", "md5": digest(table, "md5")},
            "test_md5": digest(artifacts.TEST, "md5"),
            "data": {"path": "data/raw.csv", "md5": "2" * 32},
            "params": complete(SETTINGS),
            "metrics": self.scores(skill),
            "gate": {"accepted": True, "mode": "absolute", "reason": "."},
            "mlflow_run_id": None,
            "image": "toy:1",
            "previous": None,
        }
        entry = Entry(f"{number:x}" * 40, "", "", "", f"{number:040}", Release.model_validate(values | changes))
        periods = [Released(one.first, [Period(one.first, entry)]) for one in self.releases]
        self.releases = [*periods, Released(entry, [Period(entry, None)])]
        return entry.commit

    def production(self) -> Deployed | None:
        """Stand in for release.production."""
        return Deployed(self.releases[-1].first.commit, self.releases[-1].record) if self.releases else None

    def standing(self, tip: str) -> list[Released]:
        """Stand in for history.standing."""
        assert tip == self.releases[-1].first.commit
        return self.releases

    def fetch_all(self, md5s: Iterable[str]) -> dict[str, Path | ProjectError]:
        """Stand in for dvc.fetch_all, and remember what was asked for."""
        wanted = set(md5s)
        self.fetched += sorted(wanted)
        return {md5: self.objects.get(md5, ProjectError(f"object {md5} is nowhere")) for md5 in wanted}

    def gate(self) -> dict[str, Any]:
        artifacts.write_text(artifacts.PARAMS, yaml.safe_dump(complete(self.settings)))
        result: dict[str, Any] = gate.evaluate(params.load())
        assert json.loads(artifacts.GATE.read_text()) == result
        assert result["accepted"] == all(rule["passed"] for rule in result["rules"])
        assert result["reason"].startswith("Accepted" if result["accepted"] else "Refused")
        return result


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world in `folder`, which the gate takes for the repository, its remotes and DVC."""
    monkeypatch.chdir(folder)
    world = World()
    monkeypatch.setattr(release, "production", world.production)
    monkeypatch.setattr(history, "standing", world.standing)
    monkeypatch.setattr(dvc, "fetch_all", world.fetch_all)
    monkeypatch.setattr(dvc, "stale", list)
    return world
