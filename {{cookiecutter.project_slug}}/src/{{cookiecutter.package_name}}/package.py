"""Stage `package`: pack the model, its schema and the handler into the archive that TorchServe serves.

The archive also holds a golden request and its answer, computed here, in the environment that trained the model. A
server is ready when it gives the same answer (serving/probe.py): model, schema and handler then fit together there too.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import artifacts, features, params
from .artifacts import FEATURE_VIEW, GOLDEN_REQUEST, GOLDEN_RESPONSE, MODEL, PACKAGE, SCHEMA, TEST, ProjectError
from .params_sections import RequestLog

ARCHIVER = Path(".venv/serve/bin/torch-model-archiver")
HANDLER = Path("serving/handler.py")
HELPERS = [Path("serving", name) for name in ("request_log.py", "request_log_files.py", "serving_metrics.py")]
ONLINE = [Path("serving/online_features.py"), FEATURE_VIEW]
CONFIG = Path("serving/model-config.yaml")
MANIFEST = "MAR-INF/MANIFEST.json"

#: Rows of the test split in the golden request; one more has no value at all.
GOLDEN_ROWS = 3

#: All requests, and nothing masked.
DEFAULT_LOG = RequestLog()

#: The zip format's first day: an archive's bytes depend on its contents alone.
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> None:
    """Write package/<model_name>.mar and the golden request and response that it holds."""

    for path in (MODEL, TEST):
        if not path.exists():
            raise ProjectError(f"{path} is missing: run `make pipeline` first")
    settings = params.load()
    schema = artifacts.read_json(SCHEMA, "make pipeline")
    _check_mask(settings.request_log.mask, schema)
    request = {"instances": [*instances(artifacts.read_parquet(TEST).head(GOLDEN_ROWS), schema), _unknown(schema)]}
    artifacts.write_json(GOLDEN_REQUEST, request)
    artifacts.write_json(GOLDEN_RESPONSE, respond(request, schema))
    archive = pack(settings.package.model_name, settings.request_log, ONLINE if settings.feature_store else [])
    print(f"{archive}: model version {version()}, {archive.stat().st_size / 2**20:.1f} MiB")


def version() -> str:
    """Return the version that answers carry: the first 12 hexadecimal digits of the model file's sha256."""
    return artifacts.digest(MODEL)[:12]


def instances(frame: Any, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a split's frame as a request's instances: the features, null where a value is missing."""
    names = [feature["name"] for feature in schema["features"]]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in frame[names].itertuples(index=False)]


def respond(request: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a server must answer to `request`, computed in this process."""
    import torch

    rows = [features.check_row(index, row, schema) for index, row in enumerate(request["instances"])]
    with torch.inference_mode():
        outputs = torch.export.load(MODEL).module()(*features.encode_rows(rows, schema))
    return {"predictions": features.answer(outputs, schema), "model_version": version()}


def pack(model_name: str, log: RequestLog = DEFAULT_LOG, more: Sequence[Path] = ()) -> Path:
    """Write package/<model_name>.mar, wholly or not at all, and return its path; equal contents give equal bytes.

    `log` says what servers log of requests; `more` are files that go along.

    Raises ProjectError where the archiver is not installed or fails.
    """
    if not ARCHIVER.exists():
        raise ProjectError(f"{ARCHIVER} is missing: run `make setup` first")
    archive = PACKAGE / f"{model_name}.mar"
    features_file = Path(os.path.relpath(str(features.__file__)))
    command = [str(ARCHIVER), "--model-name", model_name, "--version", version(), "--serialized-file", str(MODEL)]
    command += ["--handler", str(HANDLER), "--config-file", str(CONFIG)]
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        settings = Path(folder, "request_log.json")
        artifacts.write_json(settings, log.model_dump())
        extras = [features_file, *HELPERS, *more, SCHEMA, GOLDEN_REQUEST, GOLDEN_RESPONSE, settings]
        command += ["--extra-files", ",".join(map(str, extras))]
        # The archiver begins by deleting <TMPDIR>/<model name>, whatever that is: it gets a TMPDIR of its own.
        environment = os.environ | {"TMPDIR": folder}
        done = subprocess.run([*command, "--export-path", folder], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ProjectError(f"torch-model-archiver could not make {archive}:\n{done.stderr.strip()}")
        with artifacts.replacing(archive) as temporary:
            _settle(Path(folder, archive.name), temporary)
    return archive


def _settle(made: Path, settled: Path) -> None:
    """Copy a zip file without what differs from run to run: times, the files' order, the work of a version of zlib."""
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(settled, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == MANIFEST:
                content = json.dumps(json.loads(content) | {"createdOn": ""}, indent=2).encode()
            target.writestr(zipfile.ZipInfo(name, EPOCH), content)


def _check_mask(mask: list[str], schema: dict[str, Any]) -> None:
    """Raise ProjectError for a column that no request has: the one that was meant would be logged."""
    names = [feature["name"] for feature in schema["features"]]
    for column in mask:
        if column not in names:
            raise ProjectError(
                f"{artifacts.PARAMS}: request_log.mask names {column!r}, which no request has; it has "
                f"{', '.join(map(repr, names))}"
            )


def _unknown(schema: dict[str, Any]) -> dict[str, Any]:
    return {feature["name"]: None for feature in schema["features"]}


def _plain(value: Any) -> Any:
    """Return a cell of a frame as JSON has it."""
    import pandas as pd

    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    artifacts.run(main)
