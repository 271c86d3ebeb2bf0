"""The handler by itself, with a model that needs no training, and a stand-in for TorchServe around it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_model
from gitops.core.artifacts import write_json
from gitops.serving.server.handler import Handler


class Context:
    """What the handler uses of TorchServe's context; remembers the status set for each request, and all counts.

    The requests of `explain` are those of which the proxy says that they ask for explanations.
    """

    def __init__(self, folder: Path, explain: Collection[int] = ()) -> None:
        self.explain = explain
        self.system_properties = {"model_dir": str(folder)}
        self.manifest = {"model": {"serializedFile": "model.pt2"}}
        self.status: dict[int, int] = {}
        self.metrics = self
        self.counts: Counter[str] = Counter()

    def add_metric_to_cache(self, name: str, unit: str, labels: list[str]) -> Any:
        def count(value: float, values: list[str]) -> None:
            self.counts[" ".join([name, *values])] += value  # type: ignore[assignment]

        return SimpleNamespace(add_or_update=count)

    def get_request_id(self, index: int) -> str:
        return f"made-{index}"

    def get_all_request_header(self, index: int) -> dict[str, Any]:
        return {"content-type": "application/json"} | ({"X-Explain": "true"} if index in self.explain else {})

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.status[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        assert value == "application/json"


def unpacked(folder: Path, schema: dict[str, Any] = tiny_model.SCHEMA, **files: Any) -> Path:
    """Write what an archive of the tiny model has, and more JSON files by their names; return `folder`."""
    tiny_model.save(folder / "model.pt2", schema)
    settings = {"package": "breast_cancer", "request_log": {"sample": 1.0, "redact": []}}
    for name, value in {"schema": schema, "settings": settings, **files}.items():
        write_json(folder / f"{name}.json", value)
    return folder


def started(monkeypatch: pytest.MonkeyPatch, folder: Path, **variables: str) -> Handler:
    """Return a handler, with these environment variables, after it has loaded what is in `folder`."""
    for name in ("FEATURE_SERVER", "MODEL_SHA256", "REQUEST_LOG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    handler = Handler()
    handler.initialize(Context(folder))
    return handler


def answers(handler: Handler, *bodies: bytes | None, explain: Collection[int] = ()) -> list[tuple[int, dict[str, Any]]]:
    """Send a batch, None for a form; return each request's status and answer."""
    context = Context(Path(), explain)
    replies = handler.handle([{} if body is None else {"body": bytearray(body)} for body in bodies], context)
    return [(context.status[index], json.loads(reply)) for index, reply in enumerate(replies)]
