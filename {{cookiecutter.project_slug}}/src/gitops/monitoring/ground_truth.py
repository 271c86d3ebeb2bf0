"""Labelled requests: the rows of the request log, each with the label that arrived for it later.

The log is data from outside: a line that is not valid is left out and counted, never an error.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gitops.core.console import echo
from gitops.core.sections import Data
from gitops.monitoring import labels, request_ids, request_log, sql
from gitops.monitoring.log_table import Lines
from gitops.monitoring.request_ids import Key, Uses

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Labelled:
    """One labelled instance of a request by `client`; `request_hash` identifies it in data/appended.json."""

    request_hash: str
    client: str
    time: datetime
    inputs: dict[str, Any]
    label: str


@dataclass
class Found:
    """Labelled instances, the oldest first, and how many were left out, by reason."""

    rows: list[Labelled] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class _Old:
    """Labelled instances of requests that are too old to be used: those of each day, and how many were used before."""

    keys: dict[str, set[Key]] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)

    def add(self, key: Key, time: datetime) -> None:
        self.keys.setdefault(f"{time.astimezone(UTC):%Y-%m-%d}", set()).add(key)

    def counts(self) -> tuple[int, int]:
        """Return how many labels came too late, and of how many instances that were used the log has no line now."""
        days = {day: (len(self.keys.get(day, ())), self.used.get(day, 0)) for day in {*self.keys, *self.used}}
        return (
            sum(max(0, found - used) for found, used in days.values()),
            sum(max(0, used - found) for found, used in days.values()),
        )


def read(
    after: datetime | None,
    known: Container[str],
    used: Mapping[str, int] | None = None,
    data: Data | None = None,
    horizon: datetime | None = None,
) -> Found:
    """Return the labelled requests later than `after` whose hashes are not `known`; for `data` see labels.read.

    Earlier ones came too late, unless they were used: `used` counts these by day, their hashes are forgotten. What is
    older than `horizon` is not read: neither hours of the log nor files of labels. Raises ProjectError.
    """
    found, old = Found(), _Old(used=used or {})
    table, invalid = labels.read(horizon, data)
    if invalid:
        found.left_out["a label without a request or a value"] = invalid
    ids, instances, texts = (table[name].to_list() for name in ("request_id", "instance", "label"))
    by_key: dict[Key, str] = dict(zip(zip(ids, instances, strict=True), texts, strict=True))
    if not by_key or request_log.absent("REQUEST_LOG"):
        return found
    with request_log.read(horizon, old=True, state=False) as log:
        echo(request_log.summary(log.counts))
        rows, reused = _Log(log.lines, table, by_key, after, known).read(found, old)
    found.left_out = +found.left_out
    found.rows = [row for (request_id, _), row in rows.items() if request_id not in reused]
    found.rows.sort(key=lambda row: (row.time, row.request_hash))
    if left := len(rows) - len(found.rows):
        found.left_out[request_ids.REUSED] = left
    return found


class _Log:
    """The log's lines for labelled requests.

    Of an hour before `after` only ids, clients and times are read: an id that came again must be noticed, and its label
    is counted. Values are read where a row may be used.
    """

    def __init__(
        self,
        lines: Lines,
        table: pd.DataFrame,
        by_key: Mapping[Key, str],
        after: datetime | None,
        known: Container[str],
    ) -> None:
        self.lines, self.by_key, self.known = lines, by_key, known
        self.after = datetime(1, 1, 1, tzinfo=UTC) if after is None else after.astimezone(UTC)
        self.uses = Uses(by_key)
        self.missing = set(by_key)
        self.places: dict[Key, tuple[str, int]] = {}  # where in the log each row is, the first that may be used
        self.rows: dict[Key, Labelled] = {}
        lines.connection.register("given_labels", table[["request_id", "instance"]])
        lines.connection.execute("CREATE OR REPLACE TABLE labels AS FROM given_labels")

    def read(self, found: Found, old: _Old) -> tuple[dict[Key, Labelled], set[str]]:
        """Return the rows that may be used, and the ids that were sent again; count the others in `found`."""
        others = self._other_lines(found, old)
        request_ids.find_reused(self.lines, self.uses, others)
        self._typed_lines(old)
        late, gone = old.counts()
        unknown = sum(request_hash(key) not in self.known for key in self.missing) - gone
        found.left_out.update({"the label came too late": late, "the log has no request of the label": unknown})
        return self.rows, self.uses.reused

    def _other_lines(self, found: Found, old: _Old) -> set[str]:
        """Take the labelled rows of lines without typed columns, and return the labelled ids among these lines."""
        others: set[str] = set()
        for source, start, _, line in self.lines.raw():
            try:
                key, row = _row(line, self.by_key, self.uses)
            except ValueError as error:
                found.left_out[str(error)] += 1
                continue
            if key[0] in self.uses.ids:
                others.add(key[0])
            self.missing.discard(key)
            if row is not None:
                self._take(key, row.time, (source, start), old, row)
        return others

    def _take(self, key: Key, time: datetime, place: tuple[str, int], old: _Old, row: Labelled | None) -> bool:
        """Remember a row where it may be used and is the first in the log, and return whether that is so."""
        if request_hash(key) in self.known:
            return False
        if time <= self.after:
            old.add(key, time)
            return False
        if key in self.places and self.places[key] <= place:
            return False
        self.places[key] = place
        if row is not None:
            self.rows[key] = row
        return True

    def _typed_lines(self, old: _Old) -> None:
        """Take the labelled rows of lines with typed columns."""
        if not self.lines.groups:
            return
        query = self.lines.each(
            "request_id, coalesce(instance, 0) AS instance, epoch_us(time) AS time, source, start, errors IS NULL AS "
            "answered",
            "line IS NULL",
        )
        wanted = []
        for request_id, instance, time, source, start, answered in self.lines.rows(
            f"SELECT * FROM ({query}) SEMI JOIN labels USING (request_id, instance) ORDER BY source, start"
        ):
            self.missing.discard((request_id, instance))
            place = (source, start)
            if answered and self._take((request_id, instance), sql.moment(time), place, old, None):
                wanted.append(place)
        if not wanted:
            return
        self._store(wanted)
        for group in self.lines.groups:
            condition = f"time > {sql.text(self.after.isoformat())}::TIMESTAMPTZ AND (source, start) IN (FROM wanted)"
            for entry in self.lines.entries(group, condition):
                key = entry["request_id"], entry["instance"]
                if self.places[key] == (entry["source"], entry["start"]):
                    time, client = sql.moment(entry["time"]), request_ids.client(entry)
                    self.rows[key] = Labelled(request_hash(key), client, time, entry["inputs"], self.by_key[key])

    def _store(self, wanted: list[tuple[str, int]]) -> None:
        import pyarrow as pa

        sources, starts = zip(*wanted, strict=True)
        self.lines.connection.register("given_wanted", pa.table({"source": sources, "start": starts}))
        self.lines.connection.execute("CREATE OR REPLACE TABLE wanted AS FROM given_wanted")


def _row(line: bytes, by_key: Mapping[Key, str], uses: Uses) -> tuple[Key, Labelled | None]:
    """Return key and instance of a line of the log, None where it has no label. Raises ValueError with the reason."""
    try:
        entry = json.loads(line)
        key, inputs = (entry.get("request_id"), entry.get("instance", 0)), entry.get("inputs", {})
        if type(key[1]) is not int or not isinstance(inputs, dict):
            raise ValueError
        if key[0] is not None:
            uses.add(entry)
        if not inputs or key not in by_key:  # refused, or not labelled yet
            return key, None
        time = datetime.fromisoformat(entry["time"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError("not a line of a request log") from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return key, Labelled(request_hash(key), request_ids.client(entry), time, inputs, by_key[key])


def request_hash(key: Key) -> str:
    """Return the digits by which data/appended.json knows an instance of a request."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
