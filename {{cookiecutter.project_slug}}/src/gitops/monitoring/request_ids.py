"""Who sent the requests in the log, and which ids of labelled requests were sent again.

Ids come from clients. If one sends an id of another with inputs of its own, the owner's label could count for these
inputs: such an id stands for neither request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

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
