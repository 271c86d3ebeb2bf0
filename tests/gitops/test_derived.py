"""Derived features: computed by one function in training, requests and batch inference, or refused in `prepare`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_table
import tiny_model
import torch
from breast_cancer import features, prepare
from defaults import complete
from gitops.core.artifacts import ROW, ProjectError
from gitops.core.sections import Data
from gitops.inference import batch, source
from gitops.inference.model import Model
from gitops.tabular import arrow, derived, schema, streamed
from gitops.tabular.columns import Column, Derived, from_rows
from gitops.tabular.request_rows import check_row


def ratio(height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    return height / width


def weekday(since: torch.Tensor) -> torch.Tensor:
    """0 is Monday; 1970 began on a Thursday."""
    return (since.div(86_400).floor() + 3) % 7


def family(code: list[str | None]) -> list[str | None]:
    return [None if text is None else text.partition("-")[0] for text in code]


DERIVED = {
    "ratio": Derived(("height", "width"), ratio),
    "weekday": Derived(("since",), weekday),
    "family": Derived(("code",), family),
}
ROWS = 200


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """A table of numbers, dates, codes and gaps."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2026-01-05") + pd.to_timedelta(np.arange(ROWS), unit="D")  # a Monday first
    frame = pd.DataFrame(
        {
            "height": rng.normal(size=ROWS).round(3),
            "width": rng.integers(0, 4, ROWS),
            "since": days.strftime("%Y-%m-%d"),
            "code": rng.choice(["a-1", "a-2", "b-1"], ROWS),
            "y": rng.choice(["no", "yes"], ROWS),
        }
    )
    frame.loc[::10, ["height", "since", "code"]] = None
    path = tmp_path / "raw.csv"
    frame.to_csv(path, index=False)
    return Data(**complete({"data": {"path": str(path), "target": "y", "task": "binary"}})["data"])


