"""Labels that arrive after the predictions, and the requests that they belong to.

Log and labels are data from outside: a line or row that is not valid is left out and counted, never an error.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gitops.core.artifacts import ProjectError
from gitops.monitoring import request_log
from gitops.monitoring.request_log import REDACTED, Key

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Labelled:
    """One labelled instance; `request_hash` identifies it in data/appended.json."""

    request_hash: str
    time: datetime
    inputs: dict[str, Any]
    label: str


@dataclass
class Found:
    """Labelled instances, the oldest first, and how many were left out, by reason."""

    rows: list[Labelled] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read(after: datetime | None, known: Container[str]) -> Found:
    """Return the labelled requests later than `after` whose hashes are not `known`. Raises ProjectError."""
    found = Found()
    table, invalid = labels()
    if invalid:
        found.left_out["a label without a request or a value"] = invalid
    ids, instances, texts = (table[name].to_list() for name in ("request_id", "instance", "label"))
    by_key: dict[Key, str] = dict(zip(zip(ids, instances, strict=True), texts, strict=True))
    if not by_key or request_log.absent("REQUEST_LOG"):
        return found
    seen: set[str] = set()
    with request_log.opened("REQUEST_LOG") as folder:
        for _, content in folder.contents((".jsonl",)):
            for line in content.splitlines():
                try:
                    row = _row(line, by_key)
                except ValueError as error:
                    found.left_out[str(error)] += 1
                    continue
                if row is None or row.request_hash in seen or row.request_hash in known:
                    continue
                if after is not None and row.time <= after:
                    found.left_out["the label came too late"] += 1
                    continue
                seen.add(row.request_hash)
                found.rows.append(row)
    found.rows.sort(key=lambda row: (row.time, row.request_hash))
    return found


def _row(line: bytes, by_key: dict[Key, str]) -> Labelled | None:
    """Return the instance of a line of the log, or None where it has no label. Raises ValueError with the reason."""
    try:
        entry = json.loads(line)
        inputs, key = entry.get("inputs"), (entry.get("request_id"), entry.get("instance", 0))
        if inputs is None or key not in by_key:  # refused, or not labelled yet
            return None
        time = datetime.fromisoformat(entry["time"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError("not a line of a request log") from None
    if not isinstance(inputs, dict):
        raise ValueError("not a line of a request log")
    if REDACTED in inputs.values():
        raise ValueError("a value is redacted")
    request_hash = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return Labelled(request_hash, time if time.tzinfo else time.replace(tzinfo=UTC), inputs, by_key[key])


def labels(since: datetime | None = None) -> tuple[pd.DataFrame, int]:
    """Return the labels, and how many rows are invalid because they lack the request or the value.

    The table has the columns `request_id`, `instance` and `label`, a text. Of two labels for one instance that of the
    later file counts, and within a file the later row. Files last written before `since` are left out. Raises
    ProjectError naming a file that lacks one of the columns.
    """
    import pandas as pd

    tables = [pd.DataFrame({"request_id": [], "instance": [], "label": []}).astype({"instance": int})]
    rows = 0
    if not request_log.absent("LABELS"):
        with request_log.opened("LABELS") as folder:
            for name, content in folder.contents((".parquet", ".csv"), since):
                table = _table(name, content)
                rows += len(table)
                tables.append(_valid(table))
    found = pd.concat(tables[1:] or tables)
    invalid = rows - len(found)
    return found.drop_duplicates(["request_id", "instance"], keep="last", ignore_index=True), invalid


def _table(name: str, content: bytes) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name.endswith(".parquet"):
        # No file object, for the reason in artifacts.read_parquet.
        table: pd.DataFrame = pq.read_table(pa.BufferReader(content)).to_pandas()
    else:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if missing := {"request_id", "label"} - {*table.columns}:
        raise ProjectError(f"labels in {name} have no column {' and no column '.join(sorted(missing))}")
    return table


def _valid(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that name a request and have a label."""
    import pandas as pd

    text = table["label"].astype(str).str.strip()
    if pd.api.types.is_float_dtype(table["label"]):  # whole numbers with gaps: 7.0 is the class 7, as in table.py
        text = text.str.removesuffix(".0")
    ids = table["request_id"].astype(str)
    instance = table["instance"] if "instance" in table else pd.Series(0, table.index)
    index = pd.to_numeric(instance.replace("", 0).fillna(0), errors="coerce")
    known = table["request_id"].notna() & table["label"].notna() & ids.ne("") & text.ne("")
    found = pd.DataFrame({"request_id": ids, "instance": index, "label": text})[known & index.between(0, 10**9)]
    return found.astype({"instance": int})
