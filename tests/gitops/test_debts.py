"""`make debts`: each finder with a debt planted, and without it. With vulture and pip-audit: test_debts_real.py."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, SETTINGS
from gitops.core import artifacts, params
from gitops.debt import (
    found,
    found_code,
    found_consumers,
    found_data,
    found_dependencies,
    found_features,
    found_settings,
)
from gitops.debt.finding import Finding
from gitops.integrations import git
from gitops.monitoring import consumers

NUMBER = {"dtype": "number", "missing": 0.0, "min": 0.0, "max": 1.0}


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a table that is tracked, and no request log."""
    monkeypatch.chdir(tmp_path)
    for name in ("REQUEST_LOG", "LABELS", "OSV_URL"):
        monkeypatch.delenv(name, raising=False)
    git.run("init", "--quiet", "--initial-branch", "main")
    configure()
    write("data/raw.csv.dvc", "outs:\n- md5: abc\n  path: raw.csv\n")
    commit("Begin")
    return tmp_path


def configure(**changes: Any) -> params.Params:
    """Write params.yaml with changed settings of sections, and read it."""
    settings = {section: {**values} if isinstance(values, dict) else values for section, values in SETTINGS.items()}
    for section, values in changes.items():
        settings[section] |= values
    write("params.yaml", yaml.safe_dump(settings, sort_keys=False))
    return params.load()


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def commit(message: str) -> str:
    git.run("add", "--all")
    git.run(*git.FALLBACK, "commit", "--quiet", "--allow-empty", "-m", message)
    return git.run("rev-parse", "HEAD")


def texts(findings: Any, known: bool = True) -> list[str]:
    return [each["text"] for each in findings if each["known"] is known]


def line_of(name: str, start: str) -> int:
    lines = Path(name).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))


# Features


def prepared(table: pd.DataFrame, **features: Any) -> dict[str, Any]:
    """Write the training rows, and return a schema."""
    artifacts.TRAIN.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(artifacts.TRAIN)
    named = [{"name": name, **NUMBER} | features.get(name, {}) for name in table]
    return {"features": named, "rows": {"raw": len(table), "train": len(table)}}


def explained(**high: float) -> None:
    """Write a model, and explanations of it with the upper end of each importance."""
    write("model/model.pt2", "model")
    write(
        "evaluation/explanations.json",
        json.dumps(
            {
                "model_sha256": artifacts.digest(artifacts.MODEL),
                "metric": "roc_auc",
                "of_columns": len(high),
                "features": [
                    {"name": name, "importance": end - 0.1, "low": end - 0.2, "high": end} for name, end in high.items()
                ],
            }
        ),
    )


def table(rows: int = 200) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(1).normal(size=(rows, 3)), columns=["a", "b", "c"])


def test_features_that_each_add_something_are_no_debt() -> None:
    explained(a=0.3, b=0.2, c=0.05)
    assert [*found_features.find(prepared(table()))] == []


def test_a_feature_whose_importance_is_not_above_zero() -> None:
    explained(a=0.3, b=0.0, c=0.05)
    (finding,) = found_features.find(prepared(table()))
    assert finding["text"].startswith("b adds nothing to roc_auc") and finding["known"]
    assert (finding["file"], finding["line"]) == ("params.yaml", line_of("params.yaml", "drop:"))


def test_a_feature_of_one_value() -> None:
    explained(a=0.3, b=0.2, c=0.1)
    schema = prepared(table(), b={"min": 2.0, "max": 2.0}, c={"dtype": "category", "categories": {"x": 1.0}})
    del schema["features"][2]["min"]
    assert [text.partition(" ")[0] for text in texts(found_features.find(schema))] == ["b", "c"]
    schema["features"][1]["missing"] = schema["features"][2]["missing"] = 0.5
    assert texts(found_features.find(schema)) == []


def test_numbers_that_order_the_rows_alike() -> None:
    explained(a=0.3, b=0.2, c=0.1)
    rows = table(20_000)
    rows["b"] = -np.exp(rows["a"])
    (text,) = texts(found_features.find(prepared(rows)))
    assert text.startswith("a orders the rows as b:")


def test_what_was_not_prepared_or_not_explained_is_not_known() -> None:
    assert [each["known"] for each in found_features.find(None)] == [False]
    explained(a=0.3, b=0.0, c=0.1)
    write("model/model.pt2", "another model")
    findings = [*found_features.find(prepared(table()))]
    assert [each["known"] for each in findings] == [False] and "of another model" in findings[0]["text"]


# Data


