"""Stage `package`: pack the model, its schema and the code that answers requests into TorchServe's archive.

The code is the handler, the project's features.py, and all modules of src/ that the two import. The archive also holds
a golden request and its answer, computed here, in the environment that trained the model: a server that gives the same
answer passes its smoke test (server/probe.py), which shows that model, schema and code fit together there too.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gitops import owner
from gitops.core import artifacts, code, params
from gitops.core.artifacts import (
    FEATURE_VIEW,
    GOLDEN_REQUEST,
    GOLDEN_RESPONSE,
    MODEL,
    OPENAPI,
    PACKAGE,
    SCHEMA,
    TEST,
    V2_MODEL,
    ProjectError,
)
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.serving import openapi
from gitops.serving.server import open_inference
from gitops.tabular import columns, decision, in_parts, request_rows

ENVIRONMENT = Path(".venv/serve")
ARCHIVER = ENVIRONMENT / "bin/torch-model-archiver"
HANDLER = code.SOURCE / "gitops/serving/server/handler.py"
CONFIG = Path("serving/model-config.yaml")
MANIFEST = "MAR-INF/MANIFEST.json"

#: What the handler reads: the name of the project's package, and the section request_log of params.yaml.
SETTINGS = "settings.json"

#: Rows of the test split in the golden request; one more row has no value at all.
GOLDEN_ROWS = 3

#: The zip format's first day: an archive's bytes depend on its contents alone.
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> None:
    """Write package/<model_name>.mar, and beside it what it holds: the golden request, what describes the server."""
    for path in (MODEL, TEST):
        if not path.exists():
            raise ProjectError(f"{path} is missing: run `make pipeline` first")
    settings = params.load()
    schema = decision.schema()
    _check_redacted(settings, schema)
    first = next(in_parts.read(TEST)).head(GOLDEN_ROWS)  # the split may be larger than memory
    request = {"instances": [*instances(first, schema), _unknown(schema)]}
    describe(settings, schema, request)
    archive = pack(settings, schema)
    echo(f"{archive}: model version {version()}, {archive.stat().st_size / 2**20:.1f} MiB")


def version() -> str:
    """Return the version that answers carry: the first 12 hexadecimal digits of the model file's sha256."""
    return artifacts.digest(MODEL)[:12]


