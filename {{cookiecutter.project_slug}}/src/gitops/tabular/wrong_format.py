"""Columns of text that are numbers or dates in another notation: they would become categories unnoticed."""

from __future__ import annotations

import re
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv
from gitops.tabular import cells
from gitops.tabular.cells import Texts
from gitops.tabular.raw_column import Column

#: A text column of which this fraction parses as numbers, but not all, most likely has unknown missing-value markers.
MOSTLY = 0.9

#: What separates the digits of large numbers somewhere: also a typographic apostrophe and two non-breaking spaces.
THOUSANDS = (None, ",", ".", "'", "\u2019", " ", "\u00a0", "\u202f")

#: How a number begins, whatever its notation and unit.
BEGINS = re.compile(r"[^\w\s]{0,2}\s?[^\w\s]?\d")

#: A number with a unit: a sign of currency before it, or up to ten characters behind it.
UNIT = re.compile(
    r"(?P<before>[^\w\s.,'+-]?)\s*[+-]?\d(?:[\d.,'\u2019 \u00a0\u202f]*\d)?\s*(?P<after>(?:[^\d\s.,'+/:-]\S{0,9})?)"
)

#: A number in parentheses, which is how accountants write a negative one.
PARENTHESES = r"\(\s*([\d.,]+)\s*\)"

MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"

#: A date that is not written as ISO 8601: with the day or month first, without leading zeros, or with a month's name.
_YEAR = r"(\d{4}|\d{2})"
DATE = (
    rf"(?i)(\d{{1,2}}[/.-]\d{{1,2}}[/.-]{_YEAR}|\d{{4}}[/.-]\d{{1,2}}[/.-]\d{{1,2}}"
    rf"|\d{{1,2}}[ .-]*({MONTHS})[a-z]*[ .,-]*{_YEAR}|({MONTHS})[a-z]*[ .-]*\d{{1,2}}[ .,-]*{_YEAR})"
    r"([T ,]+\d{1,2}:\d{2}.*)?"
)

TIME_OF_DAY = r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(\s*[AaPp][Mm])?"

#: A column of codes has this many different numbers at most; among texts, more are quantities.
MANY = 20

#: From so many distinct values on, numbers with a word behind them are quantities; fewer are codes, as 2WD and 4WD.
QUANTITY = 5


def check(column: Column, known: pa.ChunkedArray, numbers: pa.ChunkedArray, csv: Csv) -> None:
    """Raise ProjectError where a column's known texts, not all of them numbers, are numbers or dates after all.

    `numbers`: those that are numbers as `csv` writes them, null for the others.
    """
    otherwise = pc.and_(pc.is_valid(known), pc.is_null(numbers))
    if remedy := _remedy(known, csv):
        raise ProjectError(
            f"column {column.name!r} of {column.path} holds numbers that are written otherwise than data.csv says in "
            f"{column.first(otherwise)}: {remedy}; or add {column.name!r} to data.categorical if they are codes"
        )
    if _is_date(known):
        raise ProjectError(
            f"column {column.name!r} of {column.path} holds dates that are not written as ISO 8601 in "
            f"{column.first(otherwise)}: write them as 2026-01-31 or 2026-01-31T12:00:00Z; or add {column.name!r} to "
            "data.categorical if they are codes"
        )
    if _is_time_of_day(known):
        raise ProjectError(
            f"column {column.name!r} of {column.path} holds times of a day in {column.first(otherwise)}: write them "
            f"with their date, or as a number of hours; or add {column.name!r} to data.categorical if they are codes"
        )
    numeric = 1 - pc.sum(otherwise).as_py() / (len(known) - known.null_count)
    placeholder = numeric > 0 and _is_placeholder(pc.filter(known, otherwise))
    if numeric >= MOSTLY or placeholder or _are_quantities(numbers):
        raise ProjectError(
            f"column {column.name!r} of {column.path} holds numbers, and texts in {column.first(otherwise)}: add the "
            f"texts to data.missing if they mean unknown, or {column.name!r} to data.categorical if its numbers are "
            "codes"
        )


