"""The metadata of a model card, in the form of Hugging Face's: YAML between two lines of `---`, before the text.

The form: https://github.com/huggingface/hub-docs/blob/main/modelcard.md, the names of licences:
https://huggingface.co/docs/hub/repositories-licenses. What the Hub reads as the name of something on it (a dataset)
names nothing there: the table is the project's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from gitops.core.console import one_line
from gitops.design.card_inputs import Inputs, table

#: Licences of software that the Hub knows, which are SPDX's names in lower case; any other one is `other`.
LICENCES = {
    *("agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "epl-2.0", "eupl-1.2"),
    *("gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "unlicense", "zlib"),
}

#: The Hub's names of metrics, where they are not ours, and the arguments that make them ours.
METRICS: dict[str, dict[str, Any]] = {
    "brier": {"type": "brier_score"},
    "macro_f1": {"type": "f1", "args": {"average": "macro"}},
    "r2": {"type": "r_squared"},
    "rmse": {"type": "mse", "args": {"squared": False}},
}


def metadata(inputs: Inputs) -> str:
    """Return the card's metadata, with the lines around it."""
    task = inputs.settings.data.task
    values: dict[str, Any] = licence(inputs.licence) | {
        "library_name": "pytorch",
        "pipeline_tag": pipeline_tag(task),
        "tags": ["tabular", task, "pytorch"],
        "datasets": [dataset(table(inputs.settings))],
    }
    if inputs.metrics:
        names = [METRICS.get(name, {"type": name})["type"] for name in inputs.metrics["metrics"]]
        values |= {"metrics": [*dict.fromkeys(names)], "model-index": [_results(inputs, inputs.metrics["metrics"])]}
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def pipeline_tag(task: str) -> str:
    """Return the Hub's name of a task."""
    return "tabular-regression" if task == "regression" else "tabular-classification"


def licence(expression: str | None) -> dict[str, str]:
    """Return the metadata of a licence, an SPDX expression; None: not known."""
    if not expression:
        return {"license": "unknown"}
    name = re.sub(r"-(only|or-later)$", "", expression.strip().lower())
    if name in LICENCES:
        return {"license": name}
    found = {"license": "other", "license_name": _name(name.removeprefix("licenseref-"))}
    return found | ({"license_link": "LICENSE"} if Path("LICENSE").exists() else {})


def dataset(path: str) -> str:
    """Return the name of a table as the name of a dataset: without a folder, which would be an owner on the Hub."""
    return _name(path.rstrip("/").rpartition("/")[2])


def _results(inputs: Inputs, scores: dict[str, Any]) -> dict[str, Any]:
    """Return what the Hub shows as the model's results: each metric on the test split."""
    where = table(inputs.settings)
    split = {"type": dataset(where), "name": one_line(where, 200), "split": "test"}
    revision = {"revision": one_line("+".join(inputs.data.values()), 200)} if inputs.data else {}
    task = pipeline_tag(inputs.settings.data.task)
    metrics = [
        {"type": name, "value": float(score["value"]), "name": name, **METRICS.get(name, {})}
        for name, score in scores.items()
    ]
    result = {"task": {"type": task}, "dataset": split | revision, "metrics": metrics}
    return {"name": inputs.settings.package.model_name, "results": [result]}


def _name(text: str) -> str:
    """Return a text of the characters that the Hub allows in names."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")[:96] or "unnamed"
