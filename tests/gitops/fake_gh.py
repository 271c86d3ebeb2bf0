"""Stands in for the command `gh` in the tests of `make github`, for the calls that are made there.

The file that FAKE_GH names holds the state as JSON: repositories, the owner with its plan, teams. It answers as GitHub
does, with GitHub's own words where it refuses; the REST interface is fake_rest.py. Repositories are bare ones beside
the file. A test starts this dozens of times, so it imports little.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = os.environ["FAKE_GH"]
with open(FILE, encoding="utf-8") as opened:
    STATE: dict[str, Any] = json.load(opened)
REPOSITORIES: dict[str, Any] = STATE["repositories"]


def main() -> None:
    arguments = sys.argv[1:]
    text = sys.stdin.read() if "--input" in arguments or reads_value(arguments) else ""
    body = json.loads(text) if "--input" in arguments else None
    STATE["calls"].append([*arguments, body])
    save()
    command, rest = arguments[:2], arguments[2:]
    if command == ["auth", "status"]:
        return None if STATE["logged_in"] else fail("You are not logged into any GitHub hosts.")
    if STATE["broken"] and STATE["broken"] in " ".join(arguments):
        fail("error connecting to api.github.com")
    if arguments[0] == "api":
        import fake_rest

        method = option(arguments, "--method") or "GET"
        answer = fake_rest.api(method, path_of(arguments[1:]), fields(arguments) if body is None else body)
    else:
        run = {"repo": repo, "variable": variable, "secret": variable}[command[0]]
        answer = run(*command, rest, text)
    save()
    if answer is not None:
        print(json.dumps(answer))
    return None


def save() -> None:
    with open(FILE, "w", encoding="utf-8") as file:
        json.dump(STATE, file)


def fail(message: str, status: int = 0) -> Any:
    """End like `gh api` for a status, and like gh's other commands without one."""
    save()
    sys.exit(f"gh: {message} (HTTP {status})" if status else message)


def reads_value(arguments: list[str]) -> bool:
    return arguments[0] in ("secret", "variable") and arguments[1] == "set" and "--body" not in arguments


def option(arguments: list[str], name: str) -> str | None:
    return arguments[arguments.index(name) + 1] if name in arguments else None


def path_of(arguments: list[str]) -> str:
    roots = ("repos/", "orgs/", "users/", "apps/")
    return next(item for item in arguments if item.startswith(roots) or item == "user")


def fields(arguments: list[str]) -> dict[str, Any]:
    """Return what -f and -F give; of -F, @ names a file, and true and false are no texts."""
    given: dict[str, Any] = {}
    for flag, item in pairwise(arguments):
        name, _, value = item.partition("=")
        if flag == "-f":
            given[name] = value
        elif flag == "-F":
            given[name] = read(value[1:]) if value.startswith("@") else {"true": True, "false": False}[value]
    return given


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def git(*arguments: str) -> str:
    """Return the output of git; empty if it fails."""
    import subprocess

    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout


def bare(name: str) -> str:
    return f"{os.path.dirname(FILE)}/{name}.git"


def repo(_: str, action: str, rest: list[str], text: str) -> Any:
    name, found = rest[0], REPOSITORIES.get(rest[0])
    url = f"https://github.com/{name}"
    if action == "create":
        if found:
            fail(f"GraphQL: Name already exists on this account (createRepository): {name}")
        new_repository(name, "PUBLIC" if "--public" in rest else "PRIVATE")
        if remote := option(rest, "--remote"):
            git("remote", "add", remote, f"{url}.git")
        return None
    if not found:
        return fail(f"GraphQL: Could not resolve to a Repository with the name '{name}'. (repository)")
    if action == "view":
        return {"url": url, "visibility": found["visibility"]}
    branch = option(rest, "--default-branch")
    if not git("--git-dir", bare(name), "for-each-ref", f"refs/heads/{branch}"):
        fail("Validation Failed", 422)
    found["settings"] = sorted(item for item in rest[1:] if item.startswith("--") and item != "--add-topic")
    found["topics"] = sorted({*found["topics"], str(option(rest, "--add-topic"))})
    return None


def new_repository(name: str, visibility: str) -> None:
    git("init", "--quiet", "--bare", "--initial-branch=main", bare(name))
    REPOSITORIES[name] = {
        "visibility": visibility,
        "topics": [],
        "actions/permissions": {"enabled": True, "allowed_actions": "all", "sha_pinning_required": False},
        "rulesets": {},
        "environments": {},
        "keys": {},
        "collaborators": [STATE["me"]],
        "variable": {},
        "secret": {},
    }


def variable(kind: str, action: str, rest: list[str], text: str) -> Any:
    """Answer `gh variable` and `gh secret`, of the repository or of an environment."""
    found = REPOSITORIES[str(option(rest, "--repo"))]
    kept = found[kind]
    if environment := option(rest, "--env"):
        if environment not in found["environments"]:
            fail("failed to fetch public key: HTTP 404: Not Found (https://api.github.com/repos/...)")
        kept = found["environments"][environment].setdefault(kind, {})
    if action == "list":
        return [{"name": name} for name in kept]
    kept[rest[0]] = option(rest, "--body") if "--body" in rest else text.rstrip("\r\n")
    return None
