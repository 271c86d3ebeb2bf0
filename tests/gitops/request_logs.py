"""A request log in parquet, as servers and compaction would have written it: for tests, and for measurements.

    PYTHONPATH=src .venv/pipeline/bin/python .../tests/gitops/request_logs.py FOLDER DAYS REQUESTS_A_DAY [VERSION]

run in a generated project, writes a log of thirty features for the days before today, an hour a file. The lines of one
hour pass through the server's form and compaction's code; the other hours get rows drawn by DuckDB in the same columns.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gitops.monitoring import log_table, typed_lines
from gitops.monitoring.sql import quoted, text
from gitops.monitoring.typed_lines import Piece

NUMBERS = [f"x{index}" for index in range(27)]
CATEGORIES = {"plan": 3, "region": 10, "shop": 40}

VERSION = "a" * 12


def hour_folder(moment: datetime) -> str:
    """Return the folder of the files of an hour."""
    return f"{moment.astimezone(UTC):date=%Y-%m-%d/hour=%H}"


def schema() -> dict[str, Any]:
    """Return the schema of the release whose model has answered."""
    features: list[dict[str, Any]] = [
        {"name": name, "dtype": "number", "missing": 0.0, "min": -4.0, "max": 4.0} for name in NUMBERS
    ]
    for name, count in CATEGORIES.items():
        known = {f"{name}-{index}": 1 / count for index in range(count)}
        features.append({"name": name, "dtype": "category", "missing": 0.0, "categories": known})
    target = {"name": "outcome", "classes": ["no", "yes"]}
    rows = {"rows": {"train": 100_000}, "missing_markers": ["", "NA"]}
    return {"task": "binary", "target": target, "features": features} | rows


def line(moment: datetime, number: int, version: str) -> dict[str, Any]:
    """Return a line of the log."""
    inputs: dict[str, Any] = dict.fromkeys(NUMBERS, (number * 37 % 1000) / 250 - 2.0 + 1e-9)
    inputs |= {name: f"{name}-{number % count}" for name, count in CATEGORIES.items()}
    answer = {"label": "no", "probabilities": {"no": 0.75, "yes": 0.25}}
    common = {"time": moment.isoformat(), "request_id": f"r{number}", "client": "team-a", "instance": 0}
    return common | {"model_version": version, "inputs": inputs, "prediction": answer}


def write(folder: Path, days: int, a_day: int, version: str = VERSION, until: datetime | None = None) -> int:
    """Write the log of so many days before `until`, and return the number of its lines."""
    last = (until or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    rows = a_day // 24
    apart = 3_600_000_000 // rows  # microseconds
    with log_table.connected() as (connection, temporary):
        pattern = temporary / "pattern.parquet"
        lines = "".join(json.dumps(line(last, number, version)) + "\n" for number in range(100))
        typed_lines.write(connection, [Piece("pattern", 0, lines.encode())], pattern, {"pattern": len(lines)})
        columns = [row[0] for row in connection.execute(f"DESCRIBE FROM {text(str(pattern))}").fetchall()]
        for hour in range(24 * days):
            moment = last - timedelta(hours=24 * days - hour)
            source = f"{hour_folder(moment)}/{moment:%Y%m%dT%H%M%S}-pod-1-000001.jsonl"
            path = folder / hour_folder(moment) / "0123456789abcdef.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = {
                "source": text(source),
                "start": "i * 1000",
                "time": f"{text(moment.isoformat())}::TIMESTAMPTZ + to_microseconds((i * {apart})::BIGINT)",
                "request_id": f"'r-{hour}-' || i",
                "p:yes": "score",
                "p:no": "1 - score",
                "label": "CASE WHEN score > 0.5 THEN 'yes' ELSE 'no' END",
            }
            drawn |= {
                f"in:{name}": "greatest(-4, least(4, sqrt(-2 * ln(1 - random())) * cos(6.283185307179586 * random())))"
                for name in NUMBERS
            }
            drawn |= {
                f"in:{name}": f"'{name}-' || (random() * {count} - 0.5)::INTEGER" for name, count in CATEGORIES.items()
            }
            listed = ", ".join(f"{drawn.get(name, 'one.' + quoted(name))} AS {quoted(name)}" for name in columns)
            connection.execute(
                f"COPY (SELECT {listed} FROM (SELECT i, random() AS score FROM range({rows}) AS r(i)), "
                f"(FROM {text(str(pattern))} LIMIT 1) AS one) TO {text(str(path))} (FORMAT parquet, COMPRESSION zstd, "
                f"KV_METADATA {{{typed_lines.SOURCES}: {text(json.dumps({source: rows * 1000}))}}})"
            )
    return rows * 24 * days


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5]))
