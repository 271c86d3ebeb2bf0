"""The model card, reports/model-card.md (`make card`; `make report` and `make plan` write it too).

It is written for whoever meets the model without the project: what it is for, how good it is, where it must not be
used, and where it came from. Numbers are the run's. What only people know they answer in docs/model-card.md, and their
words are quoted. What is missing is said to be missing, and a question that nobody has answered is said to be open.

Equal inputs make an equal card: it holds no time of day. A release has the card of its commit beside its record.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection

from gitops.core import actions, params
from gitops.core.artifacts import MODEL_CARD, run, write_text
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.design import card_results, card_sections, documents
from gitops.design.card_inputs import Inputs
from gitops.design.card_inputs import gather as gather
from gitops.design.card_metadata import metadata
from gitops.design.card_text import MISSING, Missing, answered, lacks
from gitops.integrations import dvc, git
from gitops.releases.record import CARD_LIMIT, Training
from gitops.rendering.markdown import code, plain

SECTIONS: dict[str, Callable[[Inputs], str]] = {
    "Model": card_sections.model,
    "Problem and decision": card_sections.purpose,
    "Performance": card_results.performance,
    "Performance by group": card_results.slices,
    "Decision threshold": card_results.decision,
    "Calibration": card_results.calibration,
    "Value": card_results.value,
    "Limits": card_sections.limits,
    "Columns that matter most": card_results.explanations,
    "Data": card_sections.data,
    "Columns": card_sections.columns,
    "Training": card_sections.training,
    "Validation": card_results.validation,
    "Gate": card_results.gate,
    "Lineage": card_sections.lineage,
}

#: Sections that a card which is too long leaves out, in this order; then go the answers.
EXPENDABLE = ("Columns", "Performance by group", "Training", "Columns that matter most", "Validation")


def main() -> None:
    """Write the card and print what it lacks."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    inputs = gather(params.load(), dvc.stale(), actions.head() or git.run("rev-parse", "HEAD"))
    write_text(MODEL_CARD, compose(inputs))
    missing, unanswered = lacking(inputs)
    lines = [f"missing: {title}" for title in missing] + [f"open: {text}" for text in unanswered]
    echo(*lines, f"written to {MODEL_CARD}")


def write(settings: Params, stale: Collection[str], commit: str, training: Training | None = None) -> str:
    """Write the card of what is up to date, and return it; arguments as `gather` takes them."""
    card = compose(gather(settings, stale, commit, training))
    write_text(MODEL_CARD, card)
    return card


def compose(inputs: Inputs) -> str:
    """Return the card: metadata, then text. Where it is longer than CARD_LIMIT, whole sections are left out."""
    texts = _sections(inputs)
    head = f"# Model card: {plain(inputs.settings.package.model_name)}\n\n{_summary(inputs)}"
    removable = [*EXPENDABLE, *(title for title in texts if title not in SECTIONS)]
    for title in removable:
        if len(_joined(inputs, head, texts)) <= CARD_LIMIT:
            break
        if title in texts:
            texts[title] = "*Too long for this card.*"
    return _joined(inputs, head, texts)[:CARD_LIMIT].rstrip("\n") + "\n"


def lacking(inputs: Inputs) -> tuple[list[str], list[str]]:
    """Return the sections that the run does not have, and the questions that nobody has answered."""
    missing = [title for title, section in SECTIONS.items() if lacks(_text(section, inputs))]
    missing += [] if inputs.answers else ["Intended use"]
    return missing, [question.text for question in inputs.answers if question.answer is None]


def excerpt(card: str, limit: int, more: str) -> str:
    """Return the text of a card, without metadata, as far as whole sections fit into `limit` characters.

    `more` says where the rest is, and ends it where there is any.
    """
    text = card.partition("\n---\n")[2].strip("\n") if card.startswith("---\n") else card.strip("\n")
    if len(text) <= limit:
        return text
    first, *others = text.split("\n## ")
    kept = first
    for section in others:
        if len(kept) + len(section) + len(more) + 6 > limit:
            break
        kept += f"\n## {section}"
    return f"{kept.rstrip()}\n\n{more}"[:limit]


def _joined(inputs: Inputs, head: str, texts: dict[str, str]) -> str:
    return "\n\n".join([f"{metadata(inputs)}\n{head}", *(f"## {title}\n\n{text}" for title, text in texts.items())])


def _sections(inputs: Inputs) -> dict[str, str]:
    """Return the text of each section by its title; people's answers come after the first one, by their headings."""
    written: dict[str, list[str]] = {}
    for question in inputs.answers:
        written.setdefault(plain(question.heading or "Questions"), []).append(answered(question))
    if not inputs.answers:
        written["Intended use"] = [f"{MISSING} there are no questions and answers in {documents.CARD}."]
    own = {title: _text(section, inputs) for title, section in SECTIONS.items()}
    titles = {title.lower(): title for title in own}
    for heading, answers in [*written.items()]:
        if title := titles.get(heading.lower()):  # the same topic, told by both
            own[title] = "\n\n".join([own[title], *answers])
            del written[heading]
    (first, text), *others = own.items()
    people = {heading: "\n\n".join(answers) for heading, answers in written.items()}
    return {first: text} | people | dict(others)


def _summary(inputs: Inputs) -> str:
    """Return what a reader has to know before the rest: how to read the card, and what it lacks."""
    parts = [
        "This card says what the model is for, how good it is, what it must not be used for, and where it came from. "
        f"The project's pipeline wrote the numbers, at commit {code(inputs.commit[:12])}; quotations are people's "
        f"answers in {documents.CARD}. A 95 % interval says how far a number may be off because the test rows are only "
        "a sample."
    ]
    missing, unanswered = lacking(inputs)
    lines = [f"- Missing: {', '.join(missing)}."] if missing else []
    if unanswered:
        lines.append(f"- Open: {len(unanswered)} of {len(inputs.answers)} questions to people in {documents.CARD}.")
    if lines:
        parts.append("**This card is incomplete.**\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _text(section: Callable[[Inputs], str], inputs: Inputs) -> str:
    try:
        return section(inputs)
    except Missing as error:
        return f"{MISSING} {error}."


if __name__ == "__main__":
    run(main)
