"""A client of GitHub's REST API (https://docs.github.com/en/rest), with only the standard library.

The job that uses it holds a token with write permissions, so it installs nothing. The token is sent to the API's host
only, and appears in no message.
"""

from __future__ import annotations

import http
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.core.console import one_line
from gitops.integrations import git

TRIES = 4
PAUSE = 1.0  # seconds before the first retry; doubled before each further one
MAX_WAIT = 60  # seconds; a longer wait that GitHub asks for is an error
TIMEOUT = 20  # seconds
PAGE = 100  # entries of a list in one response, GitHub's maximum

HINTS = {
    401: "GITHUB_TOKEN is not valid, or has expired",
    404: "it does not exist, or GITHUB_TOKEN may not see it",
}

#: Part of GitHub's answer to a job that may not open pull requests, and the name of the setting that allows it.
FORBIDDEN = "not permitted to create"
SETTING = "Allow GitHub Actions to create and approve pull requests"


class GitHubError(ProjectError):
    """GitHub refused a request or could not be reached; the message holds its answer."""

    def __init__(self, message: str, wait: float | None = None, status: int | None = None) -> None:
        """`wait`: seconds before a retry, 0 where GitHub names none; None where a retry is of no use."""
        super().__init__(message)
        self.wait, self.status = wait, status


class Unanswered(GitHubError):
    """A request that creates something had no proper response: it may have taken effect all the same."""


class GitHub:
    """A client for one repository."""

    def __init__(self, server: str, api: str, repository: str, token: str) -> None:
        """Raise ProjectError where a setting is invalid."""
        for name, address in (("GITHUB_SERVER_URL", server), ("GITHUB_API_URL", api)):
            if not address.startswith("https://"):
                raise ProjectError(f"{name} is {address!r}: an address that begins with https:// is needed")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise ProjectError(f"GITHUB_REPOSITORY is {repository!r}: OWNER/NAME is needed")
        if not re.fullmatch(r"[!-~]+", token):
            raise ProjectError(
                "GITHUB_TOKEN is not set, or is no token: a token that may write pull requests is needed"
            )
        self.server, self.api, self.repository, self.token = server.rstrip("/"), api.rstrip("/"), repository, token
        self._opener = urllib.request.build_opener(_SameHost())

    def get(self, path: str, **query: str | int) -> Any:
        """Return the response to GET; `path` is relative to the repository, with a leading slash to the API."""
        return self._call("GET", path + ("?" + urllib.parse.urlencode(query) if query else ""))

    def every(self, path: str, key: str | None = None, **query: str | int) -> list[Any]:
        """Return a list's entries from all its pages; `key` names the list in a response that is an object."""
        found: list[Any] = []
        while True:
            answer = self.get(path, **query, per_page=PAGE, page=len(found) // PAGE + 1)
            entries = answer[key] if key else answer
            found += entries
            if len(entries) < PAGE:
                return found

    def redirect(self, path: str) -> str:
        """Return where GitHub redirects a GET to, without going there. Raises GitHubError."""
        address: str = self._call("GET", path, redirected=True)
        return address

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """Change something, possibly twice. Raises GitHubError."""
        return self._call("PATCH", path, body)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Create something, once. Raises GitHubError, or Unanswered where it may have been created all the same."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, *, redirected: bool = False) -> Any:
        below = path if path.startswith("/") else f"/repos/{self.repository}/{path}"
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "User-Agent": self.repository,
            "X-GitHub-Api-Version": "2022-11-28",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + below, data, headers, method=method)
        for attempt in range(TRIES):
            try:
                return self._once(request, redirected)
            except GitHubError as error:
                if error.wait is None or error.wait > MAX_WAIT or attempt == TRIES - 1:
                    raise
                wait = max(error.wait, PAUSE * 2**attempt)
            time.sleep(wait)
        raise AssertionError  # the last attempt returned or raised

    def _once(self, request: urllib.request.Request, redirected: bool) -> Any:
        call = f"{request.get_method()} {request.full_url.partition('?')[0]}"
        creates = request.get_method() == "POST"
        try:
            opener = urllib.request.build_opener(_Nowhere()) if redirected else self._opener
            with opener.open(request, timeout=TIMEOUT) as answer:
                return None if answer.status == http.HTTPStatus.NO_CONTENT else json.load(answer)
        except urllib.error.HTTPError as refusal:
            if redirected and refusal.code == 302 and refusal.headers.get("Location", "").startswith("https://"):
                return refusal.headers["Location"]
            message = f"{call}: GitHub answers {refusal.code}, {self._message(refusal)}"
            if refusal.code == 429 or (refusal.code == 403 and _rate_limited(refusal)):
                raise GitHubError(message, _wait(refusal)) from None
            if refusal.code >= 500:
                raise Unanswered(message) if creates else GitHubError(message, _wait(refusal)) from None
            hint = _permission(request) if refusal.code == 403 else HINTS.get(refusal.code)
            raise GitHubError(message + (f" ({hint})" if hint else ""), status=refusal.code) from None
        except (OSError, http.client.HTTPException, ValueError) as failure:
            # A ValueError's text is not shown, as it may quote what was sent.
            reason = "not JSON" if isinstance(failure, ValueError) else getattr(failure, "reason", failure)
            message = f"{call} had no answer: {reason}"
            raise Unanswered(message) if creates else GitHubError(message, 0) from None

    def _message(self, refusal: urllib.error.HTTPError) -> str:
        """Return the message of GitHub's refusal, on one line."""
        with refusal:
            try:
                answer = json.loads(refusal.read(100_000))
                parts = [answer["message"], *(entry.get("message", "") for entry in answer.get("errors", []))]
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError):
                parts = [refusal.reason]
        return one_line(" ".join(map(str, parts)).replace(self.token, "***"))


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects, as of a renamed repository, but sends the token to no other host."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(answer[-1])
        same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
        return super().redirect_request(req, *answer) if same and req.get_method() == "GET" else None


