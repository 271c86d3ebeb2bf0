"""The preprocessing inside the model: fitted to statistics, it does what a plain computation on the rows does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TARGETS, prepared, settings, statistics
from project import features, model
from project.features import MISSING, category_code
from torch import Tensor

from gitops.core.artifacts import ProjectError
from gitops.integrations import exported_program
from gitops.tabular import arrow
from gitops.tabular.numbers import LEVELS, describe

NAN = float("nan")


def schema_of(*categories: list[str], numbers: int = 0) -> dict[str, Any]:
    """Return the schema of a binary target with that many number features, and a category feature for each list."""
    found = [{"name": f"number {index}", "dtype": "number"} for index in range(numbers)]
    found += [
        {"name": f"category {index}", "dtype": "category", "categories": dict.fromkeys(texts, 0.1)}
        for index, texts in enumerate(categories)
    ]
    return {"features": found, "target": {"name": "target", "classes": ["no", "yes"]}}


def of_rows(numbers: Tensor) -> Any:
    return describe((f"number {index}", column) for index, column in enumerate(numbers.T.numpy()))


def codes(*rows: list[str | None]) -> Tensor:
    return torch.tensor([[MISSING if text is None else category_code(text) for text in row] for row in rows])


def encoded_plainly(column: Tensor, edges: Tensor) -> Iterator[list[float]]:
    """Yield what piecewise-linear encoding makes of each value, by the formula of the paper."""
    for value in column.tolist():
        yield [
            min(1.0, max(0.0, (value - left) / (right - left)))
            for left, right in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]


@pytest.mark.parametrize("bins", [2, 8, 64])
def test_numbers_are_imputed_standardised_and_spread_over_the_quantiles_of_the_rows(bins: int) -> None:
    rng = np.random.default_rng(bins)
    columns = [rng.lognormal(0, 3, 501), rng.integers(0, 3, 501), 1.7e9 + 1e5 * rng.random(501)]
    rows = torch.tensor(np.stack(columns, axis=1))
    rows[::10, 0] = NAN
    found = model.Numbers(of_rows(rows), bins, dates=[])(rows)
    assert found.shape == (501, 3 * (bins + 2)) and found.dtype == torch.float32
    for index in range(3):
        column, missing = rows[:, index], rows[:, index].isnan()
        column = torch.where(missing, column[~missing].quantile(0.5), column)
        standard = ((column - column.mean()) / column.std(correction=0)).clamp(-5, 5)
        torch.testing.assert_close(found[:, index], standard.float(), rtol=1e-5, atol=1e-6)
        assert torch.equal(found[:, 3 + index], missing.float())
        levels = (torch.linspace(0, 1, bins + 1, dtype=torch.float64) * (len(column) - 1)).round().long()
        edges = column.sort().values[levels].unique()
        expected = torch.tensor([*encoded_plainly(column, edges)], dtype=torch.float32)
        binned = found[:, 6:].unflatten(1, (3, bins))[:, index]
        torch.testing.assert_close(binned[:, : len(edges) - 1], expected, rtol=1e-5, atol=1e-6)
        assert not binned[:, len(edges) - 1 :].any(), "bins that a column of few values lacks"


def test_of_another_number_of_bins_the_nearest_levels_are_the_edges() -> None:
    rows = torch.arange(LEVELS + 1, dtype=torch.float64).unsqueeze(1)
    found = model.Numbers(of_rows(rows), 5, dates=[])
    assert found.left.tolist() == [[0, 205, 410, 614, 819]]
    assert (1 / found.slope).round().tolist() == [[205, 205, 204, 205, 205]]


def test_a_column_of_one_value_or_of_none_is_finite() -> None:
    rows = torch.tensor([[3.0, NAN]] * 10, dtype=torch.float64)
    found = model.Numbers(of_rows(rows), 4, dates=[])
    assert found(torch.tensor([[3.0, NAN], [1e300, -1e300]], dtype=torch.float64)).isfinite().all()


def test_each_category_has_a_vector_of_its_own_in_each_column() -> None:
    """As do a missing value and, for all texts that training does not show, an unseen one."""
    columns = [["no", "yes"], ["yes", "no", "maybe"], ["yes"]]
    layer = model.Categories(schema_of(*columns)["features"], length=4)
    torch.nn.init.normal_(layer.embedding.weight)
    assert len(layer.embedding.weight) == sum(len(texts) + 2 for texts in columns)
    vectors = set()
    for index, texts in enumerate(columns):
        rows: list[list[str | None]] = [[text] * 3 for text in (*texts, None, "new")]
        found = layer(codes(*rows)).unflatten(1, (3, 4))[:, index]
        assert torch.equal(found[-1:], layer(codes(["other"] * 3)).unflatten(1, (3, 4))[:, index])
        vectors |= {tuple(vector) for vector in found.tolist()}
    assert vectors == {tuple(vector) for vector in layer.embedding.weight.tolist()}


def test_a_known_category_is_found_among_thousands() -> None:
    columns = [[f"{index} {column % 3}" for index in range(1 + 7 * column)] for column in range(40)]
    layer = model.Categories(schema_of(*columns)["features"], length=2)
    torch.nn.init.normal_(layer.embedding.weight)
    rng, first = np.random.default_rng(0), 0
    for column, texts in enumerate(columns):
        chosen: list[str | None] = [*rng.choice(texts, 5), None, "unseen"]
        known = sorted([MISSING, *map(category_code, texts)])
        wanted = [known.index(code) for code in codes(chosen)[0, :-1].tolist()] + [len(known)]
        found = layer(codes(*([text] * 40 for text in chosen))).unflatten(1, (40, 2))[:, column]
        assert torch.equal(found, layer.embedding.weight[first : first + len(known) + 1][wanted])
        first += len(known) + 1


def test_two_categories_that_share_a_hash_are_named_by_their_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "category_code", lambda text: len(text))
    with pytest.raises(ValueError, match="two categories of column 'category 1' share a hash: rename one of them"):
        model.Categories(schema_of(["a", "aa"], ["b", "c"])["features"], length=2)


@pytest.mark.parametrize("task", TARGETS)
def test_the_target_is_scaled_by_its_statistics(task: str) -> None:
    frames, schema = prepared(task)
    fitted = model.TabularModel(schema, statistics(frames["train"], schema), settings(task).model)
    found = fitted.target_mean.item(), fitted.target_scale.item()
    if schema["target"]["classes"]:
        assert found == (0, 1)
    else:
        target = frames["train"][schema["target"]["name"]]
        assert found == pytest.approx((target.mean(), target.std(ddof=0)), rel=1e-6)


def test_statistics_without_a_column_are_an_error() -> None:
    frames, schema = prepared("regression")
    found = statistics(frames["train"], schema)
    for name in ("size", schema["target"]["name"]):
        with pytest.raises(ProjectError, match=f"numbers.parquet lacks the column '{name}': run `make pipeline`"):
            model.TabularModel(schema, found.of([it for it in found.names if it != name]), settings("regression").model)


def test_the_graph_does_not_grow_with_the_columns_and_may_be_read_anywhere(tmp_path: Path) -> None:
    """A loop over columns had 500 of them take 23 seconds to export."""
    nodes = []
    for columns in (2, 200):
        schema = schema_of(*[["a", "b"]] * columns, numbers=columns)
        found = of_rows(torch.randn(20, columns, dtype=torch.float64))
        program = model.export(model.TabularModel(schema, found, settings("binary").model), schema)
        torch.export.save(program, tmp_path / "model.pt2")
        exported_program.check(tmp_path / "model.pt2", Path("model.pt2"))
        nodes.append(len(program.graph.nodes))
    assert nodes[0] == nodes[1]


@pytest.mark.parametrize("task", TARGETS)
def test_the_program_answers_as_the_model(task: str) -> None:
    frames, schema = prepared(task)
    torch.manual_seed(0)
    fitted = model.TabularModel(schema, statistics(frames["train"], schema), settings(task).model)
    torch.nn.init.normal_(fitted.inputs.categories.embedding.weight)
    inputs = features.encode(arrow.from_frame(frames["val"], schema), schema)
    program = model.export(fitted, schema).module()
    with torch.no_grad():
        torch.testing.assert_close(program(*inputs), fitted.predict(*inputs))  # export may fuse operations
