"""The two validation stages as they are run, on small tables, in the validate environment, which has Deepchecks."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from defaults import complete
from gitops.core.artifacts import ROW

SCHEMA: dict[str, Any] = {
    "task": "binary",
    "target": {"name": "churned", "classes": ["yes", "no"]},  # not in the order of the alphabet
    "features": [
        {"name": "income", "dtype": "number"},
        {"name": "age", "dtype": "number"},
        {"name": "plan", "dtype": "category"},
        {"name": "member", "dtype": "boolean"},
        {"name": "joined", "dtype": "datetime"},
    ],
    "id": None,
    "timestamp": None,
    "repeated_ids": None,
}

#: A chronological table with ids, as it would be if its splits were wrong: rows of all times and all ids in each.
SHARED = {"id": "who", "timestamp": "when", "repeated_ids": "drop"}


#: Runs stages one after the other as `python -m` would, each in its own folder. Deepchecks is imported only once, which
#: takes longer than all checks here.
DRIVER = """
import contextlib, json, os, runpy, sys
from gitops.validation import sample
cells = sample.CELLS
for stage, folder in json.loads(sys.argv[1]):
    os.chdir(folder)
    sample.CELLS, sample.PART = (560, 2000) if os.path.exists("large") else (cells, 1 << 24)
    sys.argv = ["stages", stage]
    with open("errors.txt", "w") as errors, contextlib.redirect_stderr(errors):
        try:
            runpy.run_module("gitops.validation.stages", run_name="__main__")
        except SystemExit as end:
            status = end.code
    with open("status.txt", "w") as file:
        file.write(str(status))
"""


@dataclass
class Outcome:
    """How a stage ended, and the folder in which it ran."""

    status: int
    errors: str
    folder: Path

    def result(self, stage: str) -> dict[str, Any]:
        """Return what the stage wrote to reports/."""
        result: dict[str, Any] = json.loads((self.folder / f"reports/validate_{stage}.json").read_text())
        return result

    def failed(self, stage: str) -> set[str]:
        """Return the names of the checks with a failed condition."""
        return {found["check"] for found in self.result(stage)["conditions"] if found["status"] == "failed"}


def customers(rows: int = 400) -> pd.DataFrame:
    """Return a table without errors, in which income and age predict the label."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({ROW: np.arange(rows), "income": rng.normal(size=rows), "age": rng.normal(size=rows)})
    table["age"] = table["age"].where(rng.random(rows) > 0.1)
    table["plan"] = rng.choice(np.array(["basic", "plus", "pro", None], dtype=object), rows)
    table["member"] = pd.array(rng.choice(np.array([True, False, None], dtype=object), rows), dtype="boolean")
    table["joined"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 1000, rows), unit="D")
    churned = table["income"] + table["age"].fillna(0) + rng.normal(size=rows) > 0
    return table.assign(churned=np.where(churned, "yes", "no"))


def split(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"train": table[:250], "val": table[250:300], "test": table[300:]}


def broken() -> dict[str, pd.DataFrame]:
    """Return splits with a leak, drift, unknown categories, two spellings, rows in both and rows with two classes."""
    table = customers()
    splits = split(table.assign(age=np.where(table["churned"] == "yes", 1.0, -1.0)))
    test = splits["test"].assign(income=splits["test"]["income"] + 2)
    test["plan"] = test["plan"].where(np.arange(len(test)) % 2 == 0, "gold")
    mixed = splits["train"][:20].assign(**{ROW: np.arange(1000, 1020)})
    opposed = splits["train"][20:23].assign(**{ROW: np.arange(2000, 2003)})
    opposed["churned"] = opposed["churned"].map({"yes": "no", "no": "yes"})
    twice = splits["train"][40:80].assign(**{ROW: np.arange(3000, 3040)})
    train = pd.concat([splits["train"], opposed, twice])
    train["plan"] = train["plan"].where(train[ROW] >= 5, "PLUS")
    return {"train": train, "val": splits["val"], "test": pd.concat([test, mixed])}


