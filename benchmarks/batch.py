"""`make batch` on a table of ten million rows: seconds, processor seconds, and peak memory.

    demo/breast-cancer/.venv/pipeline/bin/python benchmarks/batch.py demo/breast-cancer [ROWS [ADDRESS]]

Runs it on parquet and on CSV. The table has a column `id` and the project's features; one row in a thousand has a value
that does not fit. Ten million rows of 30 numbers need 10 GB of disk, in TMPDIR. ADDRESS is a folder at any address of
fsspec, where the tables are then read, written and kept; without it, they go from disk to disk.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

#: Rows that are generated at once, and in how many of them one does not fit.
CHUNK, BAD = 100_000, 1000


def main() -> None:
    """Generate the table, once as parquet and once as CSV, and predict it."""
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    os.chdir(sys.argv[1])
    schema = json.loads(Path("data/prepared/schema.json").read_text())
    for suffix in (".parquet", ".csv"):
        with tempfile.TemporaryDirectory(prefix="batch-") as folder:
            table, where = Path(folder, f"table{suffix}"), sys.argv[3] if len(sys.argv) > 3 else folder
            write(table, rows, schema)
            if where != folder:
                files, path = fsspec.core.url_to_fs(where)
                files.put_file(str(table), f"{path}/{table.name}")
            seconds, cores, memory = run(f"{where}/{table.name}", f"{where}/predictions{suffix}")
            size = table.stat().st_size / 1e9
        print(
            f"{suffix}: {rows} rows x {len(schema['features'])} features, {size:.1f} GB, in {seconds:.0f} s: "
            f"{rows / seconds:.0f} rows/s, {rows / cores:.0f} a core, {memory / 1e9:.2f} GB of memory",
            flush=True,
        )


def run(table: str, output: str) -> tuple[float, float, int]:
    """Return seconds, processor seconds of all cores, and peak memory in bytes of `make batch`, its start included."""
    environment = os.environ | {"INPUT": table, "OUTPUT": output}
    begin = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-m", "gitops.inference.batch"], environment)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - begin
    files, path = fsspec.core.url_to_fs(output)
    if status or not files.exists(path):
        sys.exit(f"error: it ended with status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write(path: Path, rows: int, schema: dict[str, Any]) -> None:
    """Write a table of `rows` rows."""
    writer_of = pacsv.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
    table = chunks(rows, schema)
    first = next(table)
    with writer_of(path, first.schema) as writer:
        for chunk in chain([first], table):
            writer.write_table(chunk)


def chunks(rows: int, schema: dict[str, Any]) -> Iterator[pa.Table]:
    """Yield the table, CHUNK rows at a time. The value that does not fit is an infinite number."""
    dice = np.random.default_rng(7)
    for first in range(0, rows, CHUNK):
        count = min(CHUNK, rows - first)
        columns: dict[str, Any] = {"id": pa.array([f"row-{first + row}" for row in range(count)])}
        features = [feature for feature in schema["features"] if not feature.get("derived")]
        for feature in features:
            columns[feature["name"]] = column(feature, count, dice)
        numbers = [feature["name"] for feature in features if feature["dtype"] == "number"]
        for name in numbers[:1]:
            values = columns[name].to_numpy(zero_copy_only=False).copy()
            values[::BAD] = np.inf
            columns[name] = pa.array(values)
        yield pa.table(columns)


def column(feature: dict[str, Any], count: int, dice: np.random.Generator) -> pa.Array:
    """Return values that are distributed as in the training rows, by the statistics of the schema."""
    missing = dice.random(count) < feature["missing"]
    if feature["dtype"] == "number":
        values = dice.normal(feature["mean"], feature["std"], count).round(5)
    elif feature["dtype"] == "boolean":
        values = dice.random(count) < feature["mean"]
    elif feature["dtype"] == "datetime":
        begin, end = (np.datetime64(feature[key][:19], "s").astype("int64") for key in ("min", "max"))
        values = dice.integers(begin, end + 1, count).astype("datetime64[s]")
    else:
        fractions = np.array(list(feature["categories"].values()))
        values = dice.choice(np.array(list(feature["categories"]), dtype=object), count, p=fractions / fractions.sum())
    return pa.array(values, mask=missing)


if __name__ == "__main__":
    main()
