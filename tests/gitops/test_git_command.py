"""Whose settings, variables and files Git is run with: this repository's, whatever a person or a hook has set."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gitops.core.artifacts import ProjectError
from gitops.integrations import git, git_command, mlflow_run, tracking
from gitops.releases import history
from gitops.retraining import pipeline, retrain
from releases import Job, isolate

#: Settings of a person that each change what some command of Git prints or does.
HOSTILE = """
[core]
  autocrlf = true
  eol = crlf
  safecrlf = true
  quotePath = true
  abbrev = 4
  fileMode = false
  ignoreCase = true
  pager = false
  hooksPath = {hooks}
[color]
  ui = always
  status = always
  diff = always
  branch = always
[column]
  ui = always
[commit]
  gpgSign = true
[diff]
  external = false
  noprefix = true
  renames = copies
[fetch]
  prune = true
  pruneTags = true
[format]
  pretty = fuller
[gpg]
  program = false
[i18n]
  commitEncoding = ISO-8859-1
  logOutputEncoding = ISO-8859-1
[log]
  abbrevCommit = true
  date = relative
  decorate = full
  diffMerges = off
  follow = true
  showRoot = false
  showSignature = true
[push]
  default = nothing
  followTags = true
[status]
  branch = true
  relativePaths = true
  short = true
  showUntrackedFiles = no
[user]
  useConfigOnly = true
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A context in which a person has these settings, hooks that fail, and a pager and a diff of the own."""
    isolate(monkeypatch)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-push", "post-checkout", "pre-commit"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/a hook has run'\nexit 1\n")
        (hooks / name).chmod(0o755)
    (tmp_path / "settings").write_text(HOSTILE.format(hooks=hooks))

    @contextmanager
    def settings() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
            patch.setenv("GIT_PAGER", "false")
            patch.setenv("GIT_EXTERNAL_DIFF", "false")
            yield
        assert not (tmp_path / "a hook has run").exists()

    return settings


def test_a_persons_settings_change_no_release(
    job: Job, hostile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job.git("config", "user.name", "Jürgen Größe")
    job.git("tag", "--annotate", "--message=Größe", "reachable")
    for model in ("one", "two"):
        job.merge(f"Größe {model}")
        job.train(model)
        job.gate()
        with hostile():
            assert job.deploy()
    with hostile():
        taken_back = job.rollback()
    assert taken_back
    monkeypatch.chdir(job.path)
    with hostile():
        entries = history.read(taken_back)
    assert entries == history.read(taken_back)
    assert [one.state for one in history.releases(entries)] == ["deployed", "rolled back"]
    assert {entry.author for entry in entries} == {"Jürgen Größe"}
    assert job.git("ls-remote", "--tags", "origin") == ""


def test_a_persons_settings_change_nothing_that_is_read(
    job: Job, hostile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    main = job.merge("One\nTwo\n")
    (job.path / "größer ß.txt").touch()
    (job.path / "src").mkdir()
    (job.path / "src/new.py").touch()
    monkeypatch.chdir(job.path)
    settings = SimpleNamespace(data=SimpleNamespace(path="data/raw.csv"))
    with hostile():
        assert set(git.changes()) == {"größer ß.txt", "src/new.py"}
        assert mlflow_run.versions(settings)["git_dirty"] == "true"
        assert git.fetch("main") == main
        git.export(main, tmp_path / "exported")
        worktree = retrain_worktree(monkeypatch)
        (worktree / "README.md").write_text("Three\r\n")
        commit = overlaid(worktree, main, monkeypatch)
    assert (tmp_path / "exported/README.md").read_bytes() == b"One\nTwo\n"
    assert job.git("log", "-1", "--format=%s", commit) == "Größe"


def retrain_worktree(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(retrain, "share_cache", lambda worktree: None)
    Path(".venv").mkdir()
    return retrain.create_worktree()


def overlaid(worktree: Path, main: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(worktree)
    return git.write_commit(git.overlay(main, {"params.yaml": Path("params.yaml")}), main, "Größe")


@pytest.fixture
def hook(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The variables of a hook in another repository, which commits a part; returns the index that it has for this."""
    isolate(monkeypatch)
    other = tmp_path / "elsewhere"
    subprocess.run(["git", "init", "--quiet", other], check=True)
    index = other / ".git/next-index-1.lock"
    variables = {"GIT_DIR": ".git", "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": str(index), "GIT_PREFIX": "sub/"}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(other / ".git") if name == "GIT_DIR" else value)
    monkeypatch.chdir(job.path)
    return index


