"""The model of a project behind FastAPI or LitServe, with the handler's own checks and answers: what serving.py
compares with.

    PROJECT/.venv/serve/bin/python benchmarks/serving_peers.py fastapi|litserve ARCHIVE PORT

ARCHIVE is the folder of an unpacked archive. The packages of both come from PYTHONPATH (serving.py installs them).
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Context:
    """What the handler uses of TorchServe's context; metrics go nowhere."""

    def __init__(self, folder: Path) -> None:
        self.system_properties = {"model_dir": str(folder)}
        self.manifest = json.loads((folder / "MAR-INF/MANIFEST.json").read_text())
        self.metrics = SimpleNamespace(add_metric_to_cache=lambda *_: SimpleNamespace(add_or_update=lambda *_: None))

    def get_request_id(self, index: int) -> str:
        return str(index)

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return {}

    def set_response_status(self, **_: Any) -> None: ...

    def set_response_content_type(self, *_: Any) -> None: ...


def handler(folder: Path) -> Any:
    """Return the archive's handler with its model."""
    sys.path.insert(0, str(folder))
    made = importlib.import_module("handler").Handler()
    made.initialize(Context(folder))
    return made


def fastapi(folder: Path, port: int) -> None:
    """Serve with FastAPI and uvicorn, one process: a request at a time, as such a service is written first."""
    import uvicorn
    from fastapi import FastAPI, Request, Response

    served, context, app = handler(folder), Context(folder), FastAPI()

    async def predict(request: Any) -> Any:
        [answer] = served.handle([{"body": await request.body()}], context)
        return Response(answer, media_type="application/json")

    predict.__annotations__ = {"request": Request, "return": Response}
    app.post(f"/predictions/{folder.name}")(predict)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if sys.argv[1] == "litserve":
    from litserve import LitAPI, LitServer

    class Model(LitAPI):  # at the module's level, since LitServe starts its worker anew
        """The handler's checks and model, with TorchServe's batches: up to 32 requests within a millisecond."""

        def setup(self, device: str) -> None:
            self.handler = handler(Path(sys.argv[2]))

        # LitServe takes annotations of these two for what to parse.
        def decode_request(self, request):  # type: ignore[no-untyped-def]
            return request["instances"]

        def predict(self, batch: Any) -> Any:
            from gitops.serving.server.checks import check_batch

            requests, columns = check_batch([(instances, []) for instances in batch], self.handler.schema)
            return self.handler.predict([rows for rows, _ in requests], columns)

        def encode_response(self, output):  # type: ignore[no-untyped-def]
            return {"predictions": output, "model_version": self.handler.served.version}


def litserve(folder: Path, port: int) -> None:
    """Serve with LitServe, one worker."""
    api = Model(max_batch_size=32, batch_timeout=0.001, api_path=f"/predictions/{folder.name}")
    LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning"
    )


if __name__ == "__main__":
    {"fastapi": fastapi, "litserve": litserve}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
