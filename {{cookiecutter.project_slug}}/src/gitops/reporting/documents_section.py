"""The report's section about the design documents: the questions that are open, and what is out of date."""

from __future__ import annotations

from gitops.rendering.markdown import code, details, plain
from gitops.reporting.context import Context


def documents(context: Context) -> str:
    """Count the answers, list the open questions by document, and name what `make documents` would change."""
    found = context.documents
    if found is None or not (any(found.questions.values()) or found.outdated):
        return ""
    asked = [question for each in found.questions.values() for question in each]
    answered = sum(question.answer is not None for question in asked)
    parts = [f"### Design documents\n\n{answered} of {len(asked)} questions are answered."]
    if found.outdated:
        names = ", ".join(map(code, found.outdated))
        parts.append(f"What `make documents` fills in is missing or out of date in {names}.")
    lines = []
    for path, questions in found.questions.items():
        open_ = [f"  - {plain(question.text)}" for question in questions if question.answer is None]
        lines += [f"- {code(path)}", *open_] if open_ else []
    if lines:
        parts.append(details(f"{len(asked) - answered} open questions", "\n".join(lines)))
    return "\n\n".join(parts)
