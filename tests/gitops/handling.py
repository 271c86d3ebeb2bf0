"""The handler of serving/ by itself, with a model that needs no training, and what stands for TorchServe around it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_model
from breast_cancer import features
from conftest import ROOT
from gitops.core.artifacts import write_json


class Context:
    """What the handler uses of TorchServe's context; remembers the status set for each request, and all counts."""

    def __init__(self, folder: Path) -> None:
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
        return {}

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.status[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        assert value == "application/json"


def unpacked(folder: Path, **files: Any) -> Path:
    """Write what an archive of the tiny model has, and more JSON files by their names; return `folder`."""
    tiny_model.save(folder / "model.pt2")
    contents = {"schema": tiny_model.SCHEMA, "request_log": {"sample": 1.0, "mask": []}} | files
    for name, value in contents.items():
        write_json(folder / f"{name}.json", value)
    return folder


def load(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Any:
    """Return serving/handler.py as a module, with such variables; in the archive it finds features.py beside it."""
    monkeypatch.setitem(sys.modules, "features", features)
    monkeypatch.syspath_prepend(str(ROOT / "serving"))
    for name in ("FEATURE_SERVER", "MODEL_SHA256", "REQUEST_LOG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("handler", ROOT / "serving/handler.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(module: Any, folder: Path) -> Any:
    """Return the module's handler after it has loaded what is in `folder`."""
    handler = module.Handler()
    handler.initialize(Context(folder))
    return handler


def answers(handler: Any, *bodies: bytes | None) -> list[tuple[int, dict[str, Any]]]:
    """Send a batch, None for a form; return each request's status and answer."""
    context = Context(Path())
    replies = handler.handle([{} if body is None else {"body": bytearray(body)} for body in bodies], context)
    return [(context.status[index], json.loads(reply)) for index, reply in enumerate(replies)]
