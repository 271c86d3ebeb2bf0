"""The sections of a model card about the model itself: what it is, its data, its limits, and where it came from.

card_results.py has those about its results. Each function returns Markdown or raises Missing.
"""

from __future__ import annotations

import math
from typing import Any

from gitops.core.params import flatten
from gitops.design import documents
from gitops.design.card_inputs import PACKAGES, Inputs
from gitops.design.card_inputs import table as table_name
from gitops.design.card_text import MISSING, Missing, answered, quote
from gitops.rendering.markdown import code, plain, table

#: What a split is for.
SPLITS = {
    "train": "fits the model",
    "val": "chooses the best epoch, the calibration and the threshold",
    "test": "measures the finished model: the results in this card",
}

#: Why rows of the table are in no split.
DROPPED = {
    "dropped_missing_target": "had no target",
    "dropped_duplicates": "repeated another row",
    "dropped_repeated_ids": "were earlier rows of an id that a later split has",
}

#: What a task is called.
KINDS = {
    "binary": "classification, two classes",
    "multiclass": "classification, several classes",
    "regression": "regression",
}

#: Classes that are listed.
CLASSES = 12


def model(inputs: Inputs) -> str:
    """What the model predicts, of what, and what it is."""
    settings = inputs.settings
    rows = [["predicts", f"{code(settings.data.target)}: {_target(inputs)}"]]
    if inputs.schema:
        given = [feature for feature in inputs.schema["features"] if not feature.get("derived")]
        rows.append(["from", f"{len(given)} columns of a table, listed under Columns"])
    version = code(inputs.sha256[:12]) if inputs.sha256 else "not trained yet"
    rows += [
        ["name and version", f"{code(settings.package.model_name)}, {version}"],
        ["kind", f"{KINDS[settings.data.task]}, a program of PyTorch's"],
        ["licence of the model", plain(inputs.licence) if inputs.licence else f"{MISSING} pyproject.toml names none"],
    ]
    asks = f"`POST /predictions/{settings.package.model_name}`"
    shape = '`{"instances": [{"<column>": value, ...}]}`'
    return table(["", ""], rows) + f"\n\nAsk it with {asks} and a body of the form {shape}."


def _target(inputs: Inputs) -> str:
    classes = inputs.schema["target"]["classes"] if inputs.schema else []
    if inputs.settings.data.task == "regression":
        return "a number"
    if not classes:
        return "a class"
    more = f" and {len(classes) - CLASSES} more" if len(classes) > CLASSES else ""
    shown = ", ".join(code(name) for name in classes[:CLASSES]) + more
    return f"one of {shown}" + (f"; {code(classes[-1])} is the positive class" if len(classes) == 2 else "")


def purpose(inputs: Inputs) -> str:
    """What people have answered about the problem, and about what is decided by an answer of the model."""
    known = [question for question in inputs.business if question.answer is not None]
    if not known:
        raise Missing(f"no question in {documents.BUSINESS} is answered")
    parts = [answered(question) for question in known]
    if left := len(inputs.business) - len(known):
        parts.append(f"**Open:** {left} more question{'s' * (left > 1)} in {documents.BUSINESS}.")
    return "\n\n".join(parts)


def data(inputs: Inputs) -> str:
    """The table: where it lies, its licence, its rows, and how they were split."""
    files = " and ".join(f"{code(path)}, md5 {code(md5)}" for path, md5 in inputs.data.items())
    where = f"The table is {files or code(table_name(inputs.settings))}."
    where += "" if files else f" {MISSING} its md5, which names what it holds."
    return "\n\n".join([where, _data_licence(inputs), _splits(inputs)])


def _data_licence(inputs: Inputs) -> str:
    if inputs.data_licence is not None:
        return f"Its licence, as people have answered:\n\n{quote(inputs.data_licence)}"
    return f"{MISSING} its licence; no question about it is answered in {documents.DATA} or {documents.CARD}."


def _splits(inputs: Inputs) -> str:
    if inputs.schema is None:
        return f"{MISSING} the splits: run `make pipeline`."
    settings, counts = inputs.settings.data, inputs.schema["rows"]
    left_out = [f"{counts[name]} {why}" for name, why in DROPPED.items() if counts.get(name)]
    dropped = f", of which were left out: {', '.join(left_out)}" if left_out else ""
    how = f"in the order of {code(settings.timestamp)}" if settings.timestamp else "at random"
    together = f", rows with the same {code(settings.id)} together" if settings.id else ""
    text = f"It has {counts['raw']} rows{dropped}. They were split {how}{together}:"
    header, rows = ["split", "rows", "purpose"], [[name, str(counts[name]), SPLITS[name]] for name in SPLITS]
    if not settings.timestamp:
        note = "Its period is not known: no column says when a row was observed (`data.timestamp` is null)."
        return f"{text}\n\n{table(header, rows)}\n\n{note}"
    periods = [" to ".join(inputs.periods.get(name, (MISSING,))) for name in SPLITS]
    return f"{text}\n\n{table([*header, 'period'], [[*row, one] for row, one in zip(rows, periods, strict=True)])}"


