"""`make example-report`: docs/example-report.md, what a pull request of the default project shows, with its pictures.

The steps are those of the demo up to the report, in demo/ as well; the requests that the replay needs are the rows of
the test split, each labelled later. What another run would have otherwise, though nothing is changed, is written out of
the text: hashes, ids, dates and latencies. Everything else is the same again on the same kind of processor.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess

import demo
import demo_drift

REPORT, CARD = demo.TEMPLATE / "docs/example-report.md", demo.TEMPLATE / "docs/example-model-card.md"
PICTURES = REPORT.with_suffix("")

ABOUT = """# An example of the report

What CI writes under a pull request of the default project. This one raises the dropout rate, and decides from a
probability of 0.5 on instead of from the one that is worth most. The gate accepts it by ROC AUC, which knows no
threshold; the value and the replay show what it would cost. The [amounts](../{{cookiecutter.project_slug}}/params.yaml)
are an example, the replayed requests are the rows of the test split, and the design documents are as they are
generated. The [model card](example-model-card.md) is of the same run.

`make example-report` writes these files. Hashes, dates and latencies, which each run has otherwise, are placeholders.
"""

HEADING = "## Pictures of report.html\n\nIn a run they are in one file, among its artifacts.\n"

#: The second change that the pull request proposes, beside the demo's.
EDIT = "sed -i.bak 's/threshold: expected_value/threshold: null/' params.yaml && rm params.yaml.bak"

#: What each run has otherwise, and what stands for it.
OTHERWISE = (
    (r"\b(?=[0-9]*[a-f])[0-9a-f]{12,64}\b|\b[0-9]{32,64}\b", "0123456789ab"),  # commits, models, runs, data
    (r"\b20\d\d-\d\d-\d\d\b", "2026-01-01"),
    (r"(?<=\| )[0-9.e+-]+ ms\b", "… ms"),
)

#: A picture of report.html: its title, and the file as base64.
PICTURE = re.compile(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)"')

#: Prints in one line the numbers of the rows of the test split, counted from 0 in the table.
TEST_ROWS = "import pandas; print(*pandas.read_parquet('data/prepared/test.parquet', columns=['__row__'])['__row__'])"


def main() -> None:
    """Release the default model, ask it, propose another, and write what the pull request's run says of it."""
    demo.origin_and_project()
    demo.chapter("The default goes to production")
    demo.release()
    rows = tested()
    with demo.served() as url:
        demo.step(f"{len(rows)} requests, each with its label later", run=lambda: demo_drift.use(url, "test", rows))

    demo.chapter("A pull request")
    demo.step("open a branch", f"git switch --quiet -c {demo.BRANCH}")
    demo.step("change two parameters", demo.EDIT, EDIT, "git commit --quiet -am 'More dropout, and decide from 0.5 on'")
    demo.step("fill in what a machine knows", "make documents", "git commit --quiet -am 'Fill in the documents'")
    demo.step("what its run does", "make pipeline", "make gate", "make replay", "make report")
    write()


def tested() -> list[tuple[demo_drift.Row, str]]:
    """Return features and diagnosis of the patients in the test split."""
    command = [".venv/pipeline/bin/python", "-c", TEST_ROWS]
    printed = subprocess.run(command, cwd=demo.PROJECT, capture_output=True, text=True, check=True).stdout
    patients = demo_drift.read()
    return [patients[int(number)] for number in printed.split()]


def write() -> None:
    """Write the report, its pictures and the model card, in place of those of before."""
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    page = (demo.PROJECT / "reports/report.html").read_text(encoding="utf-8")
    shown = []
    for title, data in PICTURE.findall(page):
        picture = PICTURES / f"{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.png"
        picture.write_bytes(base64.b64decode(data))
        shown.append(f'<img src="{PICTURES.name}/{picture.name}" alt="{title}" width="400">')
    report = (demo.PROJECT / "reports/report.md").read_text(encoding="utf-8")
    card = (demo.PROJECT / "reports/model-card.md").read_text(encoding="utf-8")
    REPORT.write_text("\n".join([ABOUT, settled(report), HEADING, *shown, ""]), encoding="utf-8")
    CARD.write_text(settled(card), encoding="utf-8")
    print(f"written: {', '.join(str(path.relative_to(demo.TEMPLATE)) for path in (REPORT, PICTURES, CARD))}")


def settled(text: str) -> str:
    """Return a text without what is otherwise in each run."""
    for pattern, instead in OTHERWISE:
        text = re.sub(pattern, instead, text)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


if __name__ == "__main__":
    main()
