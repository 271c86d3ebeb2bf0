"""The splits and the schema that everything after them stands on."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import TARGETS, prepared, settings, table
from project import prepare
from project.features import DERIVED

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.tabular import table as tables
from gitops.tabular.columns import Derived


@pytest.mark.parametrize("task", TARGETS)
def test_each_row_is_in_one_split(task: str) -> None:
    splits, schema = prepared(task)
    rows = pd.concat(splits.values())[artifacts.ROW]
    assert sorted(rows) == [*range(400)]
    left_out = {"dropped_missing_target": 0, "dropped_duplicates": 0, "dropped_repeated_ids": 0}
    assert schema["rows"] == {"raw": 400} | left_out | {name: len(x) for name, x in splits.items()}


def test_the_schema_describes_each_feature() -> None:
    _, schema = prepared("binary")
    dtypes = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    assert dtypes == {"size": "number", "colour": "category", "since": "datetime", "member": "boolean"}
    assert schema["target"] == {"name": "top", "classes": ["no", "yes"]}


def test_rows_without_a_target_are_left_out() -> None:
    data, frame = settings("binary").data, table()
    frame.loc[:9, "top"] = None
    splits, schema = prepare.prepare(tables.of_frame(frame, data), data, {})
    assert schema["rows"]["dropped_missing_target"] == 10
    assert pd.concat(splits.values())[artifacts.ROW].min() == 10


def test_a_derived_feature_is_in_the_splits_and_the_schema() -> None:
    data = settings("regression").data
    doubled = {"doubled": Derived(("size",), lambda size: size * 2)}
    splits, schema = prepare.prepare(tables.of_frame(table(), data), data, doubled)
    pd.testing.assert_series_equal(splits["val"]["doubled"], splits["val"]["size"] * 2, check_names=False)
    feature = next(feature for feature in schema["features"] if feature["name"] == "doubled")
    assert (feature["dtype"], feature["derived"]) == ("number", ["size"])


def test_a_target_that_is_no_number_is_refused() -> None:
    data = settings("regression", data={"target": "colour", "drop": ["value", "grade", "top"]}).data
    with pytest.raises(ProjectError, match=r"data\.target 'colour'"):
        prepare.prepare(tables.of_frame(table(), data), data, {})


def test_derived_features_have_inputs_and_a_function() -> None:
    for name, feature in DERIVED.items():
        assert feature.inputs, name
        assert callable(feature.compute), name
