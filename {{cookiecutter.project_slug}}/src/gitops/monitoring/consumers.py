"""Who asks the service: requests by client, of the last `monitor.days` days of the request log.

    python -m gitops.monitoring.consumers

writes monitoring/consumers.json, for `make debts`: {"days": int, "clients": {name: requests} | null}, null where there
is no request log. A client is its X-Client-Id, and where it sends none the network of its address, never the address:
reports may be public.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from gitops.core import artifacts, params
from gitops.monitoring import log_entries, request_log
from gitops.monitoring.request_ids import client, network


def main() -> None:
    """Write the counts. Raises ProjectError where the log is set and cannot be read."""
    days = params.load().monitor.days
    found = None if request_log.absent("REQUEST_LOG") else count(datetime.now(UTC) - timedelta(days=days))
    artifacts.write_json(artifacts.MONITOR_CONSUMERS, {"days": days, "clients": found})


def count(since: datetime) -> dict[str, int]:
    """Return the logged answers and refusals since a time by client, most first. Raises ProjectError."""
    counts: Counter[str] = Counter()
    with request_log.read(since, old=True, state=False) as log:
        if log.lines.groups:
            recent = f"line IS NULL AND time >= TIMESTAMPTZ '{since.isoformat()}'"
            query = log.lines.each("coalesce(client, 'unknown') AS client", recent)
            for name, number in log.lines.rows(f"SELECT client, count(*) FROM ({query}) GROUP BY client"):
                counts[network(name)] += number
        for entry in log_entries.each(log.lines, Counter()):
            if entry["time"] >= since:
                counts[network(client(entry))] += 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


if __name__ == "__main__":
    artifacts.run(main)
