"""The questions of the design documents in docs/, and their answers.

A question is a line `**Question?**`. What follows, up to the next question, a heading of the first or second level or a
block that `make documents` fills in, is its answer. Comments are not part of it, and no line of a code block is a
question or a heading. A question is open where the answer is empty or holds the paragraph `_Not answered yet._`. Only
the standard library is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: The paragraph of a question that is open.
OPEN = "_Not answered yet._"

#: How an answer begins that is about the bundled table, and about no other.
BUNDLED = "_Bundled table:_"

#: The lines around what `make documents` fills in; they are recognised by how they begin.
BEGIN = "<!-- filled in by make documents; edits are lost -->"
END = "<!-- end of what make documents fills in -->"

#: What ends an answer, and what in an answer is code or a comment. Neither spans what is not closed, nor a comment
#: questions: an answer that somebody forgot to close must not hide those below it.
TOKEN = re.compile(
    r"""
      (?P<code> ^[ ]{0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n (?:[^\n]*\n)*? [ ]{0,3}(?P=fence)[`~]*[ \t]*$ )
    | (?P<block> ^<!--[ ]filled[ ]in[ ]by[ ]make[ ]documents [^\n]*\n (?:[^\n]*\n)*? <!--[ ]end[ ]of[ ]what[ ][^\n]*$ )
    | (?P<comment> <!-- (?: (?! --> | ^\*\* | ^\#{1,2}[ \t] ) . )* --> )
    | ^\*\*(?P<question>[^*\n]+\?)\*\*
    | ^\#{1,2}[ \t]+(?P<heading>[^\n]+)
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)

_OPEN = re.compile(r"^[ \t]*([_*])Not answered yet\.?\1[ \t]*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """A question, the heading it stands under, and its answer as Markdown, None where it is open."""

    heading: str
    text: str
    answer: str | None

    @property
    def bundled(self) -> bool:
        """Whether the answer is about the bundled table."""
        return self.answer is not None and self.answer.startswith(BUNDLED)


def read(path: Path) -> list[Question]:
    """Return the questions of a document in their order; none where there is no such file.

    Answers are what people wrote, thus data: whoever shows one elsewhere must take away what Markdown can do.
    """
    return parse(path.read_text(encoding="utf-8-sig", errors="replace")) if path.is_file() else []


def parse(text: str) -> list[Question]:
    """Return the questions of a document's text."""
    return [question for question, _, _ in _scan(text)]


def reopened(text: str) -> str:
    """Return a document in which the questions that are answered for the bundled table are open again."""
    for question, start, end in reversed([*_scan(text)]):
        if question.bundled:
            begin = text.index(BUNDLED, start, end)
            text = f"{text[:begin]}{OPEN}\n\n{text[end:]}".rstrip("\n") + "\n"
    return text


def _scan(text: str) -> Iterator[tuple[Question, int, int]]:
    """Yield each question of a document with where its answer begins and ends in `text`."""
    heading, asked, start, last = "", "", 0, 0
    parts: list[str] = []  # of the answer to `asked`
    for found in [*TOKEN.finditer(text), None]:
        parts.append(text[last : found.start() if found else len(text)])
        last = found.end() if found else len(text)
        kind = found.lastgroup if found else None
        if found and kind == "code":
            parts.append(found[0])
        elif kind != "comment":
            if asked:
                yield Question(heading, asked, _answer(parts)), start, found.start() if found else len(text)
            heading = found["heading"].rstrip("# \t\r") if found and kind == "heading" else heading
            asked = " ".join(found["question"].split()) if found and kind == "question" else ""
            start, parts = last, []


def _answer(parts: list[str]) -> str | None:
    """Return an answer from its parts, of which every second one may be code; None where the question is open."""
    if any(_OPEN.search(part) for part in parts if not re.match(r" {0,3}(`{3}|~{3})", part)):
        return None
    return "".join(parts).strip() or None
