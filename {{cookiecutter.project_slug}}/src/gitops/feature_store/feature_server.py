"""`make feature-server`: return the features of an entity, for requests to the model that name only its id.

It is Feast's feature server, restricted to the routes that read: the others write, without authentication.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import artifacts
from gitops.core.artifacts import FEATURE_VIEW, ProjectError
from gitops.core.console import echo
from gitops.feature_store import feature_store, materialize

if TYPE_CHECKING:
    from fastapi import Request, Response

ROUTES = {"/get-online-features", "/health"}


def main() -> None:
    """Serve the features of the last `make pipeline`, or with --archive those of a model archive."""
    options = _options()
    view = _packed(options.archive) if options.archive else artifacts.read_json(FEATURE_VIEW, "make pipeline")
    with feature_store.opened(view) as store:
        import uvicorn
        from feast.feature_server import get_app
        from redis import RedisError

        if not materialize.complete(store, view):  # an error of Redis ends the program here
            echo("the online store is incomplete: run `make materialize`")
        app = get_app(store)
        app.add_exception_handler(RedisError, _unavailable)
        app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in ROUTES]
        echo(f"features of a {view['entity']}: FEATURE_SERVER=http://{options.host}:{options.port}")
        uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)


def _unavailable(_: Request, error: Exception) -> Response:
    """Answer 503 instead of Feast's 500, and log one line instead of a traceback for each request."""
    from fastapi.responses import JSONResponse

    echo(f"Redis: {feature_store.reason(error)}", error=True)
    return JSONResponse({"detail": "the online store does not answer"}, HTTPStatus.SERVICE_UNAVAILABLE)


def _packed(archive: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(archive) as files:
            view: dict[str, Any] = json.loads(files.read(FEATURE_VIEW.name))
            return view
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ProjectError(f"--archive {archive} holds no {FEATURE_VIEW.name}: {error}") from error


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="feature_server", description="Serve the features in the online store.")
    parser.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=6566, help="(default: 6566)")
    parser.add_argument("--archive", type=Path, help="model archive whose features are served")
    return parser.parse_args()


if __name__ == "__main__":
    artifacts.run(main)
