"""Derived features in `make monitor`: the log lacks them, so they are computed for the window by main's features.py."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT
from gitops import owner
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.monitoring import monitor
from gitops.tabular.columns import Derived
from monitoring import SCHEMA, World, failed, people

WITH_DEEPCHECKS = monitor.run_drift_checks

#: Of `gain` income and member, of `group` a category and a date.
INPUTS = {"gain": ["income", "member"], "group": ["prediction", "joined"]}

FEATURES: list[dict[str, Any]] = [
    {"name": "gain", "dtype": "number", "missing": 0.0, "min": -4.0, "max": 4.0, "derived": INPUTS["gain"]},
    {
        "name": "group",
        "dtype": "category",
        "missing": 0.0,
        "categories": {"basic/2": 0.5, "plus/2": 0.5},
        "derived": INPUTS["group"],
    },
]


def gain(income: Any, member: Any) -> Any:
    """Return the income of members and the negative income of others."""
    return income * (2 * member - 1)


def group(plan: list[str | None], joined: Any) -> list[str | None]:
    """Return plan and millennium."""
    return [None if name is None else f"{name}/2" for name, _ in zip(plan, joined.tolist(), strict=True)]


def derived(**changed: Any) -> dict[str, Derived]:
    functions = {"gain": gain, "group": group} | changed
    return {name: Derived(tuple(INPUTS[name]), function) for name, function in functions.items() if function}


@pytest.fixture
def release(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A release whose schema and test split have two derived features."""
    with zipfile.ZipFile("toy.mar", "w") as archive:
        archive.writestr("schema.json", json.dumps(SCHEMA | {"features": SCHEMA["features"] + FEATURES}))
    test = people(150, seed=1)
    test["gain"] = gain(test["income"], test["member"].astype(float))
    test.assign(group=test["prediction"] + "/2").to_parquet("test.parquet")
    monkeypatch.setattr(owner.features(), "DERIVED", derived())
    return world


def current() -> pd.DataFrame:
    return artifacts.read_parquet(artifacts.MONITOR_CURRENT)


def test_derived_features_are_computed_from_the_log(release: World) -> None:
    """In the form of the reference; where an input is missing, as their function says."""
    lines = release.lines(60)
    lines[0]["inputs"] |= {"income": None, "prediction": "NA"}
    lines[1]["inputs"] |= {"income": 3.0, "member": False, "prediction": "gold"}
    release.log(lines)
    assert release.run()[1]["rows"] == 60
    reference = artifacts.read_parquet(artifacts.MONITOR_REFERENCE)
    assert [*current().columns] == [*reference.columns] == ["income", "prediction", "member", "joined", "gain", "group"]
    assert current()["gain"].isna().tolist() == [True] + 59 * [False]
    assert current()["group"][0] is None
    assert current().loc[1, ["gain", "group"]].tolist() == [-3.0, "gold/2"]
    assert {*current()["group"][2:]} == {*reference["group"]} == {"basic/2", "plus/2"}


def test_drift_that_only_a_derived_feature_shows(release: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Income and membership are distributed as before, but now only high incomes are members'."""
    monkeypatch.setattr(monitor, "run_drift_checks", WITH_DEEPCHECKS)
    monkeypatch.setattr(monitor, "PYTHON", ROOT / ".venv/validate/bin/python")
    lines = release.lines(200)
    for line in lines:
        line["inputs"]["member"] = line["inputs"]["income"] > 0
    release.log(lines)
    status, result = release.run()
    assert (status, failed(result)) == (3, {("feature drift", "gain")})
    assert {("missing values", "gain"), ("out of range", "gain"), ("unseen categories", "group")} <= {
        (check["check"], check["column"]) for check in result["checks"]
    }


def test_derived_feature_of_a_redacted_column_is_redacted(release: World) -> None:
    release.log(release.lines(60, income="redacted"))
    status, result = release.run()
    assert (status, result["rows"]) == (0, 60)
    assert json.loads(artifacts.MONITOR_CONTEXT.read_text())["redacted"] == ["gain", "income"]
    assert "gain is redacted in the log: not checked" in result["notes"]
    assert current()["gain"].isna().all() and current()["group"].notna().all()


def test_requests_that_were_all_refused_leave_nothing_to_derive(release: World) -> None:
    release.log(release.refused(60, "income"))
    assert failed(release.run()[1]) == {("refused requests", "income")}
    assert current().empty and "gain" in current()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gain": None}, r"the release has the derived feature 'gain', .*features\.py lacks it: keep it as it was"),
        ({"gain": lambda income, member: -gain(income, member)}, r"'gain', .*gives other values: keep it"),
        ({"group": lambda plan, joined: plan}, r"'group', .*gives other values: keep it"),
        ({"gain": lambda income, member: income / None}, r"DERIVED\['gain'\] failed: TypeError"),
        ({"gain": lambda income, member: income[1:]}, r"'gain', .*does not return one number a row"),
        ({"group": lambda plan, joined: joined}, r"'group', .*does not return one category a row"),
    ],
)
def test_features_that_differ_from_the_release(
    changed: dict[str, Any], message: str, release: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values of the window would differ from those of the reference without any drift."""
    monkeypatch.setattr(owner.features(), "DERIVED", derived(**changed))
    release.log(release.lines(60))
    with pytest.raises(ProjectError, match=message):
        monitor.main()
    assert not Path("reports/monitor.json").exists()


def test_derived_feature_that_now_has_other_inputs(release: World, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Derived(("income", "joined"), gain)
    monkeypatch.setattr(owner.features(), "DERIVED", derived() | {"gain": changed})
    release.log(release.lines(60))
    with pytest.raises(ProjectError, match=r"computed from income, member; .*computes it from income, joined: keep it"):
        monitor.main()
