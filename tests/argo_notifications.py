"""Argo CD's notification controller on k8s/argocd/notifications.yaml, as far as that file uses it.

The rules are those of notifications-engine (pkg/controller/state.go, pkg/triggers, pkg/services/github.go) and of Argo
CD (util/notification/expression): expr-lang's expressions, Go's templates with sprig's functions. For the statuses of
test_notifications.py, expr 1.17 and Go's text/template say what is said here.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from projects import ROOT

NOTIFICATIONS = ROOT / "k8s/argocd/notifications.yaml"
Application = dict[str, Any]

#: Calls GitHub's API: method, path below the repository with its query, body; returns the answer, or raises Refused.
Call = Callable[..., Any]


class Refused(Exception):
    """GitHub does not do what it is asked for."""


class Time(datetime.datetime):
    """A time with the methods of Go's that the triggers call."""

    Add = datetime.datetime.__add__
    Before = datetime.datetime.__lt__


class Go:
    """Go's package time as Argo CD offers it to expressions."""

    Minute = datetime.timedelta(minutes=1)

    def __init__(self, now: datetime.datetime) -> None:
        self.now = now

    def Parse(self, text: str) -> Time:
        return Time.fromisoformat(text)

    def Now(self) -> datetime.datetime:
        return self.now


def member(value: Any, path: str) -> Any:
    """Return what `path`, as `.status.operationState?.phase`, names. A member of nil is an error, but after `?.`."""
    for mark, name in re.findall(r"(\??\.)(\w+)", path):
        if value is None and mark == ".":
            raise LookupError(f"cannot fetch {name} from nil: {path}")
        value = None if value is None else value.get(name)
    return value


def evaluate(expression: str, application: Application, now: datetime.datetime) -> Any:
    """Return an expression's value; its syntax is Python's but for the members and nil."""
    python = re.sub(r"\bapp((?:\??\.\w+)+)", r"member(app, '\1')", expression).replace("!= nil", "is not None")
    python = python.replace("== nil", "is None").replace("\n", " ")
    return eval(python, {"app": application, "member": member, "time": Go(now), "len": len})  # noqa: S307, our own file


