"""The paths of the files that stages exchange, and atomic writes, so that a failure loses nothing.

Paths are relative to the repository's root, where `make` and `dvc` run every command. At import this module needs only
the standard library: every environment uses it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core import failures
from gitops.core.failures import ProjectError as ProjectError
from gitops.core.failures import run as run

if TYPE_CHECKING:
    import pandas as pd

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")

JOINED = Path("data/joined.parquet")
FEATURE_VIEW = Path("data/feature_view.json")

TRAIN = Path("data/prepared/train.parquet")
VAL = Path("data/prepared/val.parquet")
TEST = Path("data/prepared/test.parquet")
SCHEMA = Path("data/prepared/schema.json")
NUMBERS = Path("data/prepared/numbers.parquet")

DATA_VERDICT = Path("reports/validate_data.json")
DATA_REPORT = Path("reports/validate_data.html")

MODEL = Path("model/model.pt2")
LEARNING_CURVE = Path("model/learning_curve.csv")
DECISION = Path("model/decision.json")
RUN = Path("model/run.json")
CHECKPOINTS = Path(".checkpoints")

METRICS = Path("evaluation/metrics.json")
PREDICTIONS = Path("evaluation/predictions.parquet")
PLOTS = Path("evaluation/plots")
EXPLANATIONS = Path("evaluation/explanations.json")

MODEL_VERDICT = Path("reports/validate_model.json")
MODEL_REPORT = Path("reports/validate_model.html")

PACKAGE = Path("package")
GOLDEN_REQUEST = PACKAGE / "golden_request.json"
GOLDEN_RESPONSE = PACKAGE / "golden_response.json"
OPENAPI = PACKAGE / "openapi.json"
V2_MODEL = PACKAGE / "v2-model.json"

GATE = Path("reports/gate.json")
REPLAY = Path("reports/replay.json")
VERIFICATION = Path("reports/verification.json")
REPORT = Path("reports/report.md")
REPORT_HTML = Path("reports/report.html")
MODEL_CARD = Path("reports/model-card.md")
DEBTS = Path("reports/debts.json")
DEBTS_TABLE = Path("reports/debts.md")
PIPELINE_LOG = Path("reports/pipeline.log")

APPENDED = Path("data/appended.json")
DATA_UNDERSTANDING = Path("docs/data-understanding.md")
RETRAIN = Path("reports/retrain.json")
TUNE = Path("reports/tune.json")
DEBT = Path("reports/debt.json")
TUNE_HTML = Path("reports/tune.html")
MONITOR_CONTEXT = Path("monitoring/context.json")
MONITOR_REFERENCE = Path("monitoring/reference.parquet")
MONITOR_REFERENCE_OUTPUTS = Path("monitoring/reference_outputs.parquet")
MONITOR_CURRENT = Path("monitoring/current.parquet")
MONITOR_CURRENT_OUTPUTS = Path("monitoring/current_outputs.parquet")
MONITOR_LABELLED = Path("monitoring/labelled.parquet")
MONITOR_CHECKS = Path("monitoring/checks.json")
MONITOR_CONSUMERS = Path("monitoring/consumers.json")
MONITOR = Path("reports/monitor.json")
MONITOR_HTML = Path("reports/monitor.html")
MONITOR_METRICS = Path("reports/monitor.prom")

#: Columns of the splits that are not the table's: the number of its row there, counted from 0, and that of the group of
#: rows that belong together (tabular/split.py), both int64. In predictions.parquet the first is called `row`.
ROW, GROUP = "__row__", "__group__"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block succeeds, and is deleted otherwise.

    A symbolic link at `path`, as DVC makes to its cache, is replaced: what it points to stays as it is. Raises whatever
    the block raises, and an OSError that names `path` when the disk is full; `path` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # What PyTorch and others raise on a full disk does not say so.
        if number in failures.FULL or (number is None and shutil.disk_usage(path.parent).free < 1 << 16):
            number = number or errno.ENOSPC
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame without its index, atomically."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_json(path: Path, made_by: str) -> Any:
    """Read the JSON file `path`; where it is missing or broken, raise ProjectError naming the command that makes it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(f"{path} is missing: run `{made_by}` first") from None
    except ValueError as error:
        refuse_conflict(path)
        raise ProjectError(f"{path} is not valid JSON ({error}): run `{made_by}` again") from error


def read_parquet(
    path: Path, columns: list[str] | None = None, where: tuple[str, str, Any] | None = None
) -> pd.DataFrame:
    """Return a parquet file, or the rows `where` a column compares as said, as pyarrow's filters do, as a pandas frame.

    Raises OSError or ValueError (pyarrow's ArrowInvalid is one).
    """
    import pandas as pd
    from pyarrow.fs import LocalFileSystem

    # With a file object, which pandas uses by default, one process in twenty aborted while it exited, with all work
    # done: https://github.com/apache/arrow/issues/50482
    filters = [where] if where else None
    return pd.read_parquet(path, columns=columns, filesystem=LocalFileSystem(), filters=filters)


def conflicted(path: Path) -> bool:
    """Tell whether a file holds the marker with which Git begins a conflict; False where there is no such file."""
    try:
        return re.search(rb"^<<<<<<< ", path.read_bytes(), re.MULTILINE) is not None
    except (FileNotFoundError, IsADirectoryError):
        return False


def refuse_conflict(path: Path) -> None:
    """Raise ProjectError where a merge has left both sides of a conflict in `path`, which a person has to decide."""
    if conflicted(path):
        raise ProjectError(
            f"{path} holds a merge's conflict: edit it, or take one side (`git checkout --ours {path}`, or --theirs), "
            f"then `git add {path}`"
        )


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the file's hexadecimal digest. Raises FileNotFoundError where there is no such file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def md5(path: Path) -> str:
    """Return the md5 of a file, or of a folder's files as DVC computes it, which ends in .dir.

    Raises FileNotFoundError where there is neither.
    """
    if not path.is_dir():
        return digest(path, "md5")
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    files = [{"md5": digest(path / name, "md5"), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(files, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def tracked_md5(path: Path) -> str:
    """Return the md5 of a file or folder that DVC tracks: from its .dvc file if there is one, else as `md5` does.

    Of a pattern of files it is their folder's, of an object in a cloud the hash with which the pipeline has last read
    it. Raises FileNotFoundError where there is none, and no such file.
    """
    if "*" in path.name:
        path = path.parent
    if path.parts[:1] and path.parts[0].endswith(":"):
        return _locked(path)
    pointer = path.with_name(path.name + ".dvc")
    if pointer.exists():
        refuse_conflict(pointer)
        # The pointer of an import has two more md5s before it: its own, and that of its source.
        for line in pointer.read_text(encoding="utf-8").partition("outs:\n")[2].splitlines():
            key, _, value = line.strip(" -").partition(": ")
            if key == "md5":
                return value
    return md5(path)


def _locked(path: Path) -> str:
    """Return the hash (`s3://` and others have an etag) of a dependency, as dvc.lock has it."""
    for entry in LOCK.read_text(encoding="utf-8").split("- path: ")[1:]:
        named, *lines = entry.splitlines()
        found = dict(line.strip().partition(": ")[::2] for line in lines)
        if Path(named.strip("'\"")) == path:
            for kind in ("md5", "etag", "checksum"):
                if kind in found:
                    return found[kind].strip("'\"")
    raise FileNotFoundError(errno.ENOENT, "dvc.lock does not name it: run `make pipeline` first", str(path))