def instances(frame: Any, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a split's frame as a request's instances, null where a value is missing."""
    names = [feature["name"] for feature in columns.given(schema)]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in frame[names].itertuples(index=False)]


def respond(request: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the right answer to `request`, computed in this process. Raises RowError for an invalid instance."""
    import torch

    features = owner.features()
    rows = [request_rows.check_row(index, row, schema) for index, row in enumerate(request["instances"])]
    with torch.inference_mode():
        outputs = torch.export.load(MODEL).module()(*features.encode(columns.from_rows(rows, schema), schema))
    return {"predictions": features.answer(outputs, schema), "model_version": version(), **columns.threshold(schema)}


def describe(settings: Params, schema: dict[str, Any], request: dict[str, Any]) -> None:
    """Write `request` and its answer, the OpenAPI document, and the model's metadata of the Open Inference Protocol.

    The last two are on one line each, since the proxy before TorchServe answers with them out of its buffers.
    """
    response, name = respond(request, schema), settings.package.model_name
    artifacts.write_json(GOLDEN_REQUEST, request)
    artifacts.write_json(GOLDEN_RESPONSE, response)
    view = artifacts.read_json(FEATURE_VIEW, "make pipeline") if settings.feature_store else None
    found = {
        OPENAPI: openapi.document(name, version(), schema, response, view),
        V2_MODEL: open_inference.metadata(name, version(), schema, response["predictions"]),
    }
    for path, value in found.items():
        artifacts.write_text(path, json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


def pack(settings: Params, schema: dict[str, Any]) -> Path:
    """Write package/<model_name>.mar, whole or not at all, and return its path; equal contents give equal bytes.

    `schema` is the one that the server decides by, with the threshold in it.

    Raises ProjectError if the archiver is not installed or fails, or if the code imports a package that servers lack.
    """
    if not ARCHIVER.exists():
        raise ProjectError(f"{ARCHIVER} is missing: run `make setup` first")
    own = code.SOURCE / params.package()
    modules = [HANDLER, own / "features.py", *own.glob("__init__.py")]
    sources = sorted({path for module in modules for path in code.imported(module)})
    _check_imports(sources)
    name = settings.package.model_name
    archive = PACKAGE / f"{name}.mar"
    command = [str(ARCHIVER), "--model-name", name, "--version", version(), "--serialized-file", str(MODEL)]
    command += ["--handler", str(HANDLER), "--config-file", str(CONFIG)]
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        written = Path(folder, SETTINGS)
        artifacts.write_json(written, {"package": params.package(), "request_log": settings.request_log.model_dump()})
        own_schema = Path(folder, SCHEMA.name)
        artifacts.write_json(own_schema, schema)
        extras = [own_schema, GOLDEN_REQUEST, GOLDEN_RESPONSE, OPENAPI, V2_MODEL, written]
        extras += [FEATURE_VIEW] if settings.feature_store else []
        command += ["--extra-files", ",".join(map(str, extras))]
        # The archiver begins by deleting <TMPDIR>/<model name>, whatever that is.
        environment = os.environ | {"TMPDIR": folder}
        done = subprocess.run([*command, "--export-path", folder], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ProjectError(f"torch-model-archiver could not make {archive}:\n{done.stderr.strip()}")
        with artifacts.replacing(archive) as temporary:
            _complete(Path(folder, archive.name), temporary, [path for path in sources if path != HANDLER])
    return archive


def _complete(made: Path, target: Path, sources: Sequence[Path]) -> None:
    """Copy an archive and add `sources`, without what differs from run to run: times, order, zlib's version.

    The archiver puts all files into one folder; the modules of src/ keep their packages' folders.
    """
    with zipfile.ZipFile(made) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents[MANIFEST] = json.dumps(json.loads(contents[MANIFEST]) | {"createdOn": ""}, indent=2).encode()
    contents |= {path.relative_to(code.SOURCE).as_posix(): path.read_bytes() for path in sources}
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), contents[name])


def _check_imports(sources: Sequence[Path]) -> None:
    """Raise ProjectError for a module of the archive that imports a package which the server's environment lacks.

    An import inside a function counts too: it would fail at the first request. One that falls back on something else
    (`except ImportError`), or that only type checkers see, does not.
    """
    available = {path.name for path in code.SOURCE.iterdir()} | sys.stdlib_module_names
    for path in sources:
        for name in sorted({*_packages(ast.parse(path.read_text(encoding="utf-8")))} - available):
            if not any(any(ENVIRONMENT.glob(f"lib/python*/site-packages/{name}{end}")) for end in ("", ".*")):
                raise ProjectError(
                    f"{path.relative_to(code.SOURCE.parent)} imports {name!r}, which servers lack: add it to "
                    "requirements/serve.in, or move what needs it to a module that features.py does not import"
                )


def _packages(node: ast.AST) -> Iterator[str]:
    """Yield the names of the packages that a module, or a part of it, needs."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield str(node.module).partition(".")[0]
    for child in ast.iter_child_nodes(node):
        if child not in _not_needed(node):
            yield from _packages(child)


def _not_needed(node: ast.AST) -> list[ast.stmt]:
    """Return the statements of a block without which a module works: for type checkers, or with a fallback."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return node.body
    if isinstance(node, ast.Try) and any(
        handler.type is None or re.search(r"\b(ImportError|ModuleNotFoundError)\b", ast.unparse(handler.type))
        for handler in node.handlers
    ):
        return node.body
    return []


def _check_redacted(settings: Params, schema: dict[str, Any]) -> None:
    """Raise ProjectError for a column that no request has, unless it is `client`: the intended one would be logged."""
    names = [feature["name"] for feature in columns.given(schema)]
    names += request_rows.optional(schema)
    for column in settings.request_log.redact:
        if column not in (*names, "client"):
            raise ProjectError(
                f"{artifacts.PARAMS}: request_log.redact names {column!r}, which no request has; it has "
                f"{', '.join(map(repr, names))}"
            )


def _unknown(schema: dict[str, Any]) -> dict[str, Any]:
    return {feature["name"]: None for feature in columns.given(schema)}


def _plain(value: Any) -> Any:
    """Return a cell of a frame as a JSON value."""
    import pandas as pd

    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    artifacts.run(main)
