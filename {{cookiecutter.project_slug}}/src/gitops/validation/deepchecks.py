"""Run Deepchecks on the project's tables and summarize its results.

Deepchecks runs in an environment of its own, because it needs old versions of packages that everything else needs new.
The project's checks.py, conditions.py and the monitor's drift.py choose the checks; nothing else imports Deepchecks.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from pathlib import Path
from typing import Any

import deepchecks
import joblib
import pandas as pd
from deepchecks.core import CheckFailure, ConditionCategory, SuiteResult
from deepchecks.core.errors import DeepchecksBaseError
from deepchecks.tabular import Dataset, Suite
from threadpoolctl import ThreadpoolController

from gitops.core.artifacts import ROW, ProjectError, read_parquet, replacing, write_json
from gitops.core.console import echo
from gitops.core.sections import Validation
from gitops.validation.conditions import Candidate

#: Ids that pandas' tables, Deepchecks' links and plotly's figures get at random.
RANDOM_ID = re.compile(
    r'<table id="(T_[0-9a-f]{5})"|id="\w+?_([A-Z0-9]{25})"|<div id="([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"'
)

STATUS = {ConditionCategory.PASS: "passed", ConditionCategory.WARN: "warned", ConditionCategory.FAIL: "failed"}


def read_table(paths: list[Path], schema: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of the splits `paths`, indexed by row number, with columns and types that Deepchecks supports.

    Booleans become the categories "true" and "false". Dates stay dates: Deepchecks uses them to find equal rows, and
    leaves them out of drift, which a chronological split would always show.
    Raises ProjectError where a file is missing or lacks a column of the schema.
    """
    names = [feature["name"] for feature in schema["features"]] + [schema["target"]["name"]]
    names += [name for name in (schema["id"], schema["timestamp"]) if name is not None]
    try:
        table = pd.concat([read_parquet(path, columns=[ROW, *names]) for path in paths]).set_index(ROW)
    except (OSError, ValueError) as error:  # no such file; no such column
        files = " and ".join(str(path) for path in paths)
        reason = str(error).partition("\n")[0]  # pyarrow goes on to list every column
        raise ProjectError(f"{files} cannot be read by the schema ({reason}): run `make pipeline`") from error
    for feature in schema["features"]:
        if feature["dtype"] == "boolean":
            column = table[feature["name"]].map({True: "true", False: "false"}).astype(object)
            table[feature["name"]] = column.where(column.notna(), None)
    if schema["id"] is not None:  # a row without an id is a group of its own, as in split.py
        table[schema["id"]] = table[schema["id"]].where(table[schema["id"]].notna(), "row " + table.index.astype(str))
    return table


def read_predictions(path: Path, schema: dict[str, Any], train: pd.Index[int], test: pd.Index[int]) -> dict[str, Any]:
    """Return the predictions for the rows `train` and `test` as Deepchecks' arguments.

    Classes are sorted, as Deepchecks demands; in the schema a binary task's positive class is last.
    Raises ProjectError where the file is missing or lacks a row or a column.
    """
    classes = sorted(schema["target"]["classes"])
    arguments: dict[str, Any] = {"model_classes": classes} if classes else {}
    try:
        table = read_parquet(path).set_index("row")
        for split, rows in (("train", train), ("test", test)):
            arguments[f"y_pred_{split}"] = table.loc[rows, "prediction"].to_numpy()
            if classes:
                arguments[f"y_proba_{split}"] = table.loc[rows, [f"p_{name}" for name in classes]].to_numpy(float)
    except (OSError, KeyError) as error:
        raise ProjectError(f"{path} does not fit the splits ({_line(str(error))}): run `make pipeline`") from error
    return arguments


def choose(section: str, settings: Validation, candidates: list[Candidate]) -> Suite:
    """Return the checks that apply and are not skipped, as a suite named after the section of params.yaml.

    Raises ProjectError where `skip` or `optional_checks` of that section names no check.
    """
    known = sorted(check.name() for _, check in candidates)
    for key in ("skip", "optional_checks"):
        for name in getattr(settings, key):
            if name not in known:
                raise ProjectError(
                    f"params.yaml: {section}.{key} names {name!r}, which is not a check; there are {', '.join(known)}"
                )
    return Suite(section, *(check for applies, check in candidates if applies and check.name() not in settings.skip))


