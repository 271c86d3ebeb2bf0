"""Names, texts and times as queries for DuckDB write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970 of a time with its zone, as DuckDB's `epoch_us` does."""
    return (moment - EPOCH) // MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return the time in UTC that is so many microseconds after the beginning of 1970."""
    return EPOCH + microseconds * MICROSECOND