def shared() -> dict[str, pd.DataFrame]:
    rows = np.arange(400)
    when = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rows * 7 % 400, unit="D")
    return split(customers().assign(who=[f"p{row % 90}" for row in rows], when=when))


def guesses() -> pd.DataFrame:
    """Return the predictions of a model that gives every row the same probability."""
    splits = split(customers())
    rows = pd.concat([splits["train"].assign(split="train"), splits["test"].assign(split="test")])
    return pd.DataFrame({"row": rows[ROW], "split": rows["split"], "target": rows["churned"]}).assign(
        prediction="no", p_yes=0.4, p_no=0.6
    )


#: Names that Deepchecks' checks use themselves, for columns of the table.
RENAMED = {"income": "belongs_to_test", "age": "count_", "plan": "_dc_index", "member": "_value_to_sort_by_"}
RENAMED |= {"joined": "row", "churned": "count"}


def renamed_schema() -> dict[str, Any]:
    features = [feature | {"name": RENAMED[feature["name"]]} for feature in SCHEMA["features"]]
    return SCHEMA | {"features": features, "target": SCHEMA["target"] | {"name": RENAMED["churned"]}}


def prepare(
    folder: Path, stage: str, splits: dict[str, pd.DataFrame], schema: dict[str, Any] = SCHEMA, **settings: Any
) -> tuple[str, str]:
    """Write what the stage `validate_<stage>` reads to `folder`; return the stage and the folder."""
    for name, table in splits.items():
        path = folder / f"data/prepared/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
    (folder / "data/prepared/schema.json").write_text(json.dumps(schema))
    (folder / "evaluation").mkdir()
    guesses().to_parquet(folder / "evaluation/predictions.parquet", index=False)
    params = {
        "data": {"path": "data/raw.csv", "target": schema["target"]["name"], "task": "binary"},
        "gate": {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.5}},
        "package": {"model_name": "churn"},
        f"validate_{stage}": settings,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(complete(params)))
    return stage, str(folder)


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROOT / ".venv/validate/bin/python", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


OTHERS = ("broken", "few", "named", "shared", "kept", "guessed", "misspelled", "large", "large_shared", "large_guessed")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Run a stage on a good table as dvc.yaml does, and the other cases in a second process."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("good", *OTHERS)}
    splits = split(customers())
    few = splits | {"test": splits["test"][:6]}
    stage, _ = prepare(folders["good"], "data", splits)
    others = [
        prepare(folders["broken"], "data", broken(), skip=["Label Drift"], max_duplicates=0.05),
        prepare(folders["few"], "data", few, optional_checks=["Label Drift"]),
        prepare(
            folders["named"],
            "data",
            {name: table.rename(columns=RENAMED) for name, table in splits.items()},
            renamed_schema(),
        ),
        prepare(folders["shared"], "data", shared(), SCHEMA | SHARED),
        prepare(folders["kept"], "data", shared(), SCHEMA | SHARED | {"repeated_ids": "keep"}),
        prepare(folders["guessed"], "model", splits),
        prepare(folders["misspelled"], "model", splits, skip=["Prediction Drfit"]),
        prepare(folders["large"], "data", broken(), max_duplicates=0.05),
        prepare(folders["large_shared"], "data", shared(), SCHEMA | SHARED),
        prepare(folders["large_guessed"], "model", splits),
    ]
    for name in OTHERS:
        if name.startswith("large"):  # of each table the driver gives Deepchecks 80 rows
            (folders[name] / "large").touch()
    alone = start("-m", "gitops.validation.stages", stage, folder=folders["good"])
    rest = start("-c", DRIVER, json.dumps(others), folder=folders["broken"])
    errors = alone.communicate(timeout=300)[1]
    found = {"good": Outcome(alone.returncode, errors, folders["good"])}
    errors = rest.communicate(timeout=300)[1]
    assert rest.returncode == 0, errors
    for name in OTHERS:
        status, errors = ((folders[name] / file).read_text() for file in ("status.txt", "errors.txt"))
        found[name] = Outcome(int(status), errors, folders[name])
    return found


