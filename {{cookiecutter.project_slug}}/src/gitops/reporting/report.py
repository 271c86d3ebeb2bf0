"""`make report`: reports/report.md, which `make comment` posts on the pull request, and reports/report.html with plots.

The model card (design/model_card.py) is written along with them.

Everything in a report belongs together: results of a stage that is out of date, or of another model than the present
one, are left out and named as missing.
"""

from __future__ import annotations

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.design import model_card
from gitops.integrations import dvc
from gitops.rendering.markdown import fenced, plain
from gitops.reporting import context, page, sections
from gitops.reporting.context import Context

#: GitHub refuses a comment of more than 65,536 characters; `make comment` adds to these.
LIMIT = 58_000


def compose(found: Context) -> str:
    """Return the report. Where it is longer than LIMIT, whole sections are left out, the least important first."""
    texts = {section.__name__: text for section in sections.ORDER if (text := section(found))}
    for name in sections.EXPENDABLE:
        if sum(len(text) + 2 for text in texts.values()) <= LIMIT:
            break
        if name in texts:
            texts[name] = f"*{plain(name.replace('_', ' '))}: too long for a comment, see report.html.*"
    return "\n\n".join(texts.values())[:LIMIT] + "\n"


def main() -> None:
    """Write both reports and print the Markdown one. Unusable settings are a report too, without plots."""
    for path in (artifacts.REPORT_HTML, artifacts.MODEL_CARD):
        path.unlink(missing_ok=True)
    written, found = [artifacts.REPORT], None
    try:
        settings = params.load()
    except ProjectError as error:
        text = f"## ❌ Stopped: the settings cannot be used\n\n{fenced(str(error), 'text')}\n"
    else:
        found = context.gather(settings, dvc.stale())
        text = compose(found)
        whole = sections.join(found, sections.ORDER)
        artifacts.write_text(artifacts.REPORT_HTML, page.page(whole, found))
        artifacts.write_json(artifacts.DEBT, found.debt)
        written.append(artifacts.REPORT_HTML)
    artifacts.write_text(artifacts.REPORT, text)
    actions.summarise(text)
    echo(text.rstrip())
    echo(f"\nwritten to {' and, with plots, '.join(map(str, written))}", error=True)
    if found:
        model_card.write(found.settings, found.stale, found.commit)


if __name__ == "__main__":
    artifacts.run(main)
