"""Which versions of the tables hold the subject, and which releases were trained from them.

Versions are those that the release logs and Git's history name. Their objects are read in DVC's cache or in its remote;
of one that neither has nothing is known. None is stored here for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.core.sections import Csv
from gitops.integrations import dvc, git
from gitops.privacy.versions import Reader, Versions
from gitops.releases import history
from gitops.tabular import parts

if TYPE_CHECKING:
    from gitops.privacy.subject import Subject

MD5 = re.compile(r"md5: ([0-9a-f]{32}(?:\.dir)?)")


@dataclass
class Provenance:
    """Versions of the tables, releases as the report has them, and a note on what could not be read."""

    versions: Versions
    releases: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


def trace(subject: Subject, settings: Params) -> Provenance:
    """Return what is known of all versions of the tables and of all releases."""
    reader = Reader(dvc.cached("0" * 32).parent.parent)
    found = Provenance(reader.found)
    for path in (*settings.tables, parts.FOLDER):
        for md5 in _versions(path):
            reader.look(path.as_posix(), md5, subject, settings.data.csv)
    reader.search_cache(subject, settings.data.csv)
    try:
        tips, found.note = _environments()
        for environment, tip in tips.items():
            for release in history.releases(history.read(tip)):
                found.releases.append(_release(environment, release, subject, reader))
    except ProjectError as error:
        found.note = f"the releases are not known: {error}"
    found.note = "; ".join(filter(None, [found.note, reader.failed]))
    return found


def _versions(path: Path) -> list[str]:
    """Return the md5s that the .dvc file of a table has had in any commit, and has now."""
    pointer = path.with_name(f"{path.name}.dvc").as_posix()
    commits = git.run("log", "--all", "--format=%H", "--", pointer).split() if git.exists("HEAD") else []
    texts = [git.run("show", f"{commit}:{pointer}") for commit in commits if git.exists(f"{commit}:{pointer}")]
    if Path(pointer).exists():
        texts.append(Path(pointer).read_text(encoding="utf-8"))
    found = (MD5.search(text.partition("outs:\n")[2]) for text in texts)
    return list(dict.fromkeys(match[1] for match in found if match))


def _environments() -> tuple[dict[str, str], str]:
    """Return the newest commit of each branch `env/*`, and a note where origin could not be asked."""
    note = "no remote named origin: these are the releases that this clone knows"
    if git.has_remote():
        try:
            git.run("fetch", "--quiet", "--no-tags", git.REMOTE, f"+refs/heads/env/*:refs/remotes/{git.REMOTE}/env/*")
            note = ""
        except git.GitError:
            note = "origin cannot be reached: these are the releases that this clone knows"
    prefix = f"refs/remotes/{git.REMOTE}/env/"
    lines = git.run("for-each-ref", "--format=%(objectname) %(refname)", prefix).splitlines()
    return {name.removeprefix(prefix): commit for commit, name in (line.split(" ", 1) for line in lines)}, note


def _release(environment: str, release: history.Released, subject: Subject, reader: Reader) -> dict[str, Any]:
    """Return what the report says of a release."""
    record = release.record
    data = record.params.get("data", {})
    csv = Csv.model_validate(data["csv"]) if "csv" in data else None
    column = data.get("id") if subject.column is not None else None
    then = replace(subject, column=column)
    known = subject.column is None or column is not None
    holds = [
        reader.look(file.path, file.md5, then, csv) if known else None
        for file in (record.data, record.appended)
        if file is not None
    ]
    return {
        "environment": environment,
        "version": record.model.version,
        "commit": release.first.commit[:12],
        "main": record.commit[:12],
        "state": release.state,
        "held": True if True in holds else None if None in holds else False,
        "run": record.mlflow_run_id,
    }