def test_good_table_passes(outcomes: dict[str, Outcome]) -> None:
    good = outcomes["good"]
    assert good.status == 0, good.errors
    result = good.result("data")
    assert result["passed"]
    assert result["not_run"] == []
    assert {found["status"] for found in result["conditions"]} == {"passed"}
    assert {"Feature Drift", "Feature Label Correlation", "Train Test Samples Mix", "Missing Values Drift"} <= {
        found["check"] for found in result["conditions"]
    }


def test_a_column_may_have_a_name_that_deepchecks_uses(outcomes: dict[str, Outcome]) -> None:
    """Each check runs, with the same result as under another name."""
    good, named = (outcomes[name].result("data") for name in ("good", "named"))
    assert named["not_run"] == []
    results = [[(found["check"], found["status"]) for found in each["conditions"]] for each in (good, named)]
    assert results[0] == results[1]


def test_page_needs_no_network(outcomes: dict[str, Outcome]) -> None:
    page = (outcomes["good"].folder / "reports/validate_data.html").read_text()
    assert "Plotly.newPlot" in page
    assert '<script src="http' not in page
    assert '<link rel="stylesheet" href="http' not in page


def test_broken_table_fails_for_each_reason(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["broken"].status == 1, outcomes["broken"].errors
    assert not outcomes["broken"].result("data")["passed"]
    assert outcomes["broken"].failed("data") >= {
        "Conflicting Labels",
        "Data Duplicates",
        "Feature Drift",
        "Feature Label Correlation",
        "New Category Train Test",
        "Train Test Samples Mix",
    }


def test_a_failed_check_names_the_setting_that_holds_its_limit(outcomes: dict[str, Outcome]) -> None:
    """In the result, which report and gate show, and on the console; the setting is one of params.yaml."""
    broken = outcomes["broken"]
    named = {each["check"]: each["setting"] for each in broken.result("data")["conditions"]}
    assert named["Data Duplicates"] == "validate_data.max_duplicates"
    assert named["Train Test Samples Mix"] == "validate_data.max_train_test_mix"
    assert named["New Label Train Test"] == "validate_data.skip"  # it has no limit
    known = yaml.safe_load((ROOT / "params.yaml").read_text())
    for setting in named.values():
        section, _, name = setting.partition(".")
        assert name in known[section]
    program = "import json, sys; from gitops.validation.results import _summary; print(_summary(json.load(sys.stdin)))"
    process = start("-c", program, folder=broken.folder)
    said, errors = process.communicate((broken.folder / "reports/validate_data.json").read_text())
    assert "of the rows repeat another one (params.yaml: validate_data.max_duplicates)\n" in said, errors


def test_verdicts_quote_no_value(outcomes: dict[str, Outcome]) -> None:
    """They are printed and posted; ids and columns that servers redact have values too."""
    (found,) = [each for each in outcomes["broken"].result("data")["conditions"] if each["check"] == "String Mismatch"]
    assert (found["status"], found["details"]) == ("warned", "texts with variants, by column: plan (1)")
    program = "from gitops.validation.results import _reason; from deepchecks.core.errors import DeepchecksValueError"
    program += "; print(_reason(KeyError('patient-4711')), _reason(DeepchecksValueError('no label')), sep='\\n')"
    process = start("-c", program, folder=outcomes["broken"].folder)
    said, errors = process.communicate()
    assert said == "KeyError: its text is in the HTML report\nDeepchecksValueError: no label\n", errors


def test_rows_of_later_times_and_of_the_same_ids_fail_a_chronological_split(outcomes: dict[str, Outcome]) -> None:
    """With ids as well; the ids may be shared where a setting says so, the times never."""
    times, ids = "Date Train Test Leakage Overlap", "Index Train Test Leakage"
    assert outcomes["shared"].failed("data") == {times, ids}
    assert outcomes["kept"].failed("data") == {times}
    ran = {found["check"] for found in outcomes["kept"].result("data")["conditions"]}
    assert ids not in ran
    assert not {times, ids} & {found["check"] for found in outcomes["good"].result("data")["conditions"]}


def test_skipped_check_is_left_out(outcomes: dict[str, Outcome]) -> None:
    result = outcomes["broken"].result("data")
    assert "Label Drift" not in {found["check"] for found in result["conditions"] + result["not_run"]}


def test_check_that_cannot_run_fails_the_stage_unless_allowed(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["few"].status == 1, outcomes["few"].errors
    assert outcomes["few"].failed("data") == set()
    not_run = {found["check"]: found["allowed"] for found in outcomes["few"].result("data")["not_run"]}
    assert not_run == {"Feature Drift": False, "Label Drift": True}


def test_model_that_guesses_fails(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["guessed"].status == 1, outcomes["guessed"].errors
    assert outcomes["guessed"].failed("model") == {"Simple Model Comparison"}
    assert outcomes["guessed"].result("model")["not_run"] == []


#: Checks that need all rows.
EXACT = {
    "Conflicting Labels",
    "Data Duplicates",
    "Train Test Samples Mix",
    "New Label Train Test",
    "New Category Train Test",
}


def test_what_a_sample_would_mislead_is_measured_on_all_rows(outcomes: dict[str, Outcome]) -> None:
    """Of a table that is too large for Deepchecks, with the same result as of one that is not."""
    small, large = (outcomes[name].result("data") for name in ("broken", "large"))
    found = {each["check"]: each for each in large["conditions"]}
    assert {name for name, each in found.items() if each["all_rows"]} == EXACT
    for each in small["conditions"]:
        if each["check"] in EXACT:
            assert found[each["check"]] == each | {"all_rows": True}
    assert {each["check"] for each in small["conditions"] if each["status"] == "failed"} & EXACT >= EXACT - {
        "New Label Train Test"
    }
    ids, times = ("Index Train Test Leakage", "Date Train Test Leakage Overlap")
    whole, part = (
        {each["check"]: each for each in outcomes[name].result("data")["conditions"]}
        for name in ("shared", "large_shared")
    )
    for name in (ids, times):
        assert part[name] == whole[name] | {"all_rows": True}


def test_the_result_says_that_it_is_of_a_sample(outcomes: dict[str, Outcome]) -> None:
    """In the result, which the report shows, in the page's title and on the console; of a small table none does."""
    words = "on a sample, 80 of 343 train rows and 80 of 120 test rows"
    assert outcomes["large"].result("data")["sample"] == words
    assert words in (outcomes["large"].folder / "reports/validate_data.html").read_text()
    program = "import json, sys; from gitops.validation.results import _summary; print(_summary(json.load(sys.stdin)))"
    process = start("-c", program, folder=outcomes["large"].folder)
    said, errors = process.communicate((outcomes["large"].folder / "reports/validate_data.json").read_text())
    assert f"{words}; on all rows: Conflicting Labels, Data Duplicates" in said, errors
    assert "sample" not in outcomes["broken"].result("data")
    assert not any("all_rows" in each for each in outcomes["broken"].result("data")["conditions"])


def test_the_predictions_of_a_sample_are_those_of_its_rows(outcomes: dict[str, Outcome]) -> None:
    result = outcomes["large_guessed"].result("model")
    assert result["sample"] == "on a sample, 80 of 250 train rows and 80 of 100 test rows"
    assert outcomes["large_guessed"].failed("model") == {"Simple Model Comparison"} and result["not_run"] == []


def test_misspelled_check_is_named(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["misspelled"].status == 1
    assert outcomes["misspelled"].errors.startswith("error: params.yaml: validate_model.skip names 'Prediction Drfit'")
    assert "Prediction Drift" in outcomes["misspelled"].errors


def test_stage_that_passes_writes_nothing_to_stderr(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["good"].errors == ""


def test_deepchecks_starts_without_what_checks_notebooks() -> None:
    """Its import of nbformat would compile a grammar of addresses (lark), a third of the start of both stages."""
    program = "import sys, gitops.validation.deepchecks; sys.exit('lark' in sys.modules)"
    command = [ROOT / ".venv/validate/bin/python", "-W", "ignore", "-c", program]
    assert subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "src"}, check=False).returncode == 0
