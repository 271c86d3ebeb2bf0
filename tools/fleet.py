"""`make fleet`: every project of a GitHub organisation on one page, those that need attention first.

It is read from Git alone: main, env/production, and the ref that the monitor writes. Only the list of repositories is
asked of GitHub, through its command `gh`; with REPOSITORIES=FILE, one clone URL a line, nothing is. What a repository
holds is data: one that is damaged or cannot be reached is a row that says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import fleet_page
from fleet_project import Project, read

TOPIC = "gitops-mlops"  # as k8s/fleet finds them, and `make github` of a project sets it
LIMIT = 1000  # repositories
AT_ONCE = 8
TEMPLATE = Path(__file__).resolve().parents[1]
INIT = TEMPLATE / "{{cookiecutter.project_slug}}/src/gitops/__init__.py"
PAGES = {"fleet.md": fleet_page.markdown, "fleet.html": fleet_page.page}


def main() -> None:
    organisation, repositories = (os.environ.get(name, "") for name in ("ORG", "REPOSITORIES"))
    if bool(organisation) == bool(repositories):
        sys.exit("error: give one of the two: `make fleet ORG=your-organisation` or `make fleet REPOSITORIES=FILE`")
    urls = of_file(Path(repositories)) if repositories else of_github(organisation)
    if not urls:
        sys.exit(f"error: there is no repository: none has the topic {TOPIC}, or the file is empty")
    projects, now = read_all(urls), datetime.now(UTC)
    newest = re.findall(r'__version__ = "(.+)"', INIT.read_text(encoding="utf-8"))[0]
    projects.sort(key=lambda project: project.urgency(newest, now))
    for name, render in PAGES.items():
        write(TEMPLATE / "build" / name, render(projects, newest, now))
    waiting = sum(bool(project.attention(newest, now)) for project in projects)
    print(f"Projects: {len(projects)}, needing attention: {waiting}. Written: build/fleet.html, build/fleet.md")


def of_github(organisation: str) -> list[str]:
    """Return the clone URLs of an organisation's repositories with TOPIC; the program ends where gh fails."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", organisation):
        sys.exit(f"error: ORG is {organisation!r}: the name of an organisation on GitHub would be right")
    if shutil.which("gh") is None:
        sys.exit("error: gh is not on PATH: install it from https://cli.github.com, then `gh auth login`")
    options = (f"--topic={TOPIC}", "--no-archived", f"--limit={LIMIT}", "--json=url")
    command = ["gh", "repo", "list", organisation, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: `gh repo list {organisation}` failed: {done.stderr.strip()}")
    urls = [entry["url"] for entry in json.loads(done.stdout)]
    if len(urls) == LIMIT:
        print(f"Only the first {LIMIT} repositories are shown, which is the most that gh was asked for.")
    return urls


def of_file(path: Path) -> list[str]:
    """Return the clone URLs of a file; empty lines and those that begin with # are left out."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"error: REPOSITORIES is {path}, which cannot be read ({error}): a text file of clone URLs is needed")
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def read_all(urls: list[str]) -> list[Project]:
    """Return each repository's project, in the order of `urls`."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read, urls, (Path(folder, str(number)) for number in range(len(urls)))))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    main()
