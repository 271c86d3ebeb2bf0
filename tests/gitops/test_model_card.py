"""The model card: what it says, what it says to be missing or open, its form, and text from outside in it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cards import HOSTILE, inputs, metadata, settings
from gitops.core import artifacts, params
from gitops.design import model_card
from gitops.design.card_inputs import Inputs, gather
from gitops.design.card_metadata import licence
from gitops.design.card_sections import seen
from gitops.design.questions import Question
from gitops.integrations import dvc, git
from gitops.releases.record import CARD_LIMIT
from markdown_it import MarkdownIt

TASKS = ("binary", "multiclass", "regression")

#: What the run may lack, and the sections that then say so.
PARTS = {
    "answers": ([], "Intended use"),
    "business": ([], "Problem and decision"),
    "data_licence": (None, "Data"),
    "licence": (None, "Model"),
    "data": ({}, "Data"),
    "schema": (None, "Columns"),
    "run": (None, "Lineage"),
    "decision": (None, "Decision threshold"),
    "epochs": (None, "Training"),
    "pytorch": (None, "Training"),
    "packages": (None, "Training"),
    "sha256": (None, "Training"),
    "metrics": (None, "Performance"),
    "explanations": (None, "Columns that matter most"),
    "validations": ({}, "Validation"),
    "gate": (None, "Gate"),
}


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def headings(page: str) -> int:
    """Count the headings of sections: those in a quotation are somebody's words."""
    return re.sub(r"<blockquote>.*?</blockquote>", "", page, flags=re.DOTALL).count("<h2>")


@pytest.mark.parametrize("task", TASKS)
def test_a_whole_card_lacks_nothing(task: str) -> None:
    card = model_card.compose(inputs(task, answers=[Question("Use", "What is it for?", "To show it.")]))
    assert "Missing" not in card and "incomplete" not in card and "None" not in card.replace("None:", "")
    found = metadata(card)
    assert found["pipeline_tag"] == ("tabular-regression" if task == "regression" else "tabular-classification")
    assert (found["license"], found["library_name"], found["datasets"]) == ("mit", "pytorch", ["raw.csv"])
    [model] = found["model-index"]
    [result] = model["results"]
    assert (model["name"], result["dataset"]["revision"], result["dataset"]["split"]) == ("tumour", "1" * 32, "test")
    assert {metric["name"] for metric in result["metrics"]} == {*settings(task).metrics[task]}


def test_what_a_card_says() -> None:
    card = model_card.compose(inputs())
    for title, said in {
        "Model": "| predicts | `diagnosis`: one of `no`, `size`; `size` is the positive class |",
        "Use": "**What is it for?**\n\n> To show it. size\n\n**And not?**\n\n> **Open:** nobody has answered this yet.",
        "Problem and decision": "**What is the problem?**\n\n> It hurts. size",
        "Performance": "| roc\\_auc ↑ | **0.75** (0.65 to 0.85) |",
        "Performance by group": "| size | 40 | **0.75** (0.65 to 0.85) |",
        "Decision threshold": "`size` is answered from a probability of **0.3125** on (the best `f1` on the validation",
        "Calibration": "by **0.0200** in the mean (expected calibration error, no interval)",
        "Value": "| gain | **48,766** (40,000 to 55,000) |",
        "Columns that matter most": "| `size` | **0.2** (0.1 to 0.3) |",
        "Data": "The table is `data/raw.csv`, md5 `11111111111111111111111111111111`.\n\nIts licence, as people have "
        "answered:\n\n> CC BY 4.0\n\nIt has 500 rows, of which were left out: 3 had no target. They were split at "
        "random:",
        "Columns": "| `size` | number | 0 % | 6 to 29 |\n| `colour` | category | 25 % | 2 categories |",
        "Training": "PyTorch 2.13.0+cpu wrote the model. Packages are locked in `requirements/pipeline.txt` of the "
        "commit (sha256 `222222222222`). It ran for 37 epochs and kept the best.",
        "Validation": "- **data**: passed (1 warned)",
        "Gate": "**Accepted: size.**\n\n1 of 1 rules hold. It was compared with release `999999999999`.",
        "Lineage": f"| MLflow run of the training | `{'f' * 32}` |",
    }.items():
        assert said in section(card, title), title
    assert "- Open: 1 of 2 questions to people in docs/model-card.md." in card
    assert "| trained | on a branch; main took the model over and evaluated it itself |" in card


