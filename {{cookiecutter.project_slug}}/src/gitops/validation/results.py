"""What Deepchecks has found: the result for the gate in JSON, a page in HTML, and a summary for the console."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deepchecks.core import CheckFailure, ConditionCategory, SuiteResult
from deepchecks.core.errors import DeepchecksBaseError

from gitops.core.artifacts import PARAMS, replacing, write_json
from gitops.core.console import echo
from gitops.validation.sample import Sample

#: Ids that pandas' tables, Deepchecks' links and plotly's figures get at random.
RANDOM_ID = re.compile(
    r'<table id="(T_[0-9a-f]{5})"|id="\w+?_([A-Z0-9]{25})"|<div id="([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"'
)

STATUS = {ConditionCategory.PASS: "passed", ConditionCategory.WARN: "warned", ConditionCategory.FAIL: "failed"}


def report(
    outcomes: SuiteResult, optional_checks: list[str], samples: dict[str, Sample], json_path: Path, html_path: Path
) -> int:
    """Write the result and Deepchecks' page, print what needs fixing, and return the exit status: 0 passed, 1 failed.

    `samples` are the rows of each table that the checks were given. The page, about 4 MB, includes its scripts and
    opens without a network.
    """
    result = _result(outcomes, optional_checks, samples)
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


def sampled(samples: dict[str, Sample]) -> str:
    """Return in words how many rows of each table the checks were given, and nothing where that is all of them."""
    if all(one.largest is None for one in samples.values()):
        return ""
    parts = [f"{one.rows:,} of {one.total:,} {name} rows" for name, one in samples.items()]
    return f"on a sample, {' and '.join(parts)}"


def _result(outcomes: SuiteResult, optional_checks: list[str], samples: dict[str, Sample]) -> dict[str, Any]:
    """Return the contents of reports/validate_*.json: passed, every condition, and the checks that did not run.

    `setting` is what in params.yaml holds a condition's limit, or leaves the check out. A check did not run when it, or
    one of its conditions, raised an error. Of a table too large for Deepchecks, `sample` says how many rows of how many
    it was given, and `all_rows` of each condition whether that was measured on all of them all the same.
    """
    words = sampled(samples)
    conditions, not_run = [], []
    for outcome in outcomes.results:
        name = outcome.check.name()
        if isinstance(outcome, CheckFailure):
            not_run.append(_not_run(outcome, _reason(outcome.exception), optional_checks))
            continue
        for item in outcome.conditions_results:
            details = one_line(item.details)
            if item.category is ConditionCategory.ERROR:
                not_run.append(_not_run(outcome, details, optional_checks))
            else:
                found = {
                    "check": name,
                    "condition": one_line(item.name),
                    "status": STATUS[item.category],
                    "details": details,
                    "setting": outcome.check.setting,
                }
                conditions.append(found | ({"all_rows": hasattr(outcome.check, "exact")} if words else {}))
    failed = any(condition["status"] == "failed" for condition in conditions)
    result = {
        "passed": not failed and all(check["allowed"] for check in not_run),
        "conditions": conditions,
        "not_run": not_run,
    }
    return result | ({"sample": words} if words else {})


def _not_run(outcome: Any, reason: str, optional_checks: list[str]) -> dict[str, Any]:
    name, section = outcome.check.name(), outcome.check.setting.partition(".")[0]
    setting = f"{section}.optional_checks"
    return {"check": name, "reason": reason, "allowed": name in optional_checks, "setting": setting}


def _reason(error: Exception) -> str:
    """Return why a check did not run; the text of an error that is not Deepchecks' own may quote a value of a row."""
    own = isinstance(error, DeepchecksBaseError)
    return f"{type(error).__name__}: {one_line(str(error)) if own else 'its text is in the HTML report'}"


def _summary(result: dict[str, Any]) -> str:
    """Return a line for each failed or warned condition and each check that did not run, and one with the counts."""
    lines = []
    for item in result["conditions"]:
        if item["status"] != "passed":
            remedy = f" ({PARAMS}: {item['setting']})" if item["status"] == "failed" else ""
            lines.append(f"{item['status']}: {item['check']}: {item['condition']}: {item['details']}{remedy}")
    for item in result["not_run"]:
        how = ", allowed" if item["allowed"] else ""
        remedy = "" if item["allowed"] else f" ({PARAMS}: {item['setting']})"
        lines.append(f"not run{how}: {item['check']}: {item['reason']}{remedy}")
    counts = {status: sum(item["status"] == status for item in result["conditions"]) for status in STATUS.values()}
    counts["not run"] = len(result["not_run"])
    if "sample" in result:
        lines.append(f"{result['sample']}; on all rows: {', '.join(on_all_rows(result)) or 'nothing'}")
    lines.append("conditions: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    return "\n".join(lines)


def on_all_rows(result: dict[str, Any]) -> list[str]:
    """Return the checks that were measured on all rows of a table although the others were given a sample of it."""
    return sorted({item["check"] for item in result["conditions"] if item["all_rows"]})


def one_line(text: str) -> str:
    """Return `text` on one line without HTML tags."""
    return " ".join(re.sub(r"</?[a-zA-Z][^>]*>", "", text).split())
