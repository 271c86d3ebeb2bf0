"""Online features: the features that requests leave out are looked up by an entity's id, in one call for each batch.

The handler imports this module if FEATURE_SERVER names a feature server (gitops/feature_store/feature_server.py).
feature_view.json in the model archive names the entity and the features that the server has.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

#: Seconds after which a look-up without an answer fails, and seconds before the next one: the whole batch waits for it.
TIMEOUT, RETRY_INTERVAL = 2.0, 1.0

#: Problems listed in one answer.
MAX_PROBLEMS = 100

#: Longer ids are refused.
MAX_ID = 100

#: The timestamp of a value that is not in the store. Feast also has a status for this, but with Redis every value is
#: "present". A column that was never written has the row's timestamp there, and is null, which no stored value is.
NEVER = "1970-01-01T00:00:00Z"

#: How the store encodes some values (gitops/feature_store/feature_store.py).
TEXTS: dict[str, dict[str, Any]] = {
    "number": {"Infinity": None},
    "boolean": {"true": True, "false": False, " ": None},
    "datetime": {" ": None},
    "category": {" ": None},
}

Instances = list[Any]
Problem = dict[str, Any]
Found = tuple[dict[str, Any], set[str]]  # each feature's value, and the timestamps of all

log = logging.getLogger(__name__)


class OnlineFeatures:
    """Completes instances that give the entity's id instead of features."""

    def __init__(self, address: str, view: dict[str, Any], schema: dict[str, Any]) -> None:
        """Look up those of the model's features that the server at `address`, http://HOST:PORT, has."""
        self.url = f"{address.rstrip('/')}/get-online-features"
        self.entity, self.service, self.days = view["entity"], view["service"], view["ttl_days"]
        self.dtypes = view["features"]
        self.features = [feature["name"] for feature in schema["features"] if feature["name"] in view["features"]]
        self.wanted = frozenset(self.features)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ignores HTTP_PROXY
        self.retry_at = 0.0  # when the server may be asked again

    def complete(self, requests: list[tuple[Instances, list[Problem]]]) -> list[tuple[Instances, list[Problem]]]:
        """Return the requests with the missing features filled in, or with the problems found.

        A feature that an instance gives itself is kept, and an instance without an id stays as it is. If the server
        does not answer, only requests that need it are refused, with `status` 503 in the problem.
        """
        ids = {self._id(row) for rows, _ in requests for row in rows if self._lacks(row)}
        known = self._look_up(sorted(entity for entity in ids if entity))
        return [(rows, problems) if problems else self._fill(rows, known) for rows, problems in requests]

    def _lacks(self, row: Any) -> bool:
        """Tell whether an instance gives an id and lacks a feature."""
        return isinstance(row, dict) and self.entity in row and not row.keys() >= self.wanted

    def _id(self, row: dict[str, Any]) -> str:
        """Return the id in an instance as the store has it, or an empty text if it is not valid."""
        given = row[self.entity]
        if isinstance(given, int) and not isinstance(given, bool) and abs(given) < 10**18:
            return str(given)
        text = given.strip() if isinstance(given, str) else ""
        return text if len(text) <= MAX_ID else ""

    def _look_up(self, ids: list[str]) -> dict[str, Found] | None:
        """Return the features of the ids, or None if the server does not answer."""
        if not ids:
            return {}
        if time.monotonic() < self.retry_at:
            return None
        try:
            return self._ask(ids)
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            log.warning("%s gave no features: %r", self.url, error)
            self.retry_at = time.monotonic() + RETRY_INTERVAL
            return None

    def _ask(self, ids: list[str]) -> dict[str, Found]:
        question = {"feature_service": self.service, "entities": {self.entity: ids}}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url, json.dumps(question).encode(), headers)
        with self.opener.open(request, timeout=TIMEOUT) as response:
            answer = json.load(response)
        columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
        found, times = [], []
        for name in self.features:
            values, moments = columns[name]["values"], columns[name]["event_timestamps"]
            found.append(self._column(name, values))
            times.append([NEVER if value is None else since for value, since in zip(values, moments, strict=True)])
        rows = zip(ids, zip(*found, strict=True), zip(*times, strict=True), strict=True)
        return {entity: (dict(zip(self.features, values, strict=True)), {*since}) for entity, values, since in rows}

    def _column(self, name: str, values: list[Any]) -> list[Any]:
        """Return a column as requests would give it. Raises ValueError for an invalid boolean."""
        dtype = self.dtypes[name]
        texts = TEXTS[dtype]
        if dtype == "boolean" and not all(value is None or value in texts for value in values):
            raise ValueError(f"a value of {name!r} is not a boolean")  # the value is not for the log
        return [texts.get(value, value) for value in values]

    def _fill(self, rows: Instances, known: dict[str, Found] | None) -> tuple[Instances, list[Problem]]:
        filled, problems = [], []
        for index, row in enumerate(rows):
            if self._lacks(row):
                entity = self._id(row)
                if entity and known is None:
                    return [], [_unavailable()]
                values, times = (known or {}).get(entity, ({}, set()))
                if error := self._wrong(entity, values, times):
                    problems.append({"instance": index, "column": self.entity, "error": f"instance {index}: {error}"})
                    continue
                row = values | row
            if isinstance(row, dict) and self.entity in row and row.keys() >= self.wanted:
                row = row.copy()
                del row[self.entity]
            filled.append(row)
        return ([], problems[:MAX_PROBLEMS]) if problems else (filled, [])

    def _wrong(self, entity: str, values: dict[str, Any], times: set[str]) -> str:
        if not entity:
            return f"column {self.entity!r} is not a valid id: a text of 1 to {MAX_ID} characters is expected"
        nothing = f"the feature store has no features of {self.entity} {entity!r}"
        if NEVER in times or all(value is None for value in values.values()):
            return nothing if times == {NEVER} else f"{nothing}, or not all of them"
        if self.days is not None:
            # Feast applies the time to live in training only.
            oldest = datetime.now(UTC) - timedelta(days=self.days)
            if any(datetime.fromisoformat(since) < oldest for since in times):
                return f"{nothing} of the last {self.days:g} days, and older ones are not used"
        return ""


def _unavailable() -> Problem:
    error = "the feature server does not answer: try again, or send the features themselves"
    return {"instance": None, "column": None, "error": error, "status": HTTPStatus.SERVICE_UNAVAILABLE}
