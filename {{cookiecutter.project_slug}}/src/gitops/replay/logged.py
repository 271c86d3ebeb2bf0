"""The requests that a replay runs: a bounded sample of the answered rows in the request log, and how many were refused.

Nothing of a row is ever part of an error or of a result: names of columns are, and numbers.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.monitoring import labels, log_entries, request_ids, request_log
from gitops.monitoring.log_table import Lines
from gitops.monitoring.request_ids import Uses
from gitops.monitoring.request_log import REDACTED
from gitops.monitoring.sql import moment, text
from gitops.tabular.columns import raised

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

#: Rows that are replayed at most, and values of them: a wide table has fewer rows. Of so many rows the share of changed
#: decisions is known to within one percentage point.
ROWS, CELLS = 10_000, 4_000_000

#: Days of the log that are read, unless there are too few rows in them, or labels, which come late.
DAYS = 1


@dataclass
class Sample:
    """Rows as they were logged, and for each one who is asked about: an id of the table's, else of the request."""

    rows: list[Row] = field(default_factory=list)
    about: list[str] = field(default_factory=list)
    days: list[date] = field(default_factory=list)  # when each was asked for, in UTC
    labels: list[str] = field(default_factory=list)  # of each, where all of them are labelled
    redacted: set[str] = field(default_factory=set)


@dataclass
class Logged:
    """What was read of the log: a sample, the labelled rows, and counts of the last `days` days."""

    days: int
    answered: int
    other_form: int  # lines that are damaged, or not as a server writes them
    refused: int  # requests, by the release that was asked
    refused_by_change: int  # those of them of which all columns at fault are others in the candidate
    sample: Sample
    labelled: Sample
    labels_problem: str | None = None


def read(settings: Params, hidden: Hidden, changed: list[str], now: datetime) -> Logged:
    """Return what is replayed. `changed`: columns that the candidate takes and the release does not, or otherwise.

    The sample has at most ROWS rows, whole requests, those whose ids have the lowest hash: of the newest DAYS days, or
    where these have fewer, or there are labels, of the last `monitor.days`. Raises ProjectError.
    """
    known, problem = _labels(settings, now)
    windows = sorted({DAYS, settings.monitor.days}) if known.empty else [settings.monitor.days]
    for days in windows:
        since = now - timedelta(days=days)
        try:
            with request_log.read(since, old=True, state=False) as log:
                found = _Window(log.lines, hidden, since).read(days, known, changed)
        except ProjectError as error:
            raise ProjectError(_without_values(error)) from None
        if found.answered >= ROWS:
            break
    found.labels_problem = problem
    return found