@pytest.mark.parametrize("name", PARTS)
def test_what_is_missing_is_said_to_be_missing(name: str) -> None:
    empty, title = PARTS[name]
    card = model_card.compose(inputs(**{name: empty}))
    assert "**Missing:**" in section(card, title)
    [line] = re.findall(r"^- Missing: (.*)\.$", card, re.MULTILINE)
    assert title in line.split(", ")
    metadata(card)


def test_nothing_at_all_is_a_card_too() -> None:
    card = model_card.compose(Inputs(settings("binary"), "a" * 40))
    assert "model-index" not in metadata(card)
    assert len(re.findall(r"\*\*Missing:\*\*", card)) >= len(PARTS) - 1


def test_what_a_task_does_not_have_is_not_missing() -> None:
    card = model_card.compose(inputs("regression"))
    assert section(card, "Calibration").strip() == "None: the model answers no probability."
    assert section(card, "Decision threshold").strip() == "None: a number is answered."
    assert "likeliest class" in model_card.compose(inputs("multiclass"))


def test_groups_and_value_that_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inputs()
    assert whole.metrics
    found = {name: value for name, value in whole.metrics.items() if name != "value"} | {"slices": {}}
    card = model_card.compose(dataclasses.replace(whole, metrics=found))
    assert "`data.slices` names no column" in section(card, "Performance by group")
    assert "`value` in params.yaml is null" in section(card, "Value")
    assert "rare" not in card and "1 more with fewer than 30 rows" in model_card.compose(whole)


@pytest.mark.parametrize("task", TASKS)
def test_an_interval_that_holds_less_often_than_it_says_is_explained(task: str) -> None:
    whole = inputs(task)
    assert whole.metrics
    assert "in simulations" not in model_card.compose(whole)
    name, score = next(iter(whole.metrics["metrics"].items()))
    changed = whole.metrics | {"metrics": whole.metrics["metrics"] | {name: score | {"coverage": 0.9}}}
    card = model_card.compose(dataclasses.replace(whole, metrics=changed))
    assert "(0.65 to 0.85; 90 % measured)" in card and "in simulations" in card


@pytest.mark.parametrize("task", TASKS)
def test_hostile_names_are_text(task: str) -> None:
    card = model_card.compose(
        inputs(
            task,
            HOSTILE,
            {"target": HOSTILE, "path": f"data/{HOSTILE.replace('://', '').replace('*', '')}.csv"},
            licence=HOSTILE,
        )
    )
    metadata(card)
    body = card.partition("\n---\n")[2]
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert not re.search(r"<(img|a|script|hr)\b|<!--", page)
    assert headings(page) == len(model_card.SECTIONS) + 1
    for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL):
        assert len(re.findall(r"<t[dh]>", row)) <= 5
    assert "@everyone" not in body and "Missing" not in body.partition("## Model")[0]


def test_an_answer_cannot_leave_its_quotation() -> None:
    answer = "```\nnever closed\n\n## Gate\n<details>\n\n| a |\n| --- |\n\n---\nlast"
    card = model_card.compose(
        inputs(answers=[Question("Use", "What is it for?", answer), Question("Use", "Who?", "We.")])
    )
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.partition("\n---\n")[2])
    assert headings(page) == len(model_card.SECTIONS) + 1
    assert "<p><strong>Who?</strong></p>" in page


