"""The hooks: which answers are refused and how, and what becomes of Git."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cookiecutter.exceptions import FailedHookException
from projects import ROOT, generate

REFUSED = [
    ("project_name", "", "one line of up to 60"),
    ("project_name", "x" * 61, "one line of up to 60"),
    ("project_name", " Churn", "a letter or digit first"),
    ("project_name", "#1", "a letter or digit first"),
    ("project_name", 'The "best"', "no braces or"),
    ("project_name", "two\nlines", "one line of up to 60"),
    ("project_name", "a\u2028b", "one line of up to 60"),
    ("project_name", r"a \ b", "no braces or"),
    ("project_name", "costs $HOME", "no braces or"),
    ("project_name", "a `command`", "no braces or"),
    ("project_name", "a <script>", "no braces or"),
    ("project_name", "a | b", "no braces or"),
    ("project_name", "a {b}", "no braces or"),
    ("project_slug", "Churn", "lower-case letters"),
    ("project_slug", "1churn", "a letter first"),
    ("project_slug", "churn_model", "hyphens"),
    ("project_slug", "churn--model", "single hyphens"),
    ("project_slug", "churn-", "single hyphens"),
    ("project_slug", "c", "2 to 40"),
    ("project_slug", "c" * 41, "2 to 40"),  # names of CronJobs have 52 characters at most
    ("package_name", "churn-model", "underscores"),
    ("package_name", "Churn", "lower-case letters"),
    ("package_name", "1churn", "a letter first"),
    ("package_name", "_churn", "a letter first"),
    ("package_name", "größe", "lower-case letters"),
    ("package_name", "class", "class_model would do"),
    ("package_name", "json", "json_model would do"),
    ("package_name", "torch", "torch_model would do"),
    ("package_name", "yaml", "yaml_model would do"),
    ("package_name", "sklearn", "sklearn_model would do"),
    ("package_name", "cuda", "cuda_model would do"),  # this and the next two are what torch's CUDA build brings
    ("package_name", "nvidia", "nvidia_model would do"),
    ("package_name", "triton", "triton_model would do"),
    ("package_name", "test", "Python or a dependency of the project has that name; test_model would do"),
    ("package_name", "TEST", "lower-case letters"),
    ("package_name", "\uff54\uff45\uff53\uff54", "lower-case letters"),  # Python reads it as `test`
    ("package_name", "conftest", "conftest_model would do"),
    ("package_name", "sitecustomize", "sitecustomize_model would do"),
    ("package_name", "usercustomize", "usercustomize_model would do"),
    ("package_name", "distutils", "distutils_model would do"),  # gone in 3.12
    ("package_name", "compression", "compression_model would do"),  # new in 3.14
    ("package_name", "tests", "the project has a folder or module of that name; tests_model would do"),
    ("package_name", "handler", "handler_model would do"),
    ("package_name", "null", "YAML does not read it as text; null_model would do"),
    ("project_slug", "on", "YAML does not read it as text; on-model would do"),
    ("github_owner", "", "a GitHub name"),
    ("github_owner", "-acme", "none first or last"),
    ("github_owner", "acme-", "none first or last"),
    ("github_owner", "ac--me", "single hyphens"),
    ("github_owner", "acme/team", "a GitHub name"),
    ("github_owner", "a" * 40, "1 to 39"),
    ("dvc_remote", "", "an absolute path"),
    ("dvc_remote", "storage", "an absolute path"),
    ("dvc_remote", "../storage", "an absolute path"),
    ("dvc_remote", "/srv/../etc", "without spaces"),
    ("dvc_remote", "/srv/my data", "without spaces"),
    ("dvc_remote", "/srv/'data'", "quotes"),
    ("dvc_remote", "s3://bucket/path\n[core]", "s3://bucket/path"),
    ("dvc_remote", "s3://", "s3://bucket/path"),
    ("dvc_remote", "s3://key:secret@bucket/path", "dvc remote modify --local"),
    ("dvc_remote", "ssh://me:password@host/path", "dvc remote modify --local"),
    ("dvc_remote", "ssh://host", "ssh://user@host/path"),
    ("dvc_remote", "gdrive://folder", "s3://bucket/path"),
    ("dvc_remote", "https://host/path", "s3://bucket/path"),
]


@pytest.mark.parametrize(("question", "answer", "right"), REFUSED)
def test_answer_is_refused(
    question: str, answer: str, right: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The message names the question, the answer and what would be right; no file remains."""
    answers = {"project_slug": "churn-model", "package_name": "churn_model"} | {question: answer}
    with pytest.raises(FailedHookException):
        generate(tmp_path / "new", **answers)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert f"{question} is {answer!r}" in said[0]
    assert right in said[0]
    assert not list((tmp_path / "new").rglob("*"))


