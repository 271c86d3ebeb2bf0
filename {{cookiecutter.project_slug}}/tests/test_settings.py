"""params.yaml and settings.py fit each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from project.settings import Settings

from gitops.core.artifacts import ProjectError


def test_params_yaml_can_be_read() -> None:
    assert Settings.load(ROOT / "params.yaml").package.model_name


@pytest.mark.parametrize(
    ("section", "setting", "value", "told"),
    [
        ("model", "width", -1, r"model\.width is -1"),
        ("train", "learning_rat", 0.1, r"train\.learning_rat is not a setting"),
        ("gate", "primary_metric", "luck", r"gate\.primary_metric names 'luck'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, section: str, setting: str, value: object, told: str) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values[section][setting] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ProjectError, match=told):
        Settings.load(path)


def test_a_setting_that_is_left_out_is_named(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    del values["train"]["epochs"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ProjectError, match=r"train\.epochs is missing"):
        Settings.load(path)
