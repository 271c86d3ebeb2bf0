"""What the sections of a model card share: how a missing part is said, and how people's words are shown."""

from __future__ import annotations

import re

from gitops.design.questions import Question
from gitops.rendering.markdown import defang, plain

#: Characters of an answer that are shown.
ANSWER = 3000


#: How a part that the run does not have is marked.
MISSING = "**Missing:**"


class Missing(Exception):
    """The run does not have this part; the message says why, and how it would."""


def lacks(text: str) -> bool:
    """Tell whether a section marks something as missing, and does not only hold a name or an answer that reads so."""
    return MISSING in re.sub(r"`[^`]*`|^>.*$", "", text, flags=re.MULTILINE)


def quote(text: str) -> str:
    """Return what somebody has written as a quotation that it cannot leave, and that does nothing but show text."""
    shortened = text if len(text) <= ANSWER else f"{text[: ANSWER - 1]}… (shortened)"
    return "\n".join(f"> {line}".rstrip() for line in defang(shortened).split("\n"))


def answered(question: Question) -> str:
    """Return a question with its answer, or that it is open."""
    answer = "> **Open:** nobody has answered this yet." if question.answer is None else quote(question.answer)
    return f"**{plain(question.text, 500)}**\n\n{answer}"
