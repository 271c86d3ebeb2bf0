"""Whose data is erased: a person's, named by a value of `data.id`, or a request's, named by its id.

The id is data: it is compared, and is no part of a command, of a query or of a report.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.monitoring.ground_truth import request_hash
from gitops.tabular import dtypes
from gitops.tabular.raw_column import Column

#: The instances of a request that are looked for in the table, at most.
INSTANCES = 100_000


@dataclass(frozen=True)
class Subject:
    """An id as the table's texts are: without spaces around it."""

    value: str
    column: str | None  # data.id; None: `value` is the id of a request

    @cached_property
    def hashes(self) -> frozenset[str]:
        """The hashes by which data/appended.json and the parts of the table know the request's instances."""
        if self.column is not None:
            return frozenset()
        return frozenset(request_hash((self.value, instance)) for instance in range(INSTANCES))

    @cached_property
    def word(self) -> re.Pattern[str]:
        """The id as a word in a text, however that quotes it."""
        ways = {self.value, repr(self.value)[1:-1], json.dumps(self.value)[1:-1]}
        ways.add(json.dumps(self.value, ensure_ascii=False)[1:-1])
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(ways)))})(?!\w)")

    @cached_property
    def trace(self) -> re.Pattern[bytes]:
        """What the bytes of a JSON text hold that names the id: itself, an escape, or a number with an exponent."""
        return re.compile(rb"\\|\d[eE]|" + re.escape(self.value.encode()))

    def among(self, values: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Return which values of a column, of any type that a table has, are the id. Raises ProjectError for others."""
        texts = dtypes.texts(dtypes.plain(Column(str(self.column), values, "a table", None)).values, [])
        found: NDArray[np.bool_] = pa.compute.equal(texts, self.value).fill_null(False).to_numpy()
        return found

    def equals(self, value: Any) -> bool:
        """Tell whether a value out of JSON, or the text of a cell, is the id."""
        text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
        return value is not None and text.strip() == self.value

    def named(self, text: str) -> bool:
        """Tell whether a text holds the id as a word."""
        return self.word.search(text) is not None


def of(value: str, data: Data, *, request: bool = False) -> Subject:
    """Return the subject with this id: of `data.id`, or of a request if that is said or the table has no ids.

    Raises ProjectError for what cannot be an id.
    """
    stripped = value.strip()
    if not stripped:
        raise ProjectError("ID is not set: whose data is to be erased? As in `make erase ID=...`")
    try:
        stripped.encode()
    except UnicodeEncodeError:
        raise ProjectError("ID is not UTF-8: the table's texts are") from None
    if request or data.id is None:
        return Subject(stripped, None)
    if stripped in data.missing:
        raise ProjectError("ID is a text of data.missing: rows with it name nobody")
    return Subject(stripped, data.id)