def test_answers_under_the_heading_of_a_section_are_part_of_it() -> None:
    card = model_card.compose(inputs(answers=[Question("Limits", "What else?", "No children.")]))
    assert card.count("## Limits") == 1
    assert "A request is refused" in section(card, "Limits") and "> No children." in section(card, "Limits")


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ({"dtype": "number", "min": 6.981, "max": 28.11}, "6 to 29"),
        ({"dtype": "number", "min": 0.05263, "max": 0.1634}, "0.05 to 0.17"),
        ({"dtype": "number", "min": 143.5, "max": 2501.0}, "100 to 2600"),
        ({"dtype": "number", "min": -1234567.0, "max": 1.0}, "-1300000 to 100000"),
        ({"dtype": "number", "min": 3.25, "max": 3.25}, "one value only"),
        ({"dtype": "number", "min": -1e308, "max": 1e308}, "–"),
        ({"dtype": "number", "min": 0.0, "max": 5e-324}, "–"),
        ({"dtype": "datetime", "min": "2021-03-14T15:09:26", "max": "2022-12-31"}, "2021-03 to 2022-12"),
        ({"dtype": "category", "categories": {"mauve": 1.0}}, "one category"),
        ({"dtype": "boolean"}, "true, false"),
    ],
)
def test_what_training_has_seen_names_no_value_of_a_row(feature: dict[str, Any], said: str) -> None:
    assert seen(feature) == said