def prepared(monkeypatch: pytest.MonkeyPatch, data: Data, **derived: Derived) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return all rows in their order, and the schema, as `prepare` makes them with these derived features."""
    for module in (prepare, features):
        monkeypatch.setattr(module, "DERIVED", derived)
    splits, described = small_table.prepared(data)
    return pd.concat(splits.values()).sort_values(ROW).reset_index(drop=True), described


def test_derived_columns_are_in_the_splits_and_the_schema(monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    frame, described = prepared(monkeypatch, data, **DERIVED)
    known = frame[frame["height"].notna()]
    assert known["weekday"].tolist() == [row % 7 for row in known[ROW]]
    assert known["family"].tolist() == [code[0] for code in known["code"]]
    divisible = known[known["width"] > 0]
    assert divisible["ratio"].tolist() == (divisible["height"] / divisible["width"]).tolist()
    assert known.loc[known["width"] == 0, "ratio"].isna().all() and (known["width"] == 0).any(), "divided by zero"
    assert frame.loc[frame["height"].isna(), ["ratio", "weekday", "family"]].isna().all(axis=None)
    by_name = {feature["name"]: feature for feature in described["features"]}
    assert {name: feature.get("derived") for name, feature in by_name.items()} == {
        **dict.fromkeys(["height", "width", "since", "code"]),
        "ratio": ["height", "width"],
        "weekday": ["since"],
        "family": ["code"],
    }
    assert (by_name["weekday"]["dtype"], by_name["weekday"]["min"], by_name["weekday"]["max"]) == ("number", 0, 6)
    assert by_name["family"]["categories"].keys() == {"a", "b"}


def test_requests_leave_derived_columns_out_and_get_the_same_tensors(
    monkeypatch: pytest.MonkeyPatch, data: Data
) -> None:
    frame, described = prepared(monkeypatch, data, **DERIVED)
    rows = pd.read_csv(data.path).drop(columns="y").astype(object)
    requests = rows.where(rows.notna(), None).to_dict("records")
    columns = from_rows([check_row(index, row, described) for index, row in enumerate(requests)], described)
    trained = features.encode(arrow.from_frame(frame, described), described)
    assert trained[0].shape == (ROWS, 5) and trained[1].shape == (ROWS, 2)
    for left, right in zip(features.encode(columns, described), trained, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
    # What the model is trained with is what the splits and the schema say.
    assert trained[0][:, 3].nan_to_num(-1).tolist() == frame["ratio"].fillna(-1).tolist()


def from_the_mean(height: torch.Tensor) -> torch.Tensor:
    return height - height.nanmean()


def of_the_largest(width: torch.Tensor) -> torch.Tensor:
    return width / width.max()


def filled(height: torch.Tensor) -> torch.Tensor:
    return torch.where(height.isnan(), height.nanmedian(), height)


def until_here(width: torch.Tensor) -> torch.Tensor:
    return width.cumsum(0)


def next_one(width: torch.Tensor) -> torch.Tensor:
    return torch.cat([width[1:], width[-1:]])


def position(width: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(width))


def most_frequent(code: list[str | None]) -> list[str | None]:
    return [str(max({*code} - {None}, key=code.count, default=None))] * len(code)


OTHER_ROWS = "a row's value depends on other rows; compute it from its own"
ONE_VALUE = r"must return a tensor, or a list of texts, with one value for each row"
REFUSED: dict[str, tuple[str, Derived, str]] = {
    "name of a column": ("width", Derived(("height",), torch.abs), "raw.csv has a column of this name"),
    "name of the target": ("y", Derived(("height",), torch.abs), "raw.csv has a column of this name"),
    "name of the rows' numbers": (ROW, Derived(("height",), torch.abs), "raw.csv has a column of this name"),
    "unknown input": ("new", Derived(("hight",), torch.abs), "has the input 'hight', which is not a feature of"),
    "the target": ("new", Derived(("y",), family), "has the input 'y', which is not a feature of"),
    "no tuple": ("new", Derived("height", torch.abs), "inputs is 'height'; a tuple of columns is needed"),  # type: ignore[arg-type]
    "no input": ("new", Derived((), torch.abs), r"inputs is \(\); a tuple of columns is needed"),
    "an error": ("new", Derived(("code",), torch.abs), "failed: TypeError: abs"),
    "wrong number of inputs": ("new", Derived(("height", "width"), weekday), "failed: TypeError: weekday"),
    "mean": ("new", Derived(("height",), from_the_mean), OTHER_ROWS),
    "maximum": ("new", Derived(("width",), of_the_largest), OTHER_ROWS),
    "imputation": ("new", Derived(("height",), filled), OTHER_ROWS),
    "rows before": ("new", Derived(("width",), until_here), OTHER_ROWS),
    "next row": ("new", Derived(("width",), next_one), OTHER_ROWS),
    "position": ("new", Derived(("width",), position), OTHER_ROWS),
    "most frequent text": ("new", Derived(("code",), most_frequent), OTHER_ROWS),
    "too short": ("new", Derived(("height",), lambda height: height[1:]), ONE_VALUE),
    "one number": ("new", Derived(("height",), torch.nanmean), ONE_VALUE),
    "two columns": ("new", Derived(("height",), lambda height: height.reshape(-1, 2)), ONE_VALUE),
    "nothing": ("new", Derived(("height",), lambda height: None), ONE_VALUE),  # type: ignore[arg-type, return-value]
    "a list of numbers": ("new", Derived(("height",), torch.Tensor.tolist), ONE_VALUE),
    "one row": ("new", Derived(("width",), torch.squeeze), ONE_VALUE),  # () in place of (1,)
    "no value": (
        "new",
        Derived(("height",), lambda height: height * math.nan),
        "has no value .*: remove it from DERIVED",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_derived_feature_that_requests_could_not_have_is_refused(
    case: str, monkeypatch: pytest.MonkeyPatch, data: Data
) -> None:
    name, feature, said = REFUSED[case]
    with pytest.raises(ProjectError, match=said) as error:
        prepared(monkeypatch, data, **{name: feature})
    assert repr(name) in str(error.value)


def test_too_many_derived_categories_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    def each_its_own(height: torch.Tensor) -> Column:
        return [str(value) for value in height.tolist()]

    few = data.model_copy(update={"max_categories": 10})
    with pytest.raises(ProjectError, match=r"column 'new' has .* distinct texts .*: remove it from DERIVED if it is"):
        prepared(monkeypatch, few, new=Derived(("height",), each_its_own))


def test_a_table_of_one_row_can_have_derived_features(data: Data) -> None:
    frame = pd.DataFrame({"height": [1.0], "width": [2.0], "y": ["no"]})
    rows = streamed.Held(frame).table
    assert derived.add(rows, {"ratio": DERIVED["ratio"]}, data)["ratio"].to_pylist() == [0.5]


def test_a_schema_without_derived_features_says_nothing_of_them(data: Data) -> None:
    frame = pd.DataFrame({"height": [1.0, 2.0], "y": ["no", "yes"]})
    assert "derived" not in schema.describe(streamed.Held(frame), {}, data, {})["features"][0]


#: The last number, which tiny_model takes, is the derived feature `double`.
DOUBLED: dict[str, Any] = tiny_model.SCHEMA | {
    "features": [
        {"name": "half", "dtype": "number"},
        {"name": "customer's plan", "dtype": "category"},
        {"name": "double", "dtype": "number", "derived": ["half"]},
    ]
}


def double(half: torch.Tensor) -> torch.Tensor:
    if not len(half):
        raise IndexError("there is no first row")
    return half * 2


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "DERIVED", {"double": Derived(("half",), double)})
    return Model(tiny_model.Tiny(), DOUBLED, "abc")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_batch_tables_leave_derived_columns_out_and_get_the_predictions_of_requests(suffix: str, model: Model) -> None:
    frame = pd.DataFrame({"half": [15.0, None, 20.0], "customer's plan": ["gold", "gold", None], "id": ["a", "b", "c"]})
    getattr(frame, f"to_{suffix}")(f"t.{suffix}", index=False)
    assert batch.predict(source.Source(f"t.{suffix}"), "o.parquet", model) == (3, 0)
    found = pd.read_parquet("o.parquet")
    assert found.columns.tolist() == ["row", "id", "prediction", "p_no", "p_yes", "model_version"]
    rows = frame.drop(columns="id").astype(object).where(frame.notna(), None).to_dict("records")
    columns = from_rows([check_row(index, row, DOUBLED) for index, row in enumerate(rows)], DOUBLED)
    outputs = model.program(*features.encode(columns, DOUBLED))
    np.testing.assert_array_equal(found[["p_no", "p_yes"]], outputs.double().numpy())
    assert found["p_yes"].tolist() == pytest.approx(torch.tensor([1.3, 1.0, 0.4]).sigmoid().tolist())


def test_a_column_with_the_name_of_a_derived_feature_is_carried_and_not_read(model: Model) -> None:
    frame = pd.DataFrame({"half": [15.0], "customer's plan": ["gold"], "double": ["not a number"]})
    frame.to_csv("t.csv", index=False)
    assert batch.predict(source.Source("t.csv"), "o.csv", model) == (1, 0)
    found = pd.read_csv("o.csv")
    assert found["double"].tolist() == ["not a number"]
    assert found["p_yes"].tolist() == pytest.approx([torch.tensor(1.3).sigmoid().item()])


def test_a_chunk_without_a_good_row_computes_no_derived_feature(model: Model) -> None:
    pd.DataFrame({"half": ["soon"], "customer's plan": ["gold"]}).to_csv("t.csv", index=False)
    with pytest.raises(ProjectError, match="none of 1 rows fits"):
        batch.predict(source.Source("t.csv"), "o.csv", model)
