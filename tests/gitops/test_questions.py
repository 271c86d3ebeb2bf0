"""Questions and answers of a design document, as people edit it."""

from __future__ import annotations

from pathlib import Path

import pytest
from gitops.design.questions import BEGIN, BUNDLED, END, OPEN, Question, read, reopened

DOCUMENT = f"""\
# Data understanding

{BEGIN}
| column | dtype |
| --- | --- |
**Is a text in a block a question?**
{END}

## Origin

**Where do the data come from?**
<!-- System, export, survey. -->

A survey, by hand:

- in spring
- in autumn

**Who owns them?** <!-- Who may say no? -->

{OPEN}

## Rows ##

**What is one row?** A person.
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "document.md"


def asked(path: Path, text: str) -> dict[str, str | None]:
    path.write_text(text, encoding="utf-8")
    return {question.text: question.answer for question in read(path)}


def test_questions_have_headings_and_answers(path: Path) -> None:
    path.write_text(DOCUMENT, encoding="utf-8")
    assert read(path) == [
        Question("Origin", "Where do the data come from?", "A survey, by hand:\n\n- in spring\n- in autumn"),
        Question("Origin", "Who owns them?", None),
        Question("Rows", "What is one row?", "A person."),
    ]


def test_a_document_that_is_not_there_asks_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "gone.md") == []
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    "answer", ["", "\n\n", OPEN, "*Not answered yet.*", f"{OPEN}\n\nAsk the lawyer.", "<!-- ask\nthe lawyer -->"]
)
def test_an_open_question(path: Path, answer: str) -> None:
    assert asked(path, f"**Who?**\n\n{answer}\n\n**What?**\nThis.") == {"Who?": None, "What?": "This."}


@pytest.mark.parametrize(
    "answer",
    [
        f"```text\n{OPEN}\n**What?**\n# A comment\n<!-- kept -->\n```",
        "~~~~\n~~~\n**Another?**\n~~~~~\nAfter it.",
        "A **bold?** word, and C#.\n\n### A smaller heading\n\nMore.",
        "It is `_Not answered yet._` that stands here.",
    ],
)
def test_code_and_smaller_headings_are_part_of_an_answer(path: Path, answer: str) -> None:
    assert asked(path, f"**Who?**\n{answer}\n# Next\n**What?**\nThis.") == {"Who?": answer, "What?": "This."}


@pytest.mark.parametrize(
    "answer", ["```python\nnever closed", "<!-- never closed", BEGIN, "<details><b>", "**Bold? no**"]
)
def test_what_is_not_closed_hides_no_question(path: Path, answer: str) -> None:
    found = asked(path, f"**Who?**\n{answer}\n\n**What?**\n<!-- A word. -->\nThis.")
    assert [*found] == ["Who?", "What?"] and found["What?"] == "This."


def test_bytes_of_any_kind_are_read(path: Path) -> None:
    path.write_bytes("\ufeff**Who?**\r\n<!-- help -->\r\nEverybody.\r\n".encode() + b"\xff\x00")
    [question] = read(path)
    assert question.answer == "Everybody.\n\ufffd\x00"


def test_answers_about_the_bundled_table_are_opened_again(path: Path) -> None:
    who = "# T\n**Who?**\n<!-- Who has it? -->\n\n"
    what = "\n\n**What?**\nMine.\n\n**Why?**\n"
    text = f"{who}{BUNDLED} somebody\n\nelse.{what}{BUNDLED} because.\n"
    path.write_text(text)
    assert [question.bundled for question in read(path)] == [True, False, True]
    path.write_text(reopened(text))
    assert path.read_text() == f"{who}{OPEN}{what}{OPEN}\n"
    assert reopened(path.read_text()) == path.read_text()
    assert reopened(DOCUMENT) == DOCUMENT