def run(suite: Suite, schema: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame, **arguments: Any) -> SuiteResult:
    """Run the suite on the two tables; `arguments` go to Deepchecks' `Suite.run`, such as the predictions.

    Raises ProjectError where Deepchecks rejects the tables or the predictions as a whole.
    """
    deepchecks.set_verbosity(logging.INFO if sys.stderr.isatty() else logging.ERROR)  # INFO: a progress bar
    try:
        # The fits are small: worker processes, and threads that wait for each other, make them 5 to 20 times slower.
        with joblib.parallel_config(backend="sequential"), _threads().limit(limits=1):
            return suite.run(_dataset(train, schema, "Train"), _dataset(test, schema, "Test"), **arguments)
    except DeepchecksBaseError as error:
        raise ProjectError(f"Deepchecks rejects the tables: {_line(str(error))}") from error


@functools.cache  # finding the libraries takes a tenth as long as the monitor's checks
def _threads() -> Any:
    return ThreadpoolController()


def _dataset(table: pd.DataFrame, schema: dict[str, Any], name: str) -> Dataset:
    features = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    return Dataset(
        table,
        label=schema["target"]["name"] if schema["target"]["name"] in table else None,
        features=list(features),
        cat_features=[feature for feature, dtype in features.items() if dtype in ("category", "boolean")],
        index_name=schema["id"],
        datetime_name=schema["timestamp"],
        label_type=schema["task"] if schema["target"]["name"] in table else None,
        dataset_name=name,
    )


def report(outcomes: SuiteResult, optional_checks: list[str], json_path: Path, html_path: Path) -> int:
    """Write the result and Deepchecks' page, print what needs fixing, and return the exit status: 0 passed, 1 failed.

    The page, about 4 MB, includes its scripts and opens without a network.
    """
    result = _result(outcomes, optional_checks)
    names = sorted(outcome.check.name() for outcome in outcomes.results)
    with replacing(html_path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            outcomes.save_as_html(file, as_widget=False)  # given a path that exists, it would write to another name
        temporary.write_text(_reproducible(temporary.read_text(encoding="utf-8"), names), encoding="utf-8")
    write_json(json_path, result)
    echo(_summary(result), f"see {html_path}")
    return 0 if result["passed"] else 1


def _reproducible(html: str, names: list[str]) -> str:
    """Return the page without what is made up anew for each: ids of elements, and which checks are mentioned first.

    Equal results are then equal bytes, so that running a stage again changes nothing in dvc.lock.
    """
    html = re.sub(r"(?<=various checks such as: )[^<]*?(?=, etc)", lambda _: ", ".join(names[:3]), html)
    for number, found in enumerate(dict.fromkeys("".join(groups) for groups in RANDOM_ID.findall(html))):
        html = html.replace(found, f"element-{number}")
    return html


def _result(outcomes: SuiteResult, optional_checks: list[str]) -> dict[str, Any]:
    """Return the contents of reports/validate_*.json: passed, every condition, and the checks that did not run.

    A check did not run when it, or one of its conditions, raised an error.
    """
    conditions, not_run = [], []
    for outcome in outcomes.results:
        name = outcome.check.name()
        if isinstance(outcome, CheckFailure):
            not_run.append({"check": name, "reason": _reason(outcome.exception), "allowed": name in optional_checks})
            continue
        for item in outcome.conditions_results:
            details = _line(item.details)
            if item.category is ConditionCategory.ERROR:
                not_run.append({"check": name, "reason": details, "allowed": name in optional_checks})
            else:
                status = STATUS[item.category]
                conditions.append({"check": name, "condition": _line(item.name), "status": status, "details": details})
    failed = any(condition["status"] == "failed" for condition in conditions)
    return {
        "passed": not failed and all(check["allowed"] for check in not_run),
        "conditions": conditions,
        "not_run": not_run,
    }


def _reason(error: Exception) -> str:
    """Return why a check did not run; the text of an error that is not Deepchecks' own may quote a value of a row."""
    own = isinstance(error, DeepchecksBaseError)
    return f"{type(error).__name__}: {_line(str(error)) if own else 'its text is in the HTML report'}"


def _summary(result: dict[str, Any]) -> str:
    """Return a line for each failed or warned condition and each check that did not run, and one with the counts."""
    lines = []
    for item in result["conditions"]:
        if item["status"] != "passed":
            lines.append(f"{item['status']}: {item['check']}: {item['condition']}: {item['details']}")
    for item in result["not_run"]:
        lines.append(f"not run{', allowed' if item['allowed'] else ''}: {item['check']}: {item['reason']}")
    counts = {status: sum(item["status"] == status for item in result["conditions"]) for status in STATUS.values()}
    counts["not run"] = len(result["not_run"])
    lines.append("conditions: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    return "\n".join(lines)


def _line(text: str) -> str:
    """Return `text` on one line without HTML tags."""
    return " ".join(re.sub(r"</?[a-zA-Z][^>]*>", "", text).split())
