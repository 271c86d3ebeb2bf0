"""Stage `package`: pack the model, its schema and the handler into the archive that TorchServe serves.

The archive also holds a golden request and its answer, computed here, in the training environment: a server is ready
when it gives the same answer (serving/probe.py), which shows that model, schema, handler and environment fit together.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import features, params
from .artifacts import GOLDEN_REQUEST, GOLDEN_RESPONSE, MODEL, PACKAGE, SCHEMA, TEST, ProjectError
from .artifacts import digest, read_json, replacing, run, write_json

ARCHIVER = Path(".venv/serve/bin/torch-model-archiver")
HANDLER = Path("serving/handler.py")
CONFIG = Path("serving/model-config.yaml")
MANIFEST = "MAR-INF/MANIFEST.json"

#: Rows of the test split in the golden request; one more has no value at all.
GOLDEN_ROWS = 3

#: The zip format's first day: an archive's bytes must depend on its contents alone.
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> None:
    """Write package/<model_name>.mar and the golden request and response that it holds."""
    import pandas as pd

    name = params.load().package.model_name
    schema = read_json(SCHEMA, "make pipeline")
    request = {"instances": [*instances(pd.read_parquet(TEST).head(GOLDEN_ROWS), schema), _empty(schema)]}
    write_json(GOLDEN_REQUEST, request)
    write_json(GOLDEN_RESPONSE, respond(request, schema, MODEL))
    archive = pack(PACKAGE / f"{name}.mar", MODEL, [SCHEMA, GOLDEN_REQUEST, GOLDEN_RESPONSE])
    print(f"{archive}: model version {version(MODEL)}, {archive.stat().st_size / 2**20:.1f} MiB")


def version(model: Path) -> str:
    """Return the version that answers carry: the first 12 hexadecimal digits of the model file's sha256."""
    return digest(model)[:12]


def instances(frame: Any, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a split's frame as JSON instances of a request: features only, null where a value is missing."""
    names = [feature["name"] for feature in schema["features"]]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in frame[names].itertuples(index=False)]


def respond(request: dict[str, Any], schema: dict[str, Any], model: Path) -> dict[str, Any]:
    """Return what a server must answer to `request`, computed in this process."""
    import torch

    rows = [features.check_row(index, row, schema) for index, row in enumerate(request["instances"])]
    with torch.inference_mode():
        outputs = torch.export.load(model).module()(*features.encode_rows(rows, schema))
    return {"predictions": features.answer(outputs, schema), "model_version": version(model)}


def pack(archive: Path, model: Path, extras: Sequence[Path]) -> Path:
    """Write `archive`, named <model name>.mar, wholly or not at all, and return it; equal contents give equal bytes.

    `extras` are the schema and the golden files. Raises ProjectError where the archiver is missing or fails.
    """
    if not ARCHIVER.exists():
        raise ProjectError(f"{ARCHIVER} is missing: run `make setup` first")
    files = [Path(str(features.__file__)), *extras]
    with tempfile.TemporaryDirectory(prefix="mar-") as folder:
        command = [str(ARCHIVER), "--model-name", archive.stem, "--version", version(model), "--serialized-file", str(model)]
        command += ["--handler", str(HANDLER), "--config-file", str(CONFIG), "--extra-files", ",".join(map(str, files))]
        # The archiver clears <TMPDIR>/<model name> as it starts: it gets a TMPDIR of its own.
        done = subprocess.run(
            [*command, "--export-path", folder], env={"TMPDIR": folder}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ProjectError(f"torch-model-archiver could not pack {archive}:\n{done.stderr.strip()}")
        with replacing(archive) as temporary:
            _settle(Path(folder, archive.name), temporary)
    return archive


def _settle(made: Path, settled: Path) -> None:
    """Copy a zip file without what differs from run to run: times, the order of files, how a zlib compresses."""
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(settled, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == MANIFEST:
                content = json.dumps(json.loads(content) | {"createdOn": ""}, indent=2).encode()
            target.writestr(zipfile.ZipInfo(name, EPOCH), content)


def _empty(schema: dict[str, Any]) -> dict[str, Any]:
    return {feature["name"]: None for feature in schema["features"]}


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it."""
    import pandas as pd

    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    run(main)
