"""The programs behind the template's own workflows: the loop on a cluster, its Git server, the weekly issue, locks."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest
from projects import ROOT

#: Stands for gh: keeps the open issues and what was said in a file.
GH = """#!{python}
import json, os, pathlib, sys
path = pathlib.Path(os.environ["ISSUES"])
issues = json.loads(path.read_text()) if path.exists() else []
command, options = sys.argv[2], sys.argv[3:]
if command == "list":
    print(json.dumps([dict(number=number, title=issue["title"]) for number, issue in enumerate(issues, 1)]))
elif command == "create":
    issues.append(dict(title=options[options.index("--title") + 1], said=[options[options.index("--body") + 1]]))
elif command == "comment":
    issues[int(options[0]) - 1]["said"].append(options[options.index("--body") + 1])
else:
    sys.exit("no such command")
path.write_text(json.dumps(issues))
"""


def git(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository with two releases on env/production, and a clone of it beside it, `project`."""
    origin, project = tmp_path / "origin.git", tmp_path / "project"
    git("init", "--quiet", "--bare", "--initial-branch=main", origin, cwd=tmp_path)
    git("init", "--quiet", "--initial-branch=env/production", project, cwd=tmp_path)
    git("remote", "add", "origin", "../origin.git", cwd=project)
    for version in ("one", "two"):
        (project / "release").write_text(version)
        git("add", "release", cwd=project)
        git("commit", "--quiet", "--message", f"Release {version}", cwd=project)
    git("push", "--quiet", "origin", "env/production", cwd=project)
    git("switch", "--quiet", "--orphan", "main", cwd=project)
    return origin


def program(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import one of tools/."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module(name)


def test_git_server_gives_what_is_new(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = program("git_server", monkeypatch)
    clone, project = tmp_path / "clone", tmp_path / "project"
    with server.serve(tmp_path) as address:
        git("clone", "--quiet", "--branch=env/production", f"{address}/origin.git", clone, cwd=tmp_path)
        assert (clone / "release").read_text() == "two"
        git("switch", "--quiet", "env/production", cwd=project)
        for number in range(200):  # many commits, so that a request is long enough for git to compress it
            git("commit", "--quiet", "--allow-empty", f"--message={number}", cwd=project)
        git("push", "--quiet", "origin", "HEAD", cwd=project)
        git("pull", "--quiet", cwd=clone)
    assert git("rev-parse", "HEAD", cwd=clone) == git("rev-parse", "env/production", cwd=origin)


def test_git_server_takes_nothing(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = program("git_server", monkeypatch)
    before = git("rev-parse", "env/production", cwd=origin)
    with server.serve(tmp_path) as address:
        push = ["git", "push", "--force", f"{address}/origin.git", "env/production~1:env/production"]
        done = subprocess.run(push, cwd=tmp_path / "project", capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "403" in done.stderr
        for path, status in (("/none.git/info/refs?service=git-upload-pack", 404), ("/../../etc/passwd", 500)):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(f"{address}{path}", timeout=10)
            assert error.value.code == status
    assert git("rev-parse", "env/production", cwd=origin) == before


def test_git_alone_goes_back_and_forth(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that take a release back leave the tree of the one before, and a clean repository."""
    end_to_end = program("end_to_end", monkeypatch)
    for expected in ("one", "two"):
        for command in end_to_end.REVERT:
            subprocess.run(["bash", "-c", command], cwd=tmp_path / "project", check=True)
        assert git("show", "env/production:release", cwd=origin) == expected
        assert not (tmp_path / "production").exists()
    assert git("rev-list", "--count", "env/production", cwd=origin) == "4"


def test_end_to_end_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_to_end = program("end_to_end", monkeypatch)
    (tmp_path / "kubectl").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"not on PATH: docker \(https.*\), kind \(https\S+\)$"):
        end_to_end.check_programs()


def test_newest_versions_fail_in_one_issue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_issue = program("fresh_issue", monkeypatch)
    (tmp_path / "gh").write_text(GH.format(python=sys.executable))
    (tmp_path / "gh").chmod(0o755)
    issues = tmp_path / "issues.json"
    issues.write_text(json.dumps([{"title": "Something else", "said": []}]))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ISSUES", str(issues))
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.example")
    monkeypatch.setenv("GITHUB_REPOSITORY", "some/template")
    for run in ("41", "42"):
        monkeypatch.setenv("GITHUB_RUN_ID", run)
        fresh_issue.main()
    other, issue = json.loads(issues.read_text())
    assert other["said"] == []
    assert [said.split()[0] for said in issue["said"]] == [
        f"https://github.example/some/template/actions/runs/{run}" for run in ("41", "42")
    ]


def test_issue_needs_gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_issue = program("fresh_issue", monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="gh is not on PATH"):
        fresh_issue.main()
    (tmp_path / "gh").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('HTTP 403: Forbidden')\n")
    (tmp_path / "gh").chmod(0o755)
    with pytest.raises(SystemExit, match="`gh issue list` failed: HTTP 403: Forbidden"):
        fresh_issue.main()


#: Stands for gh: keeps the open pull requests in a file.
GH_PULL_REQUESTS = """#!{python}
import json, os, pathlib, sys
path = pathlib.Path(os.environ["PULL_REQUESTS"])
found = json.loads(path.read_text()) if path.exists() else []
if sys.argv[1:3] == ["pr", "list"]:
    print(json.dumps(found))
elif sys.argv[1:3] == ["pr", "create"]:
    found.append(dict(url="https://github.example/pull/7"))
    path.write_text(json.dumps(found))
    print(found[-1]["url"])
elif sys.argv[1:] != ["auth", "setup-git"]:
    sys.exit("no such command")
"""


def test_changed_locks_are_one_pull_request(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing where nothing has changed, and nothing but locks and the platform's images."""
    propose_locks, project = program("propose_locks", monkeypatch), tmp_path / "project"
    locks = ("k8s/mlflow/mlflow.yaml", "requirements/dev.txt", "{{x}}/requirements/serve/s3.txt")
    for name in (*locks, "other.txt"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("before\n")
    git("add", ".", cwd=project)
    git("commit", "--quiet", "--message=Locks", cwd=project)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH_PULL_REQUESTS.format(python=sys.executable))
    (tmp_path / "bin/gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PULL_REQUESTS", str(tmp_path / "pull_requests.json"))
    monkeypatch.chdir(project)
    propose_locks.main()
    assert capsys.readouterr().out == "Locks and digests are as `make lock` and `make image-digests` write them.\n"
    assert git("branch", "--list", "locks", cwd=origin) == ""
    for text in ("one", "two"):
        git("switch", "--quiet", "main", cwd=project)
        for name in (*locks, "other.txt"):
            (project / name).write_text(text)
        propose_locks.main()
        assert capsys.readouterr().out == "https://github.example/pull/7\n"
        assert git("show", "locks:requirements/dev.txt", cwd=origin) == text
        assert git("diff", "--name-only", "main", "locks", cwd=project).splitlines() == list(locks)
        git("checkout", "--quiet", "other.txt", cwd=project)
    assert len(json.loads((tmp_path / "pull_requests.json").read_text())) == 1
