"""Expressions of GitHub Actions, `${{ }}` and `if:`, as far as the workflows here use them.

Semantics: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions. What is not known here raises
UnknownError, where GitHub would often go on with an empty value: a workflow that changes must not go untested for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][\w-]*)|(?P<sign>&&|\|\||[=!]=|[][!().,*]))"
)
PLACE = re.compile(r"\$\{\{((?:(?!\}\}).)*)\}\}", re.DOTALL)
LITERALS = {"true": True, "false": False, "null": None}

Functions = Mapping[str, Callable[..., Any]]


class UnknownError(Exception):
    """Something that this stand-in does not know, or that is not there to be read: teach it, or mend the workflow."""


class Strict(dict[str, Any]):
    """An object of a context in which a key that is missing is a mistake, not null."""


class _Filtered(list[Any]):
    """What `.*` gives: a property of it is the list of that property of each element."""


def render(value: Any, contexts: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """Return a value of a workflow with its `${{ }}` filled in; one that is a single expression keeps its type."""
    if not isinstance(value, str):
        return value
    if whole := PLACE.fullmatch(value.strip()):
        return evaluate(whole[1], contexts, functions)
    return PLACE.sub(lambda found: text_of(evaluate(found[1], contexts, functions)), value)


def condition(value: Any, contexts: Mapping[str, Any], functions: Functions) -> bool:
    """Return whether an `if:` holds. One that asks for no status means `success() &&` before it."""
    text = "true" if value is None else text_of(value)
    whole = PLACE.fullmatch(text.strip())
    expression = whole[1] if whole else text
    if "${{" in expression:
        raise UnknownError(f"if: {text!r} is a text around an expression, which is always true")
    called = {first for first, second in zip(tokens(expression), tokens(expression)[1:], strict=False) if second == "("}
    result = truth(evaluate(expression, contexts, functions))
    return result if called & {"always", "success", "failure", "cancelled"} else result and functions["success"]()


def evaluate(expression: str, contexts: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """Return the value of an expression. Both sides of `&&` and `||` are always read. Raises UnknownError."""
    reader = _Reader(tokens(expression), contexts, {**FUNCTIONS, **(functions or {})})
    value = reader.alternatives()
    if reader.left:
        raise UnknownError(f"{expression!r}: {' '.join(reader.left)!r} is not understood")
    return value


def tokens(expression: str) -> list[str]:
    """Split an expression. Raises UnknownError at what is no part of one."""
    found, position, text = [], 0, expression.strip()
    while position < len(text):
        token = TOKEN.match(text, position)
        if token is None:
            raise UnknownError(f"{expression!r}: {text[position:]!r} is not understood")
        found.append(token[0].strip())
        position = token.end()
    return found


class _Reader:
    """Reads an expression from left to right, each method one level of precedence."""

    def __init__(self, left: list[str], contexts: Mapping[str, Any], functions: Functions) -> None:
        self.left, self.contexts, self.functions = left, contexts, functions

    def take(self, *signs: str) -> str | None:
        """Return the next token and go on, if it is one of `signs`."""
        return self.left.pop(0) if self.left and self.left[0] in signs else None

    def demand(self, sign: str) -> None:
        if self.take(sign) is None:
            raise UnknownError(f"{sign!r} is missing before {' '.join(self.left)!r}")

    def alternatives(self) -> Any:
        value = self.conjunction()
        while self.take("||"):
            other = self.conjunction()
            value = value if truth(value) else other
        return value

    def conjunction(self) -> Any:
        value = self.comparison()
        while self.take("&&"):
            other = self.comparison()
            value = other if truth(value) else value
        return value

    def comparison(self) -> Any:
        value = self.negation()
        while sign := self.take("==", "!="):
            value = equal(value, self.negation()) is (sign == "==")
        return value

    def negation(self) -> Any:
        return not truth(self.negation()) if self.take("!") else self.access()

    def access(self) -> Any:
        value = self.primary()
        while sign := self.take(".", "["):
            if sign == "[":
                value = _element(value, self.alternatives())
                self.demand("]")
            elif self.take("*"):
                value = _Filtered(value.values() if isinstance(value, dict) else value or [])
            else:
                value = _property(value, self.left.pop(0))
        return value

    def primary(self) -> Any:
        if self.take("("):
            value = self.alternatives()
            self.demand(")")
            return value
        token = self.left.pop(0) if self.left else ""
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if re.match(r"-?\d", token):
            return float(token)
        if token in LITERALS:
            return LITERALS[token]
        if self.take("("):
            if token not in self.functions:
                raise UnknownError(f"{token}() is not known here; known are {', '.join(sorted(self.functions))}")
            return self.functions[token](*self.arguments())
        if token not in self.contexts:
            raise UnknownError(f"the context {token!r} is not known here; known are {', '.join(sorted(self.contexts))}")
        return self.contexts[token]

    def arguments(self) -> list[Any]:
        values: list[Any] = []
        while not self.take(")"):
            if values:
                self.demand(",")
            values.append(self.alternatives())
        return values


def _property(value: Any, name: str) -> Any:
    if isinstance(value, _Filtered):
        return _Filtered(_property(element, name) for element in value)
    if not isinstance(value, dict):
        return None
    found = [key for key in value if key.casefold() == name.casefold()]
    if not found and isinstance(value, Strict):
        raise UnknownError(f"{name!r} is not there; there are {', '.join(sorted(value)) or 'none'}")
    return value[found[0]] if found else None


def _element(value: Any, place: Any) -> Any:
    """Return what `[place]` of a list gives: null where there is nothing."""
    if not isinstance(place, float):
        raise UnknownError(f"[{place!r}] is not understood")
    return value[int(place)] if isinstance(value, list) and int(place) < len(value) else None


def truth(value: Any) -> bool:
    """Tell whether a value counts as true: all but false, null, 0, NaN and the empty text do, and all objects."""
    return isinstance(value, dict | list) or (bool(value) and value == value)


def equal(one: Any, other: Any) -> bool:
    """Compare as `==` does: texts without regard to case, values of two kinds as numbers, objects by identity."""
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold() == other.casefold()
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return one is other
    if one is None and other is None:
        return True
    return _number(one) == _number(other)


def _number(value: Any) -> float:
    try:
        return 0.0 if value in (None, "") else float(value)
    except ValueError:
        return math.nan


def text_of(value: Any) -> str:
    """Return a value as text."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(int(value)) if value == int(value) else repr(value)
    if not isinstance(value, str):
        raise UnknownError(f"{value!r} is no text")
    return value


def join(values: Any, separator: str = ",") -> str:
    """The function of that name."""
    return separator.join(map(text_of, values)) if isinstance(values, list) else text_of(values)


def starts_with(text: Any, beginning: Any) -> bool:
    """The function startsWith, which does not regard case."""
    return text_of(text).casefold().startswith(text_of(beginning).casefold())


#: What may be called everywhere; `if:` has the functions of status besides.
FUNCTIONS: Functions = {"join": join, "startsWith": starts_with}
