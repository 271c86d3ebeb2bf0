"""The window of `make monitor`: the release's rows since the last evaluated run, counted, checked and sampled.

DuckDB passes over the log a few times. Python sees typed columns in parts of ROWS rows, and other lines one by one, so
the window may be much larger than memory.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gitops.core.artifacts import GROUP
from gitops.monitoring import log_entries, quality, request_ids, tables
from gitops.monitoring.log_counts import Counted
from gitops.monitoring.log_table import Lines
from gitops.monitoring.quality import Counts, Quality
from gitops.monitoring.request_ids import Uses
from gitops.monitoring.sql import microseconds, text
from gitops.monitoring.valid_rows import Rows, redacted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Schema = dict[str, Any]

#: Rows of the window that Python takes at a time.
ROWS = 65_536

#: Lines of another form than the server's that are checked together.
TOGETHER = 10_000

#: The labelled rows' column with the feature that today's way decides by (value/today.py); the others have fixed names
#: or begin with `p_`.
RULE = "rule"


class Window:
    """Lines of the model `version` since a time, which are read when it is made."""

    def __init__(
        self,
        lines: Lines,
        schema: Schema,
        version: str,
        since: datetime,
        redact: list[str],
        labels: pd.DataFrame,
        rule: str | None = None,
    ) -> None:
        """`labels` as labels.read returns them; `redact` is the release's setting; `rule`: a column that the labelled
        rows keep, where requests give it.
        """
        self.lines, self.schema, self.version, self.since = lines, schema, version, since
        self.rule = rule if rule not in redact else None
        self.counts = Counted()
        lines.connection.register("given_labels", labels)
        lines.connection.execute(
            "CREATE OR REPLACE TABLE labels AS SELECT request_id::VARCHAR AS request_id, instance::BIGINT AS "
            "instance, label FROM given_labels"
        )
        self.uses = Uses(zip(labels["request_id"], labels["instance"], strict=True))
        start = text(since.astimezone(UTC).isoformat())
        self.ours = f"model_version = {text(version)} AND time >= {start}::TIMESTAMPTZ"
        hidden, others = self._other_lines(redact)
        request_ids.find_reused(lines, self.uses, others)
        self.counts.add_typed(lines, version, self.ours)
        self.redacted = tables.with_derived(hidden | redacted(lines, redact, schema, self.ours), schema)
        where = f"{self.ours} AND (new OR (request_id, instance) IN (SELECT (request_id, instance) FROM labels))"
        self.rows = Rows(lines, schema, self.redacted, where if len(labels) else f"{self.ours} AND new")
        self._add_other_rows()

    def _other_lines(self, redact: list[str]) -> tuple[set[str], set[str]]:
        """Count the lines without typed columns; return the features redacted, and the labelled ids, in them."""
        hidden: set[str] = set()
        others: set[str] = set()
        for entry in log_entries.each(self.lines, self.counts.unreadable):
            log_entries.tell(self.uses, entry, others)
            if not entry["new"]:
                continue
            if entry["model_version"] != self.version:
                self.counts.other_versions += 1
            elif entry["time"] < self.since:
                self.counts.too_old += 1
            elif "inputs" not in entry:
                self.counts.refused += 1
                self.counts.refused_for.update(log_entries.refused_for(entry))
                self.counts.add_times(microseconds(entry["time"]))
            else:
                hidden |= tables.redacted_features([entry], redact, self.schema)
        return hidden, others

    def _add_other_rows(self) -> None:
        """Check the rows without typed columns, and add those that fit the schema to the others."""
        entries: list[log_entries.Entry] = []
        for entry in log_entries.each(self.lines, Counter()):
            if entry["model_version"] == self.version and entry["time"] >= self.since and "inputs" in entry:
                entries.append(entry)
            if len(entries) == TOGETHER:
                self._check_rows(entries)
                entries = []
        self._check_rows(entries)

    def _check_rows(self, entries: list[log_entries.Entry]) -> None:
        everything = {feature["name"] for feature in self.schema["features"] if feature["name"] != self.rule}
        new, old = ([entry for entry in entries if entry["new"] is which] for which in (True, False))
        rows = tables.valid(new, self.schema, self.redacted, self.counts.unreadable)
        rows += tables.valid(old, self.schema, everything | self.redacted, Counter())
        self.rows.add(map(log_entries.storable, rows))

    def read(self) -> tuple[pd.DataFrame, pd.DataFrame, Quality]:
        """Return features and outputs of at most quality.SAMPLE of the new rows, and the counts of all of them.

        The rows of a larger window are those whose hash of request id, instance and place in the log is lowest.
        """
        import pyarrow as pa

        names = ", ".join(self.rows.types)
        connection = self.lines.connection
        ((others,),) = connection.execute("SELECT count(*) FROM others_rows WHERE new").fetchall()
        share = quality.SAMPLE / max(1, self.counts.answered + others)
        chosen = "true" if share >= 1 else f"drawn < {int(share * 2**64)}::UBIGINT"
        reader = connection.sql(
            f"SELECT hash(request_id, instance, source, start) AS drawn, {chosen} AS chosen, "
            f"CASE WHEN chosen THEN source END AS source, start, time, reason, {names} "
            f"FROM ({self.rows.query()}) WHERE new"
        ).to_arrow_reader(ROWS)
        counts, kept = Counts(self.schema["features"]), [reader.schema.empty_table()]
        for batch in reader:
            part = self._fitting(pa.Table.from_batches([batch]))
            if part.num_rows:
                counts.add(self._stored(part))
                kept.append(part.filter(part["chosen"]))
        sample = pa.concat_tables(kept).sort_by("drawn").slice(0, quality.SAMPLE)
        sample = sample.sort_by([("source", "ascending"), ("start", "ascending")])
        self.counts.rows = counts.rows
        return self._features(sample), self._outputs(sample.to_pandas()), counts.result()

    def _stored(self, part: pa.Table) -> pa.Table:
        """Return the features of a part of the rows in the form that quality.py counts."""
        import pyarrow as pa

        if any(feature.get("derived") for feature in self.schema["features"]):  # the project's function computes them
            return pa.Table.from_pandas(self._features(part), preserve_index=False)
        columns = [part[f"f{place}"] for place in range(len(self.rows.features))]
        return pa.table(columns, names=[feature["name"] for feature in self.rows.features])

    def _fitting(self, part: pa.Table) -> pa.Table:
        """Return the rows of a part that fit, and count the others."""
        import pyarrow.compute as pc

        if part["reason"].null_count < part.num_rows:
            for found in pc.value_counts(part["reason"].drop_null()).to_pylist():
                self.counts.unreadable[self.rows.reasons[found["values"]]] += found["counts"]
            part = part.filter(pc.is_null(part["reason"]))
        if part.num_rows:
            ends = pc.min_max(part["time"]).as_py()
            self.counts.add_times(ends["min"], ends["max"])
        return part

    def _features(self, part: pa.Table) -> pd.DataFrame:
        """Return the features of a part of the rows, the derived ones too."""
        import torch

        columns: dict[str, Any] = {}
        for place, feature in enumerate(self.rows.features):
            values = part[f"f{place}"]
            if feature["dtype"] == "category":
                columns[feature["name"]] = values.to_pylist()
            else:
                columns[feature["name"]] = torch.from_numpy(values.to_numpy().copy())
        return tables.frame(columns, part.num_rows, self.schema, self.redacted)

    def _outputs(self, rows: pd.DataFrame) -> pd.DataFrame:
        names = tables.output_names(self.schema)
        found = rows[[f"o{place}" for place in range(len(names))]]
        return found.set_axis(names, axis=1).reset_index(drop=True)

    def requests(self) -> int:
        """Return how many requests the new rows are of. An id that was sent again is another request with the same id.

        A request leaves a line for each of its instances, of which any may be missing because it cannot be read.
        """
        query = self.rows.query()
        (row,) = self.lines.connection.execute(
            f"SELECT sum(sent) FROM (SELECT max(lines) AS sent FROM (SELECT hash(request_id) AS id, instance, "
            f"count(*) AS lines FROM ({query}) WHERE new AND reason IS NULL GROUP BY ALL) GROUP BY id)"
        ).fetchall()
        return int(row[0] or 0)

    def labelled(self) -> pd.DataFrame:
        """Return the outputs of the labelled rows with their `target`, those evaluated before among them.

        Each instance is there once, and none whose id was sent again: a label would count for all that sent the id.
        Rows that gave the same data.id are a group, any other row is one by itself. The column `rule`
        is there as RULE, where requests give it and it is not redacted.
        """
        import pandas as pd

        connection = self.lines.connection
        reused = pd.DataFrame({"request_id": sorted(map(log_entries.unicode, self.uses.reused))}, dtype="object")
        connection.register("given_reused", reused.astype("str"))
        names = [f"o{place}" for place in range(len(tables.output_names(self.schema)))]
        known = [feature["name"] for feature in self.rows.features]
        if ruled := self.rule in known and self.rule not in self.redacted:
            names.append(f"f{known.index(str(self.rule))}")
        found = connection.execute(
            f"SELECT identity, {', '.join(names)}, label FROM (SELECT *, row_number() OVER (PARTITION BY request_id, "
            f"instance ORDER BY new, source, start) AS place FROM ({self.rows.query()}) JOIN labels USING (request_id, "
            f"instance) WHERE reason IS NULL AND request_id NOT IN (SELECT request_id FROM given_reused)) "
            f"WHERE place = 1 ORDER BY new, source, start"
        ).df()
        codes, identities = pd.factorize(found["identity"])
        alone = pd.Series(range(len(found)), dtype="int64") + len(identities)
        group = pd.Series(codes, dtype="int64").where(codes >= 0, alone)
        outputs = self._outputs(found)
        outputs.insert(0, GROUP, group)
        if ruled:
            outputs[RULE] = found[names[-1]].to_numpy()
        return outputs.assign(target=found["label"].to_numpy())
