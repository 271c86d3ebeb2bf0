"""What `?explain=true` costs: milliseconds of the handler with and without it, and how exact the contributions are.

    demo/breast-cancer/.venv/pipeline/bin/python benchmarks/explain.py demo/breast-cancer

Takes the archive that `make pipeline` has left in the project, and rows of the test split. Prints a table of the
processor time of a thread, the least of several rounds, for 1, 10 and 100 rows in a request, TorchServe left out; then
how much contributions differ from those of a hundred times as many orders of the columns, and how large they are.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from gitops.core import artifacts
from gitops.serving import package
from gitops.serving.server import shapley
from gitops.serving.server.handler import Handler
from gitops.serving.server.shapley import Explainer
from gitops.tabular import decision

ROWS = (1, 10, 100)
ROUNDS = 5

#: Rows whose contributions are compared, and orders that count as exact.
COMPARED, ORDERS = 20, 2000


class Context:
    """What the handler uses of TorchServe's context; one request that asks for explanations, or does not."""

    def __init__(self, folder: Path, explain: bool = False) -> None:
        self.system_properties = {"model_dir": str(folder)}
        self.manifest = {"model": {"serializedFile": "model.pt2", "modelName": "model"}}
        self.headers = {"x-query": "explain=true"} if explain else {}
        self.metrics = self

    def add_metric_to_cache(self, *_: Any) -> Any:
        return SimpleNamespace(add_or_update=lambda *_: None)

    def get_request_id(self, _: int) -> str:
        return "request"

    def get_all_request_header(self, _: int) -> dict[str, str]:
        return self.headers

    def set_response_status(self, **_: Any) -> None: ...

    def set_response_content_type(self, *_: Any) -> None: ...


def main() -> None:
    """Print both."""
    os.chdir(sys.argv[1])
    (archive,) = artifacts.PACKAGE.glob("*.mar")
    schema = decision.schema()
    rows = package.instances(artifacts.read_parquet(artifacts.TEST).head(max(ROWS)), schema)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as files:
            files.extractall(folder)
        handler = Handler()
        handler.initialize(Context(Path(folder)))
        print(f"{len(rows[0])} columns\n| rows | without | with | a row |\n|---|---|---|---|")
        for count in ROWS:
            sent = json.dumps({"instances": rows[:count]}).encode()
            without, explained = (milliseconds(handler, sent, asked) for asked in (False, True))
            print(f"| {count} | {without:.2f} | {explained:.1f} | {(explained - without) / count:.1f} |", flush=True)
        accuracy(handler, rows[:COMPARED])


def milliseconds(handler: Handler, sent: bytes, explain: bool) -> float:
    """Return the least processor time of an answer."""
    found = []
    for _ in range(ROUNDS + 1):
        begin = time.thread_time()
        (answer,) = handler.handle([{"body": sent}], Context(Path(), explain))
        found.append(time.thread_time() - begin)
    if ("explanations" in json.loads(answer)) != explain:
        sys.exit(answer.decode())
    return 1000 * min(found)


def accuracy(handler: Handler, rows: list[dict[str, Any]]) -> None:
    """Print how far the contributions are from those of many orders."""
    found = []
    for orders, cells in ((shapley.ORDERS, shapley.MAX_CELLS), (ORDERS, sys.maxsize)):
        shapley.ORDERS, shapley.MAX_CELLS, shapley.SEED = orders, cells, orders
        explainer = Explainer(handler.schema, handler._outputs, handler.features.decide)
        found.append(np.array([[*each["contributions"].values()] for each in explainer.explain(rows)]))
    sampled, exact = found
    print(f"mean difference {np.abs(sampled - exact).mean():.2g}, mean contribution {np.abs(exact).mean():.2g}")
    print(f"largest difference {np.abs(sampled - exact).max():.2g}, largest contribution {np.abs(exact).max():.2g}")


if __name__ == "__main__":
    main()
