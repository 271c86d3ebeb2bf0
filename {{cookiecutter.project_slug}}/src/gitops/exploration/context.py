"""What explore.py hands to the environment `explore`, in which page.py runs: settings, and where the rows lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: The page, and the files behind it.
PAGE = Path("build/explore.html")
FOLDER = Path("build/explore")
CONTEXT = FOLDER / "context.json"
RAW = FOLDER / "raw.parquet"

#: Settings of params.yaml by name. `splits`: name -> path of the parquet file; the first is the one that is explored
#: in full. `features`, `classes`: of schema.json, None without one. `rows`: counts by name. `error`: why the table was
#: refused, None where it was not. `problems`: column -> its own error.
Context = dict[str, Any]
