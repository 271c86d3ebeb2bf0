"""Who has to approve what: people with write access, the team of an organisation, and .github/CODEOWNERS."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from typing import Any

from gitops.project.github_calls import Failed, GitHub, Refused

CODEOWNERS = Path(".github/CODEOWNERS")
SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*")


def add_writers(github: GitHub, people: list[str]) -> None:
    """Add to `people` those who have write access."""
    people += [one["login"] for one in github.get("collaborators?permission=push&per_page=100", otherwise=[])]


def is_owned_by(name: str) -> bool:
    """Return whether CODEOWNERS names the account itself, which for an organisation says nothing to GitHub."""
    return CODEOWNERS.exists() and f"@{name}".lower() in CODEOWNERS.read_text(encoding="utf-8").lower().split()


def choose_team(github: GitHub, wanted: str | None) -> str | None:
    """Return the team that owns the code of an organisation's repository: `wanted`, or the answer at the terminal."""
    if wanted or not is_owned_by(github.owner):
        return wanted
    if github.live and sys.stdin.isatty() and sys.stdout.isatty():
        print(f"\nWhich team of {github.owner} reviews changes of the settings, workflows and releases?")
        if answer := input("Its name as in its address, or nothing to decide later: ").strip():
            return answer
    github.notes.append(
        f"{CODEOWNERS} names @{github.owner}, and GitHub knows no organisation as an owner: ARGS='--team NAME'"
    )
    return None


def check_team(github: GitHub, team: str) -> None:
    """Give the team write access, which a code owner needs. Raises Refused where it does not exist or is secret."""
    path = f"orgs/{github.owner}/teams/{team}"
    lists = f"`gh api orgs/{github.owner}/teams --jq '.[].slug'` lists those that you can see"
    found: Any = github.read("gh", "api", path, otherwise=None) if SLUG.fullmatch(team) else None
    if github.live and found is None:
        raise Refused(f"--team {team}: no team of {github.owner} is called that; {lists}")
    if found and found.get("privacy") == "secret":
        raise Refused(f"--team {team} is a secret team, and a code owner has to be visible: change that, or the team")
    access = f"{path}/repos/{github.repository}"
    header = ("--header", "Accept: application/vnd.github.v3.repository+json")
    present = github.read("gh", "api", *header, access, otherwise={})
    if not present.get("permissions", {}).get("push"):
        github.run("gh", "api", "--method", "PUT", access, "--input", "-", body={"permission": "push"})


def name_owners(github: GitHub, owners: list[str], *, pushed: bool) -> None:
    """Let CODEOWNERS name these in the place of the account alone; commit that if main is not `pushed` yet.

    Each other line, and what else somebody has changed in the file, stays as it is.
    """
    if not is_owned_by(github.owner):
        return
    clean = not git(github, "status", "--porcelain", "--", str(CODEOWNERS))
    # newline="" keeps the ends of lines as they are
    with CODEOWNERS.open(encoding="utf-8", newline="") as file:
        lines = file.read().splitlines(keepends=True)
    alone = re.compile(rf"^([^#\s]\S*\s+)@{re.escape(github.owner)}(?=\s*(#.*)?$)", re.IGNORECASE)
    text = "".join(alone.sub(rf"\g<1>{' '.join(owners)}", line) for line in lines)
    if text == "".join(lines):
        return
    print(f"# {CODEOWNERS} names {' '.join(owners)}")
    temporary = CODEOWNERS.with_name(".CODEOWNERS.new")
    temporary.write_text(text, encoding="utf-8", newline="")
    temporary.replace(CODEOWNERS)
    if not pushed and clean and git(github, "branch", "--show-current").strip() == "main":
        try:
            github.run("git", "commit", "--quiet", "--message", "Name the code owners", "--", str(CODEOWNERS))
            return
        except Failed as error:
            print(f"# {error}")
    github.notes.append(f"{CODEOWNERS} has changed: commit it, and open a pull request if main is on GitHub already")


def git(github: GitHub, *arguments: str) -> str:
    return github.run("git", *arguments)


def can_approve(github: GitHub) -> bool:
    """Return whether main's code owners can approve each other's changes, and note what is in the way.

    The author of a change cannot approve it: where one person is the only owner, that person could change nothing.
    """
    if not github.live:
        return False
    errors = github.get("codeowners/errors", otherwise={"errors": []})["errors"]
    for error in errors:
        github.notes.append(f"{CODEOWNERS}, line {error['line']}: {error['kind']}: {error.get('suggestion') or ''}")
    content = github.get(f"contents/{CODEOWNERS}?ref=main", otherwise={}).get("content", "")
    lines = [line.partition("#")[0].split() for line in base64.b64decode(content).decode().splitlines()]
    owners = [set(line[1:]) for line in lines if line]
    return bool(owners) and not errors and all(len(one) > 1 or any("/" in name for name in one) for one in owners)
