"""Predict whole tables (`make batch`): INPUT to OUTPUT, in chunks, so that memory does not grow with the table.

Rows that do not fit the schema go to a file beside OUTPUT with the reason, and do not stop the others; a missing column
is an error before anything is computed. Both files appear only when they are complete, and the same input gives the
same bytes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from gitops import owner
from gitops.core import params
from gitops.core.addresses import PARQUET
from gitops.core.artifacts import MODEL, PACKAGE, ProjectError, digest, run
from gitops.core.console import echo
from gitops.inference import parts, sink
from gitops.inference.model import Model, load
from gitops.inference.source import Chunk, Source
from gitops.integrations import kustomize
from gitops.tabular import cells
from gitops.tabular.arrow import Array, check, check_columns
from gitops.tabular.columns import given

#: Chunks that are processed at once, at most: each takes memory.
WORKERS = 8

#: Fraction of the rows that may be rejected, unless MAX_REJECTED says otherwise.
MAX_REJECTED = 0.2

#: Columns of the rejected rows beside the table's own; `row` is in both files, and `file` in those of a part.
FILE, ROW, COLUMN, REASON = "file", "row", "rejected_column", "rejected_reason"

#: What is put before the name of a column of INPUT that the file has itself.
PREFIX = "input_"

Item = TypeVar("Item")
Result = TypeVar("Result")


def main() -> None:
    """Predict INPUT into OUTPUT and print how many rows were predicted and rejected."""
    options = _options()

    def stop(*_: object) -> None:
        echo(f"stopped: {options.output} is unchanged", error=True)
        sys.exit(1)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    torch.set_num_threads(1)  # each chunk has a thread already
    part = parts.this()
    output = part.address(options.output) if part else options.output
    model = load(*_archive(options))
    source = Source(options.input, cells.csv_of(model.schema), part)
    made_of = None
    if part:
        part.clear(options.output, empty=not source.paths)
        if not source.paths:
            echo(f"{output}: nothing to predict, as INPUT has {len(source.files)} files for {part.count} parts")
            return
        made_of = parts.made_of(source, model, options.max_rejected)
        if parts.finished(output, made_of):
            echo(f"{output}: finished before, of the same files by {model.version}")
            return
    predicted, rejected = predict(source, output, model, options.max_rejected, made_of)
    echo(f"{output}: {predicted} rows predicted by {model.version}")
    if rejected:
        echo(f"{rejected} rows were REJECTED: {sink.rejected(output)} has them", error=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="batch", description=(__doc__ or "").partition("\n")[0])
    for name, meaning in (
        ("input", "table: .csv, .csv.gz, .parquet, or a folder of parquet files; a path or an address of fsspec"),
        ("output", f"table of predictions, likewise; with {parts.COMPLETIONS} above 1 a folder for the parts"),
    ):
        value = os.environ.get(name.upper()) or None
        parser.add_argument(f"--{name}", default=value, required=not value, help=f"{meaning} (also in {name.upper()})")
    parser.add_argument(
        "--max-rejected",
        type=_fraction,
        default=os.environ.get("MAX_REJECTED") or str(MAX_REJECTED),
        help=f"fraction of the rows that may be rejected, {MAX_REJECTED} if nothing is said (also in MAX_REJECTED)",
    )
    which = parser.add_mutually_exclusive_group()
    kustomize.add_environment_option(which, None, "the model released there, not the workspace's")
    which.add_argument("--archive", type=Path, help="a model archive, whose model has the sha256 in MODEL_SHA256")
    return parser.parse_args()


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1
    if not 0 <= fraction <= 1:
        raise ProjectError(f"MAX_REJECTED is {text!r}: a number from 0 to 1 is needed")
    return fraction


def _archive(options: argparse.Namespace) -> tuple[Path, str]:
    """Return a model archive and the sha256 that its model must have."""
    if options.archive:
        expected = os.environ.get("MODEL_SHA256")
        if not expected:
            raise ProjectError("MODEL_SHA256 is not set: --archive needs the sha256 of the model that is released")
        return options.archive, expected
    if options.environment:
        from gitops.integrations import dvc
        from gitops.releases import release

        present = release.present(options.environment)
        if present is None:
            raise ProjectError(f"nothing is released to {options.environment} yet: leave out --environment")
        return dvc.fetch(present.record.package.md5), present.record.model.sha256
    if not MODEL.exists():
        raise ProjectError(f"{MODEL} is missing: run `make pipeline` first")
    return PACKAGE / f"{params.load().package.model_name}.mar", digest(MODEL)


def predict(
    source: Source, output: str, model: Model, max_rejected: float = MAX_REJECTED, made_of: str | None = None
) -> tuple[int, int]:
    """Predict the table into `output` and return how many rows were predicted and rejected.

    `made_of`: what the file of a part says of itself (parts.py). Raises ProjectError before anything is computed where
    a column is missing, has a wrong type, or a name that the output uses itself; and where no row fits, or more than
    the fraction `max_rejected` do not, which leaves `output` unchanged and writes the rejected rows.
    """
    predicted, rejected = _schemas(source, output, model)

    def work(chunk: Chunk) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        return _predicted(chunk, model, predicted, rejected)

    good_rows = bad_rows = 0
    with (
        sink.writing(output, parts.marked(predicted, made_of)) as write,
        tqdm(total=source.rows, unit="row", unit_scale=True, disable=None) as progress,
    ):
        with sink.writing(sink.rejected(output), rejected, if_empty=False) as reject:
            for good, bad in _in_order(work, source.chunks()):
                write(good)
                if bad.num_rows:
                    reject(bad)
                good_rows, bad_rows = good_rows + good.num_rows, bad_rows + bad.num_rows
                progress.update(good.num_rows + bad.num_rows)
        if bad_rows and not good_rows:
            raise ProjectError(f"none of {bad_rows} rows fits: {sink.rejected(output)} says why")
        if bad_rows > max_rejected * (good_rows + bad_rows):
            raise ProjectError(
                f"{bad_rows} of {good_rows + bad_rows} rows do not fit, more than MAX_REJECTED ({max_rejected}) "
                f"allows: {sink.rejected(output)} says why, {output} is unchanged"
            )
    return good_rows, bad_rows


def _schemas(source: Source, output: str, model: Model) -> tuple[pa.Schema, pa.Schema]:
    """Return the columns of OUTPUT and of the rejected rows. Raises ProjectError as `predict` does at first.

    OUTPUT carries every column that is not an input of the model, a column named like a derived feature included, and
    one named like a column of its own as `input_<name>`.
    """
    check_columns(source.schema, model.schema, source.address, has_types=source.suffix == PARQUET)
    inputs = {feature["name"] for feature in given(model.schema)}
    place = [*([pa.field(FILE, pa.string())] if source.part else []), pa.field(ROW, pa.int64())]
    own = {field.name for field in place}
    carried = [field for field in source.schema if field.name not in inputs]
    predicted = [*place, *_renamed(carried, own | {field.name for field in model.fields}), *model.fields]
    reason = [*place, pa.field(COLUMN, pa.string()), pa.field(REASON, pa.string())]
    rejected = [*reason, *_renamed([*source.schema], own | {COLUMN, REASON})]
    if source.contains(output):
        raise ProjectError(f"OUTPUT is {output!r}, which is part of the input: choose another path")
    return pa.schema(predicted), pa.schema(rejected)


def _renamed(fields: Sequence[pa.Field], own: set[str]) -> list[pa.Field]:
    """Return the columns of INPUT with PREFIX before those named like the file's `own`. Raises ProjectError."""
    renamed = [field.with_name(f"{PREFIX}{field.name}") if field.name in own else field for field in fields]
    names = [field.name for field in renamed]
    if repeated := sorted({name for name in names if names.count(name) > 1 or name in own}):
        raise ProjectError(f"INPUT has columns that the output adds: rename {', '.join(map(repr, repeated))}")
    return renamed