def columns(inputs: Inputs) -> str:
    """Each column with its type and what training has seen in it; ends of ranges are rounded outwards."""
    if inputs.schema is None:
        raise Missing("the table has not been read: run `make pipeline`")
    hidden = {*inputs.settings.request_log.redact}
    rows = [
        [
            code(feature["name"]),
            plain(feature["dtype"]) + (" (derived)" if feature.get("derived") else ""),
            f"{100 * feature['missing']:.2g} %",
            "not shown" if feature["name"] in hidden else seen(feature),
        ]
        for feature in inputs.schema["features"]
    ]
    note = "Ranges are rounded outwards, so that they hold no value of a single row."
    if hidden:
        note += " Not shown: columns in `request_log.redact`."
    return table(["column", "type", "missing", "seen in training"], rows) + f"\n\n{note}"


def seen(feature: dict[str, Any]) -> str:
    """Return what training has seen of a column: a range, rounded outwards, or how many categories."""
    if "categories" in feature:
        count = len(feature["categories"])
        return "one category" if count == 1 else f"{count} categories"
    low, high = feature.get("min"), feature.get("max")
    if low is None or high is None:
        return "true, false" if feature["dtype"] == "boolean" else "–"
    if feature["dtype"] == "datetime":
        return f"{str(low)[:7]} to {str(high)[:7]}"
    if not 1e-300 < high - low < math.inf:
        return "one value only" if low == high else "–"
    step = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    return f"{math.floor(low / step) * step:.10g} to {math.ceil(high / step) * step:.10g}"


def limits(inputs: Inputs) -> str:
    """What the model refuses, what it answers all the same, and what its numbers do not say."""
    lines = [
        "A request is refused (status 400) where a column is missing or unknown, or a value is not of its type: a "
        "finite number, true or false, a date in ISO 8601, a text of at most 10,000 characters.",
        "A missing value (`null`) is answered, in every column.",
        "A number outside the range that training has seen, and a category that it has not seen, are answered without "
        "a warning: nothing in this card says how well. The monitor counts such rows.",
    ]
    if inputs.settings.data.task == "regression":
        lines.append("An answer is a number without an interval.")
    else:
        lines.append(
            "One of the classes is always answered, for a row that is of none of them too. A probability is about rows "
            "like those of the test split."
        )
    lines.append(
        "Intervals in this card are about the choice of test rows alone: not about another training, and not about "
        "data that has changed since."
    )
    return "\n".join(f"- {line}" for line in lines)


def training(inputs: Inputs) -> str:
    """With which settings and packages the model was trained."""
    settings = inputs.settings
    chosen = flatten(settings.model_dump(mode="json", include={"model", "train"}))
    if inputs.sha256 is None:
        raise Missing("no model has been trained on what is here: run `make pipeline`")
    parts = [
        f"PyTorch {plain(inputs.pytorch)} wrote the model." if inputs.pytorch else f"{MISSING} the version of PyTorch.",
        f"Packages are locked in {code(PACKAGES)} of the commit (sha256 {code(inputs.packages[:12])})."
        if inputs.packages
        else f"{MISSING} {code(PACKAGES)}, the lock of the packages.",
        f"It ran for {inputs.epochs} epochs and kept the best." if inputs.epochs else f"{MISSING} the learning curve.",
    ]
    rows = [[code(name), code("–" if value is None else value)] for name, value in chosen.items()]
    return " ".join(parts) + "\n\n" + table(["setting in params.yaml", "value"], rows)


def lineage(inputs: Inputs) -> str:
    """Where all of it came from, and how to have it again."""
    absent = f"{MISSING} not a result of this commit"
    rows = [["commit of main, or of the branch", code(inputs.commit)]]
    rows += [[f"table {code(path)}", f"md5 {code(md5)}"] for path, md5 in inputs.data.items()]
    rows.append(["MLflow run of the training", code(inputs.run["run_id"]) if inputs.run else absent])
    rows.append(["model, sha256", code(inputs.sha256) if inputs.sha256 else absent])
    md5 = inputs.metrics["test_md5"] if inputs.metrics else None
    rows.append(["rows of the test split, md5", code(md5) if md5 else absent])
    if inputs.training:
        where = {"main": "on main", "branch": "on a branch; main took the model over and evaluated it itself"}
        rows.append(["trained", where.get(inputs.training.trained_on, plain(inputs.training.trained_on))])
        rows.append(["inputs of the training, sha256", code(inputs.training.inputs)])
    else:
        rows.append(["verified by main", "not yet: main does it before a release"])
    again = f"`git checkout {inputs.commit[:12]} && make pipeline` makes or fetches all of it."
    beside = "The image of a release stands in `release.json`, beside its model card."
    return table(["", ""], rows) + f"\n\n{again} {beside}"
