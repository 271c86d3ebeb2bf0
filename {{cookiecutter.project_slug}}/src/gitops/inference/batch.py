"""Predict whole tables (`make batch`): INPUT to OUTPUT, in parts, so that memory does not grow with the table.

Rows that do not fit the schema go to a file beside OUTPUT with the reason, and do not stop the others; a column that is
missing stops everything before anything is computed. Both files are complete or not there, and the same input gives the
same bytes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from gitops.core import params
from gitops.core.addresses import PARQUET
from gitops.core.artifacts import MODEL, PACKAGE, ProjectError, digest, run
from gitops.inference import batch_output
from gitops.inference.batch_input import Part, Source
from gitops.inference.batch_model import Model, load
from gitops.integrations import kustomize
from gitops.tabular.arrow import Array, check, check_columns
from gitops.tabular.columns import given

#: Parts that are worked on at once, at most: each takes memory.
WORKERS = 8

#: What the file of rejected rows has beside the table's own columns; `row` is in both files.
ROW, COLUMN, REASON = "row", "rejected_column", "rejected_reason"

Item = TypeVar("Item")
Result = TypeVar("Result")


def main() -> None:
    """Predict INPUT into OUTPUT and say how many rows that were."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(f"stopped: {options.output} is as it was"))
    torch.set_num_threads(1)  # parts run side by side
    model = load(*_archive(options))
    source = Source(options.input)
    predicted, rejected = predict(source, options.output, model)
    print(f"{options.output}: {predicted} rows predicted by {model.version}")
    if rejected:
        print(f"{rejected} rows were REJECTED: {batch_output.rejected(options.output)} has them", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="batch", description=(__doc__ or "").partition("\n")[0])
    for name, meaning in (
        ("input", "table: .csv, .csv.gz, .parquet, or a folder of parquet files; a path or an address of fsspec"),
        ("output", "where the predictions go, likewise"),
    ):
        value = os.environ.get(name.upper()) or None
        parser.add_argument(f"--{name}", default=value, required=not value, help=f"{meaning} (also in {name.upper()})")
    which = parser.add_mutually_exclusive_group()
    kustomize.add_environment_option(which, None, "the model released there, not the workspace's")
    which.add_argument("--archive", type=Path, help="this archive's, whose model has the sha256 in MODEL_SHA256")
    return parser.parse_args()


def _archive(options: argparse.Namespace) -> tuple[Path, str]:
    """Return a model archive and the sha256 that its model must have."""
    if options.archive:
        wanted = os.environ.get("MODEL_SHA256")
        if not wanted:
            raise ProjectError("MODEL_SHA256 is not set: --archive needs the sha256 of the model that is released")
        return options.archive, wanted
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


def predict(source: Source, output: str, model: Model) -> tuple[int, int]:
    """Predict the table into `output` and return how many rows were predicted and rejected.

    Raises ProjectError before anything is computed where a column is missing, of a wrong type, or of a name that the
    output needs; and where no row at all fits, which leaves `output` as it was.
    """
    wanted, unwanted = _schemas(source, output, model)

    def work(part: Part) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        return _predicted(part, model, wanted, unwanted)

    done = refused = 0
    with (
        batch_output.writing(output, wanted) as write,
        tqdm(total=source.rows, unit="row", unit_scale=True, disable=None) as progress,
    ):
        with batch_output.writing(batch_output.rejected(output), unwanted, if_empty=False) as reject:
            for good, bad in _in_order(work, source.parts()):
                write(good)
                if bad.num_rows:
                    reject(bad)
                done, refused = done + good.num_rows, refused + bad.num_rows
                progress.update(good.num_rows + bad.num_rows)
        if refused and not done:
            raise ProjectError(f"none of {refused} rows fits: {batch_output.rejected(output)} says why")
    return done, refused


def _schemas(source: Source, output: str, model: Model) -> tuple[pa.Schema, pa.Schema]:
    """Return the columns of OUTPUT and of the rejected rows, after looking for what speaks against them."""
    check_columns(source.schema, model.schema, source.address, has_types=source.suffix == PARQUET)
    used = {feature["name"] for feature in given(model.schema)}
    row = pa.field(ROW, pa.int64())
    carried = [field for field in source.schema if field.name not in used]
    wanted = [row, *carried, *model.fields]
    unwanted = [row, pa.field(COLUMN, pa.string()), pa.field(REASON, pa.string()), *source.schema]
    for fields in (wanted, unwanted):
        names = [field.name for field in fields]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ProjectError(f"INPUT has columns named as the output's own: rename {', '.join(map(repr, repeated))}")
    if source.holds(output):
        raise ProjectError(f"OUTPUT is {output!r}, which is part of the input: name another place")
    return pa.schema(wanted), pa.schema(unwanted)


def _predicted(
    part: Part, model: Model, wanted: pa.Schema, unwanted: pa.Schema
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return what OUTPUT gets of a part, and what the file of rejected rows gets."""
    checked = check(part.batch, model.schema)
    columns, reasons = np.full((2, part.batch.num_rows), None, dtype=object)
    columns[~checked.fits], reasons[~checked.fits] = checked.at_fault, checked.reasons
    outputs = model.predict(checked.columns)
    finite = np.isfinite(outputs if outputs.ndim == 2 else outputs[:, None]).all(axis=1)
    good = checked.fits.copy()
    good[checked.fits] = finite
    reasons[checked.fits & ~good] = "the model's answer is not a finite number"

    known, outputs = part.batch.filter(pa.array(good)), outputs[finite]
    carried = [known.column(name) for name in wanted.names if name in part.batch.schema.names]
    answers = [*_answers(outputs, model), pa.array([model.version] * len(outputs), pa.string())]
    predictions = pa.RecordBatch.from_arrays([pa.array(part.numbers[good]), *carried, *answers], schema=wanted)

    bad = part.batch.filter(pa.array(~good))
    said = [pa.array(part.numbers[~good]), *(pa.array(texts[~good], pa.string()) for texts in (columns, reasons))]
    refused = pa.RecordBatch.from_arrays([*said, *bad.columns], schema=unwanted)
    if part.malformed:
        lines = [{ROW: row, REASON: line} for row, line in part.malformed]
        both = pa.Table.from_batches([refused, pa.RecordBatch.from_pylist(lines, unwanted)])
        refused = both.sort_by(ROW).combine_chunks().to_batches()[0]
    return predictions, refused


def _answers(outputs: Array, model: Model) -> list[pa.Array]:
    classes = model.schema["target"]["classes"]
    if not classes:
        return [pa.array(outputs)]
    labels = np.array(classes, dtype=object)[outputs.argmax(axis=1)]
    return [pa.array(labels, pa.string()), *(pa.array(outputs[:, place]) for place in range(len(classes)))]


def _in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` for each in turn, with a processor core for each of a few of them."""
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
