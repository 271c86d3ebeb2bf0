"""What a machine, its Git and its shell are set to does not change what is generated, cloned or run."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import ROOT, environment, generate, tracked

#: Settings of Git that change files when they are checked out or committed; `%` is a folder of the test.
SETTINGS = {
    "autocrlf": "[core]\n  autocrlf = true\n",
    "crlf": "[core]\n  autocrlf = true\n  eol = crlf\n  safecrlf = true\n",
    "names": "[core]\n  quotePath = true\n  ignoreCase = true\n  fileMode = false\n  excludesFile = %/ignored\n",
}

#: What a person may ignore everywhere.
IGNORED = "*.md\n*.csv\n.devcontainer/\n.gitattributes\nmodel*\ncore/\nfiles/\n"


@pytest.fixture(params=SETTINGS)
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A person's settings of Git."""
    (tmp_path / "ignored").write_text(IGNORED)
    text = "[user]\n  name = Test\n  email = test@example.org\n" + SETTINGS[request.param].replace("%", str(tmp_path))
    (tmp_path / "settings").write_text(text)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    return str(request.param)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def contents(project: Path) -> dict[str, bytes]:
    return {name: (project / name).read_bytes() for name in tracked(project)}


@pytest.mark.parametrize("name", ["defaults", "feature-store"])
def test_a_clone_has_the_very_bytes(
    name: str, settings: str, projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above all the objects in the folder remote, which DVC deletes where they do not have their hash."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(projects[name]), str(clone))
    assert contents(clone) == contents(projects[name])
    assert git(clone, "status", "--porcelain") == ""
    monkeypatch.syspath_prepend(clone / "src")
    for module in [module for module in sys.modules if module.partition(".")[0] == "gitops"]:
        monkeypatch.delitem(sys.modules, module)
    assert importlib.import_module("gitops.project.version").difference() == ""
    # What an editor writes with CRLF is committed with LF, but for a table of data, whose bytes count.
    for path, ending in (("params.yaml", b"\n"), ("data/labels.csv", b"\r\n")):
        (clone / path).write_bytes(b"a: 1\r\n")
        git(clone, "-c", "core.safecrlf=false", "-c", "core.excludesFile=", "add", "--force", path)
        stored = subprocess.run(["git", "show", f":{path}"], cwd=clone, capture_output=True, check=True).stdout
        assert stored == b"a: 1" + ending


def test_a_project_is_generated_whole(settings: str, projects: dict[str, Path], tmp_path: Path) -> None:
    project = generate(tmp_path / "new")
    assert contents(project) == contents(projects["defaults"])
    assert git(project, "status", "--porcelain") == ""


def test_a_clone_of_the_template_generates_the_same(
    settings: str, projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when cookiecutter clones it."""
    source, clone = tmp_path / "source", tmp_path / "clone"
    for name in git(
        ROOT, "-c", "core.excludesFile=", "ls-files", "-z", "--cached", "--others", "--exclude-standard"
    ).split("\0"):
        if name and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    git(source, "init", "--quiet")
    git(source, "-c", "core.excludesFile=", "-c", "core.safecrlf=false", "add", "--all")
    git(source, "commit", "--quiet", "--message=Copy")
    git(tmp_path, "clone", "--quiet", str(source), str(clone))
    monkeypatch.setattr("projects.ROOT", clone)
    assert contents(generate(tmp_path / "new")) == contents(projects["defaults"])


def names_of(path: Path) -> set[str]:
    names = re.findall(r"\bGIT_[A-Z_]+\b", path.read_text(encoding="utf-8"))
    return {name for name in names if name != "GIT_CONFIG"}  # named in a comment


def test_the_variables_of_hooks_are_those_that_git_names() -> None:
    """The same in each place that has them; but settings given on a command line are kept."""
    listed = set(git(ROOT, "rev-parse", "--local-env-vars").split())
    template = ROOT / "{{cookiecutter.project_slug}}"
    places = [ROOT / "Makefile", template / "Makefile", ROOT / "hooks/post_gen_project.py"]
    places += [template / "src/gitops/integrations/git_command.py"]
    for path in places:
        assert names_of(path) == names_of(places[0])
        kept = listed - names_of(path)
        assert {name for name in kept if not name.startswith("GIT_CONFIG")} == set()


@pytest.fixture(params=["template", "project"])
def makefile(request: pytest.FixtureRequest, projects: dict[str, Path]) -> Path:
    """The folder of each Makefile."""
    return ROOT if request.param == "template" else projects["defaults"]


def recipe(folder: Path, **variables: str) -> dict[str, str]:
    """Return the variables that a recipe of the Makefile gets."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    own = {name: value for name, value in environment().items() if name.lower() not in proxies}
    done = subprocess.run(
        ["make", "--no-print-directory", "--eval", "probe: ; @env -0", "probe"],
        cwd=folder,
        env=own | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def test_a_recipe_is_free_of_hooks_and_other_pythons(makefile: Path) -> None:
    names = names_of(makefile / "Makefile") | {"PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONOPTIMIZE"}
    found = recipe(makefile, **dict.fromkeys(names, "x"), GIT_AUTHOR_NAME="Me", GIT_CONFIG_COUNT="0")
    assert not names & set(found)
    assert (found["GIT_AUTHOR_NAME"], found["GIT_CONFIG_COUNT"]) == ("Me", "0")


def test_a_recipe_is_in_utf_8(makefile: Path) -> None:
    for posix in ("C", "POSIX"):
        assert recipe(makefile, LC_ALL=posix)["LC_ALL"] == "C.UTF-8"
    assert recipe(makefile, LC_ALL="de_DE.UTF-8")["LC_ALL"] == "de_DE.UTF-8"
    assert recipe(makefile)["PYTHONUTF8"] == "1"


HERE = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_is_not_for_this_machine(name: str, makefile: Path) -> None:
    proxy = "http://proxy.example:3128"
    for given, left in (
        ({}, f"localhost,{HERE}"),
        ({"NO_PROXY": ".example"}, f".example,{HERE}"),
        ({"no_proxy": ".example", "NO_PROXY": "ignored"}, f".example,{HERE}"),
        ({"NO_PROXY": "*"}, None),
    ):
        found = recipe(makefile, **{name: proxy}, **given)
        assert found[name] == proxy
        assert [found.get("NO_PROXY"), found.get("no_proxy")] == ([left, left] if left else ["*", None])


def test_without_a_proxy_nothing_is_set(makefile: Path) -> None:
    """On macOS, Python asks the system for its proxies only where no variable is set."""
    found = recipe(makefile)
    assert "NO_PROXY" not in found and "no_proxy" not in found


def test_python_asks_this_machine_without_a_proxy_and_others_with_it(makefile: Path) -> None:
    program = (
        "import urllib.request as u; u.getproxies() and print(*(bool(u.proxy_bypass(h)) for h in "
        "('127.0.0.1', 'localhost', 'github.com', 'registry.example')))"
    )
    variables = recipe(makefile, HTTP_PROXY="http://proxy.example:3128")
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False", "False"]


def test_linters_and_github_ask_git_first(projects: dict[str, Path]) -> None:
    """Whether it trusts the repository: what they start itself does not say that."""
    for target, program in (("lint", "pre-commit run"), ("github", "gitops.project.github_setup")):
        command = ["make", "--dry-run", target]
        done = subprocess.run(command, cwd=projects["defaults"], capture_output=True, text=True, env=environment())
        lines = [line for line in done.stdout.splitlines() if "git_command" in line or program in line]
        assert len(lines) == 2 and "gitops.integrations.git_command" in lines[0]


def test_generation_in_a_hook_makes_the_projects_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partial commit of another repository: its index stays as it is."""
    other = tmp_path / "other"
    git(tmp_path, "init", "--quiet", str(other))
    index = other / ".git/next-index-1.lock"
    with monkeypatch.context() as patch:
        for name, value in {
            "GIT_DIR": str(other / ".git"),
            "GIT_INDEX_FILE": str(index),
            "GIT_WORK_TREE": str(other),
            "GIT_OBJECT_DIRECTORY": str(other / ".git/objects"),
            "GIT_PREFIX": "sub/",
        }.items():
            patch.setenv(name, value)
        project = generate(tmp_path / "new")
    assert not index.exists()
    assert git(project, "log", "--format=%s") == "Generate the project\n"
    assert git(project, "status", "--porcelain") == ""
    assert os.listdir(other) == [".git"]
