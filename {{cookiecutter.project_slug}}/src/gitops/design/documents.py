"""`make documents`: fill in what a machine knows in the design documents, and say what is open.

A document has a block between two lines that are comments (questions.BEGIN, questions.END). What stands there is
replaced; a document without a block, or one that is not there, is its owner's decision. Answers about the bundled table
are opened again once the table is another. `ARGS=--check` changes nothing, and fails where something is out of date.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError, refuse_conflict
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.design import facts, questions
from gitops.design.questions import BEGIN, END, Question
from gitops.integrations import dvc

BUSINESS, DATA, SYSTEM, CARD = (
    Path("docs/business-understanding.md"),
    artifacts.DATA_UNDERSTANDING,
    Path("docs/system-design.md"),
    Path("docs/model-card.md"),
)
DOCUMENTS = (BUSINESS, DATA, SYSTEM, CARD)

#: What the bundled table has, and another one hardly: its target and one of its features.
BUNDLED_TARGET, BUNDLED_FEATURE = "diagnosis", "worst concave points"


@dataclass(frozen=True)
class State:
    """The questions of the documents, and the documents that `make documents` would change, or refuses."""

    questions: dict[Path, list[Question]]
    outdated: list[Path]


def state(settings: Params, schema: dict[str, Any] | None) -> State:
    """Read the documents as `make documents` would leave them.

    `schema` is that of the table, None where it is not known: what depends on the table is then not judged.
    """
    found, known = State({}, []), blocks(settings, schema)
    for path in (path for path in DOCUMENTS if path.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        new: str | None
        try:
            new = renewed(path, text, known, schema)
        except ProjectError:  # `make documents` says why; the report is not held up
            new = None
        if new != text:
            found.outdated.append(path)
        found.questions[path] = questions.parse(new or text)
    return found


def blocks(settings: Params, schema: dict[str, Any] | None) -> dict[Path, str]:
    """Return what the blocks of those documents that are there have to hold, as far as that is known."""
    known: dict[Path, Callable[[], str]] = {
        BUSINESS: lambda: facts.business(settings),
        SYSTEM: lambda: facts.privacy(settings),
    }
    if schema is not None:
        known[DATA] = lambda: facts.data(settings, schema)
    return {path: block() for path, block in known.items() if path.is_file()}


def renewed(path: Path, text: str, known: Mapping[Path, str], schema: dict[str, Any] | None) -> str:
    """Return a document's text with its block as `known`, and questions opened that are answered for another table.

    Raises ProjectError for a block that is known and has no end.
    """
    if path in known:
        token = next((token for token in questions.TOKEN.finditer(text) if token.lastgroup == "block"), None)
        if token:
            text = f"{text[: token.start()]}{BEGIN}\n\n{known[path]}\n\n{END}{text[token.end() :]}"
        elif re.search("^" + re.escape(BEGIN.partition(";")[0]), text, re.MULTILINE):
            raise ProjectError(f"{path} has the line {BEGIN!r} without an end: add the line {END!r} below it")
    return text if schema is None or _bundled(schema) else questions.reopened(text)


def fill(paths: Iterable[Path], settings: Params, schema: dict[str, Any] | None, *, check: bool = False) -> list[Path]:
    """Renew those of the documents that are there and out of date, or with `check` none, and return them.

    Raises ProjectError as `renewed` does.
    """
    known, texts = blocks(settings, schema), {}
    for path in (path for path in paths if path.is_file()):
        refuse_conflict(path)
        old = path.read_text(encoding="utf-8")
        if (new := renewed(path, old, known, schema)) != old:
            texts[path] = new
    for path, text in texts.items() if not check else ():
        artifacts.write_text(path, text)
    return [*texts]


def describe(settings: Params) -> None:
    """Renew what the document on the data says of a table that has grown, unless it cannot be filled in."""
    if DATA.is_file():
        with suppress(ProjectError, UnicodeDecodeError):
            fill([DATA], settings, artifacts.read_json(artifacts.SCHEMA, "make pipeline"))


def main() -> int:
    """Fill in the documents or check them, and list the questions that are open; exit status 1 where a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where something is out of date")
    arguments = parser.parse_args()

    settings = params.load()
    schema = None if "prepare" in dvc.stale() else artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    changed = fill(DOCUMENTS, settings, schema, check=arguments.check)
    for path in changed:
        echo(f"{path}: {'out of date: run `make documents`' if arguments.check else 'filled in'}")
    if schema is None:
        echo(f"{DATA}: what is filled in from the table is not renewed: run `make pipeline` first")
    asked = [(path, question) for path in DOCUMENTS for question in questions.read(path)]
    left = [(path, question) for path, question in asked if question.answer is None]
    echo(f"{len(asked) - len(left)} of {len(asked)} questions are answered" + ("; open:" if left else ""))
    for path, question in left:
        echo(f"  {path}: {question.text}")
    return 1 if arguments.check and changed else 0


def _bundled(schema: dict[str, Any]) -> bool:
    """Tell whether the table is the bundled one, or has grown from it."""
    names = [feature["name"] for feature in schema["features"]]
    return schema["target"]["name"] == BUNDLED_TARGET and BUNDLED_FEATURE in names


if __name__ == "__main__":
    artifacts.run(main)