class _Nowhere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *_: Any) -> None:
        """Return None, which makes an HTTPError of the redirect."""


def _permission(request: urllib.request.Request) -> str:
    room = next((name for name in ("actions", "deployments") if f"/{name}" in request.full_url), "pull-requests")
    return f"GITHUB_TOKEN needs the permission `{room}: {'read' if request.get_method() == 'GET' else 'write'}`"


def _rate_limited(refusal: urllib.error.HTTPError) -> bool:
    """Tell a rate limit from a missing permission; both are 403."""
    return "Retry-After" in refusal.headers or refusal.headers.get("X-RateLimit-Remaining") == "0"


def _wait(refusal: urllib.error.HTTPError) -> float:
    """Return the seconds that GitHub asks the client to wait; 0 where it names none."""
    after, reset = refusal.headers.get("Retry-After", ""), refusal.headers.get("X-RateLimit-Reset", "")
    if after.isdecimal():
        return float(after)
    return max(0.0, int(reset) - time.time()) if reset.isdecimal() and _rate_limited(refusal) else 0.0


def connect() -> GitHub:
    """Return a client for the repository in GitHub Actions' variables, or else for origin. Raises ProjectError."""
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    api = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
    repository = os.environ.get("GITHUB_REPOSITORY") or _origin(server)
    return GitHub(server, api, repository, os.environ.get("GITHUB_TOKEN", "").strip())


def _origin(server: str) -> str:
    """Return OWNER/NAME from origin's address, which may hold a password and is therefore not shown."""
    host = re.escape(urllib.parse.urlsplit(server).netloc)
    before = rf"(?:https://(?:[^/@]+@)?{host}/|ssh://git@{host}/|git@{host}:)"
    address = git.run("remote", "get-url", git.REMOTE) if git.has_remote() else ""
    if found := re.fullmatch(before + r"([^/]+/[^/]+?)(?:\.git)?/?", address):
        return found[1]
    raise ProjectError(f"{git.REMOTE} is no repository on {server}: set GITHUB_REPOSITORY to OWNER/NAME")
