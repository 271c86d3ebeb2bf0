"""The section `value` of `params.yaml`: what the model's answers are worth, and what is done without a model.

Imports only pydantic, as sections.py does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from gitops.core.sections import Section, StageSection, Task

#: The metric that projects with this section have beside those of their metrics.py.
EXPECTED_VALUE = "expected_value"

Amount = Annotated[float, Field(allow_inf_nan=False)]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Error(StageSection):
    """Cost of regression: per unit of the target that an answer is too high, and that it is too low."""

    over: Cost
    under: Cost


class Today(Section):
    """What is done without a model: `answer` for all, or a rule on `column`.

    A rule answers `answer` from the value `at_least` on and `otherwise` below it and where the value is missing. A
    column alone holds the answers itself. An answer is a class, or a number where the target is one.
    """

    answer: str | Amount | None = None
    column: str | None = None
    at_least: Amount | None = None
    otherwise: str | Amount | None = None

    @property
    def answers(self) -> list[str | float]:
        """The answers that are named here."""
        return [answer for answer in (self.answer, self.otherwise) if answer is not None]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if given not in ({"answer"}, {"column"}, {"column", "at_least", "answer", "otherwise"}):
            raise ValueError(
                "answer is needed, the same for all, or column, at_least, answer and otherwise, a rule, or column alone"
            )
        return self


class Value(StageSection):
    """What one decision earns or costs, how many there are, and what is done today, without the model.

    `answers`: for classes, by the actual class and then by the answer, what one decision earns; costs are below 0.
    `error`: for regression, in its place.
    """

    unit: Annotated[str, Field(pattern=r"^\S(.{0,18}\S)?$")]
    decisions: Annotated[int, Field(ge=1)]  # a month
    running_cost: Cost  # a month
    answers: dict[str, dict[str, Amount]] | None
    error: Error | None
    today: Today

    @property
    def classes(self) -> list[str]:
        """The classes that amounts are given for; none for regression."""
        return [*(self.answers or {})]

    @model_validator(mode="after")
    def _square(self) -> Self:
        for actual, row in (self.answers or {}).items():
            if {*row} != {*self.classes}:
                wanted = f"an amount is needed for each of {', '.join(self.classes)}"
                raise ValueError(f"answers.{actual} has amounts for {', '.join(row) or 'no answer'}: {wanted}")
        return self

    def refusal(self, task: Task) -> str | None:
        """Return why this section does not fit the task; None where it does."""
        wanted, other = ("error", "answers") if task == "regression" else ("answers", "error")
        if getattr(self, wanted) is None:
            return f"value.{wanted} is null, and task {task!r} needs it: {NEEDED[wanted]}"
        if getattr(self, other) is not None:
            return f"value.{other} is set, which task {task!r} does not have: set it to null"
        if task == "binary" and len(self.classes) != 2:
            return (
                f"value.answers has {len(self.classes)} classes ({', '.join(self.classes)}), and task 'binary' has two"
            )
        for answer in self.today.answers:
            if task == "regression" and not isinstance(answer, float):
                return f"value.today answers {answer!r}: the target is a number, and so is an answer"
            if task != "regression" and answer not in self.classes:
                return f"value.today answers {answer!r}, which is no class: value.answers has {', '.join(self.classes)}"
        return None


def amounts(section: Value | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the expected value depends on, of a section as it is or as a release record has it.

    Values that were computed with other amounts cannot be compared. None: there is no section.
    """
    given = section.model_dump(mode="json") if isinstance(section, Value) else section
    return {key: value for key, value in given.items() if key != "today"} if given else None


#: What to write for a setting that a task needs.
NEEDED = {
    "answers": "what one decision earns, as {bad: {bad: -1, good: -9}, good: {bad: -1, good: 0}}",
    "error": "what a unit of the target costs that an answer is too high, and too low, {over: 1.0, under: 3.0}",
}