def _is_date(texts: Texts) -> bool:
    """Tell whether all known texts of a column are dates, and not all of them in ISO 8601."""
    known = texts.drop_null()
    if not len(known) or not re.fullmatch(DATE, known[:1].to_pylist()[0]):
        return False
    return all(re.fullmatch(DATE, text) for text in pc.unique(known).to_pylist())


def _is_time_of_day(texts: Texts) -> bool:
    """Tell whether all known texts of a column are times of a day, without a date, and too many to be categories."""
    known = pc.unique(texts).drop_null()
    return bool(len(known) > MANY and pc.all(cells.matching(known, TIME_OF_DAY)).as_py())


def _are_quantities(numbers: pa.ChunkedArray) -> bool:
    """Tell whether a column's texts that are numbers are too many different ones to be codes."""
    return len(pc.unique(numbers).drop_null()) > MANY


def _is_placeholder(texts: Texts) -> bool:
    """Tell whether known texts hold no letter and no digit, such as `-`: where numbers are expected, they mean none."""
    return not pc.any(pc.match_substring_regex(pc.unique(texts).drop_null(), r"[\pL\pN]")).as_py()


def _remedy(texts: Texts, csv: Csv) -> str | None:
    """Return what to set or to change where all known texts of a column are numbers in another notation, else None."""
    first = texts.drop_null()[:1].to_pylist()
    if not first or not BEGINS.match(first[0]):
        return None
    distinct = pc.unique(texts).drop_null()
    if found := [other for other in _others(csv) if _written(distinct, other)]:
        settings = " or ".join(dict.fromkeys(_change(other, csv) for other in _likeliest(found, distinct, csv)))
        return f"set {settings}"
    if pc.any(cells.matching(distinct, PARENTHESES)).as_py():
        plain = pc.replace_substring_regex(distinct, rf"^{PARENTHESES}$", r"-\1")
        if pc.all(cells.matching(plain, cells.pattern(csv))).as_py():
            return "write negative numbers with a minus sign"
    if _has_unit(distinct):
        return "write the numbers without their unit"
    return None


def _others(csv: Csv) -> list[Csv]:
    decimals = [csv.decimal, "," if csv.decimal == "." else "."]
    return [
        csv.model_copy(update={"decimal": decimal, "thousands": thousands})
        for thousands, decimal in product(THOUSANDS, decimals)
        if thousands != decimal and (decimal, thousands) != (csv.decimal, csv.thousands)
    ]


def _written(distinct: pa.Array, csv: Csv) -> bool:
    """Tell whether all texts are numbers in a notation, and one shows what is special about it."""
    sign = csv.decimal if csv.thousands is None else csv.thousands
    special = pc.any(pc.match_substring(distinct, sign)).as_py()
    return bool(special and pc.all(cells.matching(distinct, cells.pattern(csv))).as_py())


def _likeliest(found: list[Csv], distinct: pa.Array, csv: Csv) -> list[Csv]:
    """Leave out notations with another decimal sign than `data.csv` has where no text shows that sign."""
    shown = {sign: pc.any(pc.match_substring(distinct, sign)).as_py() for sign in (".", ",")}
    likely = [other for other in found if other.decimal == csv.decimal or shown[other.decimal]]
    return sorted(likely or found, key=lambda other: other.thousands is None)


def _change(other: Csv, csv: Csv) -> str:
    changed = [
        f"data.csv.{name} to {value!r}"
        for name, value in (("decimal", other.decimal), ("thousands", other.thousands))
        if value != getattr(csv, name)
    ]
    return " and ".join(changed)


def _has_unit(distinct: pa.Array) -> bool:
    """Tell whether all texts are numbers with one and the same unit."""
    units = set()
    for text in distinct.to_pylist():
        match = UNIT.fullmatch(text)
        if match is None:
            return False
        units.add((match["before"], match["after"]))
        if len(units) > 1:
            return False
    [(before, after)] = units
    word = after.isalpha() and not before
    return bool(before) != bool(after) and len(distinct) >= (QUANTITY if word else 2)