def test_every_wrong_answer_is_named_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FailedHookException):
        generate(tmp_path, project_slug="A", package_name="torch", github_owner="", dvc_remote="x")
    assert capfd.readouterr().err.count("error: ") == 4


def test_a_name_that_becomes_test_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The package's name comes from the project's, whatever its case and width."""
    for name in ("Test", "\uff34\uff25\uff33\uff34"):
        with pytest.raises(FailedHookException):
            generate(tmp_path, project_name=name)
        assert "package_name is 'test': " in capfd.readouterr().err


def test_no_module_of_a_python_that_runs_a_project_can_be_the_package() -> None:
    """Also where another Python generates it: the hook has those of 3.11 and 3.12, and those of newer ones."""
    refused = refused_packages()
    others = map(shutil.which, ("python3.11", "python3.12", "python3.13", "python3.14"))
    for program in filter(None, [sys.executable, *others]):
        command = [program, "-c", "import sys; print(*sys.stdlib_module_names)"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode and program != sys.executable:  # pyenv puts programs on PATH for versions that are not there
            continue
        modules = set(re.findall(r"(?<!\S)[a-z]\w+", done.stdout))
        assert "json" in modules, program
        assert not modules - refused - set(sys.stdlib_module_names), program
    # What the oldest of them and the newest have is refused without them, too.
    assert {"asynchat", "asyncore", "distutils", "imp", "smtpd", "cgi", "telnetlib", "tomllib"} <= refused


def test_no_folder_of_a_project_can_be_the_package(projects: dict[str, Path]) -> None:
    """The folders and files at its root, and those in which results come to lie."""
    for project in projects.values():
        ignored = re.findall(r"(?m)^/(\w+)/$", (project / ".gitignore").read_text())
        roots = {Path(name).parts[0].partition(".")[0] for name in git(project, "ls-files").splitlines()}
        names = {name for name in {*ignored, *roots} if re.fullmatch(r"[a-z][a-z0-9_]+", name)}
        assert {"tests", "src", "params", "mlruns"} <= names
        assert not names - refused_packages() - {"pyproject"}


def refused_packages() -> set[str]:
    hook = (ROOT / "hooks/pre_gen_project.py").read_text()
    return {word for words in re.findall(r'= set\(\s+"""(.*?)"""', hook, re.DOTALL) for word in words.split()}


def git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_first_commit(projects: dict[str, Path]) -> None:
    project = projects["defaults"]
    assert git(project, "branch", "--show-current") == "main"
    assert git(project, "log", "--format=%an: %s") == "Test: Generate the project"
    assert git(project, "status", "--porcelain") == ""


def test_own_repository_inside_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when generation runs in a hook of that other one, which has GIT_DIR set."""
    git(tmp_path, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    project = generate(tmp_path)
    monkeypatch.delenv("GIT_DIR")
    assert git(project, "rev-parse", "--show-toplevel") == str(project)
    assert git(project, "log", "--format=%s") == "Generate the project"


def test_without_an_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    project = generate(tmp_path)
    said = capfd.readouterr().out
    assert "user.email" in said
    assert said.rstrip().endswith("  git commit --quiet '--message=Generate the project'")
    assert "pyproject.toml" in git(project, "diff", "--cached", "--name-only")


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    project = generate(tmp_path)
    said = capfd.readouterr().out
    assert all(f"  git {command} " in said for command in ("init", "add", "commit"))
    assert (project / "LICENSE").exists()
    assert not (project / ".git").exists()
