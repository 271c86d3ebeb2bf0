"""Who sent the requests in the log, and which ids of labelled requests were sent again.

Ids come from clients. If one sends an id of another with inputs of its own, the owner's label could count for these
inputs: such an id stands for neither request.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gitops.monitoring.log_table import Lines

#: Request id, and the index of the instance in the request.
Key = tuple[str, int]

CLIENT = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

#: The client of a line that names none, or none that is well-formed.
UNKNOWN = "unknown"

#: Why a labelled request is left out.
REUSED = "the request id was sent again, with other values or by another client"


def client(entry: dict[str, Any]) -> str:
    """Return who sent the request of a line of the log: an id, an address, or UNKNOWN."""
    name = entry.get("client")
    return name if isinstance(name, str) and CLIENT.fullmatch(name) else UNKNOWN


def network(client: str) -> str:
    """Return a client's id as it is, and of an address the network only: a repository may be public."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


class Uses:
    """What labelled requests were sent with, and by whom; `reused` has the ids that cannot be trusted."""

    def __init__(self, labelled: Iterable[Key]) -> None:
        self.ids = {request_id for request_id, _ in labelled}
        self.reused: set[str] = set()
        self._first: dict[tuple[str, int | None], str] = {}

    def add(self, entry: dict[str, Any]) -> None:
        """Take note of a line of the log, of a refused request too: it may be the one that the label is for."""
        request_id = entry["request_id"]
        if request_id not in self.ids:
            return
        sent = {None: client(entry)}
        if "inputs" in entry:
            try:
                text = json.dumps(entry["inputs"], sort_keys=True)
            except RecursionError:  # fits no schema
                return
            sent[entry.get("instance", 0)] = hashlib.sha256(text.encode()).hexdigest()
        if any(self._first.setdefault((request_id, of), value) != value for of, value in sent.items()):
            self.reused.add(request_id)


def find_reused(lines: Lines, uses: Uses, others: set[str]) -> None:
    """Let `uses` know the lines with typed columns. DuckDB's table `labels` has the labelled requests.

    `others`: ids of lines of another form that `uses` was told of. Values are compared in Python, where an id has come
    more than once with the same instance; who sent an id, by DuckDB.
    """
    if not lines.groups:
        return
    connection = lines.connection
    typed = lines.each("request_id, instance, coalesce(client, 'unknown') AS client", "line IS NULL")
    connection.execute(f"CREATE OR REPLACE TABLE sent AS FROM ({typed}) SEMI JOIN labels USING (request_id)")
    clients = "SELECT request_id FROM sent GROUP BY request_id HAVING min(client) <> max(client)"
    uses.reused.update(request_id for (request_id,) in lines.rows(clients))
    connection.execute("CREATE OR REPLACE TABLE others (request_id VARCHAR)")
    known = [[request_id] for request_id in sorted(others) if request_id.isascii()]
    if known:
        connection.executemany("INSERT INTO others VALUES (?)", known)
    for request_id, name in lines.rows(
        "SELECT DISTINCT request_id, client FROM sent SEMI JOIN others USING (request_id)"
    ):
        uses.add({"request_id": request_id, "client": name})
    connection.execute("""
        CREATE OR REPLACE TABLE doubles AS
        SELECT request_id, instance FROM sent WHERE instance IS NOT NULL GROUP BY ALL
        HAVING count(*) > 1 OR request_id IN (FROM others)""")
    ((number,),) = connection.execute("SELECT count(*) FROM doubles").fetchall()
    for group in lines.groups if number else []:
        for entry in lines.entries(group, "(request_id, instance) IN (FROM doubles)"):
            uses.add(entry)
