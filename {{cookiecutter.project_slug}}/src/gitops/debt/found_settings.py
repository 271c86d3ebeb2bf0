"""Settings that nothing reads, and changes of settings that nobody has reviewed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gitops.core.artifacts import PARAMS
from gitops.debt.finding import CONFIGURATION, Finding, found, lines, unknown
from gitops.integrations import git

#: GitHub's own subject of a merged or squashed pull request names it.
PULL_REQUEST = re.compile(r"\(#\d+\)|^Merge pull request #\d+")

#: Methods that only say whether a value is allowed are no use of it.
VALIDATORS = {"model_validator", "field_validator", "validator"}


def dead(settings: BaseModel, package: Iterable[Path], tools: Iterable[Path]) -> Iterator[Finding]:
    """Yield the settings of params.yaml whose name no module reads, as an attribute or as a text.

    A setting that the project's own settings.py declares must be read in `package`, its modules, since those of gitops,
    `tools`, cannot know it; any other in either. One that shares its name with something else there is not found.
    Raises SyntaxError, OSError.
    """
    own = _read(package)
    anywhere = own | _read(tools)
    places = lines()
    for key, declared in _settings(settings, ""):
        if key in places and key.rpartition(".")[2] not in (own if declared else anywhere):
            yield found(CONFIGURATION, f"No module reads {key}: remove it, or use it", PARAMS, places[key])


def _read(modules: Iterable[Path]) -> set[str]:
    return {name for path in modules for name in _names(ast.parse(path.read_text(encoding="utf-8")))}


def unreviewed() -> Iterator[Finding]:
    """Yield the commits on main that changed params.yaml and are neither a merge nor named a pull request.

    Git alone is asked, so a pull request that was merged by rebasing counts as none. The first commit, which the
    generator makes, is left out. Where a line of params.yaml is still as the commit left it, the first one is named.
    """
    if not git.is_repository() or git.run("rev-parse", "--is-shallow-repository") == "true":
        why = "the history is not here in full: `git fetch --unshallow`"
        yield unknown(CONFIGURATION, f"Whether settings were changed without review: {why}", PARAMS)
        return
    refs = (f"refs/remotes/{git.REMOTE}/{git.MAIN}", f"refs/heads/{git.MAIN}", "HEAD")
    main = next((ref for ref in refs if git.exists(ref)), None)
    if main is None:
        return
    blamed = _blamed(main)
    for commit in git.log("--first-parent", main, "--", PARAMS.as_posix()):
        subject = commit.message.partition("\n")[0]
        if len(_parents(commit.name)) == 1 and not PULL_REQUEST.search(subject):
            day = datetime.fromtimestamp(int(git.run("log", "-1", "--format=%ct", commit.name)), UTC)
            text = f"Commit {commit.name[:12]} of {day:%Y-%m-%d} changed settings on {git.MAIN} without a pull request"
            yield found(CONFIGURATION, text, PARAMS, blamed.get(commit.name))


def _parents(commit: str) -> list[str]:
    """Return the parents as Git stores them: a log of paths names others."""
    return git.run("log", "-1", "--format=%P", commit).split()


def _blamed(revision: str) -> dict[str, int]:
    """Return the first line of params.yaml that each commit was the last to change."""
    if not git.run("ls-tree", "--name-only", revision, "--", PARAMS.as_posix()):
        return {}
    first: dict[str, int] = {}
    text = git.run("blame", "--first-parent", "--porcelain", revision, "--", PARAMS.as_posix())
    for match in re.finditer(r"^([0-9a-f]{40,64}) \d+ (\d+)", text, re.MULTILINE):
        first.setdefault(match[1], int(match[2]))
    return first


def _settings(section: BaseModel, prefix: str) -> Iterator[tuple[str, bool]]:
    """Yield the settings that classes declare, and whether the project's own class does.

    The keys of a mapping, such as gate.thresholds, are the owner's data.
    """
    kind = type(section)
    own = {} if kind.__module__.startswith("gitops.") else kind.__annotations__
    for name in kind.model_fields:
        value: Any = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", name in own


def _names(tree: ast.AST) -> Iterator[str]:
    """Yield what a module reads: attributes, and texts, of which each part between dots."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef) and any(_validates(each) for each in node.decorator_list):
            continue
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
            yield from node.value.split(".")
        waiting.extend(ast.iter_child_nodes(node))


def _validates(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id in VALIDATORS