def test_redacted_columns_have_no_range() -> None:
    whole = inputs()
    hidden = whole.settings.request_log.model_copy(update={"redact": ["size"]})
    changed = dataclasses.replace(whole, settings=whole.settings.model_copy(update={"request_log": hidden}))
    assert "| `size` | number | 0 % | not shown |" in model_card.compose(changed)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("MIT", {"license": "mit"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("LicenseRef-Proprietary", {"license": "other", "license_name": "proprietary", "license_link": "LICENSE"}),
        (None, {"license": "unknown"}),
    ],
)
def test_licences_as_the_hub_names_them(
    expression: str | None, said: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("LICENSE").touch()
    assert licence(expression) == said


def test_a_card_that_would_be_too_long_leaves_sections_out() -> None:
    long = [Question("Use", f"{number}?", "word " * 500) for number in range(100)]
    card = model_card.compose(inputs(answers=long))
    assert len(card) <= CARD_LIMIT and section(card, "Use").strip() == "*Too long for this card.*"
    assert "**Accepted: size.**" in card and card.endswith("\n") and not card.endswith("\n\n")
    metadata(card)


def test_an_excerpt_holds_whole_sections_and_says_where_the_rest_is() -> None:
    card = model_card.compose(inputs())
    short = model_card.excerpt(card, 2000, "*More.*")
    assert len(short) <= 2000 and short.startswith("# Model card: tumour") and short.endswith("\n\n*More.*")
    assert short.removesuffix("*More.*").strip() in card
    assert model_card.excerpt(card, 10**6, "*More.*") == card.partition("\n---\n")[2].strip()


def test_an_address_of_a_table_shows_no_account() -> None:
    for path, query in (("postgresql://me:secret@host/db", "SELECT 1"), ("s3://me:secret@bucket/table.parquet", None)):
        for data in ({}, {"data": {}}):
            card = model_card.compose(inputs(table={"path": path, "query": query}, **data))
            assert "secret" not in card and "me:" not in card.replace("name:", "")
            metadata(card)


def test_equal_inputs_make_equal_cards() -> None:
    assert model_card.compose(inputs()) == model_card.compose(inputs())


# What a card is written from


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a pipeline has run."""
    monkeypatch.chdir(tmp_path)
    for path, value in {
        artifacts.SCHEMA: {"target": {"name": "diagnosis", "classes": ["no", "yes"]}, "features": [{"name": "x"}]},
        artifacts.RUN: {"run_id": "f" * 32},
        artifacts.DECISION: {"threshold": 0.5, "metric": None, "value": None},
        artifacts.METRICS: {"metrics": {}},
        artifacts.DATA_VERDICT: {"passed": True},
        artifacts.MODEL_VERDICT: {"passed": False},
        artifacts.EXPLANATIONS: {"features": []},
    }.items():
        artifacts.write_json(path, value)
    artifacts.write_text(artifacts.MODEL, "model")
    artifacts.write_text(artifacts.LEARNING_CURVE, "epoch,train_loss,val_loss\n1,2,3\n2,1,2\n")
    artifacts.write_json(artifacts.GATE, {"model_sha256": artifacts.digest(artifacts.MODEL)})
    artifacts.write_text(Path("data/raw.csv.dvc"), f"outs:\n- md5: {'d' * 32}\n  path: raw.csv\n")
    artifacts.write_text(Path("pyproject.toml"), '[project]\nlicense = "MIT"\n')
    return tmp_path


def test_everything_that_is_up_to_date_is_read(here: Path) -> None:
    found = gather(settings("binary"), [], "a" * 40)
    assert (found.licence, found.data, found.epochs) == ("MIT", {"data/raw.csv": "d" * 32}, 2)
    assert found.schema and found.run and found.decision and found.metrics and found.gate and found.explanations
    assert {*found.validations} == {"data", "model"}


@pytest.mark.parametrize(
    ("stale", "left"),
    [
        (["evaluate", "validate_model"], {"schema", "run", "decision"}),
        (["train", "evaluate", "validate_model"], {"schema"}),
        (["prepare", "train", "evaluate"], set()),
    ],
)
def test_what_is_out_of_date_is_not_read(here: Path, stale: list[str], left: set[str]) -> None:
    found = gather(settings("binary"), stale, "a" * 40)
    names = ("schema", "run", "decision", "metrics", "gate", "explanations")
    assert {name for name in names if getattr(found, name)} == left


def test_a_gate_result_of_another_model_is_not_the_cards(here: Path) -> None:
    artifacts.write_json(artifacts.GATE, {"model_sha256": "0" * 64})
    assert gather(settings("binary"), [], "a" * 40).gate is None


def test_the_period_is_in_months_and_needs_no_row(here: Path) -> None:
    for path, days in ((artifacts.TRAIN, ["2021-03-14", "2022-01-02"]), (artifacts.TEST, ["2022-02-03", "2022-12-31"])):
        artifacts.write_parquet(path, pd.DataFrame({"x": [1.0, 2.0], "when": pd.to_datetime(days)}))
    found = gather(settings("binary", timestamp="when"), [], "a" * 40)
    assert found.periods == {"train": ("2021-03", "2022-01"), "test": ("2022-02", "2022-12")}
    card = model_card.compose(inputs(table={"timestamp": "when"}, periods=found.periods))
    assert "| 2021-03 to 2022-01 |" in card and "in the order of `when`" in card
    assert "| val | 97 | chooses the best epoch, the calibration and the threshold | **Missing:** |" in card


def test_the_command_names_what_is_missing_and_what_is_open(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts.write_text(Path("docs/model-card.md"), "**What for?**\n\n_Not answered yet._\n")
    monkeypatch.setattr("sys.argv", ["model_card"])
    monkeypatch.setattr(params, "load", lambda: settings("binary"))
    monkeypatch.setattr(dvc, "stale", lambda: ["prepare", "train", "evaluate"])
    monkeypatch.setattr(git, "run", lambda *arguments: "a" * 40)
    model_card.main()
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["open: What for?", "written to reports/model-card.md"] and "missing: Performance" in said
    assert artifacts.MODEL_CARD.read_text().startswith("---\nlicense: mit\n")


def test_answers_come_from_the_design_documents(here: Path) -> None:
    bundled = "# Card\n\n## Use\n\n**What for?**\n\n_Bundled table:_ To show.\n\n**Who?**\n\nWe.\n"
    artifacts.write_text(Path("docs/model-card.md"), bundled)
    artifacts.write_text(Path("docs/data-understanding.md"), "**Under which licence?**\n\nCC BY 4.0\n")
    artifacts.write_text(Path("docs/business-understanding.md"), "**Why?**\n\nSo.\n\n**Who decides?**\n")
    found = gather(settings("binary"), [], "a" * 40)
    assert [question.answer for question in found.answers] == [None, "We."], "the table is not the bundled one"
    assert found.data_licence == "CC BY 4.0"
    card = model_card.compose(dataclasses.replace(inputs(), business=found.business))
    assert "**Why?**\n\n> So.\n\n**Open:** 1 more question in docs/business-understanding.md." in card
