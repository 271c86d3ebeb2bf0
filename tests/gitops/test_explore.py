"""`make explore`: what the page says of a table. Of skrub, in its own environment: test_explore_real.py."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_table
import yaml
from breast_cancer import prepare
from defaults import complete
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.exploration import explore, page, table_report
from gitops.exploration.context import PAGE
from page_elements import HOSTILE, Elements

#: What a gate needs of each task; nothing here depends on it.
METRICS = {"binary": ("roc_auc", 0.5), "multiclass": ("macro_f1", 0.1), "regression": ("r2", 0.1)}

Explore = Callable[..., str]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """The frames that skrub was given."""
    frames: list[pd.DataFrame] = []

    def render(frame: pd.DataFrame) -> str:
        frames.append(frame)
        return "<p>skrub's report</p>"

    monkeypatch.setattr(table_report, "render", render)
    return frames


@pytest.fixture
def explored(reported: list[pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explore:
    """Explore a table, a frame or text, with settings of the section `data`; return the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explore.git, "is_repository", lambda: None)
    explore.PYTHON.parent.mkdir(parents=True)
    explore.PYTHON.touch()

    def prepared() -> str | None:
        shutil.rmtree("data/prepared", ignore_errors=True)
        try:
            prepare.main()
        except ProjectError as error:
            return str(error)
        return None

    def relay(command: list[Any], env: dict[str, str]) -> int:
        assert command[1:] == ["-m", "gitops.exploration.page"] and env["PYTHONPATH"] == "src"
        page.main()
        return 0

    monkeypatch.setattr(explore, "_prepare", prepared)
    monkeypatch.setattr(explore, "relay", relay)

    def run(table: pd.DataFrame | str | None, task: str = "binary", redact: Any = (), **data: Any) -> str:
        Path("data").mkdir(exist_ok=True)
        if isinstance(table, pd.DataFrame):
            table.to_csv("data/raw.csv", index=False)
        elif table is not None:
            Path("data/raw.csv").write_text(table)
        metric, threshold = METRICS[task]
        settings = {
            "data": {"path": "data/raw.csv", "target": "y", "task": task, **data},
            "gate": {"primary_metric": metric, "thresholds": {metric: threshold}},
            "request_log": {"redact": [*redact]},
            "train": {"threshold": "f1" if task == "binary" else None},
        }
        Path("params.yaml").write_text(yaml.safe_dump(complete(settings)))
        explore.main()
        return PAGE.read_text()

    return run


def customers(rows: int = 600) -> pd.DataFrame:
    """Return a table in which `plan` and `income` say something of `y`, and `noise` nothing."""
    dice = np.random.default_rng(3)
    income, plan = dice.normal(size=rows), dice.choice(["basic", "gold", "team"], rows)
    frame = pd.DataFrame({"noise": dice.normal(size=rows), "income": income, "plan": plan})
    frame["member"] = dice.random(rows) < 0.5
    days = pd.to_timedelta(dice.integers(0, 90, rows), unit="D")
    frame["since"] = (pd.Timestamp("2026-01-01") + days).strftime("%Y-%m-%d")
    score = income + 2 * (plan == "gold") + dice.normal(size=rows)
    frame.loc[::10, "income"] = None
    frame["y"] = np.where(score > 1, "yes", "no")
    return frame


def section(text: str, name: str) -> str:
    """Return the text of a section of the page."""
    return Elements(re.split(r'(?=<h2 id=")', text.partition(f'<h2 id="{name}">')[2])[0]).text


def cards(text: str) -> dict[str, str]:
    """Return the text of each feature's card, by its name, in the order of the page."""
    found = [Elements(card).text for card in text.split('<div class="card"')[1:]]
    names = re.findall(r'<div class="card".*?<h3>(.*?) <span', text)
    return dict(zip(names, found, strict=True))


def test_the_page_of_a_table_of_classes(explored: Explore, reported: list[pd.DataFrame]) -> None:
    frame = customers()
    text = explored(frame)
    found = cards(text)
    assert [*found][:2] == ["income", "plan"] or [*found][:2] == ["plan", "income"]
    assert {"noise", "member", "since"} == {*found} - {"income", "plan"}
    train = artifacts.read_parquet(artifacts.TRAIN)
    assert f"{train['income'].isna().mean():.2%} missing" in found["income"]
    assert f"{train['noise'].nunique()} different" in found["noise"]
    assert "2026-01-01 to 2026-03-31" in found["since"]
    rate = (train["y"][train["plan"] == "gold"] == "yes").mean()
    assert f"yes {rate:.2%}" in found["plan"]
    said = section(text, "table")
    assert "skrub's report" in said and f"all {len(train)} of the train split's rows" in said
    assert set(reported[0].columns) == {*frame.columns}
    rows = section(text, "rows")
    assert "The table has 600 rows" in rows and "Drawn at random" in rows
    said = section(text, "target")
    assert all(f"{(train['y'] == name).sum()} ({(train['y'] == name).mean():.2%})" in said for name in ("yes", "no"))


