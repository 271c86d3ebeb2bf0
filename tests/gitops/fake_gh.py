"""Stands in for the command `gh` in the tests of `make github`, for the calls that are made there.

The file that FAKE_GH names holds the state as JSON. It answers as GitHub does: what a free plan refuses for a private
repository, two rulesets of one name, fields that are missing or unknown. Repositories are bare ones beside the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FILE = Path(os.environ["FAKE_GH"])
STATE: dict[str, Any] = json.loads(FILE.read_text())
REPOSITORIES: dict[str, Any] = STATE["repositories"]
UPGRADE = "Upgrade to GitHub Pro or make this repository public to enable this feature."
BILLING = "Failed to create the environment protection rule. Please ensure the billing plan supports it."

#: Each body: the fields that must be there, and those that may.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "rulesets": ({"name", "enforcement"}, {"target", "bypass_actors", "conditions", "rules"}),
    "actions/permissions": ({"enabled"}, {"allowed_actions", "sha_pinning_required"}),
    "actions/permissions/workflow": (set(), {"default_workflow_permissions", "can_approve_pull_request_reviews"}),
    "actions/permissions/fork-pr-contributor-approval": ({"approval_policy"}, set()),
    "environments": (set(), {"deployment_branch_policy", "wait_timer", "reviewers", "prevent_self_review"}),
    "deployment-branch-policies": ({"name"}, {"type"}),
}


def main() -> None:
    arguments = sys.argv[1:]
    body = json.load(sys.stdin) if "--input" in arguments else None
    STATE["calls"].append([*arguments, body])
    save()
    command, rest = arguments[:2], arguments[2:]
    if command == ["auth", "status"]:
        return None if STATE["logged_in"] else fail("You are not logged into any GitHub hosts.")
    if STATE["broken"] and STATE["broken"] in " ".join(arguments):
        fail("error connecting to api.github.com")
    if arguments[0] == "api":
        method = option(arguments, "--method") or "GET"
        path = next(item for item in arguments[1:] if item.startswith("repos/"))
        answer = api(method, path.partition("?")[0].split("/")[1:], body)
    else:
        answer = {"repo": repo, "variable": variable, "secret": variable}[command[0]](*command, rest)
    save()
    if answer is not None:
        print(json.dumps(answer))
    return None


def save() -> None:
    FILE.write_text(json.dumps(STATE))


def fail(message: str, status: int = 0) -> Any:
    save()
    sys.exit(f"gh: {message} (HTTP {status})" if status else message)


def option(arguments: list[str], name: str) -> str | None:
    return arguments[arguments.index(name) + 1] if name in arguments else None


def repo(_: str, action: str, rest: list[str]) -> Any:
    name, found = rest[0], REPOSITORIES.get(rest[0])
    url = f"https://github.com/{name}"
    if action == "create":
        if found:
            fail(f"GraphQL: Name already exists on this account (createRepository): {name}")
        new_repository(name, "PUBLIC" if "--public" in rest else "PRIVATE")
        if remote := option(rest, "--remote"):
            subprocess.run(["git", "remote", "add", remote, f"{url}.git"], check=True)
        return None
    if not found:
        return fail(f"GraphQL: Could not resolve to a Repository with the name '{name}'. (repository)")
    if action == "view":
        return {"url": url, "visibility": found["visibility"]}
    branch = option(rest, "--default-branch")
    listed = subprocess.run(["git", "ls-remote", f"{url}.git", f"refs/heads/{branch}"], capture_output=True, check=True)
    if not listed.stdout:
        fail("Validation Failed", 422)
    found["settings"] = sorted(item for item in rest[1:] if item.startswith("--") and item != "--add-topic")
    found["topics"] = sorted({*found["topics"], str(option(rest, "--add-topic"))})
    return None


def new_repository(name: str, visibility: str) -> None:
    path = FILE.parent / f"{name}.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", path], check=True)
    REPOSITORIES[name] = {
        "visibility": visibility,
        "topics": [],
        "actions/permissions": {"enabled": True, "allowed_actions": "all", "sha_pinning_required": False},
        "rulesets": {},
        "environments": {},
        "variable": {},
        "secret": {},
    }


def variable(kind: str, action: str, rest: list[str]) -> Any:
    kept = REPOSITORIES[str(option(rest, "--repo"))][kind]
    if action == "list":
        return [{"name": name} for name in kept]
    kept[rest[0]] = option(rest, "--body")
    return None


def api(method: str, path: list[str], body: Any) -> Any:
    """Answer a call of the REST interface; `path` begins with the owner and the name."""
    found = REPOSITORIES.get("/".join(path[:2])) or fail("Not Found", 404)
    private = found["visibility"] == "PRIVATE"
    if path[2] == "rulesets":
        if private and STATE["plan"] == "free":
            fail(UPGRADE, 403)
        return rulesets(found["rulesets"], method, path[3:], body)
    if path[2] == "environments":
        return environments(found["environments"], method, path[3:], body, private and STATE["plan"] == "free")
    key = "/".join(path[2:])
    if key not in FIELDS:
        fail("Not Found", 404)
    if method == "GET":
        return found.get(key) or fail("Not Found", 404)
    if key.endswith("fork-pr-contributor-approval") and private:
        fail("Fork PR approval is not allowed for private repositories.", 422)
    found[key] = checked(key, body)
    return None


def rulesets(kept: dict[str, Any], method: str, path: list[str], body: Any) -> Any:
    if method == "GET" and not path:
        return [{"id": int(number), "name": ruleset["name"]} for number, ruleset in kept.items()]
    if path and path[0] not in kept:
        fail("Not Found", 404)
    if method == "GET":
        return kept[path[0]]
    number = path[0] if path else str(100 + len(kept))
    if any(ruleset["name"] == body["name"] for other, ruleset in kept.items() if other != number):
        fail("Validation Failed\nName must be unique", 422)
    kept[number] = checked("rulesets", body)
    return kept[number]


def environments(kept: dict[str, Any], method: str, path: list[str], body: Any, refused: bool) -> Any:
    name, *rest = path
    if not rest and method == "PUT":
        if refused:
            fail(BILLING, 422)
        checked("environments", body)
        reviewers = [{"type": one["type"], "reviewer": {"id": one["id"]}} for one in body.get("reviewers", [])]
        kept[name] = {
            "deployment_branch_policy": body["deployment_branch_policy"],
            "protection_rules": [{"type": "required_reviewers", "reviewers": reviewers}] if reviewers else [],
            "policies": kept.get(name, {}).get("policies", {}),
        }
    found = kept.get(name) or fail("Not Found", 404)
    if not rest:
        return found
    if not (found["deployment_branch_policy"] or {}).get("custom_branch_policies"):
        fail("Not Found", 404)
    policies = found["policies"]
    if method == "POST":
        policies[str(1 + max(map(int, policies), default=0))] = checked("deployment-branch-policies", body)
    elif method == "DELETE":
        del policies[rest[1]]
        return None
    return {"branch_policies": [{"id": int(number), **policy} for number, policy in policies.items()]}


def checked(key: str, body: Any) -> Any:
    must, may = FIELDS[key]
    if not must <= body.keys() <= must | may:
        fail(f"Invalid request: {sorted(body.keys() ^ must)}", 422)
    return body
