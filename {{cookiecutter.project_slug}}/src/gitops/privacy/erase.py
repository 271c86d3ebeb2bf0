"""Erase a person's data (`make erase ID=...`): out of the table, the request log, the labels and what is made of them.

ID is a value of `data.id`; where the table has none, or with --request, the id of a request. What is found is shown, by
place, with the releases that were trained with it and what cannot be erased from here; then it asks. A command that is
killed is finished by the next one with the same ID (journal.py).

Exit status: 1 where no place knows the ID, so that a misspelt one is not taken for erased, else 0.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from gitops.core import params
from gitops.core.artifacts import ProjectError, run
from gitops.core.console import confirmed, echo
from gitops.core.params import Params
from gitops.privacy import (
    derived,
    elsewhere,
    journal,
    label_rows,
    log_lines,
    online,
    provenance,
    report,
    subject,
    tables,
)
from gitops.privacy.journal import Journal
from gitops.privacy.subject import Subject
from gitops.retraining import retrain


def main() -> int:
    """Show what there is, ask, and erase it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--request", action="store_true", help="ID is the id of a request, though the table has ids")
    parser.add_argument("--yes", action="store_true", help="erase it without asking")
    arguments = parser.parse_args()
    settings = params.load()
    who = subject.of(os.environ.get("ID", ""), settings.data, request=arguments.request)
    with retrain.lock():
        begun = journal.begun(who)
        if begun is None:
            rows, copies, told = look(who, settings)
            echo(*report.lines(told))
            if not any(each["count"] for each in told["found"].values()):
                return _nothing(told, who)
            echo(*report.left(told))
            if not (arguments.yes or confirmed("Erase it?")):
                return 0
            begun = Journal(tables.stage(rows, settings, journal.folder()), copies, told)
            journal.begin(begun, who)
        else:
            echo("an erasure of this ID was broken off: it is finished now")
        finish(begun, who, settings)
    echo(f"erased; {report.REPORT} says what, what is left, and what comes next")
    return 0


def look(who: Subject, settings: Params) -> tuple[tables.Found, list[str], dict[str, Any]]:
    """Return the table's rows, the md5s of the copies in DVC's cache, and what is reported. Raises ProjectError."""
    log = log_lines.search(who)
    labels = label_rows.search(who, log.keys, settings.data.csv)
    rows = tables.search(who, settings)
    traced = provenance.trace(who, settings)
    copies = derived.cached(traced.versions.held, traced.versions.objects | traced.versions.copies)
    stored = online.search(who, settings)
    here = rows.rows + len(rows.hashes) + log.lines + labels.labels + len(copies) + stored
    made = len(derived.results()) if here else 0
    found = {
        "table": report.found(rows.rows, "row", len(rows.positions)),
        "data/appended.json": report.found(len(rows.hashes), "request"),
        "request log": report.found(log.lines, "line", log.files),
        "labels": report.found(labels.labels, "label", labels.files),
        "online store": report.found(stored, "key"),
        "DVC's cache": report.found(len(copies), "object"),
        "results": report.found(made, "file or folder of results", plural="files and folders of results"),
    }
    notes = [*rows.left, *_unfindable(who, settings, log), *elsewhere.notes(who)]
    return rows, copies, report.describe(found, traced, notes)


def _unfindable(who: Subject, settings: Params, log: log_lines.Found) -> list[str]:
    """Return why the log may hold what cannot be found by the id."""
    notes = []
    if who.column is not None and not log.empty:
        hidden = who.column in settings.request_log.redact
        if hidden or not log.named:
            why = "request_log.redact names it" if hidden else "no line has it"
            notes.append(
                f"Requests in the log cannot be found by {who.column}, because {why}: name each request instead, with "
                "`make erase ID=... ARGS=--request`."
            )
        else:
            notes.append("Requests that did not give the id cannot be found by it.")
    if who.column is None:
        notes.append("Rows of the table that did not come as requests: they carry no id of one.")
    return notes


def _nothing(told: dict[str, Any], who: Subject) -> int:
    """Say that nothing is here, and return 0 where an earlier version of the table had the id. Raises ProjectError."""
    if told["versions"]["held"]:
        echo(*report.left(told), "nothing of this ID is here any more")
        return 0
    if told["notes"]:
        echo(*told["notes"])
    kind = f"a value of {who.column}" if who.column is not None else "an id of a request"
    raise ProjectError(f"nothing here has this ID, as {kind}: is it spelt as in the table or in the log?")


def finish(begun: Journal, who: Subject, settings: Params) -> None:
    """Erase; each step may have been done before. The log goes last: by its lines labels are found."""
    label_rows.erase(who, log_lines.search(who).keys, settings.data.csv)
    derived.remove_results()
    online.erase(who, settings)
    journal.replace(begun.tables)
    derived.forget(begun.forgotten)
    log_lines.erase(who)
    report.write(begun.report)
    journal.end()


if __name__ == "__main__":
    run(main)
