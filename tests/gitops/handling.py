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

#: The model's, in an archive.
NAME = "tiny"


class Context:
    """What the handler uses of TorchServe's context; remembers the status set for each request, and all counts.

    `headers` are those that the proxy adds to each request.
    """

    def __init__(self, folder: Path, *headers: dict[str, str]) -> None:
        self.headers = headers
        self.system_properties = {"model_dir": str(folder)}
        self.manifest = {"model": {"serializedFile": "model.pt2", "modelName": NAME}}
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
        return {"content-type": "application/json"} | (self.headers[index] if self.headers else {})

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
    """Send a batch, None for a form; return each request's status and answer, without the id that each must have.

    The requests of `explain` ask for explanations.
    """
    headers = [{"x-query": "explain=true"} if index in explain else {} for index in range(len(bodies))]
    found = replies(handler, *zip(bodies, headers, strict=True))
    for index, (_, reply) in enumerate(found):
        assert reply.pop("request_id") == f"made-{index}"
    return found


def replies(handler: Handler, *requests: tuple[bytes | None, dict[str, str]]) -> list[tuple[int, dict[str, Any]]]:
    """Send a batch of bodies with the headers that the proxy adds; return each request's status and answer."""
    context = Context(Path(), *(headers for _, headers in requests))
    sent = [{} if body is None else {"body": bytearray(body)} for body, _ in requests]
    return [(context.status[index], json.loads(reply)) for index, reply in enumerate(handler.handle(sent, context))]
