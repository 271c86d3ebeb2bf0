"""`make debts`, the debts of data: features, tables, consumers; each finder with a debt planted, and without it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gitops.core import artifacts, params
from gitops.debt import found_ablation, found_consumers, found_data, found_features
from gitops.monitoring import consumers
from owing import commit, configure, line_of, texts, write
from owing import repository as repository

NUMBER = {"dtype": "number", "missing": 0.0, "min": 0.0, "max": 1.0}


# Features


def prepared(table: pd.DataFrame, **features: Any) -> dict[str, Any]:
    """Write the training rows, and return a schema."""
    artifacts.TRAIN.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(artifacts.TRAIN)
    named = [{"name": name, **NUMBER} | features.get(name, {}) for name in table]
    return {"features": named, "rows": {"raw": len(table), "train": len(table)}}


def explained(**importances: float) -> None:
    """Write a model, and explanations of it with these importances."""
    write("model/model.pt2", "model")
    write(
        "evaluation/explanations.json",
        json.dumps(
            {
                "model_sha256": artifacts.digest(artifacts.MODEL),
                "metric": "roc_auc",
                "of_columns": len(importances),
                "features": [
                    {"name": name, "importance": value, "low": value - 0.01, "high": value + 0.01}
                    for name, value in importances.items()
                ],
            }
        ),
    )


def table(rows: int = 200) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(1).normal(size=(rows, 3)), columns=["a", "b", "c"])


def test_features_that_each_add_something_are_no_debt() -> None:
    explained(a=0.3, b=0.2, c=0.05)
    assert [*found_features.find(params.load(), prepared(table()))] == []


def test_a_feature_without_which_the_model_is_no_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its importance may be 0, so it is tried (test_ablation.py)."""
    monkeypatch.setattr(found_ablation, "losses", lambda settings, schema, name, bar: [0.4 if name else 0.5] * 3)
    explained(a=0.3, b=0.0, c=0.05)
    (finding,) = found_features.find(params.load(), prepared(table()))
    assert finding["text"].startswith("b adds nothing that shows: trained without it") and finding["known"]
    assert (finding["file"], finding["line"]) == ("params.yaml", line_of("params.yaml", "drop:"))


def test_a_feature_of_one_value() -> None:
    explained(a=0.3, b=0.2, c=0.1)
    schema = prepared(table(), b={"min": 2.0, "max": 2.0}, c={"dtype": "category", "categories": {"x": 1.0}})
    del schema["features"][2]["min"]
    assert [text.partition(" ")[0] for text in texts(found_features.find(params.load(), schema))] == ["b", "c"]
    schema["features"][1]["missing"] = schema["features"][2]["missing"] = 0.5
    assert texts(found_features.find(params.load(), schema)) == []


def test_numbers_that_order_the_rows_alike() -> None:
    explained(a=0.3, b=0.2, c=0.1)
    rows = table(20_000)
    rows["b"] = -np.exp(rows["a"])
    (text,) = texts(found_features.find(params.load(), prepared(rows)))
    assert text.startswith("a orders the rows as b:")


def test_what_was_not_prepared_or_not_explained_is_not_known() -> None:
    assert [each["known"] for each in found_features.find(params.load(), None)] == [False]
    explained(a=0.3, b=0.0, c=0.1)
    write("model/model.pt2", "another model")
    findings = [*found_features.find(params.load(), prepared(table()))]
    assert [each["known"] for each in findings] == [False] and "of another model" in findings[0]["text"]


# Data


def test_a_tracked_table_is_versioned() -> None:
    assert [*found_data.unversioned(configure())] == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("data/other.csv", "data/other.csv.dvc is missing"),
        ("/data/raw.csv", "outside the repository"),
        ("s3://bucket/raw.parquet", "DVC does not track"),
        ("data/*.parquet", "DVC does not track"),
    ],
)
def test_a_table_that_no_version_names(path: str, why: str) -> None:
    (finding,) = found_data.unversioned(configure(data={"path": path}))
    assert why in finding["text"] and finding["line"] == line_of("params.yaml", "path:")


def test_a_pointer_that_git_does_not_have() -> None:
    write("data/other.csv.dvc", "outs: []\n")
    (text,) = texts(found_data.unversioned(configure(data={"path": "data/other.csv"})))
    assert "not in Git" in text


def test_labels_are_not_versioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELS", "s3://bucket/labels")
    (text,) = texts(found_data.unversioned(configure()))
    assert "LABELS" in text and "bucket" not in text


def test_rows_that_came_as_requests() -> None:
    settings, schema = configure(), {"rows": {"raw": 200}}
    assert texts(found_data.feedback(settings, schema)) == []
    state = {"table": "abc", "requests": {"h1": "2026-01-01"}, "used": {"2025-01-01": 49}}
    write("data/appended.json", json.dumps(state))
    (text,) = texts(found_data.feedback(settings, schema))
    assert text.startswith("25.0% of the table's 200 rows")
    write("data/appended.json", json.dumps(state | {"table": "another"}))
    assert texts(found_data.feedback(settings, schema)) == []


@pytest.mark.parametrize(("contradicted", "rows", "known"), [(0, 100, True), (1, 100, None), (0, 99, False)])
def test_labels_that_are_the_models_own_answers(contradicted: int, rows: int, known: bool | None) -> None:
    frame = pd.DataFrame(
        {"prediction": ["yes"] * rows, "target": ["no"] * contradicted + ["yes"] * (rows - contradicted)}
    )
    artifacts.write_parquet(artifacts.MONITOR_LABELLED, frame)
    findings = [*found_data.feedback(configure(), None)]
    assert [each["known"] for each in findings] == ([] if known is None else [known])


# Consumers


def logged(*clients: str | None) -> dict[str, Any]:
    """Write a request log with a line of each client, and return what is counted of it."""
    now = datetime.now(UTC)
    lines = []
    for number, client in enumerate(clients):
        line = {"time": (now - timedelta(minutes=5)).isoformat(), "request_id": f"r{number}", "model_version": "a" * 12}
        line |= {"instance": 0, "inputs": {"x": 1.0}, "prediction": {"label": "no", "probabilities": {"no": 1.0}}}
        lines.append(line | ({"client": client} if client else {}))
    write("requests/a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    consumers.main()
    counted: dict[str, Any] = json.loads(artifacts.MONITOR_CONSUMERS.read_text())
    return counted


def test_clients_are_counted_and_addresses_are_not_told() -> None:
    configure()
    assert logged("shop", "shop", "10.1.2.3", None)["clients"] == {"shop": 2, "10.1.2.0/24": 1, "unknown": 1}


def test_old_lines_are_not_counted() -> None:
    configure()
    logged("shop")
    assert consumers.count(datetime.now(UTC) - timedelta(hours=1)) == {"shop": 1}
    assert consumers.count(datetime.now(UTC)) == {}


def test_a_consumer_that_a_document_names_is_declared() -> None:
    configure()
    counted = logged("shop", "shop-2")
    assert [text.partition(":")[0] for text in texts(found_consumers.find(counted))] == ["shop", "shop-2"]
    write("docs/operate.md", "It is asked by `shop`.\n")
    commit("Say who asks")
    assert [text.partition(":")[0] for text in texts(found_consumers.find(counted))] == ["shop-2"]


def test_without_a_log_consumers_are_not_known() -> None:
    configure()
    consumers.main()
    findings = [*found_consumers.find(json.loads(artifacts.MONITOR_CONSUMERS.read_text()))]
    assert [each["known"] for each in findings] == [False]