def _predicted(
    chunk: Chunk, model: Model, predicted: pa.Schema, rejected: pa.Schema
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return the rows of a chunk for OUTPUT, and those for the file of rejected rows."""
    checked = check(chunk.batch, model.schema)
    columns, reasons = np.full((2, chunk.batch.num_rows), None, dtype=object)
    columns[~checked.fits], reasons[~checked.fits] = checked.at_fault, checked.reasons
    outputs = model.predict(checked.columns)
    finite = np.isfinite(outputs if outputs.ndim == 2 else outputs[:, None]).all(axis=1)
    good = checked.fits.copy()
    good[checked.fits] = finite
    reasons[checked.fits & ~good] = "the model's answer is not a finite number"

    kept, outputs = chunk.batch.filter(pa.array(good)), outputs[finite]
    inputs = {feature["name"] for feature in given(model.schema)}
    carried = [kept.column(name) for name in chunk.batch.schema.names if name not in inputs]
    answers = [*_answers(outputs, model), pa.array([model.version] * len(outputs), pa.string())]
    predictions = pa.RecordBatch.from_arrays([*_place(chunk, good), *carried, *answers], schema=predicted)

    bad = chunk.batch.filter(pa.array(~good))
    added = [*_place(chunk, ~good), *(pa.array(texts[~good], pa.string()) for texts in (columns, reasons))]
    refused = pa.RecordBatch.from_arrays([*added, *bad.columns], schema=rejected)
    if chunk.malformed:
        lines = [{FILE: chunk.file, ROW: row, REASON: reason} for row, reason in chunk.malformed]
        both = pa.Table.from_batches([refused, pa.RecordBatch.from_pylist(lines, rejected)])
        refused = both.sort_by(ROW).combine_chunks().to_batches()[0]
    return predictions, refused


def _place(chunk: Chunk, which: Array) -> list[pa.Array]:
    """Return where the rows `which` of a chunk stand: their numbers, and of a part of a table the file before."""
    rows = pa.array(chunk.rows[which])
    return [pa.repeat(pa.scalar(chunk.file), len(rows)), rows] if chunk.file else [rows]


def _answers(outputs: Array, model: Model) -> list[pa.Array]:
    classes = model.schema["target"]["classes"]
    if not classes:
        return [pa.array(outputs)]
    labels = np.array(classes, dtype=object)[owner.features().decide(outputs, model.schema)]
    return [pa.array(labels, pa.string()), *(pa.array(outputs[:, index]) for index in range(len(classes)))]


def _in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` for each item in order, computed in one thread for each processor core."""
    workers = min(WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


if __name__ == "__main__":
    run(main)
