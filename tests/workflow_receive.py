"""The pre-receive hook of the stand-in for GitHub: who may push what. It runs as a program of its own, by Git.

People push with nothing in particular. A job pushes with its token, or with a deploy key, which a rule may let through.
What was accepted is appended to the log of pushes, from which the hub makes its events.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any


def identity(state: dict[str, Any]) -> str:
    """Return who pushes: a person, a deploy key or Actions. Exits where the push may write nothing."""
    if os.environ.get("GITHUB_WORKSPACE") != state["workspace"]:
        return os.environ.get("HUB_PERSON", "maintainer")
    if key := os.environ.get("HUB_KEY"):
        if key not in state["keys"]:
            sys.exit("Permission denied (publickey).")
        return "deploy key"
    token = os.environ.get("HUB_TOKEN") or os.environ.get("GITHUB_TOKEN")
    if not token or token != state["pusher"]:
        sys.exit("Permission denied to github-actions[bot]: the step has no token that may write contents")
    return "actions"


def refused(who: str, ref: str, old: str, new: str, state: dict[str, Any]) -> str | None:
    """Return why GitHub does not take an update of a ref, or None."""
    for rule in state["rules"]:
        if fnmatchcase(ref, f"refs/heads/{rule['pattern']}") and who not in rule["bypass"]:
            return f"GH013: Repository rule violations found for {ref}. Cannot update this protected ref."
    if who == "actions" and set(new) != {"0"}:
        files = ["git", "log", "--format=", "--name-only", new, "--not", "--all", "--", ".github/workflows"]
        if subprocess.run(files, capture_output=True, text=True, check=True).stdout.strip():
            return "refusing to allow a GitHub App to create or update workflow without `workflows` permission"
    return None


def main(state_file: str, log: str) -> None:
    """Read the updates from standard input and accept all of them or none."""
    state = json.loads(Path(state_file).read_text())
    who = identity(state)
    updates = [line.split() for line in sys.stdin]
    for old, new, ref in updates:
        if reason := refused(who, ref, old, new, state):
            sys.exit(reason)
    with open(log, "a", encoding="utf-8") as file:
        file.writelines(json.dumps({"who": who, "ref": ref, "sha": new}) + "\n" for _, new, ref in updates)


if __name__ == "__main__":
    main(*sys.argv[1:])
