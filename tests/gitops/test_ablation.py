"""`make debts` trains again without a feature that may add nothing, and keeps nothing of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from breast_cancer import prepare
from gitops.core import artifacts, params
from gitops.debt import found_ablation
from gitops.debt.finding import Finding
from tuning import PARAMS, write_table


def explained(**importances: float) -> dict[str, Any]:
    """Return what the stage evaluate writes of features with these importances, each give or take 0.01."""
    return {
        "features": [
            {"name": name, "importance": value, "low": value - 0.01, "high": value + 0.01}
            for name, value in importances.items()
        ]
    }


def find(explanations: dict[str, Any], rows: int = 300) -> list[Finding]:
    features = [{"name": name} for name in ("x", *(one["name"] for one in explanations["features"]))]
    schema = {"rows": {"train": rows}, "features": features}
    return [*found_ablation.find(params.load(), schema, explanations, 7)]


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str | None, list[float]]:
    """What each training gives: its losses by the feature that it lacks, None for none; else those of all features."""
    monkeypatch.chdir(tmp_path)
    artifacts.PARAMS.write_text(PARAMS)
    given: dict[str | None, list[float]] = {None: [0.5, 0.6, 0.7]}
    monkeypatch.setattr(found_ablation, "losses", lambda settings, schema, name, bar: given.get(name, given[None]))
    return given


def test_of_real_trainings_nothing_is_kept_and_what_the_class_depends_on_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts.PARAMS.write_text(PARAMS.replace("epochs: 4", "epochs: 60").replace("0.002", "0.02"))
    write_table(Path("raw.csv"))
    table = pd.read_csv("raw.csv")
    for number in range(3):
        table[f"noise {number}"] = np.random.default_rng(number).normal(size=len(table))
    table.to_csv("raw.csv", index=False)
    prepare.main()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    schema = artifacts.read_json(artifacts.SCHEMA, "")
    names = ["size", "colour", "noise 0", "noise 1", "noise 2"]
    findings = [*found_ablation.find(params.load(), schema, explained(**dict.fromkeys(names, 0.0)), 7)]
    assert {one["text"].partition(" adds nothing")[0] for one in findings} <= {"noise 0", "noise 1", "noise 2"}
    assert Path.cwd() == tmp_path
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_derived_from_a_feature_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    schema = {"features": [{"name": "a"}, {"name": "b"}, {"name": "ratio", "derived": ["a", "b"]}]}
    artifacts.write_json(artifacts.SCHEMA, schema)
    for name, kept in ((None, ["a", "b", "ratio"]), ("b", ["a"])):
        with found_ablation._prepared(schema, name):
            assert [one["name"] for one in artifacts.read_json(artifacts.SCHEMA, "")["features"]] == kept


def test_a_higher_loss_without_it_clears_a_feature(trainings: dict[str | None, list[float]]) -> None:
    trainings["b"] = [0.5, 0.6, 0.71]
    trainings["c"] = [0.1, 0.1, math.inf]  # one training has diverged
    (finding,) = find(explained(a=0.0, b=0.0, c=0.0))
    assert finding["text"].startswith("a adds nothing that shows: trained without it") and finding["line"] == 7
    assert "loss of 0.6 ± 0.1, with it 0.6 ± 0.1 (mean and deviation of 3 seeds)." in finding["text"]
    trainings[None] = [math.inf] * 3
    assert find(explained(a=0.0)) == []


def test_those_that_matter_least_are_tried_and_the_others_are_not_known(
    trainings: dict[str | None, list[float]],
) -> None:
    """What surely matters is no candidate."""
    findings = find(explained(a=0.002, b=0.001, c=-0.3, d=0.0, e=-0.1, f=0.003, g=0.011))
    assert [one["text"][0] for one in findings if one["known"]] == ["c", "e", "d", "b", "a"]
    (left,) = (one["text"] for one in findings if not one["known"])
    assert "without 1 features whose importance may be 0: 5 are tried at once" in left


def test_the_only_feature_is_not_left_out(trainings: dict[str | None, list[float]]) -> None:
    trainings.clear()
    explanations = explained(x=0.0)
    schema = {"rows": {"train": 9}, "features": [{"name": "x"}, {"name": "of x", "derived": ["x"]}]}
    (finding,) = found_ablation.find(params.load(), schema, explanations, 7)
    assert not finding["known"]


def test_a_large_table_is_not_trained_on_again(trainings: dict[str | None, list[float]]) -> None:
    trainings.clear()
    (finding,) = find(explained(a=0.0, b=0.0), rows=1_000_001)
    assert not finding["known"] and "without 2 features" in finding["text"] and "above 3000000 " in finding["text"]
