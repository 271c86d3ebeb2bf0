"""What the text of a cell means: a number as `data.csv` writes it, a date, or a missing value.

Training, batch, labels and the feature store read texts with these functions, so that they cannot differ.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gitops.core.sections import Csv

#: A column of texts, nulls where a value is missing.
Texts: TypeAlias = "pa.Array | pa.ChunkedArray"

#: Texts that `float` reads as infinite.
INFINITE = r"[+-]?(?i:inf|infinity)"

ISO_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"

#: A time with its zone.
ZONED = r"[T ]\d{2}:.*(Z|[+-]\d{2}(:?\d{2})?)$"

#: The first and the last second that Python's datetime and ISO 8601 with four digits have, since 1970.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799

#: How a CSV file is written if nobody says otherwise.
DEFAULT = Csv(delimiter=",", decimal=".", thousands=None, encoding="utf-8")


def dtype(type_: pa.DataType) -> str | None:
    """Return the dtype of values of one of Arrow's types, None where it has none; text is a category."""
    types = pa.types
    if isinstance(type_, pa.DictionaryType):
        type_ = type_.value_type
    if types.is_boolean(type_):
        return "boolean"
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_) or types.is_null(type_):
        return "number"
    if types.is_timestamp(type_) or types.is_date(type_):
        return "datetime"
    return "category" if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_) else None


def pattern(csv: Csv) -> str:
    """Return the regular expression of a finite number, for Python's `re` (ASCII) and for Arrow's RE2."""
    whole = r"\d+"
    if csv.thousands is not None:  # digits in threes; a number may do without the separator
        whole = rf"(?:[1-9]\d{{0,2}}(?:{re.escape(csv.thousands)}\d{{3}})+|\d+)"
    point = re.escape(csv.decimal)
    return rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"


def number(text: str, csv: Csv = DEFAULT) -> float | None:
    """Return the finite number that a stripped text is, None where it is none."""
    found = float(_plain(text, csv)) if re.fullmatch(pattern(csv), text, re.ASCII) else math.inf
    return found if math.isfinite(found) else None


def csv_of(schema: dict[str, Any]) -> Csv:
    """Return how the table was written from which a schema was made; those of earlier releases do not say it."""
    return Csv(**schema["csv"]) if "csv" in schema else DEFAULT


def _plain(text: str, csv: Csv) -> str:
    return text.replace(csv.thousands or "\0", "").replace(csv.decimal, ".")


def known(texts: Texts, markers: list[str] | frozenset[str]) -> Texts:
    """Return stripped texts, null where one is missing or a marker of missing values."""
    stripped = pc.utf8_trim_whitespace(texts) if _may_be_padded(texts) else texts
    missing = pc.is_in(stripped, pa.array(sorted(markers), stripped.type))
    return pc.if_else(missing, pa.scalar(None, stripped.type), stripped)


def _may_be_padded(texts: Texts) -> bool:
    """Tell whether texts hold a space of any kind, or what is no ASCII: stripping takes as long as parsing numbers."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    bytes_ = [np.frombuffer(data, np.int8) for chunk in chunks if (data := chunk.buffers()[2]) is not None]
    return any(len(each) and each.min() <= ord(" ") for each in bytes_)


def matching(texts: Texts, expression: str) -> Texts:
    """Return which texts match the whole expression; null for null."""
    return pc.match_substring_regex(texts, f"^(?:{expression})$")


def numbers(texts: Texts, csv: Csv = DEFAULT) -> Texts:
    """Return stripped texts as float64: infinite where one says so or is too large, null where it is no number."""
    if csv.decimal == "." and csv.thousands is None:
        try:
            found = texts.cast(pa.float64())
        except pa.ArrowInvalid:
            pass
        else:
            nan = pc.is_nan(found)
            return pc.if_else(nan, pa.scalar(None, pa.float64()), found) if pc.any(nan).as_py() else found
    fits = matching(texts, f"{pattern(csv)}|{INFINITE}")
    plain = pc.if_else(fits, texts, pa.scalar(None, texts.type))
    if csv.thousands is not None:
        plain = pc.replace_substring(plain, csv.thousands, "")
    return pc.replace_substring(plain, csv.decimal, ".").cast(pa.float64())


def datetimes(texts: Texts) -> Texts:
    """Return ISO 8601 texts as timestamps in microseconds, UTC where one names no zone; null where it is no date."""
    zoned = pc.match_substring_regex(texts, ZONED)
    null = pa.scalar(None, texts.type)
    utc = pa.timestamp("us", "UTC")
    try:
        local = pc.if_else(zoned, null, texts).cast(pa.timestamp("us")).cast(utc)
        found = pc.coalesce(local, pc.if_else(zoned, texts, null).cast(utc))
    except pa.ArrowInvalid:  # a date that is none, or written as only Python reads it
        distinct = pc.unique(texts).drop_null()
        moments = pa.array([_moment(text) for text in distinct.to_pylist()], utc)
        found = pc.take(moments, pc.index_in(texts, distinct))
    seconds = pc.floor_temporal(found, unit="second").cast(pa.timestamp("s", "UTC")).cast(pa.int64())
    fits = pc.and_(pc.greater_equal(seconds, FIRST_SECOND), pc.less_equal(seconds, LAST_SECOND))
    return pc.if_else(fits, found, pa.scalar(None, utc))


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
