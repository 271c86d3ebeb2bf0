"""params.yaml: what is refused, and whether the message names the key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, SETTINGS
from gitops.core import params
from gitops.core.artifacts import ProjectError


def load_with(tmp_path: Path, section: str, **changes: Any) -> params.Params:
    values = copy.deepcopy(SETTINGS)
    values.setdefault(section, {}).update(changes)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return params.load(path)


def test_the_projects_own_file_is_valid() -> None:
    params.load(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("section", "changes", "named"),
    [
        ("train", {"epochs": "ten"}, "train.epochs is 'ten'"),
        ("train", {"epochs": 2.5}, "train.epochs is 2.5"),
        ("train", {"epochs": 0}, "train.epochs is 0"),
        ("train", {"epoch": 5}, "train.epoch is not a setting"),
        ("train", {"device": "tpu"}, "train.device is 'tpu'"),
        ("data", {"task": "ranking"}, "data.task is 'ranking'"),
        ("data", {"path": "data/raw.xlsx"}, "data/raw.xlsx"),
        ("data", {"val_size": 0.5, "test_size": 0.45}, "val_size 0.5 + test_size 0.45"),
        ("data", {"drop": "diagnosis"}, "data.drop is 'diagnosis'"),
        ("data", {"drop": ["diagnosis"]}, "name the same column twice"),
        ("gate", {"metric": "rmse"}, "gate.metric names 'rmse'"),
        ("gate", {"thresholds": {"roc_auc": "high"}}, "gate.thresholds.roc_auc is 'high'"),
        ("gate", {"tolerance": -0.1}, "gate.tolerance is -0.1"),
        ("package", {"model_name": "a model/1"}, "package.model_name is 'a model/1'"),
        ("request_log", {"sample": 1.5}, "request_log.sample is 1.5"),
        ("request_log", {"mask": "age"}, "request_log.mask is 'age'"),
        ("typo", {"x": 1}, "typo is not a setting"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, section: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ProjectError) as error:
        load_with(tmp_path, section, **changes)
    assert named in str(error.value)


def test_every_bad_value_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"(?s)train\.epochs.*train\.patience"):
        load_with(tmp_path, "train", epochs="a", patience="b")


def test_broken_yaml_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"params\.yaml is missing"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1", encoding="utf-8")
    with pytest.raises(ProjectError, match="not valid YAML"):
        params.load(tmp_path / "params.yaml")


def test_settings_cannot_be_changed() -> None:
    settings = params.Params.model_validate(SETTINGS)
    with pytest.raises(ValueError, match="frozen"):
        settings.train.epochs = 1  # type: ignore[misc]