def _without_values(error: ProjectError) -> str:
    """Return why the log cannot be read, without what DuckDB or another library may quote of a row.

    What the operating system says, or a file system that fsspec knows, names paths.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, OSError | ImportError):
        return str(error)
    return f"REQUEST_LOG is {request_log.address('REQUEST_LOG')!r}, which cannot be used: {raised(cause)}"


@dataclass(frozen=True)
class Hidden:
    """Which values are redacted: those of `columns`, and of `no_text`, columns in which no other text is a value.

    `identity` is the column of data.id.
    """

    columns: Container[str]
    no_text: Container[str]
    identity: str | None

    def missing(self, name: str, value: Any) -> bool:
        """Tell whether a value is not logged."""
        return value == REDACTED and (name in self.columns or name in self.no_text)


def _labels(settings: Params, now: datetime) -> tuple[pd.DataFrame, str | None]:
    """Return the labels, and why there are none where they cannot be read: their errors may quote what they hold."""
    import pandas as pd

    try:
        return labels.read(now - timedelta(days=settings.monitor.days), settings.data)[0], None
    except ProjectError:
        nothing = pd.DataFrame({"request_id": [], "instance": [], "label": []})
        return nothing, "LABELS cannot be read: make monitor says why"


class _Window:
    """The lines of the log since a time."""

    def __init__(self, lines: Lines, hidden: Hidden, since: datetime) -> None:
        self.lines, self.hidden = lines, hidden
        self.recent = f"line IS NULL AND time >= {text(since.astimezone(UTC).isoformat())}::TIMESTAMPTZ"
        self.answers = f"{self.recent} AND errors IS NULL"

    def read(self, days: int, known: pd.DataFrame, changed: list[str]) -> Logged:
        if not self.lines.groups:
            return Logged(days, 0, 0, 0, 0, Sample(), Sample())
        columns = max(len(group.inputs) for group in self.lines.groups)
        limit = min(ROWS, max(1, CELLS // max(1, columns)))
        rows = self.lines.each("source, start, request_id", self.answers)
        sample = self._entries(f"SELECT source, start FROM ({rows}) ORDER BY hash(request_id), source, start", limit)
        labelled, given = self._labelled(known, limit) if len(known) else ([], {})
        (answered,) = self._count("count(*)", self.answers)
        (other,) = self._count("count(*)", "line IS NOT NULL")
        names = ", ".join(text(f"={name}") for name in changed)
        by_change = f"len(refused_for) > 0 AND list_has_all([{names}]::VARCHAR[], refused_for)"
        refusals = f"{self.recent} AND errors IS NOT NULL AND status = '400'"
        refused, refused_by_change = self._count(f"count(*), count_if({by_change})", refusals)
        samples = self._sample(sample), self._sample(labelled, given)
        return Logged(days, answered, other, refused, refused_by_change, *samples)

    def _count(self, counts: str, where: str) -> list[int]:
        """Return counts over the lines that meet a condition."""
        query = self.lines.each("refused_for", where)
        (row,) = self.lines.connection.execute(f"SELECT {counts} FROM ({query})").fetchall()
        return [int(count or 0) for count in row]

    def _entries(self, query: str, limit: int) -> list[Row]:
        """Return the lines at the places that a query names, in the log's order."""
        self.lines.connection.execute(f"CREATE OR REPLACE TABLE wanted AS {query} LIMIT {limit}")
        found = [
            entry
            for group in self.lines.groups
            for entry in self.lines.entries(group, "(source, start) IN (FROM wanted)")
        ]
        return sorted(found, key=lambda entry: (entry["source"], entry["start"]))

    def _labelled(self, known: pd.DataFrame, limit: int) -> tuple[list[Row], dict[request_ids.Key, str]]:
        """Return the labelled rows, once each and none whose id was sent again, and the label of each."""
        keys = zip(known["request_id"].to_list(), known["instance"].to_list(), strict=True)
        given = dict(zip(keys, known["label"].to_list(), strict=True))
        self.lines.connection.register("given_labels", known[["request_id", "instance"]].astype({"request_id": "str"}))
        self.lines.connection.execute("CREATE OR REPLACE TABLE labels AS FROM given_labels")
        uses, others = Uses(given), set[str]()
        for _, _, _, line in self.lines.raw():
            try:
                log_entries.tell(uses, log_entries.entry(line), others)
            except ValueError:
                continue
        request_ids.find_reused(self.lines, uses, others)
        rows = self.lines.each("source, start, request_id, coalesce(instance, 0) AS instance", self.answers)
        found = self._entries(
            "SELECT source, start FROM (SELECT *, row_number() OVER (PARTITION BY request_id, instance ORDER BY "
            f"source, start) AS place FROM ({rows}) SEMI JOIN labels USING (request_id, instance)) WHERE place = 1 "
            "ORDER BY hash(request_id), source, start",
            limit,
        )
        return [entry for entry in found if entry["request_id"] not in uses.reused], given

    def _sample(self, entries: list[Row], given: dict[request_ids.Key, str] | None = None) -> Sample:
        """Return entries of the log as a sample, without the values that are redacted."""
        found = Sample()
        for entry in entries:
            hidden = {name for name, value in entry["inputs"].items() if self.hidden.missing(name, value)}
            found.redacted |= hidden
            whom = entry["inputs"].get(self.hidden.identity)
            known = whom is not None and whom != REDACTED
            found.about.append(f"id {whom}" if known else f"request {entry['request_id']}")
            found.rows.append(entry["inputs"] | dict.fromkeys(hidden))
            found.days.append(moment(entry["time"]).date())
            if given is not None:
                found.labels.append(given[entry["request_id"], entry["instance"]])
        return found