def test_a_tracked_table_is_versioned() -> None:
    assert [*found_data.unversioned(configure())] == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("data/other.csv", "data/other.csv.dvc is missing"),
        ("/data/raw.csv", "outside the repository"),
        ("s3://bucket/raw.parquet", "DVC does not track"),
        ("data/*.parquet", "DVC does not track"),
    ],
)
def test_a_table_that_no_version_names(path: str, why: str) -> None:
    (finding,) = found_data.unversioned(configure(data={"path": path}))
    assert why in finding["text"] and finding["line"] == line_of("params.yaml", "path:")


def test_a_pointer_that_git_does_not_have() -> None:
    write("data/other.csv.dvc", "outs: []\n")
    (text,) = texts(found_data.unversioned(configure(data={"path": "data/other.csv"})))
    assert "not in Git" in text


def test_labels_are_not_versioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELS", "s3://bucket/labels")
    (text,) = texts(found_data.unversioned(configure()))
    assert "LABELS" in text and "bucket" not in text


def test_rows_that_came_as_requests() -> None:
    settings, schema = configure(), {"rows": {"raw": 200}}
    assert texts(found_data.feedback(settings, schema)) == []
    state = {"table": "abc", "requests": {"h1": "2026-01-01"}, "used": {"2025-01-01": 49}}
    write("data/appended.json", json.dumps(state))
    (text,) = texts(found_data.feedback(settings, schema))
    assert text.startswith("25.0% of the table's 200 rows")
    write("data/appended.json", json.dumps(state | {"table": "another"}))
    assert texts(found_data.feedback(settings, schema)) == []


@pytest.mark.parametrize(("contradicted", "rows", "known"), [(0, 100, True), (1, 100, None), (0, 99, False)])
def test_labels_that_are_the_models_own_answers(contradicted: int, rows: int, known: bool | None) -> None:
    frame = pd.DataFrame(
        {"prediction": ["yes"] * rows, "target": ["no"] * contradicted + ["yes"] * (rows - contradicted)}
    )
    artifacts.write_parquet(artifacts.MONITOR_LABELLED, frame)
    findings = [*found_data.feedback(configure(), None)]
    assert [each["known"] for each in findings] == ([] if known is None else [known])


# Consumers


def logged(*clients: str | None) -> dict[str, Any]:
    """Write a request log with a line of each client, and return what is counted of it."""
    now = datetime.now(UTC)
    lines = []
    for number, client in enumerate(clients):
        line = {"time": (now - timedelta(minutes=5)).isoformat(), "request_id": f"r{number}", "model_version": "a" * 12}
        line |= {"instance": 0, "inputs": {"x": 1.0}, "prediction": {"label": "no", "probabilities": {"no": 1.0}}}
        lines.append(line | ({"client": client} if client else {}))
    write("requests/a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    consumers.main()
    counted: dict[str, Any] = json.loads(artifacts.MONITOR_CONSUMERS.read_text())
    return counted


def test_clients_are_counted_and_addresses_are_not_told() -> None:
    configure()
    assert logged("shop", "shop", "10.1.2.3", None)["clients"] == {"shop": 2, "10.1.2.0/24": 1, "unknown": 1}


def test_old_lines_are_not_counted() -> None:
    configure()
    logged("shop")
    assert consumers.count(datetime.now(UTC) - timedelta(hours=1)) == {"shop": 1}
    assert consumers.count(datetime.now(UTC)) == {}


def test_a_consumer_that_a_document_names_is_declared() -> None:
    configure()
    counted = logged("shop", "shop-2")
    assert [text.partition(":")[0] for text in texts(found_consumers.find(counted))] == ["shop", "shop-2"]
    write("docs/operate.md", "It is asked by `shop`.\n")
    commit("Say who asks")
    assert [text.partition(":")[0] for text in texts(found_consumers.find(counted))] == ["shop-2"]


def test_without_a_log_consumers_are_not_known() -> None:
    configure()
    consumers.main()
    findings = [*found_consumers.find(json.loads(artifacts.MONITOR_CONSUMERS.read_text()))]
    assert [each["known"] for each in findings] == [False]


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


# All of them


def test_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    one: Finding = {"debt": "feedback loop", "file": "a|b.md", "line": 3, "text": "<b>x</b> @you", "known": True}
    monkeypatch.setattr(found, "find", lambda settings: iter([one, one | {"known": False, "file": None, "line": None}]))
    found.main()
    assert json.loads(artifacts.DEBTS.read_text())[0] == one
    page = artifacts.DEBTS_TABLE.read_text()
    assert "1 found, and 1 that could not be looked up" in page and "`a¦b.md:3`" in page
    assert "<b>" not in page and "@you" not in page and page.index("## Not known") > page.index("a¦b.md")


def test_outside_of_git_it_says_so(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(artifacts.ProjectError, match="git init"):
        found.main()
