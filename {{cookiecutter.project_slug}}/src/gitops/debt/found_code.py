"""Code that nothing calls, and how much of the code is glue."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gitops.debt.finding import CODE_PATHS, GLUE, Finding, found, unknown

VULTURE = Path(".venv/debt/bin/vulture")

#: PyTorch calls it by another name.
CALLED = "forward"

#: Exit statuses of vulture: nothing unused, and something.
ENDED = (0, 3)

LINE = re.compile(r"^(?P<file>.+?\.py):(?P<line>\d+): (?P<text>.+?) \(\d+% confidence.*\)$")

#: From how much of the code on Sculley et al. speak of glue: "a mature system might end up being (at most) 5 %
#: machine learning code and (at least) 95 % glue code".
GLUE_FRACTION = 0.95


def dead(package: Path, users: Path) -> Iterator[Finding]:
    """Yield what vulture finds in the files of `package` that neither they nor those of `users` name.

    It reads names and runs nothing: what is called by a computed name seems dead to it. What it cannot read is unknown.
    """
    command: list[str | Path] = [
        VULTURE,
        package,
        users,
        "--ignore-decorators",
        "@*validator",
        "--ignore-names",
        CALLED,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        yield unknown(CODE_PATHS, f"{VULTURE} is missing: run `make debts`, which makes it", package)
        return
    if done.returncode not in ENDED:
        yield unknown(CODE_PATHS, f"vulture failed: {' '.join((done.stdout + done.stderr).split())[:300]}", package)
    for match in filter(None, map(LINE.match, done.stdout.splitlines())):
        file = Path(match["file"])
        # A field of settings.py is read by its name in params.yaml: found_settings.py looks at that.
        if file.is_relative_to(package) and file.name != "settings.py":
            yield found(CODE_PATHS, f"{match['text'][0].upper()}{match['text'][1:]}", file, int(match["line"]))


def glue(package: Path, others: Path) -> Iterator[Finding]:
    """Yield how much of the code connects tools, in lines that are neither empty nor comments, where it is too much."""
    model, tools = code_lines(package), code_lines(others)
    fraction = tools / max(1, model + tools)
    if fraction >= GLUE_FRACTION:
        yield found(
            GLUE,
            f"{others} has {tools:,} lines of code and {package} {model:,}: {fraction:.0%} connects tools. The "
            "template tests these, and an update replaces them, so the debt is the template's while nobody edits them",
            others,
        )


def code_lines(folder: Path) -> int:
    """Return the lines of code of the Python files under `folder`."""
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    stripped = (line.strip() for text in texts for line in text.splitlines())
    return sum(bool(line) and not line.startswith("#") for line in stripped)
