"""`make debts`, the debts of settings and code; each finder with a debt planted, and without it.

With vulture and pip-audit: test_debts_real.py.
"""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from gitops.core import params
from gitops.debt import found_code, found_dependencies, found_settings
from gitops.debt.finding import Finding
from gitops.integrations import git
from owing import commit, configure, line_of, texts, write
from owing import repository as repository

# Settings


def test_a_setting_that_no_module_reads() -> None:
    settings, tools = configure(), [*(ROOT / "src/gitops").rglob("*.py")]
    own = [*(ROOT / "src" / params.package()).rglob("*.py")]
    assert [*found_settings.dead(settings, own, tools)] == []
    # The setting of the model that nothing but its declaration names any more: another's use of the name is none of it.
    left = [path for path in own if "embedding" not in path.read_text() or path.name == "settings.py"]
    other = write("other.py", "print(other.embedding)\n")
    (finding,) = (each for each in found_settings.dead(settings, left, [*tools, other]) if ".embedding" in each["text"])
    assert finding["line"] == line_of("params.yaml", "embedding:")


def test_a_validator_is_no_use_of_a_setting() -> None:
    settings = configure()
    used = "class A:\n    def use(self):\n        return self.max_lost\n"
    checked = used.replace("    def", "    @model_validator(mode='after')\n    def")
    for text, number in ((used, 0), (checked, 1)):
        findings = found_settings.dead(settings, [], [write("module.py", text)])
        assert len([each for each in findings if "max_lost" in each["text"]]) == number


def test_settings_that_were_changed_without_review() -> None:
    assert [*found_settings.unreviewed()] == []
    configure(data={"seed": 8})
    commit("Change the seed (#12)")
    git.run("checkout", "--quiet", "-b", "branch")
    configure(data={"seed": 8, "max_lost": 0.3})
    commit("Lose more")
    git.run("checkout", "--quiet", "main")
    git.run(*git.FALLBACK, "merge", "--quiet", "--no-ff", "-m", "Merge branch", "branch")
    write("README.md", "No setting\n")
    commit("Write a readme")
    assert [*found_settings.unreviewed()] == []
    configure(data={"seed": 9, "max_lost": 0.3})
    name = commit("Just this once")
    (finding,) = found_settings.unreviewed()
    assert name[:12] in finding["text"] and "Just this once" not in finding["text"]
    assert (finding["file"], finding["line"]) == ("params.yaml", line_of("params.yaml", "seed:"))