def triggered(expression: str, application: Application, now: datetime.datetime) -> bool:
    """An expression that cannot be evaluated does not hold; the controller logs it."""
    try:
        return evaluate(expression, application, now) is True
    except (LookupError, TypeError, AttributeError):
        return False


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "regexFindAll": lambda pattern, text, number: [found[0] for found in re.finditer(pattern, text)],
    "regexFind": lambda pattern, text: (re.search(pattern, text) or [""])[0],
    "first": lambda values: values[0],
    "trunc": lambda length, text: text[:length],
    "trimPrefix": lambda prefix, text: text.removeprefix(prefix),
    "replace": lambda old, new, text: text.replace(old, new),
    "len": len,
    "eq": lambda one, other: one == other,
    "call": lambda function, *values: function(*values),
}
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\((?:[^()"]|"(?:[^"\\]|\\.)*"|\([^()]*\))*\)(?:\.\w+)*|[^\s|"()]+|\|')


def rendered(template: str, variables: dict[str, Any]) -> str:
    """Return what Go's text/template makes of a template with variables, pipelines, calls, and `if` without nesting."""
    text, kept, shown, trim = "", dict(variables), True, False
    for before, action in re.findall(r"(.*?)(?:\{\{(.*?)\}\}|\Z)", template, re.DOTALL):
        literal = before.lstrip() if trim else before
        literal, trim = literal.rstrip() if action.startswith("-") else literal, action.endswith("-")
        action = action.removeprefix("-").removesuffix("-").strip()
        text += literal if shown else ""
        if action.startswith("if "):
            shown = bool(_pipeline(action[3:], kept))
        elif action in ("else", "end"):
            shown = action == "end" or not shown
        elif assigned := re.match(r"(\$\w+) := (.*)", action, re.DOTALL):
            kept[assigned[1]] = _pipeline(assigned[2], kept)
        elif action and shown:
            value = _pipeline(action, kept)
            text += "<no value>" if value is None else str(value)
    return text


def _pipeline(text: str, variables: dict[str, Any]) -> Any:
    commands: list[list[str]] = [[]]
    for part in TOKEN.findall(text):
        if part == "|":
            commands.append([])
        else:
            commands[-1].append(part)
    piped: list[Any] = []
    for head, *operands in commands:
        values = [_operand(part, variables) for part in operands] + piped
        piped = [FUNCTIONS[head](*values) if head in FUNCTIONS else _operand(head, variables)]
    return piped[0]


def _operand(part: str, variables: dict[str, Any]) -> Any:
    if part.startswith('"'):
        return yaml.safe_load(part)
    if re.fullmatch(r"-?\d+", part):
        return int(part)
    if part.startswith("("):
        inner, _, names = part[1:].rpartition(")")
        return member(_pipeline(inner, variables), names)
    return variables[part] if part.startswith("$") else member(variables, part)


@dataclass
class Controller:
    """The controller with the file's settings. `messages` are the messages of commits, `notified` what was sent."""

    call: Call
    messages: dict[str, str]
    now: datetime.datetime
    notified: set[tuple[str, ...]] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        data = yaml.safe_load(NOTIFICATIONS.read_text(encoding="utf-8"))["data"]
        self.triggers: dict[str, Any] = {
            name[8:]: yaml.safe_load(text) for name, text in data.items() if name.startswith("trigger.")
        }
        self.templates = {name[9:]: yaml.safe_load(text) for name, text in data.items() if name.startswith("template.")}

    def process(self, application: Application) -> list[str]:
        """Send what an Application's present status asks for; return the names of the templates that were sent."""
        sent = []
        for annotation in application["metadata"]["annotations"]:
            found = re.fullmatch(r"notifications\.argoproj\.io/subscribe\.([^.]+)\.github", annotation)
            name = found[1] if found else ""
            for index, condition in enumerate(self.triggers.get(name, [])):
                once = condition.get("oncePer")
                if not triggered(condition["when"], application, self.now):
                    self.notified.discard((name, str(index)))
                    continue
                key = (name, str(index), *([evaluate(once, application, self.now)] if once else []))
                if key in self.notified:
                    continue
                try:
                    self.send(condition["send"], application)
                except Refused as refusal:  # and again when the Application is looked at next, a minute later at most
                    self.refusals.append(str(refusal))
                else:
                    self.notified.add(key)
                    sent.append(condition["send"][0])
        return sent

    def send(self, names: list[str], application: Application) -> None:
        """Do on GitHub what the templates say."""
        metadata = {"GetCommitMetadata": lambda commit: {"Message": self.messages[commit]}}
        variables = {"app": application, "repo": metadata}
        merged: dict[str, Any] = {}
        message = revision = ""
        for name in names:
            template = self.templates[name]
            message = rendered(template.get("message", ""), variables) or message
            default = "{{.app.status.operationState.syncResult.revision}}"
            revision = rendered(template["github"].get("revisionPath", default), variables)
            merged |= template["github"]
        if deployment := merged.get("deployment"):
            self.deploy({key: _text(value, variables) for key, value in deployment.items()}, revision, message)
        if comment := merged.get("pullRequestComment"):
            self.comment(rendered(comment["content"], variables), comment["commentTag"], revision)

    def deploy(self, asked: dict[str, Any], revision: str, message: str) -> None:
        environment = asked["environment"]
        found = self.call("GET", f"deployments?ref={revision}&environment={environment}")
        body = {"ref": revision, "environment": environment, "required_contexts": asked.get("requiredContexts")}
        body |= {"auto_merge": asked.get("autoMerge", True), "transient_environment": False}
        one = found[0] if found else self.call("POST", "deployments", body)
        description = message if len(message) <= 140 else f"{message[:137]}..."
        status = {"state": asked["state"], "description": description, "environment": environment}
        self.call("POST", f"deployments/{one['id']}/statuses", status | {"log_url": "", "environment_url": ""})

    def comment(self, content: str, tag: str, revision: str) -> None:
        mark = f"<!-- argocd-notifications {tag} -->"
        body = {"body": f"{content}\n{mark}\n{mark}"}
        for pull in self.call("GET", f"commits/{revision}/pulls"):
            told = self.call("GET", f"issues/{pull['number']}/comments")
            own = next((comment["id"] for comment in told if mark in comment["body"]), None)
            if own:
                self.call("PATCH", f"issues/comments/{own}", body)
            else:
                self.call("POST", f"issues/{pull['number']}/comments", body)


def _text(value: Any, variables: dict[str, Any]) -> Any:
    return rendered(value, variables) if isinstance(value, str) else value
