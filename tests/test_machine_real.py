"""One project on an odd machine: a path with `%`, spaces and umlauts, no locale, variables of hooks and of others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from projects import generate, make

pytestmark = pytest.mark.real


class Proxy(BaseHTTPRequestHandler):
    """Reaches nothing on this machine, and says so."""

    def do_GET(self) -> None:
        self.send_error(503)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def machine(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """What a shell may have set; proxies come after the environments are made, which may need the machine's own."""
    hook = tmp_path_factory.mktemp("other")
    subprocess.run(["git", "init", "--quiet", hook], check=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "LC_ALL": "C",
            "GIT_DIR": str(hook / ".git"),
            "GIT_INDEX_FILE": str(hook / ".git/next-index-1.lock"),
            "GIT_PREFIX": "",
            "JAVA_TOOL_OPTIONS": "-javaagent:/nonexistent.jar",
            "PIP_USER": "1",
            "PYTHONPATH": "/nonexistent",
            "PYTHONSAFEPATH": "1",
            "UV_REQUIRE_HASHES": "1",
        }.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def odd(machine: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after its pipeline, released to an origin beside it. The tests go on in order."""
    project = generate(tmp_path_factory.mktemp("odd") / "50% größer ß projekt")
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"(?m)^  epochs: \d+", "  epochs: 20", settings))
    make(project, "pipeline")
    git(project, "init", "--quiet", "--bare", "../origin.git")
    git(project, "remote", "add", "origin", "../origin.git")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=Train")
    git(project, "push", "--quiet", "origin", "main")
    return project


def git(project: Path, *arguments: str) -> str:
    """Run git as a person would, in no hook."""
    own = {name: value for name, value in os.environ.items() if not re.match(r"GIT_(DIR|INDEX|PREFIX)", name)}
    done = subprocess.run(["git", *arguments], cwd=project, env=own, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_release_and_a_retraining(odd: Path) -> None:
    make(odd, "verify")
    make(odd, "gate")
    make(odd, "report")
    make(odd, "manifests")
    make(odd, "plan")
    assert "Released breast_cancer" in make(odd, "deploy")
    make(odd, "batch", "INPUT=data/raw.csv", f"OUTPUT={odd.parent / 'out.csv'}")
    assert len((odd.parent / "out.csv").read_text().splitlines()) == 570
    assert "breast_cancer in MLflow at sqlite:///mlflow.db: 1 releases, 1 new versions" in make(odd, "register")
    assert "No retraining: no new data or settings since main" in make(odd, "retrain", "REASON=more")
    assert git(odd, "status", "--porcelain") == ""


def test_serving_behind_a_proxy(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        assert '{"predictions": ' in make(odd, "serve", "ARGS=--once --environment production")
        proxy.shutdown()


def test_another_users_checkout_is_one_line(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for target in ("pipeline", "lint", "github"):
        with pytest.raises(AssertionError) as error:
            make(odd, target)
        said = [line for line in str(error.value).splitlines() if line.startswith("error: ")]
        assert said == [said[0]] and f"{odd} belongs to another user, so Git does not read it" in said[0]
        assert "git config --global --add safe.directory " in said[0]


def test_a_moved_project_goes_on(odd: Path, tmp_path: Path) -> None:
    """Nothing is trained again, and what is trained later leaves nothing where the project was."""
    moved = odd.rename(tmp_path / "moved")
    assert "Running stage" not in make(moved, "pipeline")
    settings = (moved / "params.yaml").read_text()
    (moved / "params.yaml").write_text(settings.replace("  epochs: 20", "  epochs: 3"))
    make(moved, "pipeline")
    assert not odd.exists()
    run = json.loads((moved / "model/run.json").read_text())["run_id"]
    assert list(moved.glob(f"mlruns/*/{run}/artifacts/*"))
