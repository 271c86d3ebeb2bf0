"""`make documents`: what it fills in, what it leaves as people wrote it, and what the report says of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from breast_cancer.settings import Settings
from defaults import complete
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.design import documents, facts, questions
from gitops.design.documents import BUSINESS, CARD, DATA, SYSTEM
from gitops.design.questions import BEGIN, BUNDLED, END, OPEN, Question
from gitops.integrations import dvc
from gitops.rendering import markdown
from gitops.reporting.context import Context
from gitops.reporting.documents_section import documents as section

#: Names of columns as an attacker would choose them, and values of rows that no document may show.
NAMES = ["x|y`", END, f"\n{END}\n# Heading\n**Why?**", "<img src=x>", "@everyone #1"]
VALUES = ["secret-category", "1234567.25", "2026-03-17"]

TEXT = f"""\
# Title

{BEGIN}
Not filled in yet.
{END}

**Who?**
<!-- A name. -->

{BUNDLED} Wolberg.

**What?**
<!-- A thing. -->

{OPEN}
"""

OWNERS = """\
# @not-an-owner reviews nothing
/data/ @team/data @somebody  # @nobody
/k8s/ @team/data
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project whose documents are not filled in; the table has hostile names."""
    monkeypatch.chdir(tmp_path)
    for path in documents.DOCUMENTS:
        artifacts.write_text(path, TEXT)
    artifacts.write_text(
        Path(".dvc/config"), "[core]\n  remote = a\n['remote \"a\"']\n  url = s3://user:word@bucket/x\n"
    )
    artifacts.write_text(Path(".github/CODEOWNERS"), OWNERS)
    artifacts.write_text(Path(".github/workflows/ci.yaml"), "  retention-days: 7\n  retention-days: 90  # more\n")
    artifacts.write_text(Path("LICENSE"), "\nMIT License\n\nText\n")
    monkeypatch.setattr(dvc, "stale", list)
    monkeypatch.setattr(sys, "argv", ["documents"])
    found = Settings.model_validate(
        complete(
            {
                "data": {"target": "kind", "timestamp": "seen", "drop": [NAMES[0]], "task": "binary"},
                "gate": {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.9}},
                "package": {"model_name": "m"},
                "request_log": {"redact": [NAMES[1]], "sample": 0.25},
                "monitor": {"days": 17},
            }
        )
    )
    monkeypatch.setattr(params, "load", lambda: found)
    return found


@pytest.fixture
def schema(settings: Settings) -> dict[str, Any]:
    """The schema of the splits, which are written too."""
    seen = pd.to_datetime(["2025-12-31", "2026-03-17"], utc=True)
    frame = pd.DataFrame({"kind": ["no", "yes"], "seen": seen})
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        artifacts.write_parquet(path, frame)
    number = {"dtype": "number", "missing": 0.004, "min": 0.0, "max": 1234567.25, "mean": 1234567.25}
    features: list[dict[str, Any]] = [{"name": name, **number} for name in NAMES]
    features.append({"name": "town", "dtype": "category", "missing": 0.5, "categories": {"secret-category": 1.0}})
    rows = {"raw": 12, "dropped_missing_target": 2, "dropped_duplicates": 0, "train": 6, "val": 2, "test": 2}
    found = {"target": {"name": "kind", "classes": ["no", "yes"]}, "features": features, "rows": rows}
    artifacts.write_json(artifacts.SCHEMA, found)
    return found


def test_what_a_machine_knows_is_filled_in(schema: dict[str, Any]) -> None:
    assert documents.main() == 0
    business, table, system = (path.read_text() for path in (BUSINESS, DATA, SYSTEM))
    assert "| answer | `kind`, binary | `data` |" in business
    assert "| and must reach | `roc_auc` 0.9 | `gate.thresholds` |" in business
    assert "| rows | 12; 2 dropped missing target |" in table
    assert "| split | by time, `seen`: 6 to train, 2 to validate, 2 to test |" in table
    assert "| target | `kind`, binary: `no` 50 %, `yes` 50 % |" in table
    assert "| period | 2025-12 to 2026-03 |" in table
    assert "| `town` | category | 50 % | 1 categories |" in table
    assert "| number | below 1 % | not logged |" in table
    assert "`s3://bucket/x`" in system and "25 % of the requests; the monitor reads 17 days back" in system
    assert "| artifacts | 90 days at most |" in system and "MIT License" in system
    assert markdown.code("@team/data") in system and markdown.code("@somebody") in system and "nobody" not in system


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not known"),
        (
            {"unit": "€|", "decisions": 12345, "running_cost": 500},
            r"12,345 decisions a month, which cost 500 €\| to run",
        ),
    ],
)
def test_what_is_known_of_value(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, value: dict[str, Any] | None, shown: str
) -> None:
    monkeypatch.setattr(Settings, "model_dump", lambda self, mode: {"value": value})
    assert f"| value | {shown} | `value` |" in facts.business(settings)


def test_no_value_of_a_row_is_shown(schema: dict[str, Any]) -> None:
    documents.main()
    shown = "".join(path.read_text() for path in documents.DOCUMENTS)
    assert not [value for value in VALUES if value in shown]


def test_a_columns_name_breaks_no_document(schema: dict[str, Any]) -> None:
    documents.main()
    once = DATA.read_text()
    assert [question.text for question in questions.read(DATA)] == ["Who?", "What?"]
    assert once.count(END) == 1 and "<img" not in once
    documents.main()
    assert DATA.read_text() == once


def test_what_people_wrote_stays(schema: dict[str, Any]) -> None:
    mine = TEXT.replace(OPEN, "Mine:\n\n```text\n" + BEGIN + "\n```").replace(f"{BUNDLED} Wolberg.", "Ours.")
    artifacts.write_text(DATA, mine)
    artifacts.write_text(SYSTEM, "# Without a block\n\n**Who?**\nWe.\n")
    BUSINESS.unlink()
    assert documents.main() == 0
    head, tail = mine.split("Not filled in yet.")
    assert DATA.read_text().startswith(head) and DATA.read_text().endswith(tail)
    assert SYSTEM.read_text() == "# Without a block\n\n**Who?**\nWe.\n"
    assert not BUSINESS.exists()


def test_answers_about_the_bundled_table_hold_for_no_other(schema: dict[str, Any]) -> None:
    documents.main()
    assert [question.answer for question in questions.read(CARD)] == [None, None]
    artifacts.write_text(CARD, TEXT)
    feature = {"name": documents.BUNDLED_FEATURE, "dtype": "number", "missing": 0}
    artifacts.write_json(
        artifacts.SCHEMA, schema | {"target": {"name": "diagnosis", "classes": []}, "features": [feature]}
    )
    documents.main()
    assert CARD.read_text() == TEXT


def test_a_check_changes_nothing(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["documents", "--check"])
    assert documents.main() == 1
    assert {path.read_text() for path in documents.DOCUMENTS} == {TEXT}
    assert f"{DATA}: out of date: run `make documents`" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["documents"])
    assert documents.main() == 0
    monkeypatch.setattr(sys, "argv", ["documents", "--check"])
    assert documents.main() == 0
    assert "0 of 8 questions are answered; open:\n  docs/business" in capsys.readouterr().out


def test_a_table_that_is_stale_is_not_described(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dvc, "stale", lambda: ["prepare"])
    artifacts.SCHEMA.unlink()
    assert documents.main() == 0
    assert DATA.read_text() == TEXT and SYSTEM.read_text() != TEXT
    assert "run `make pipeline` first" in capsys.readouterr().out


def test_a_block_without_an_end_is_named(settings: Settings, schema: dict[str, Any]) -> None:
    """The command refuses it; the report goes on, and says that the document is out of date."""
    artifacts.write_text(DATA, TEXT.replace(END, ""))
    with pytest.raises(ProjectError, match=f"{DATA} has the line .* without an end: add the line"):
        documents.main()
    found = documents.state(settings, schema)
    assert DATA in found.outdated and len(found.questions[DATA]) == 2


def test_a_retraining_renews_the_document_on_the_data_if_it_can(settings: Settings, schema: dict[str, Any]) -> None:
    documents.describe(settings)
    assert "| rows | 12;" in DATA.read_text() and SYSTEM.read_text() == TEXT
    for text in (TEXT.replace(END, ""), "<<<<<<< ours\n"):
        artifacts.write_text(DATA, text)
        documents.describe(settings)
        assert DATA.read_text() == text
    DATA.unlink()
    documents.describe(settings)
    assert not DATA.exists()


def report(settings: Settings, schema: dict[str, Any] | None) -> str:
    return section(Context(settings, [], None, documents=documents.state(settings, schema)))


def test_the_report_counts_what_is_open(settings: Settings, schema: dict[str, Any]) -> None:
    assert section(Context(settings, [], None)) == ""
    text = report(settings, schema)  # the answers about the bundled table hold for another one
    assert "0 of 8 questions are answered." in text and "What `make documents` fills in is missing" in text
    documents.main()
    artifacts.write_text(CARD, "**Who?**\nWe.\n**What?**\nThis.")
    assert report(settings, schema) == (
        "### Design documents\n\n2 of 8 questions are answered.\n\n"
        "<details><summary>6 open questions</summary>\n\n"
        + "\n".join(f"- `{path}`\n  - Who?\n  - What?" for path in (BUSINESS, DATA, SYSTEM))
        + "\n\n</details>"
    )
    for path in documents.DOCUMENTS:
        path.unlink()
    assert report(settings, schema) == ""


def test_a_question_cannot_abuse_the_report(settings: Settings) -> None:
    hostile = "<img src=x> @everyone #1 [click](https://evil.example)?"
    asked = {CARD: [Question("h", hostile, None)]}
    text = section(Context(settings, [], None, documents=documents.State(asked, [])))
    assert markdown.plain(hostile) in text
    assert "<img" not in text and "@everyone" not in text and not re.search(r"(?<!\\)\]\(", text)
