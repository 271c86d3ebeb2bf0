"""`make debts`: the hidden technical debts of this repository that a machine can find, with file and line.

It writes reports/debts.json, a list of finding.Finding, and reports/debts.md, its table. It decides nothing: its exit
status is 0 whatever it finds. What could not be looked up is listed as not known, which is never the same as no debt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gitops.core import artifacts, params
from gitops.core.code import SOURCE
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.debt import found_code, found_consumers, found_data, found_dependencies, found_features, found_settings
from gitops.debt.finding import Finding
from gitops.integrations import git
from gitops.rendering.markdown import code, plain, table

#: Rows of a table that people read; debts.json has all.
SHOWN = 200


def main() -> None:
    """Write both files. Raises ProjectError for settings that are wrong."""
    if not git.is_repository():
        raise artifacts.ProjectError("this folder is no Git repository: `git init`, and commit the project")
    findings = [*find(params.load())]
    artifacts.write_json(artifacts.DEBTS, findings)
    artifacts.write_text(artifacts.DEBTS_TABLE, markdown(findings))
    for debt, number in Counter(each["debt"] for each in findings if each["known"]).items():
        echo(f"{debt}: {number}")
    echo(f"{artifacts.DEBTS_TABLE} lists {_counted(findings)}")


def find(settings: Params) -> Iterator[Finding]:
    """Yield all findings, the paper's debts of data first, then of configuration and code."""
    schema: dict[str, Any] | None = None
    if artifacts.SCHEMA.exists():
        schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    package, tools = Path("src", params.package()), Path("src/gitops")
    own, others = (sorted((SOURCE / name).rglob("*.py")) for name in (params.package(), "gitops"))
    locks = found_dependencies.locks()
    yield from found_features.find(settings, schema)
    yield from found_data.unversioned(settings)
    yield from found_data.feedback(settings, schema)
    yield from found_consumers.find(artifacts.read_json(artifacts.MONITOR_CONSUMERS, "make debts"))
    yield from found_settings.dead(settings, own, others)
    yield from found_settings.unreviewed()
    yield from found_code.dead(package, tools)
    yield from found_code.glue(package, tools)
    yield from found_dependencies.old(locks)
    yield from found_dependencies.vulnerable(locks)


def markdown(findings: Sequence[Finding]) -> str:
    """Return the findings as a page: first what was found, then what is not known."""
    known = [each for each in findings if each["known"]]
    unknown = [each for each in findings if not each["known"]]
    parts = ["# Hidden technical debts, found by machine", f"By `make debts`: {_counted(findings)}."]
    if known:
        parts.append(table(["Debt", "Where", "What"], map(_row, known), SHOWN))
    if unknown:
        parts += ["## Not known", table(["Debt", "Where", "What"], map(_row, unknown), SHOWN)]
    return "\n\n".join(parts) + "\n"


def _counted(findings: Sequence[Finding]) -> str:
    known = sum(each["known"] for each in findings)
    return f"{known} found, and {len(findings) - known} that could not be looked up"


def _row(finding: Finding) -> list[str]:
    place = finding["file"] or ""
    where = f"{place}:{finding['line']}" if finding["line"] else place
    return [plain(finding["debt"]), code(where) if where else "–", plain(finding["text"], 500)]


if __name__ == "__main__":
    artifacts.run(main)