def test_only_training_rows_are_set_against_the_target(explored: Explore) -> None:
    """The rates of a card are those of the training rows, though the page has all splits side by side."""
    text = explored(customers())
    train = artifacts.read_parquet(artifacts.TRAIN)
    hovers = re.findall(r"(?:basic|gold|team): (\d+) rows, yes", text)
    assert sum(map(int, hovers)) == len(train)
    assert all(name in cards(text)["plan"] for name in ("train ", "val ", "test "))


@pytest.mark.parametrize(("task", "target"), [("multiclass", "grade"), ("regression", "value")])
def test_other_tasks(explored: Explore, tmp_path: Path, task: str, target: str) -> None:
    (tmp_path / "data").mkdir()
    small_table.write_table(tmp_path / "data/raw.csv")
    others = {"grade", "value", "top"} - {target}
    text = explored(None, task, target=target, drop=[*others])
    found = cards(text)
    assert [*found] == ["size", "colour", "since"]  # in the order of what they say of the target
    if task == "multiclass":
        assert "low" in found["size"] and "middle" in found["size"] and "high" in found["size"]
    else:
        assert "quartiles" in found["size"]
    assert all(f"{name}left out (data.drop)" in section(text, "columns") for name in others)


def test_roles_of_columns(explored: Explore) -> None:
    frame = customers()
    frame["who"], frame["region"] = np.arange(len(frame)) // 2, np.where(np.arange(len(frame)) % 3, "north", "south")
    frame["when"] = pd.date_range("2025-01-01", periods=len(frame), freq="h", tz="UTC").strftime("%Y-%m-%dT%H:%M:%SZ")
    names = {"id": "who", "timestamp": "when", "slices": ["region"], "drop": ["region", "noise"]}
    text = explored(frame, redact=["income"], **names)
    columns, rows = section(text, "columns"), section(text, "rows")
    for said in (
        "regionslice, not seen",
        "noiseleft out",
        "whoid",
        "whentimestamp",
        "ytarget",
        "incomefeature, not logged",
    ):
        assert said in columns
    assert "over when, in tenths of the training rows" in section(text, "target")
    assert "Cut by time: when" in rows and "2025-01-01" in rows and "ids" in rows
    assert {"noise", "region", "who", "when"}.isdisjoint(cards(text))


def test_what_stands_out_is_said_first(explored: Explore) -> None:
    frame = customers()
    frame["leak"] = np.where(frame["y"] == "yes", 1.0, 0.0) + np.random.default_rng(0).normal(size=len(frame)) / 20
    frame["constant"], frame["twin"] = 1, frame["noise"] * 3 + 1
    frame["marked"] = np.where(np.arange(len(frame)) % 9 == 0, -999, np.abs(frame["noise"]))
    frame["gone"] = np.where(np.arange(len(frame)) % 4 == 0, frame["noise"], np.nan)
    again = frame.iloc[:6].copy()
    again["y"] = again["y"].map({"yes": "no", "no": "yes"})
    text = explored(pd.concat([frame, frame.iloc[10:20], again]))
    first = section(text, "first")
    assert "leak: alone almost decide the target" in first
    assert "constant: one value" in first and "gone: missing in more than half" in first
    assert "marked (-999): one end" in first
    assert "noise, twin: order the rows almost alike" in first
    assert "12 rows are equal in all features to a row of another class" in first
    assert "16 rows repeat an earlier one" in first
    assert "income: " not in first and "plan: " not in first


def test_nothing_stands_out_in_a_plain_table(explored: Explore) -> None:
    """Also not by chance: no drift is marked between splits that are drawn from the same rows."""
    for seed in range(5):
        text = explored(customers(), seed=seed)
        assert "Nothing stands out" in section(text, "first")
        assert 'class="warn"' not in text and 'class="n warn"' not in text


def test_drift_in_time_is_said(explored: Explore) -> None:
    frame = customers()
    frame["when"] = pd.date_range("2025-01-01", periods=len(frame), freq="h").strftime("%Y-%m-%dT%H:%M:%S")
    late = np.arange(len(frame)) > 0.7 * len(frame)
    frame.loc[late, "noise"] += 2
    frame.loc[late & (frame["plan"] == "team"), "plan"] = "club"
    text = explored(frame, timestamp="when")
    first = section(text, "first")
    assert re.search(r"noise[^:]*: distributed otherwise in another split", first)
    assert "plan: other splits have categories that the training rows lack" in first
    assert 'class="warn"' in text.partition('<h2 id="features">')[2]


def test_a_rare_class_is_said(explored: Explore) -> None:
    frame = customers(1500)
    frame["y"] = np.where(np.arange(1500) % 40 == 0, "fraud", "fine")
    assert "The class fraud has" in section(explored(frame), "first")


