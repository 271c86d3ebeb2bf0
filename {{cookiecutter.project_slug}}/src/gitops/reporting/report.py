"""`make report`: reports/report.md, the very text of the pull request's comment, and reports/report.html with plots.

A report tells only of what belongs together: results of a stage that is stale, or of another model than the present
one, are left out and named as missing.
"""

from __future__ import annotations

import sys

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc
from gitops.rendering.markdown import fenced, plain
from gitops.reporting import report_facts, report_html, report_sections
from gitops.reporting.report_facts import Facts

#: GitHub refuses a comment of more than 65,536 characters; `make comment` adds to these.
LIMIT = 58_000


def compose(facts: Facts) -> str:
    """Return the report. Where it would be longer than LIMIT, whole sections are left out, the least telling first."""
    sections = {section.__name__: text for section in report_sections.ORDER if (text := section(facts))}
    for name in report_sections.EXPENDABLE:
        if sum(len(text) + 2 for text in sections.values()) <= LIMIT:
            break
        if name in sections:
            sections[name] = f"*{plain(name.replace('_', ' '))}: too long for a comment, see report.html.*"
    return "\n\n".join(sections.values())[:LIMIT] + "\n"


def main() -> None:
    """Write both reports and print the Markdown one; settings that cannot be read are a report too, without plots."""
    artifacts.REPORT_HTML.unlink(missing_ok=True)
    written = [artifacts.REPORT]
    try:
        settings = params.load()
    except ProjectError as error:
        text = f"## ❌ Stopped: the settings cannot be used\n\n{fenced(str(error), 'text')}\n"
    else:
        facts = report_facts.gather(settings, dvc.stale())
        text = compose(facts)
        whole = "\n\n".join(filter(None, (section(facts) for section in report_sections.ORDER)))
        artifacts.write_text(artifacts.REPORT_HTML, report_html.page(whole, facts))
        written.append(artifacts.REPORT_HTML)
    artifacts.write_text(artifacts.REPORT, text)
    if number := actions.pull_request():
        artifacts.write_text(artifacts.PULL_REQUEST, f"{number}\n")
    actions.summarise(text)
    sys.stdout.write(text)
    print(f"\nwritten to {' and, with plots, '.join(map(str, written))}", file=sys.stderr)


if __name__ == "__main__":
    artifacts.run(main)