def test_a_hooks_variables_reach_no_command(
    job: Job, hook: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither git itself nor what calls it, such as DVC, the stages and a retraining."""
    assert git.run("rev-parse", "--show-toplevel") == str(job.path.resolve())
    assert git.changes() == ["data/prepared/schema.json", "model/run.json"] or git.changes() == []
    worktree = retrain_worktree(monkeypatch)
    git.export(git.run("rev-parse", "HEAD"), tmp_path / "exported")
    assert (tmp_path / "exported/params.yaml").exists()
    assert not hook.exists()
    monkeypatch.setenv("REASON", "more")
    monkeypatch.setattr(tracking, "connect", lambda settings: None)
    assert not set(retrain.environment(job.path, worktree)) & set(git_command.HOOK_VARIABLES)
    assert pipeline.run(["sh", "-c", "env >env.txt"]) == 0
    assert not [line for line in Path("env.txt").read_text().splitlines() if line.startswith("GIT_INDEX_FILE")]


@pytest.fixture
def foreign(job: Job, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of another user, as Git's own tests pretend it."""
    isolate(monkeypatch)
    monkeypatch.delenv("COMMIT", raising=False)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.chdir(job.path)
    return job.path


def test_another_users_repository_is_one_line(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the folder and the command, wherever git is asked first; before anything is trained."""
    said = f"{foreign} belongs to another user, .*`git config --global --add safe.directory {foreign}`$"
    settings = SimpleNamespace(data=SimpleNamespace(path="data/raw.csv"))
    asked = [
        lambda: git.run("rev-parse", "HEAD"),
        lambda: git.exists("HEAD"),
        lambda: git.is_ancestor("HEAD", "HEAD"),
        lambda: git.fetch("main"),
        git.changes,
        git.has_remote,
        git_command.main,
        pipeline.main,
        lambda: mlflow_run.versions(settings),
    ]
    for ask in asked:
        with pytest.raises(ProjectError, match=said) as error:
            ask()
        assert "\n" not in str(error.value)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(foreign))
    assert mlflow_run.versions(settings)["git_commit"] == git.run("rev-parse", "HEAD")


def test_a_folder_that_is_no_repository_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor has a repository without commits; a run is recorded then, too."""
    isolate(monkeypatch)
    monkeypatch.delenv("COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    Path("raw.csv").touch()
    settings = SimpleNamespace(data=SimpleNamespace(path="raw.csv"))
    assert not git.is_repository()
    assert mlflow_run.versions(settings) | {"data_md5": ""} == {
        "git_commit": "none",
        "git_dirty": "false",
        "data_md5": "",
    }
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert git.is_repository()
    assert mlflow_run.versions(settings)["git_commit"] == "none"


def test_without_git_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ProjectError, match=r"git cannot be run \(.+\): is it installed"):
        git.changes()


#: Stands in for ssh: lets in who shows the deploy key, and runs what Git asks for beside the repositories.
SSH = """#!/bin/sh
echo "$@" >> "$RUNNER_TEMP/asked"
if test "$2" != "$RUNNER_TEMP/key" || test "$(cat "$2")" != "deploy key"; then
  echo "Permission denied (publickey)." >&2
  exit 255
fi
for command in "$@"; do :; done
cd "$RUNNER_TEMP" && eval "$command"
"""


def test_releases_and_rollbacks_use_the_deploy_key_that_actions_checkout_leaves(
    job: Job, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the local setting core.sshCommand, in the form that git-auth-helper.ts of v7.0.1 gives it."""
    isolate(monkeypatch)
    temporary = tmp_path / "temporary"
    (temporary / "team").mkdir(parents=True)
    (temporary / "team/toy.git").symlink_to(origin)
    (temporary / "key").write_text("deploy key\n")
    ssh = temporary / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("RUNNER_TEMP", str(temporary))
    options = '-o StrictHostKeyChecking=yes -o CheckHostIP=no -o "UserKnownHostsFile=$RUNNER_TEMP/known_hosts"'
    job.git("config", "--local", "core.sshCommand", f'"{ssh}" -i "$RUNNER_TEMP/key" {options}')
    job.git("remote", "set-url", "origin", "git@github.com:team/toy.git")
    first = job.release("model A")
    job.release("model B")
    assert job.tree(str(job.rollback())) == job.tree(first)
    assert "git-receive-pack 'team/toy.git'" in (temporary / "asked").read_text()
    (temporary / "key").write_text("another key")
    with pytest.raises(ProjectError, match="Permission denied"):
        job.rollback()
