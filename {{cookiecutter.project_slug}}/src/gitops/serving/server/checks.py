"""Which requests of a batch fit the schema, and what is wrong with the others."""

from __future__ import annotations

from itertools import islice
from typing import Any

from gitops.serving.server.messages import Problem
from gitops.tabular.columns import Columns, Row
from gitops.tabular.request_rows import RowError, check_row, check_rows

#: Errors listed in one answer.
MAX_ERRORS = 100


def check_batch(
    requests: list[tuple[list[Any], list[Problem]]], schema: dict[str, Any]
) -> tuple[list[tuple[list[Row], list[Problem]]], Columns | None]:
    """Return what `check` returns for each request, and the columns of all rows, if the rows could be checked at once.

    Only if that fails, the requests go one by one, and a bad one row by row, to find what is wrong.
    """
    if (found := check_rows([row for instances, _ in requests for row in instances], schema)) is not None:
        rows = iter(found[0])
        return [([*islice(rows, len(instances))], problems) for instances, problems in requests], found[1]
    if len(requests) > 1:
        return [checked for request in requests for checked in check_batch([request], schema)[0]], None
    return [check(*request, schema) for request in requests], None


def check(instances: list[Any], problems: list[Problem], schema: dict[str, Any]) -> tuple[list[Row], list[Problem]]:
    """Return the instances as checked rows, or the `problems` found before and those of the instances."""
    rows, problems = [], problems[:]
    for index, instance in enumerate(instances):
        try:
            rows.append(check_row(index, instance, schema))
        except RowError as error:
            problems.append({"instance": error.index, "column": error.column, "error": str(error)})
            if len(problems) == MAX_ERRORS:
                break
    return ([], problems) if problems else (rows, [])