def test_a_table_that_prepare_refuses_is_shown_with_all_that_is_wrong(explored: Explore) -> None:
    frame = customers()
    frame["price"] = [f"{row + 1},50" for row in range(len(frame))]  # one column prepare would name
    frame["weight"] = [f"{row + 10} kg" for row in range(len(frame))]  # and one that it would not get to
    text = explored(frame)
    assert "prepare refuses this table" in text
    assert "&#x27;price&#x27;" in text.partition('class="error"')[2].partition("</pre>")[0]
    columns = section(text, "columns")
    assert "'price' of data/raw.csv" in columns and "'weight' of data/raw.csv" in columns
    assert "train" not in section(text, "rows") and "600" in section(text, "rows")
    assert "yes" in cards(text)["plan"]  # what can be read is set against the target


def test_a_target_that_is_misspelt_still_shows_the_table(explored: Explore) -> None:
    text = explored(customers(), target="churn")
    assert "&#x27;churn&#x27;" in text and "There is no target" in section(text, "features")
    assert {"income", "y"} <= {*cards(text)}


def test_a_table_that_cannot_be_read_leaves_no_page(explored: Explore) -> None:
    explored(customers())
    with pytest.raises(ProjectError, match=r"data\.path is 'data/raw\.csv'.*called 'a'"):
        explored("a,a,y\n" + "1,2,yes\n" * 50)
    assert not PAGE.exists()


def test_a_database_that_cannot_be_prepared_is_its_error(explored: Explore) -> None:
    with pytest.raises(ProjectError, match=r"data\.query is 'SELECT"):
        explored(None, path="data/raw.duckdb", query="SELECT 1")


def test_a_wide_table(explored: Explore, reported: list[pd.DataFrame]) -> None:
    """All columns are listed; those that say most of the target have cards, and fewer of them go to skrub."""
    dice = np.random.default_rng(0)
    frame = pd.DataFrame(dice.normal(size=(300, 150)), columns=[f"x{at}" for at in range(150)])
    frame["y"] = np.where(frame["x149"] + dice.normal(size=300) / 5 > 0, "yes", "no")
    text = explored(frame)
    assert next(iter(cards(text))) == "x149" and len(cards(text)) == page.CARDS
    assert f"The {page.CARDS} of 150 features" in text
    assert all(f"x{at}feature" in section(text, "columns") for at in range(150))
    assert len(reported[0].columns) == table_report.COLUMNS and {"y", "x149"} <= {*reported[0].columns}


def test_a_large_table_is_sampled_for_skrub_alone(
    explored: Explore, reported: list[pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_report, "ROWS", 50)
    text = explored(customers())
    train = artifacts.read_parquet(artifacts.TRAIN)
    assert len(reported[0]) == 50 and f"50 rows, drawn at random, of {len(train)} of the train split" in section(
        text, "table"
    )
    assert reported[0].isin(train[reported[0].columns].to_dict("list")).all(axis=None)
    assert f"{train['noise'].nunique()} different" in cards(text)["noise"]


def hostile(texts: list[str], rows: int = 400) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a table whose names, values, classes and dropped columns are `texts`, and the settings that name them."""
    dice = np.random.default_rng(1)
    frame = pd.DataFrame({text: dice.normal(size=rows) for text in texts[:4]})
    for text in texts[4:]:
        frame[text] = dice.choice(texts, rows)
    frame["target" + texts[0]] = dice.choice(texts[:3], rows)
    return frame, {"target": "target" + texts[0], "drop": [texts[3]], "slices": [texts[4]]}


def test_hostile_names_and_values_are_text(explored: Explore) -> None:
    """The page of hostile texts has the elements and attributes of one of harmless texts, and says them as they are."""
    frame, settings = hostile(HOSTILE)
    tame, others = hostile([f"name {at}" for at in range(len(HOSTILE))])
    one = Elements(explored(frame, "multiclass", **settings))
    other = Elements(explored(tame, "multiclass", **others))
    assert one.tags == other.tags
    assert one.attributes == other.attributes and not {name for name in one.attributes if name.startswith("on")}
    assert one.scripts == other.scripts
    assert all(text in one.text for text in HOSTILE[:5])


def test_hostile_names_in_an_error_are_text(explored: Explore) -> None:
    frame, settings = hostile(HOSTILE)
    tame, others = hostile([f"name {at}" for at in range(len(HOSTILE))])
    pages = []
    for table, named in ((frame, settings), (tame, others)):
        first = table.columns[0]
        table[first] = [f"{row},5" for row in range(len(table))]
        pages.append(Elements(explored(table, "multiclass", **named)))
    assert "prepare refuses this table" in pages[0].text
    assert pages[0].tags == pages[1].tags and pages[0].attributes == pages[1].attributes