def test_half_a_history_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit("More")
    git.run("clone", "--quiet", "--depth=1", f"file://{tmp_path}", str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    assert [each["known"] for each in found_settings.unreviewed()] == [False]


# Code


def tool(path: Path, output: str, status: int = 0, errors: str = "") -> None:
    """Put a program in the place of one of the environment `debt`."""
    write("output", output)
    write("errors", errors)
    write(str(path), f"#!/bin/sh\nprintf '%s\\n' \"$@\" > arguments\ncat output\ncat errors >&2\nexit {status}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def dead_code() -> list[Finding]:
    return [*found_code.dead(Path("src/toy"), Path("src/gitops"))]


def test_dead_code_is_the_owners_alone() -> None:
    tool(found_code.VULTURE, "")
    assert dead_code() == []
    lines = [
        "src/toy/model.py:12: unused function 'old' (60% confidence)",
        "src/gitops/a.py:1: unused import 'x' (90% confidence)",
    ]
    tool(found_code.VULTURE, "\n".join(lines), status=3)
    (finding,) = dead_code()
    assert (finding["file"], finding["line"], finding["text"]) == ("src/toy/model.py", 12, "Unused function 'old'")


def test_code_that_was_not_read_is_not_known() -> None:
    assert [each["known"] for each in dead_code()] == [False]
    tool(found_code.VULTURE, "src/toy/model.py:1: invalid syntax", status=1)
    assert [each["known"] for each in dead_code()] == [False]


def test_glue_code() -> None:
    write("src/toy/model.py", "# comment\n\n" + "x = 1\n" * 6)
    write("src/gitops/tool.py", "x = 1\n" * 94)
    assert [*found_code.glue(Path("src/toy"), Path("src/gitops"))] == []
    write("src/toy/model.py", "x = 1\n" * 4)
    (text,) = texts(found_code.glue(Path("src/toy"), Path("src/gitops")))
    assert "94 lines of code and src/toy 4: 96%" in text


# Dependencies


LOCK = "# sha256\nidna==3.6 \\\n    --hash=sha256:aa\n    # via x\nZipp_a==1.0 ; python_version < '3' \\\n"


def audited(*entries: dict[str, Any], errors: str = "", status: int = 0) -> list[Finding]:
    """Return what is found where pip-audit answers with `entries`."""
    tool(found_dependencies.PIP_AUDIT, json.dumps({"dependencies": entries}), status, errors)
    return [
        *found_dependencies.vulnerable(
            [write("requirements/a.txt", LOCK), write("requirements/b.txt", "-e .\nidna==3.6\n")]
        )
    ]


IDNA: dict[str, Any] = {"name": "idna", "version": "3.6", "vulns": []}
ZIPP: dict[str, Any] = {"name": "zipp-a", "version": "1.0", "vulns": []}
VULNERABLE = IDNA | {"vulns": [{"id": "PYSEC-2024-60", "fix_versions": ["3.7"], "aliases": []}]}


def test_packages_without_a_known_vulnerability() -> None:
    assert audited(IDNA, ZIPP) == []


def test_a_known_vulnerability_is_listed_once_with_its_places() -> None:
    (finding,) = audited(VULNERABLE, ZIPP, status=1)
    assert finding["known"] and (finding["file"], finding["line"]) == ("requirements/a.txt", 2)
    assert finding["text"] == (
        "idna 3.6 has the vulnerability PYSEC-2024-60; fixed in: 3.7; also in requirements/b.txt"
    )


def test_what_pip_audit_skips_or_leaves_out_is_not_known() -> None:
    (skipped,) = audited(IDNA, {"name": "zipp-a", "skip_reason": "not found on PyPI"})
    assert (
        not skipped["known"]
        and "1 of 2 packages: zipp-a 1.0" in skipped["text"]
        and "not found on PyPI" in skipped["text"]
    )
    (absent,) = audited(IDNA)
    assert not absent["known"] and "did not answer" in absent["text"]


def test_an_answer_that_pip_audit_does_not_understand_is_not_known() -> None:
    (warned,) = audited(IDNA, ZIPP, errors="WARNING:pip_audit._service.osv:Unsupported OSV schema version: 2.0\n")
    assert not warned["known"] and "Unsupported OSV schema" in warned["text"]


def test_a_requirement_that_is_no_pin_is_not_known() -> None:
    tool(found_dependencies.PIP_AUDIT, '{"dependencies": []}')
    lock = write("requirements/a.txt", "tool @ https://host.example/tool.whl\n")
    (finding,) = found_dependencies.vulnerable([lock])
    assert not finding["known"] and "line 1" in finding["text"] and finding["file"] == "requirements/a.txt"


def test_a_failed_audit_is_not_known() -> None:
    lock = write("requirements/a.txt", LOCK)
    assert not any(each["known"] for each in found_dependencies.vulnerable([lock]))
    tool(found_dependencies.PIP_AUDIT, "", 1, "Traceback\nConnectionError: no route\n")
    findings = [*found_dependencies.vulnerable([lock])]
    assert "ConnectionError: no route" in findings[0]["text"] and not any(each["known"] for each in findings)


def test_a_lock_of_long_ago() -> None:
    lock = write("requirements/a.txt", LOCK)
    assert [each["known"] for each in found_dependencies.old([lock])] == [False]
    commit("Lock")
    assert [*found_dependencies.old([lock])] == []
    (finding,) = found_dependencies.old([lock], datetime.now(UTC) + timedelta(days=200))
    assert finding["known"] and "Locked 200 days ago" in finding["text"]
