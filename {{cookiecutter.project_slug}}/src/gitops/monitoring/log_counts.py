"""What `make monitor` counts of the new lines in the log: rows, refused requests, and lines that it leaves out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gitops.monitoring.log_table import Lines
from gitops.monitoring.sql import moment, text


@dataclass
class Counted:
    """How many of the new lines are of which kind, and the times of the first and the last request."""

    rows: int = 0  # that fit the schema
    answered: int = 0  # with typed columns, whether they fit or not
    refused: int = 0
    refused_for: Counter[str | None] = field(default_factory=Counter)  # column, or None for the request: requests
    unreadable: Counter[str] = field(default_factory=Counter)  # reason: lines
    other_versions: int = 0
    too_old: int = 0
    times: list[int] = field(default_factory=list)  # the first and the last, in microseconds since 1970

    def add_times(self, *times: int | None) -> None:
        """Take times of requests into account, in microseconds since 1970."""
        found = [*self.times, *(time for time in times if time is not None)]
        self.times = [min(found), max(found)] if found else []

    def ends(self) -> tuple[str | None, str | None]:
        """Return the times of the first and the last request."""
        first, last = [moment(time).isoformat() for time in self.times] or (None, None)
        return first, last

    def add_typed(self, lines: Lines, version: str, ours: str) -> None:
        """Count the lines with typed columns. `ours`: a condition for lines of the model `version` in the window."""
        if not lines.groups:
            return
        query = lines.each("model_version, time, errors, refused_for", "line IS NULL AND new")
        same, refused = f"model_version = {text(version)}", f"({ours} AND errors IS NOT NULL)"
        (row,) = lines.connection.execute(
            f"SELECT count_if(NOT {same}), count_if({same} AND NOT ({ours})), count_if({ours} AND errors IS NULL), "
            f"count_if({refused}), epoch_us(min(time) FILTER (WHERE {refused})), "
            f"epoch_us(max(time) FILTER (WHERE {refused})) FROM ({query})"
        ).fetchall()
        other_versions, too_old, answered, count, first, last = row
        self.other_versions += other_versions or 0  # null where no line is new
        self.too_old += too_old or 0
        self.answered += answered or 0
        self.refused += count or 0
        self.add_times(first, last)
        if count:
            for column, requests in lines.rows(
                "SELECT column_name, count(*) FROM (SELECT unnest(CASE WHEN len(refused_for) = 0 THEN [''] ELSE "
                f"refused_for END) AS column_name FROM ({query}) WHERE {refused}) GROUP BY ALL"
            ):
                self.refused_for[column[1:] if column else None] += requests
