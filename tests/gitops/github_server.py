"""A stand-in for GitHub: the part of its REST API that comments and proposals need, behaving as GitHub does, on this
machine alone.

Nothing of pytest is imported, so that other programs can use it too.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ACTIONS = "github-actions[bot]"

#: Of a deployment's status (docs.github.com/en/rest/deployments/statuses).
DEPLOYMENT_STATES = {"error", "failure", "inactive", "in_progress", "queued", "pending", "success"}

#: What it answers: status, headers, and the body, which is sent as JSON.
Answer = tuple[int, dict[str, str], Any]


@dataclass
class Call:
    """A request as it arrived."""

    method: str
    path: str  # after /api/v3
    query: dict[str, str]
    body: Any = None


@dataclass
class GitHub:
    """One repository on an HTTPS server on 127.0.0.1, for as long as the `with` block runs.

    `folder` gets the server's certificate. `.environment` is what a client needs: Python and node trust the
    certificate by it. Fill `.pulls`, `.comments`, `.runs` and `.jobs` directly or with `open_pull`, `say` and `ran`;
    read them and `.calls` at the end. `.tokens` says who a token belongs to, `.permissions` what one may that may not
    all; it is checked as for a private repository. Answers in `.refusals` are given, in their order, to the next calls
    of the method, "GET" or another, instead of a proper one; with `late`, after the call has taken effect. `may_open`
    is the setting by which Actions may open pull requests, `drafts` whether the plan has drafts. `dispatchable` are the
    workflows that each ref has with the trigger `workflow_dispatch`, `dispatched` those that were started so.

    `.deployments` is filled by `report`. `commits` are those that there are, None: any; `behind` those that main is
    ahead of, `unchecked` those whose checks are not all green.
    """

    folder: Path
    repository: str = "owner/name"
    token: str = "ghs_thisIsTheTokenOfTheTests0123456789"  # noqa: S105
    pulls: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # by the pull request's number
    runs: list[dict[str, Any]] = field(default_factory=list)  # of ci.yaml, or of their key `workflow`
    rules: list[dict[str, Any]] = field(default_factory=list)  # that hold for main
    jobs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # by the run's id
    merges: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by commit: its pull requests
    permissions: dict[str, dict[str, str]] = field(default_factory=dict)  # by token
    dispatchable: dict[str, list[str]] | None = None  # None: ci.yaml on every ref
    dispatched: list[tuple[str, str]] = field(default_factory=list)  # workflow and ref
    calls: list[Call] = field(default_factory=list)
    refusals: dict[str, list[Answer]] = field(default_factory=dict)
    late: bool = False
    may_open: bool = True
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    storage: dict[str, bytes] = field(default_factory=dict)  # by path: what artifacts are redirected to
    drafts: bool = True
    deployments: list[dict[str, Any]] = field(default_factory=list)  # newest last, each with its statuses, newest last
    commits: set[str] | None = None
    behind: set[str] = field(default_factory=set)
    unchecked: set[str] = field(default_factory=set)

    def __enter__(self) -> GitHub:
        self.certificate = self.folder / "certificate.pem"
        key = self.folder / "key.pem"
        _make_certificate(self.certificate, key)
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.tokens = {self.token: ACTIONS}
        self._ids = iter(range(1000, 10**9))
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        # The handshake belongs to the thread of its request: one that hangs does not hold up the others.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        self.api = f"{self.url}/api/v3"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a job of GitHub Actions finds this server."""
        trusted = str(self.certificate)
        return {
            "GITHUB_TOKEN": self.token,
            "GITHUB_REPOSITORY": self.repository,
            "GITHUB_SERVER_URL": self.url,
            "GITHUB_API_URL": self.api,
            "SSL_CERT_FILE": trusted,
            "NODE_EXTRA_CA_CERTS": trusted,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def open_pull(
        self, number: int, sha: str, branch: str = "change", fork: str | None = None, base: str = "main"
    ) -> dict[str, Any]:
        """Open a pull request to `base` from `branch` of the repository `fork`, or of this one."""
        head = fork or self.repository
        pull = {
            "number": number,
            "state": "open",
            "draft": False,
            "html_url": f"{self.url}/{self.repository}/pull/{number}",
            "head": {"sha": sha, "ref": branch, "label": f"{head.split('/')[0]}:{branch}", "repo": {"full_name": head}},
            "base": {"ref": base, "repo": {"full_name": self.repository}},
        }
        self.pulls.append(pull)
        return pull

    def say(self, number: int, body: str, login: str = "somebody") -> dict[str, Any]:
        """Add a comment by `login` to a pull request."""
        identity = next(self._ids)
        address = f"{self.url}/{self.repository}/pull/{number}#issuecomment-{identity}"
        comment = {"id": identity, "html_url": address, "user": {"login": login}, "body": body}
        self.comments.setdefault(number, []).append(comment)
        return comment

    def ran(self, identity: int, sha: str, branch: str = "change", event: str = "push", **changes: Any) -> None:
        """Add a run of CI, one that has succeeded if nothing else is said."""
        repository = {"full_name": self.repository, "owner": {"login": self.repository.partition("/")[0]}}
        run = {"id": identity, "event": event, "status": "completed", "conclusion": "success", "head_sha": sha}
        address = f"{self.url}/{self.repository}/actions/runs/{identity}"
        run |= {"head_branch": branch, "head_repository": repository, "html_url": address, "pull_requests": []}
        self.runs.append(run | changes)

    def store(self, name: str, content: bytes, *, run: int = 1, fork: bool = False, expired: bool = False) -> None:
        """Keep an artifact of a run of this repository, or of a fork's pull request to it."""
        identity = next(self._ids)
        of = {"id": run, "repository_id": 1, "head_repository_id": 2 if fork else 1}
        entry = {"id": identity, "name": name, "expired": expired, "workflow_run": of}
        self.artifacts.append(entry | {"created_at": f"2026-11-01T00:00:00.{identity}Z"})
        self.storage[f"/storage/{identity}"] = content

    def report(
        self, sha: str, environment: str, state: str, hours: float = 0, login: str = "argo-cd[bot]"
    ) -> dict[str, Any]:
        """Add a status of so many hours ago to the commit's deployment to an environment, a new one if it has none."""
        when = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        same = [one for one in self.deployments if (one["sha"], one["environment"]) == (sha, environment)]
        found = next((one for one in same if one["creator"]["login"] == login), None)
        if found is None:
            found = {"id": next(self._ids), "sha": sha, "ref": sha, "environment": environment, "task": "deploy"}
            found |= {"creator": {"login": login}, "created_at": when, "statuses": []}
            self.deployments.append(found)
        self._add_status(found, {"state": state, "created_at": when, "creator": {"login": login}})
        return found

    def _add_status(self, deployment: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        """Add a status. One that is a success makes the environment's other deployments inactive, but production's."""
        environment = deployment["environment"]
        status = {"id": next(self._ids), "description": "", "environment": environment} | status
        deployment["statuses"].append(status)
        others = [one for one in self.deployments if one is not deployment and one["environment"] == environment]
        for other in others if status["state"] == "success" and environment != "production" else []:
            newest = max(other["statuses"], key=lambda one: one["id"], default={"state": "pending"})
            if newest["state"] == "success":
                other["statuses"].append(status | {"id": next(self._ids), "state": "inactive"})
        return status

    def answer(self, call: Call, token: str) -> Answer:
        """Do what a call asks for."""
        login = self.tokens.get(token)
        if login is None:
            return 401, {}, {"message": "Bad credentials"}
        if not self._may(call, token):
            return 403, {}, {"message": "Resource not accessible by integration"}
        refusals = self.refusals.get(call.method, [])
        refusal = refusals.pop(0) if refusals else None
        if refusal and not self.late:
            return refusal
        routes: dict[str, Callable[..., Answer]] = {
            r"GET /user": lambda: self._user(login),
            rf"GET /repos/{self.repository}/pulls": lambda: self._pulls(call),
            rf"GET /repos/{self.repository}/pulls/(\d+)": self._pull,
            rf"POST /repos/{self.repository}/pulls": lambda: self._open(call, login),
            rf"PATCH /repos/{self.repository}/pulls/(\d+)": lambda number: self._change(call, number),
            rf"GET /repos/{self.repository}/issues/(\d+)/comments": lambda number: self._listed(call, number),
            rf"POST /repos/{self.repository}/issues/(\d+)/comments": lambda number: self._create(call, number, login),
            rf"PATCH /repos/{self.repository}/issues/comments/(\d+)": lambda identity: self._edit(call, identity),
            rf"GET /repos/{self.repository}/actions/runs/(\d+)/jobs": lambda run: self._jobs(call, run),
            rf"GET /repos/{self.repository}/actions/runs/(\d+)/artifacts": lambda run: self._artifacts(call, run),
            rf"GET /repos/{self.repository}/actions/workflows/[\w.-]+/runs": lambda: self._runs(call),
            rf"GET /repos/{self.repository}/rules/branches/main": lambda: self._page(call, self.rules),
            rf"POST /repos/{self.repository}/actions/workflows/[\w.-]+/dispatches": lambda: self._dispatch(call),
            rf"GET /repos/{self.repository}/commits/[0-9a-f]+/pulls": lambda: self._merged(call),
            rf"GET /repos/{self.repository}/actions/artifacts": lambda: self._artifacts(call),
            rf"GET /repos/{self.repository}/actions/artifacts/(\d+)/zip": self._download,
            rf"GET /repos/{self.repository}/deployments": lambda: self._deployments(call),
            rf"POST /repos/{self.repository}/deployments": lambda: self._deploy(call, login),
            rf"GET /repos/{self.repository}/deployments/(\d+)/statuses": lambda one: self._statuses(call, one, login),
            rf"POST /repos/{self.repository}/deployments/(\d+)/statuses": lambda one: self._statuses(call, one, login),
        }
        for route, act in routes.items():
            if found := re.fullmatch(route, f"{call.method} {call.path}", re.IGNORECASE):
                answer = act(*map(int, found.groups()))
                return refusal or answer
        return 404, {}, {"message": "Not Found"}

    def _may(self, call: Call, token: str) -> bool:
        """Tell whether a token may make a call (docs.github.com, "Permissions required for GitHub Apps")."""
        if token not in self.permissions or call.path == "/user" or "/rules/branches/" in call.path:
            return True  # rules need `metadata: read`, which every token has
        room = next((name for name in ("actions", "deployments") if f"/{name}" in call.path), "pull-requests")
        return self.permissions[token].get(room) in (("read", "write") if call.method == "GET" else ("write",))

    def _user(self, login: str) -> Answer:
        if login == ACTIONS:
            return 403, {}, {"message": "Resource not accessible by integration"}
        return 200, {}, {"login": login}

    def _pulls(self, call: Call) -> Answer:
        state, head, base = call.query.get("state", "open"), call.query.get("head"), call.query.get("base")
        found = [pull for pull in reversed(self.pulls) if state in ("all", pull["state"])]  # the newest first
        found = [pull for pull in found if head in (None, pull["head"]["label"])]
        return self._page(call, [pull for pull in found if base in (None, pull["base"]["ref"])])

    def _pull(self, number: int) -> Answer:
        found = [pull for pull in self.pulls if pull["number"] == number]
        return (200, {}, found[0]) if found else (404, {}, {"message": "Not Found"})

    def _open(self, call: Call, login: str) -> Answer:
        """Open a pull request; the commit of its branch is of no account here."""
        if login == ACTIONS and not self.may_open:
            return 403, {}, {"message": "GitHub Actions is not permitted to create or approve pull requests."}
        if call.body.get("draft") and not self.drafts:
            return 422, {}, {"message": "Draft pull requests are not supported in this repository."}
        head, base = call.body["head"], call.body["base"]
        label = f"{self.repository.partition('/')[0]}:{head}"
        present = [pull for pull in self.pulls if (pull["state"], pull["head"]["label"]) == ("open", label)]
        if any(pull["base"]["ref"] == base for pull in present):
            told = f"A pull request already exists for {label}."
            return 422, {}, {"message": "Validation Failed", "errors": [{"message": told}]}
        number = 1 + max((pull["number"] for pull in self.pulls), default=0)
        pull = self.open_pull(number, "", head, base=base)
        pull |= {"title": call.body["title"], "body": call.body["body"], "user": {"login": login}}
        pull["draft"] = call.body.get("draft", False)
        return 201, {}, pull

    def _change(self, call: Call, number: int) -> Answer:
        status, headers, pull = self._pull(number)
        if status == 200:
            pull.update({name: value for name, value in call.body.items() if name != "draft"})  # only GraphQL does that
        return status, headers, pull

    def _listed(self, call: Call, number: int) -> Answer:
        return self._page(call, self.comments.get(number, []))

    def _jobs(self, call: Call, run: int) -> Answer:
        jobs = self.jobs.get(run, [])
        status, headers, page = self._page(call, jobs)
        return status, headers, {"total_count": len(jobs), "jobs": page}

    def _runs(self, call: Call) -> Answer:
        wanted = {"head_sha": call.query.get("head_sha"), "head_branch": call.query.get("branch")}
        workflow = call.path.split("/")[-2]
        found = [run for run in self.runs if all(value in (None, run[name]) for name, value in wanted.items())]
        found = [run for run in found if run.get("workflow", "ci.yaml") == workflow]
        status, headers, page = self._page(call, found)
        return status, headers, {"total_count": len(found), "workflow_runs": page}

    def _dispatch(self, call: Call) -> Answer:
        """Start a workflow as the ref's own file has it; GitHub answers with nothing at all."""
        workflow, ref = call.path.split("/")[-2], call.body["ref"]
        if self.dispatchable is not None:
            if all(workflow not in workflows for workflows in self.dispatchable.values()):
                return 404, {}, {"message": "Not Found"}
            if ref not in self.dispatchable:
                return 422, {}, {"message": f"No ref found for: {ref}"}
            if workflow not in self.dispatchable[ref]:
                return 422, {}, {"message": "Workflow does not have 'workflow_dispatch' trigger"}
        self.dispatched.append((workflow, ref))
        return 204, {}, None

    def _merged(self, call: Call) -> Answer:
        commit = call.path.split("/")[-2]
        return self._page(call, self.merges[commit]) if commit in self.merges else (422, {}, _no_commit(commit))

    def _artifacts(self, call: Call, run: int | None = None) -> Answer:
        found = [entry for entry in self.artifacts if call.query.get("name") in (None, entry["name"])]
        found = [entry for entry in found if run in (None, entry["workflow_run"]["id"])]
        status, headers, page = self._page(call, found)
        return status, headers, {"total_count": len(found), "artifacts": page}

    def _download(self, identity: int) -> Answer:
        found = [entry for entry in self.artifacts if entry["id"] == identity]
        if not found:
            return 404, {}, {"message": "Not Found"}
        if found[0]["expired"]:
            return 410, {}, {"message": "Artifact has expired"}
        return 302, {"Location": f"{self.url}/storage/{identity}?sig=key"}, {}

    def _create(self, call: Call, number: int, login: str) -> Answer:
        return _too_long(call) or (201, {}, self.say(number, call.body["body"], login))

    def _edit(self, call: Call, identity: int) -> Answer:
        """As on GitHub, a token that can write edits anybody's comment."""
        for comment in (comment for comments in self.comments.values() for comment in comments):
            if comment["id"] == identity:
                if refusal := _too_long(call):
                    return refusal
                comment["body"] = call.body["body"]
                return 200, {}, comment
        return 404, {}, {"message": "Not Found"}

    def _deployments(self, call: Call) -> Answer:
        wanted = {name: call.query[name] for name in ("sha", "ref", "environment") if name in call.query}
        found = [one for one in reversed(self.deployments) if wanted.items() <= one.items()]
        return self._page(call, [{key: value for key, value in one.items() if key != "statuses"} for one in found])

    def _deploy(self, call: Call, login: str) -> Answer:
        """Create a deployment. By default main is merged into it where it is behind, and its checks must be green."""
        ref = call.body["ref"]
        if not re.fullmatch(r"[0-9a-f]{40}", ref) or (self.commits is not None and ref not in self.commits):
            return 422, {}, {"message": f"No ref found for: {ref}"}
        if call.body.get("auto_merge", True) and ref in self.behind:
            return 409, {}, {"message": f"Conflict merging main into {ref}."}
        if call.body.get("required_contexts") is None and ref in self.unchecked:
            return 409, {}, {"message": f"Conflict: Commit status checks failed for {ref}."}
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made = {
            "id": next(self._ids),
            "sha": ref,
            "ref": ref,
            "environment": call.body.get("environment", "production"),
        }
        self.deployments.append(
            made | {"creator": {"login": login}, "created_at": now, "task": "deploy", "statuses": []}
        )
        return 201, {}, made

    def _statuses(self, call: Call, identity: int, login: str) -> Answer:
        found = next((one for one in self.deployments if one["id"] == identity), None)
        if found is None:
            return 404, {}, {"message": "Not Found"}
        if call.method == "GET":
            return self._page(call, sorted(found["statuses"], key=lambda one: -one["id"]))
        if call.body["state"] not in DEPLOYMENT_STATES:
            return 422, {}, {"message": "Validation Failed", "errors": [{"field": "state", "code": "invalid"}]}
        if len(call.body.get("description", "")) > 140:
            told = "description is too long (maximum is 140 characters)"
            return 422, {}, {"message": "Validation Failed", "errors": [{"message": told}]}
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        given = {key: call.body.get(key, "") for key in ("state", "description", "log_url", "environment_url")}
        return 201, {}, self._add_status(found, given | {"created_at": now, "creator": {"login": login}})

    def _page(self, call: Call, entries: list[Any]) -> Answer:
        size, page = min(int(call.query.get("per_page", 30)), 100), int(call.query.get("page", 1))
        rest = entries[(page - 1) * size :]
        following = "&".join(f"{key}={value}" for key, value in {**call.query, "page": page + 1}.items())
        link = {"Link": f'<{self.api}{call.path}?{following}>; rel="next"'} if len(rest) > size else {}
        return 200, link, rest[:size]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        github = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def handle_call(self) -> None:
                address = urlsplit(self.path)
                query = {key: values[-1] for key, values in parse_qs(address.query).items()}
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = Call(
                    self.command, address.path.removeprefix("/api/v3"), query, json.loads(content) if content else None
                )
                token = self.headers.get("Authorization", "").rpartition(" ")[2]
                with github._lock:
                    github.calls.append(call)
                    under = address.path.startswith("/api/v3/")
                    status, headers, body = github.answer(call, token) if under else (404, {}, {"message": "Not Found"})
                    sent = b"" if status == 204 else json.dumps(body).encode()
                    if (stored := github.storage.get(address.path)) is not None:
                        # The address is the key; a second one is refused, as Azure does.
                        status, sent = (403, b"<Error/>") if token else (200, stored)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PATCH = handle_call

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, *connection: Any) -> None:
        """Say nothing of a client that does not trust the certificate, or has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*connection)


def _no_commit(commit: str) -> dict[str, str]:
    return {"message": f"No commit found for SHA: {commit}"}


def _too_long(call: Call) -> Answer | None:
    if len(call.body["body"]) <= 65_536:
        return None
    error = {"resource": "IssueComment", "field": "data", "message": "Body is too long (maximum is 65536 characters)"}
    return 422, {}, {"message": "Validation Failed", "errors": [error]}


def _make_certificate(certificate: Path, key: Path) -> None:
    """Write a certificate for 127.0.0.1 that is its own authority, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    encoded = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    key.write_bytes(encoded)
