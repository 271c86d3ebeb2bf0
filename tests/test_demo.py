"""The demo for real, in a copy of the template, and there the example of a report too, beside the one in docs/."""

from __future__ import annotations

import difflib
import json
import re
import shutil
from pathlib import Path

import pytest
from projects import ROOT, make

#: What `make example-report` writes, and the pictures that the report shows.
EXAMPLE, PICTURES = ("docs/example-report.md", "docs/example-model-card.md"), "docs/example-report"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("demo") / "template"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "demo", ".*_cache", "__pycache__"))
    return copy


@pytest.mark.real
def test_demo(template: Path) -> None:
    """`make demo` leaves the summary that it promises. A project's own tests run in test_real.py."""
    printed = make(template, "demo")
    summary = json.loads((template / "demo/summary.json").read_text())
    assert summary.keys() >= {"steps", "report", "manifest", "release", "prediction", "model_version"}
    assert all(step.keys() >= {"name", "seconds"} for step in summary["steps"])
    count = len(summary["steps"])
    assert f"\n-- [1 of {count}, 00:" in printed and f"\n-- [{count} of {count}, " in printed
    assert summary["release"]["model"]["sha256"].startswith(summary["model_version"])
    assert summary["prediction"]["model_version"] == summary["model_version"]
    assert (template / summary["report"]).stat().st_size < 60_000
    assert summary["release"]["model"]["sha256"] in (template / summary["manifest"]).read_text()
    assert summary["rolled_back_to"] != summary["model_version"]
    assert summary["retrained"]["model"]["version"] not in (summary["model_version"], summary["rolled_back_to"])
    assert summary["retrained"]["rows"]["raw"] == 2 * summary["release"]["rows"]["raw"]


@pytest.mark.real
def test_example_report(template: Path) -> None:
    """A fresh run writes what is committed, but for digits, which are another processor's."""
    make(template, "example-report")
    for path in EXAMPLE:
        committed, fresh = (wording((folder / path).read_text(encoding="utf-8")) for folder in (ROOT, template))
        found = [*difflib.unified_diff(committed, fresh, "committed", "written anew", lineterm="", n=1)]
        assert not found, "\n".join([f"{path} is out of date: run `make example-report` and commit docs/", *found])
    assert pictures(template) == pictures(ROOT), "run `make example-report` and commit docs/"


def test_example_as_committed() -> None:
    """The example shows each of its pictures, which are small, and names nothing of the machine that wrote it."""
    report, card = ((ROOT / path).read_text(encoding="utf-8") for path in EXAMPLE)
    shown = re.findall(r'src="(?:[^"/]+)/([^"]+)"', report)
    assert sorted(shown) == pictures(ROOT) and len(shown) >= 8
    assert all((ROOT / PICTURES / name).stat().st_size < 40_000 for name in shown)
    assert str(Path.home()) not in report + card and str(ROOT) not in report + card


def test_wording() -> None:
    """Digits, and which rows they bring along, make no difference; words, rows and sections do."""
    one = "## Gate\n\n| metric | now |\n| --- | --- |\n| brier | 0.1 |\n\nWorth 1,700 (95 %: 2e-05 to 3).\n"
    assert wording(one) == wording(one.replace("1,700", "-20.5").replace("0.1", "**7**"))
    for old, new in (("Worth", "It is worth"), ("brier", "log_loss"), ("## Gate\n", ""), ("| now", "| then")):
        assert wording(one) != wording(one.replace(old, new))
    assert wording("| `mean texture` | 0 |") == wording("| `worst area` | 2 |\n| `area error` | 1 |")


def wording(text: str) -> list[str]:
    """Return the lines of a report without digits, and of a table the header and the rows' labels.

    Which rows, columns and classes are named is another processor's too: their names are all the same here.
    """
    lines = text.splitlines()
    kept: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") and not after.startswith("| ---"):
            line = next((cell for cell in line.split("|") if re.search(r"\w", cell)), "")
        line = re.sub(r"(?<=line )\[.*\]|[-+]?\d[\d,.]*(e[-+]?\d+)?", "0", line)
        line = re.sub(r"`(mean|worst) [a-z ]+`|`[a-z ]+ error`|\b(benign|malignant)\b", "name", line)
        line = re.sub(r"(name \(0\)(, )?)+", "names", line)
        if line.strip() and line not in kept[-1:]:
            kept.append(line)
    return kept


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / PICTURES).iterdir())
