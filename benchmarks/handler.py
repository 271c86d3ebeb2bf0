"""What the server's handler does with one batch of requests, by part: processor time, without TorchServe around it.

    demo/breast-cancer/.venv/pipeline/bin/python benchmarks/handler.py demo/breast-cancer

Prints the milliseconds of a thread, the least of several rounds, for a small request, many of them, and wide ones. The
columns are random; the model is a mean of its inputs, whose own time is printed too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gitops import owner
from gitops.serving.server import checks, messages, request_log

#: Name, columns by dtype, rows of a request, requests in the batch, rounds.
CASES = [
    ("1 row x 30", {"number": 20, "category": 5, "boolean": 3, "datetime": 2}, 1, 1, 1000),
    ("32 requests of 1 row x 30", {"number": 20, "category": 5, "boolean": 3, "datetime": 2}, 1, 32, 100),
    ("1,000 rows x 30", {"number": 20, "category": 5, "boolean": 3, "datetime": 2}, 1000, 1, 10),
    ("200 rows x 1,000", {"number": 800, "category": 120, "boolean": 50, "datetime": 30}, 200, 1, 10),
    ("200 rows x 1,000 numbers", {"number": 1000}, 200, 1, 10),
]


def model(numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
    """Return probabilities [rows, 2]."""
    yes = numbers.nan_to_num().mean(dim=1).sigmoid()
    return torch.stack([1 - yes, yes], dim=1)


def main() -> None:
    """Print a line for each case."""
    os.chdir(sys.argv[1])
    torch.set_num_threads(1)
    features, rng = owner.features(), np.random.default_rng(0)
    for name, counts, rows, requests, rounds in CASES:
        schema = {
            "target": {"name": "target", "classes": ["no", "yes"]},
            "missing_markers": ["", "NA"],
            "features": [
                {"name": f"{dtype} {index}", "dtype": dtype}
                for dtype, count in counts.items()
                for index in range(count)
            ],
        }
        bodies = [
            json.dumps({"instances": [instance(schema, rng) for _ in range(rows)]}).encode() for _ in range(requests)
        ]
        batch = [messages.read(body) for body in bodies]
        checked, columns = checks.check_batch(batch, schema)
        inputs = features.encode(columns, schema)
        outputs = model(*inputs)
        answers = features.answer(outputs, schema)
        flat = [row for found, _ in checked for row in found]
        entry = request_log.Entry("id", flat, answers)
        parts: dict[str, Callable[[], Any]] = {
            "parse": lambda: [messages.read(body) for body in bodies],  # noqa: B023  called within the round
            "check": lambda: checks.check_batch(batch, schema),  # noqa: B023
            "encode": lambda: features.encode(columns, schema),  # noqa: B023
            "model": lambda: model(*inputs),  # noqa: B023
            "answer": lambda: json.dumps(features.answer(outputs, schema)),  # noqa: B023
            "the log's thread": lambda: [*request_log.lines(entry, "version", [])],  # noqa: B023
        }
        figures = ", ".join(f"{part} {milliseconds(run, rounds):.2f}" for part, run in parts.items())
        print(f"{name} ({sum(map(len, bodies)) / 2**20:.2f} MiB): {figures} ms", flush=True)


def instance(schema: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return a random instance; about one value in fifty is missing."""
    makers: dict[str, Callable[[], Any]] = {
        "number": lambda: round(float(rng.normal()), 6),
        "category": lambda: f"value {rng.integers(20)}",
        "boolean": lambda: bool(rng.random() < 0.5),
        "datetime": lambda: f"2026-01-{rng.integers(1, 29):02d}T12:00:00Z",
    }
    return {each["name"]: None if rng.random() < 0.02 else makers[each["dtype"]]() for each in schema["features"]}


def milliseconds(run: Callable[[], Any], rounds: int) -> float:
    """Return the least processor time of a call in this thread."""
    run()
    found = []
    for _ in range(rounds):
        begin = time.thread_time()
        run()
        found.append(time.thread_time() - begin)
    return min(found) * 1000


if __name__ == "__main__":
    main()
