"""Labels that arrive after the predictions, as LABELS holds them: parquet and CSV files of its owner.

A row that is not valid is left out and counted, never an error. Only LABELS is read: what a request sends, and what
lies in the request log's folder, is no label.
"""

from __future__ import annotations

import posixpath
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gitops.core.addresses import locate
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.monitoring import request_log
from gitops.monitoring.log_files import Folder

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def read(since: datetime | None = None, data: Data | None = None) -> tuple[pd.DataFrame, int]:
    """Return the labels, and how many rows are invalid because they lack the request or the value.

    The table has the columns `request_id`, `instance` and `label`, a text. Of two labels for one instance that of the
    later file counts, and within a file the later row: it corrects the other one. Files last written before `since` are
    left out. `data`: how CSV is written, and whether labels are numbers; None: the default, and they are classes. A row
    with too few or too many cells is invalid. Raises ProjectError naming a file that lacks one of the columns, and
    where LABELS and REQUEST_LOG lie in one another: whoever writes requests could then write labels.
    """
    import pandas as pd

    tables = [pd.DataFrame({"request_id": [], "instance": [], "label": []}).astype({"instance": int})]
    rows = 0
    if not request_log.absent("LABELS"):
        with request_log.opened("LABELS") as folder:
            _check_apart(folder)
            for name, content in folder.contents((".parquet", ".csv"), since):
                table, malformed = _table(name, content, data)
                rows += table.num_rows + malformed
                tables.append(_valid(table, data if name.endswith(".csv") else None))
    found = pd.concat(tables[1:] or tables)
    invalid = rows - len(found)
    return found.drop_duplicates(["request_id", "instance"], keep="last", ignore_index=True), invalid


def _check_apart(labels: Folder) -> None:
    """Raise ProjectError where one of the two folders is the other, or lies in it."""
    if request_log.absent("REQUEST_LOG"):
        return
    address = request_log.address("REQUEST_LOG")
    log = Folder("REQUEST_LOG", *locate("REQUEST_LOG", address))
    if _inside(log, labels) or _inside(labels, log):
        raise ProjectError(
            f"LABELS is {request_log.address('LABELS')!r} and REQUEST_LOG {address!r}: neither may lie in the other, "
            "or whatever writes requests could write labels"
        )


def _inside(inner: Folder, outer: Folder) -> bool:
    """Tell whether a folder is another one, or lies in it: by what the names lead to, where it is on this machine."""
    if inner.local and outer.local:
        folder, path = Path(outer.root), Path(inner.root).resolve()
        present = [parent for parent in (path, *path.parents) if parent.exists()]
        return folder.exists() and any(parent.samefile(folder) for parent in present)
    below, above = (PurePosixPath(posixpath.normpath("/" + each.root.strip("/"))) for each in (inner, outer))
    return type(inner.files) is type(outer.files) and below.is_relative_to(above)


def _table(name: str, content: bytes, data: Data | None) -> tuple[pa.Table, int]:
    """Return a file's columns, and the number of its rows that have too few or too many cells."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gitops.tabular import cells, csv_file

    if name.endswith(".parquet"):
        # No file object, for the reason in artifacts.read_parquet.
        table, malformed = pq.read_table(pa.BufferReader(content)), 0
    else:
        table, malformed = csv_file.read_lenient(
            content, cells.DEFAULT if data is None else data.csv, f"labels in {name}"
        )
    if missing := {"request_id", "label"} - {*table.column_names}:
        raise ProjectError(f"labels in {name} have no column {' and no column '.join(sorted(missing))}")
    return table, malformed


def _valid(table: pa.Table, data: Data | None) -> pd.DataFrame:
    """Return the rows that name a request and have a label. `data`: of a CSV file, whose numbers it writes."""
    import pandas as pd

    from gitops.tabular import cells, dtypes

    names = [name for name in ("request_id", "instance", "label") if name in table.column_names]
    found = pd.DataFrame({name: dtypes.category(dtypes.texts(table[name], [""])) for name in names})
    if data is not None and data.task == "regression":
        numbers = found["label"].map(lambda text: cells.number(text, data.csv), na_action="ignore")
        found["label"] = found["label"].where(numbers.isna(), numbers.astype(str))
    instance = found["instance"] if "instance" in found else pd.Series(0, found.index)
    index = pd.to_numeric(instance.fillna(0), errors="coerce")
    known = found["request_id"].notna() & found["label"].notna() & index.between(0, 10**9)
    return found.assign(instance=index)[["request_id", "instance", "label"]][known].astype({"instance": int})
