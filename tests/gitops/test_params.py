"""params.yaml: what is refused, and whether the message names the key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from breast_cancer.settings import Settings
from conftest import SETTINGS
from defaults import ROOT
from gitops.core import params, sections
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
        ("train", {"processes": 0}, "train.processes is 0"),
        ("train", {"threshold": "rmse"}, "train.threshold names 'rmse', which task 'binary' does not have"),
        ("train", {"threshold": "roc_auc"}, "train.threshold names 'roc_auc', which no decision changes"),
        ("train", {"class_weights": "equal"}, "train.class_weights is 'equal'"),
        ("data", {"task": "ranking"}, "data.task is 'ranking'"),
        ("data", {"path": "data/raw.xlsx"}, "data/raw.xlsx"),
        ("data", {"val_size": 0.5, "test_size": 0.45}, "val_size 0.5 + test_size 0.45"),
        ("data", {"drop": "diagnosis"}, "data.drop is 'diagnosis'"),
        ("data", {"positive": 1}, "data.positive is 1: a text is expected, put it in quotes"),
        ("data", {"drop": ["diagnosis"]}, "name the same column twice"),
        ("gate", {"primary_metric": "rmse"}, "gate.primary_metric names 'rmse'"),
        ("gate", {"thresholds": {"roc_auc": "high"}}, "gate.thresholds.roc_auc is 'high'"),
        ("gate", {"slices": {"rmse": 0.1}}, "gate.slices names 'rmse'"),
        ("gate", {"slices": {"roc_auc": 0.8}}, "gate.slices has limits, and data.slices names no column"),
        ("gate", {"decision": "better"}, "gate.decision is 'better'"),
        ("gate", {"tolerance": -0.1}, "gate.tolerance is -0.1"),
        ("package", {"model_name": "a model/1"}, "package.model_name is 'a model/1'"),
        ("request_log", {"sample": 1.5}, "request_log.sample is 1.5"),
        ("request_log", {"redact": "age"}, "request_log.redact is 'age'"),
        ("typo", {"x": 1}, "typo is not a setting"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, section: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ProjectError) as error:
        load_with(tmp_path, section, **changes)
    assert named in str(error.value)


def test_every_bad_value_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"(?s)train\.patience is 'b'.*train\.epochs is 'a'"):
        load_with(tmp_path, "train", epochs="a", patience="b")


def test_broken_yaml_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"params\.yaml is missing"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1", encoding="utf-8")
    with pytest.raises(ProjectError, match="not valid YAML"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-3", 0.002),
        ("1e-05", 1e-05),  # DVC writes it so
        ("1", 1.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("+1E+0", 1.0),
    ],
)
def test_a_number_is_one_however_it_is_written(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "params.yaml"
    values = copy.deepcopy(SETTINGS)
    values["train"]["weight_decay"] = "HERE"
    path.write_text(yaml.safe_dump(values).replace("HERE", text), encoding="utf-8")
    settings = params.load(path)
    assert isinstance(settings, Settings)
    assert settings.train.weight_decay == value and type(settings.train.weight_decay) is float


def test_a_text_stays_one_as_for_dvc(tmp_path: Path) -> None:
    """YAML 1.1 makes a boolean of `no`, a date of `2026-01-31` and eight of `010`."""
    path = tmp_path / "params.yaml"
    values = copy.deepcopy(SETTINGS)
    values["data"] |= {"positive": "HERE", "drop": ["LIST"], "seed": "SEED"}
    text = yaml.safe_dump(values).replace("HERE", "no").replace("LIST", "2026-01-31").replace("SEED", "010")
    path.write_text(text, encoding="utf-8")
    data = params.load(path).data
    assert (data.positive, data.drop, data.seed) == ("no", ["2026-01-31"], 10)


def test_settings_cannot_be_changed() -> None:
    settings = Settings.model_validate(SETTINGS)
    with pytest.raises(ValueError, match="frozen"):
        settings.train.epochs = 1  # type: ignore[misc]


@pytest.mark.parametrize(("old", "new"), params.RENAMED.items())
def test_an_old_name_is_an_error_that_says_the_new_one(tmp_path: Path, old: str, new: str) -> None:
    """And says nothing else, although the new name is missing; the new name itself is a setting."""
    (section, _, key), (new_section, _, new_key) = old.partition("."), new.partition(".")
    values = copy.deepcopy(SETTINGS)
    values[section][key] = values[new_section].pop(new_key, None)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ProjectError) as error:
        params.load(path)
    assert str(error.value) == f"{path}: {old} is now {new}: rename it"
    assert new_key in type(getattr(Settings.model_validate(SETTINGS), new_section)).model_fields


def test_an_old_name_beside_the_new_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"gate\.metric is now gate\.primary_metric: rename it$"):
        load_with(tmp_path, "gate", metric="roc_auc")


def test_an_old_name_in_the_search_space_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"'model\.members', which is now model\.ensemble_size"):
        load_with(tmp_path, "tune", space={"model.members": {"low": 1, "high": 2}})


def test_what_was_renamed_in_another_section_is_unknown_here(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"train\.members is not a setting"):
        load_with(tmp_path, "train", members=3)


@pytest.mark.parametrize("section", ["data", "train", "package"])
def test_a_stages_setting_has_no_default(tmp_path: Path, section: str) -> None:
    """DVC would not notice that a default has changed."""
    values = copy.deepcopy(SETTINGS)
    for key in list(values[section]):
        left = {name: value for name, value in values[section].items() if name != key}
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(values | {section: left}), encoding="utf-8")
        with pytest.raises(ProjectError, match=rf"{section}\.{key} is missing"):
            params.load(path)
    with pytest.raises(TypeError, match=r"Later\.setting has a default: set the value in params\.yaml"):

        class Later(sections.StageSection):
            setting: int = 3
