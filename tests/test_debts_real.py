"""`make debts` for real: in a fresh project, with pip-audit and vulture in their own environment."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT, generate, make, module_of

pytestmark = pytest.mark.real

free_port = module_of(ROOT, "tests/gitops/ports.py").free_port

#: An answer of OSV's API, https://google.github.io/osv.dev/post-v1-query/, shortened.
VULNERABILITY = {
    "schema_version": "1.6.0",
    "id": "PYSEC-2099-1",
    "summary": "planted",
    "affected": [
        {
            "package": {"name": "pydantic", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


class Service:
    """OSV's API on this machine: `answer` for the package `pydantic`, and no vulnerability of any other."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {}
        self.status = 200
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert query["package"]["ecosystem"] == "PyPI" and query["version"]
                body = json.dumps(service.answer if query["package"]["name"] == "pydantic" else {}).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/query"


@pytest.fixture(scope="module")
def made(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project, in which nothing was installed or run before."""
    return generate(tmp_path_factory.mktemp("debts"))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    monkeypatch.setenv("OSV_URL", service.url)
    threading.Thread(target=service.server.serve_forever, daemon=True).start()
    yield service
    service.server.shutdown()
    service.server.server_close()


def debts(project: Path, of: str = "") -> list[dict[str, Any]]:
    """Run the command, and return the findings whose text has `of` in it."""
    make(project, "debts")
    findings = json.loads((project / "reports/debts.json").read_text())
    return [finding for finding in findings if of in finding["text"]]


def test_a_fresh_project_has_no_dead_code_or_setting(made: Path, service: Service) -> None:
    findings = debts(made)
    assert {path.name for path in (made / ".venv").iterdir()} - {"uv"} == {"pipeline", "debt"}
    assert {finding["debt"] for finding in findings if finding["known"]} == {"glue code"}
    assert not [finding for finding in findings if finding["debt"] == "software dependency"]
    done = subprocess.run(["git", "status", "--porcelain"], cwd=made, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_a_vulnerability_of_a_pin_is_found_with_its_line(made: Path, service: Service) -> None:
    service.answer = {"vulns": [VULNERABILITY]}
    findings = debts(made, "PYSEC-2099-1")
    assert findings and all(finding["known"] and "fixed in: 99.0" in finding["text"] for finding in findings)
    for finding in findings:
        line = (made / finding["file"]).read_text().splitlines()[finding["line"] - 1]
        assert line.startswith("pydantic==")


def test_a_service_that_fails_or_answers_otherwise_is_not_known(made: Path, service: Service) -> None:
    service.answer = {"vulns": [VULNERABILITY | {"schema_version": "2.0.0"}]}
    assert [finding["known"] for finding in debts(made, "Vulnerabilities")] == [False]
    service.status = 500
    findings = debts(made, "Vulnerabilities")
    assert findings and not any(finding["known"] for finding in findings)


def test_dead_code_and_a_dead_setting(made: Path, service: Service) -> None:
    (package,) = (path for path in (made / "src").iterdir() if path.name != "gitops" and (path / "model.py").exists())
    model, settings, values = package / "model.py", package / "settings.py", made / "params.yaml"
    number = len(model.read_text().splitlines()) + 3
    model.write_text(f"{model.read_text()}\n\ndef left_over() -> None:\n    pass\n")
    settings.write_text(settings.read_text().replace("    depth: Count\n", "    depth: Count\n    towers: Count\n"))
    values.write_text(values.read_text().replace("\n  depth: 2 ", "\n  towers: 4\n  depth: 2 "))
    try:
        (code,) = debts(made, "left_over")
        (setting,) = debts(made, "model.towers")
    finally:
        subprocess.run(["git", "checkout", "--quiet", "."], cwd=made, check=True)
    assert (code["file"], code["line"]) == (f"src/{package.name}/model.py", number)
    assert values.read_text() and setting["file"] == "params.yaml" and setting["line"]
