"""Who sent the requests that a retraining appends, and whether a person must look at them before they are merged.

Whoever may send requests may choose rows of the next table. So data/appended.json counts the appended rows that nobody
has looked at, by day and client, until they are more than `retrain.max_logged` of the table: then the pull request is a
draft that lists them, and to merge it is to have looked. Small retrainings add up like that.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Any

from gitops.core.params import Params
from gitops.monitoring.ground_truth import Labelled
from gitops.monitoring.request_ids import network as network

#: Rows by day and client.
Counts = dict[str, dict[str, int]]


def add(counts: Counts, requests: Iterable[Labelled]) -> Counts:
    """Return the counts with those of `requests` added."""
    grown = {day: {**clients} for day, clients in counts.items()}
    for request in requests:
        clients = grown.setdefault(f"{request.time.astimezone(UTC):%Y-%m-%d}", {})
        name = network(request.client)
        clients[name] = clients.get(name, 0) + 1
    return {day: dict(sorted(clients.items())) for day, clients in sorted(grown.items())}


def summary(counts: Counts, appended: int, rows: int, settings: Params) -> dict[str, Any]:
    """Return what the report says of the rows that nobody has looked at, `appended` of them now, in a table of `rows`.

    `clients` (day, client, rows; the most rows first), `unreviewed` rows and `review`: why a person must look at them,
    or an empty text.
    """
    listed = [(day, name, number) for day, clients in counts.items() for name, number in clients.items()]
    unreviewed, limit = sum(number for *_, number in listed), settings.retrain.max_logged
    earlier = f", {unreviewed - appended} of them before," if unreviewed > appended else ""
    review = (
        f"{unreviewed} of the table's {rows} rows ({unreviewed / rows:.1%}) came as requests{earlier} and were in no "
        f"draft yet; retrain.max_logged is {limit:g}"
    )
    return {
        "clients": sorted(listed, key=lambda entry: (-entry[2], *entry)),
        "unreviewed": unreviewed,
        "table_rows": rows,
        "review": review if unreviewed > limit * rows else "",
    }
