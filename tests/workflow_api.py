"""The stand-in for GitHub's REST API of gitops' tests, in front of the hub: it knows the tokens of the hub's jobs, what
each may do, and starts workflows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from projects import ROOT, module_of
from workflow_events import ACTIONS, pull_request
from workflow_hub import Hub, Refused

#: How a job that calls the stand-in trusts it.
TRUST = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "NO_PROXY", "no_proxy")

#: Which permission a call needs, by its path below the repository; the first that fits. Reading needs `read` of it.
#: Source: https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps
NEEDED = {
    r"/actions/workflows/[^/]+/dispatches": "actions",
    r"/actions/.*": "actions",
    r"/pulls.*|/commits/[^/]+/pulls|/issues/.*": "pull-requests",
    r"/git/.*|/commits.*|/contents.*|/branches.*": "contents",
}


def server_of(folder: Path, hub: Hub) -> Any:
    """Return the server, to be entered as a context; from then on the hub's jobs find it."""
    module = module_of(ROOT, "tests/gitops/github_server.py")
    server = module.GitHub(folder, repository=hub.repository)
    answer = server.answer

    def permitted(call: Any, token: str) -> Any:
        path = call.path.removeprefix(f"/repos/{hub.repository}")
        needed = next((name for pattern, name in NEEDED.items() if re.fullmatch(pattern, path)), "unknown")
        permission = hub.tokens.get(token, {}).get(needed)
        if permission != "write" and (permission != "read" or call.method != "GET"):
            return 403, {}, {"message": f"Resource not accessible by integration ({needed}: {call.method} {path})"}
        if found := re.fullmatch(r"/actions/workflows/([^/]+)/dispatches", path):
            try:
                hub.dispatch(token, found[1], call.body["ref"].removeprefix("refs/heads/"), call.body.get("inputs", {}))
            except Refused as refusal:
                return refusal.args[0], {}, {"message": refusal.args[1]}
            return 204, {}, {}
        server.tokens[token] = module.ACTIONS
        status, headers, body = answer(call, token)
        if (call.method, path, status) == ("POST", "/pulls", 201) and body["base"]["ref"] == "main":
            pull_request(
                hub, body["number"], call.body["head"], actor=ACTIONS
            )  # it starts nothing: the token opened it
        return status, headers, body

    server.answer = permitted
    return server


def connect(hub: Hub, server: Any) -> None:
    """Let the hub's jobs find the server, once it runs."""
    hub.url, hub.api = server.url, server.api
    hub.machine = {name: server.environment[name] for name in TRUST}
