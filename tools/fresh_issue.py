"""`make fresh-issue`: tell that the newest versions do not pass the tests, through GitHub's command `gh`.

One issue at a time: where it is open, a comment is added. Only the standard library is imported, because the job of the
workflow that may write issues installs nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

TITLE = "The newest versions do not pass the tests"
BODY = """{} has failed: `make lock ARGS=--upgrade`, then `make test`, with Python 3.11.

Do the same on a branch. What cannot be taken yet gets an upper limit in requirements/*.in, with the reason beside it.
"""


def main() -> None:
    if shutil.which("gh") is None:
        sys.exit("error: gh is not on PATH: install it from https://cli.github.com, then `gh auth login`")
    try:
        print(tell(run_address()))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: `{' '.join(error.cmd[:3])}` failed: {error.stderr.strip()}")


def run_address() -> str:
    """Return a link to the workflow's run, or words for a run on a laptop."""
    if "GITHUB_RUN_ID" not in os.environ:
        return "A run on somebody's machine"
    return "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format(**os.environ)


def tell(run: str) -> str:
    """Open the issue, or comment on the open one, and return its address. Raises CalledProcessError."""
    listed = gh("issue", "list", "--state=open", "--limit=1000", "--json=number,title")
    numbers = [entry["number"] for entry in json.loads(listed) if entry["title"] == TITLE]
    body = BODY.format(run)
    if numbers:
        return gh("issue", "comment", str(min(numbers)), "--body", body)
    return gh("issue", "create", "--title", TITLE, "--body", body)


def gh(*arguments: str) -> str:
    """Run `gh ARGUMENTS` and return its output. Raises CalledProcessError."""
    return subprocess.run(["gh", *arguments], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
