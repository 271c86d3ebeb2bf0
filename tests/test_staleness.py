"""A stage is stale only after a change of what can change its result: each module and each section, one at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

#: The stages that are stale after any change of a module; OWN is the project's package. Every other module makes none
#: stale: logging, paths, the types of settings, and all that uses the pipeline's results.
MODULES = {
    "OWN/__init__.py": {"package"},
    "OWN/calibration.py": {"train", "evaluate"},
    "OWN/checks.py": {"validate_data", "validate_model"},
    "OWN/evaluate.py": {"evaluate"},
    "OWN/features.py": {"prepare", "train", "evaluate", "package"},
    "OWN/metrics.py": {"train", "evaluate"},
    "OWN/model.py": {"train"},
    "OWN/prepare.py": {"prepare"},
    "OWN/splits.py": {"train"},
    "OWN/train.py": {"train"},
    "gitops/__init__.py": {"package"},
    "gitops/explaining/dependence.py": {"evaluate"},
    "gitops/explaining/explanations.py": {"evaluate"},
    "gitops/explaining/importance.py": {"evaluate"},
    "gitops/rendering/curves.py": {"train", "evaluate"},
    "gitops/rendering/plots.py": {"evaluate"},
    "gitops/serving/__init__.py": {"package"},
    "gitops/serving/openapi.py": {"package"},
    "gitops/serving/openapi_schemas.py": {"package"},
    "gitops/serving/package.py": {"package"},
    "gitops/serving/server/__init__.py": {"package"},
    "gitops/serving/server/checks.py": {"package"},
    "gitops/serving/server/handler.py": {"package"},
    "gitops/serving/server/headers.py": {"package"},
    "gitops/serving/server/messages.py": {"package"},
    "gitops/serving/server/metrics.py": {"package"},
    "gitops/serving/server/online_features.py": {"package"},
    "gitops/serving/server/open_inference.py": {"package"},
    "gitops/serving/server/questions.py": {"package"},
    "gitops/serving/server/request_log.py": {"package"},
    "gitops/serving/server/request_log_files.py": {"package"},
    "gitops/serving/server/shapley.py": {"package"},
    "gitops/statistics/analytic.py": {"evaluate"},
    "gitops/statistics/bounded.py": {"train", "evaluate"},
    "gitops/statistics/coverage.py": {"evaluate"},
    "gitops/statistics/delong.py": {"evaluate"},
    "gitops/statistics/fractions.py": {"evaluate"},
    "gitops/statistics/intervals.py": {"evaluate"},
    "gitops/statistics/jackknife.py": {"evaluate"},
    "gitops/statistics/measured.py": {"evaluate"},
    "gitops/statistics/resampling.py": {"train", "evaluate"},
    "gitops/statistics/scores.py": {"evaluate"},
    "gitops/tabular/__init__.py": {"package"},
    "gitops/tabular/arrow.py": {"prepare", "train", "evaluate"},
    "gitops/tabular/cells.py": {"prepare", "train", "evaluate"},
    "gitops/tabular/chronological.py": {"prepare"},
    "gitops/tabular/columns.py": {"prepare", "train", "evaluate", "package"},
    "gitops/tabular/request_rows.py": {"prepare", "train", "evaluate", "package"},
    "gitops/tabular/csv_checks.py": {"prepare"},
    "gitops/tabular/csv_file.py": {"prepare"},
    "gitops/tabular/csv_rows.py": {"prepare"},
    "gitops/tabular/decision.py": {"train", "evaluate", "package"},
    "gitops/tabular/derived.py": {"prepare"},
    "gitops/tabular/dtypes.py": {"prepare"},
    "gitops/tabular/load.py": {"prepare"},
    "gitops/tabular/numbers.py": {"prepare", "train", "evaluate"},
    "gitops/tabular/keys.py": {"prepare"},
    "gitops/tabular/parquet_files.py": {"prepare"},
    "gitops/tabular/row_groups.py": {"prepare"},
    "gitops/tabular/rows.py": {"prepare"},
    "gitops/tabular/strata.py": {"prepare"},
    "gitops/tabular/streamed.py": {"prepare"},
    "gitops/tabular/parts.py": {"prepare"},
    "gitops/tabular/raw_column.py": {"prepare"},
    "gitops/tabular/groups.py": {"prepare"},
    "gitops/tabular/in_parts.py": {"evaluate", "package"},
    "gitops/tabular/schema.py": {"prepare"},
    "gitops/tabular/split.py": {"prepare"},
    "gitops/tabular/table.py": {"prepare"},
    "gitops/tabular/wrong_format.py": {"prepare"},
    "gitops/training/epochs.py": {"train"},
    "gitops/training/lanes.py": {"train"},
    "gitops/training/load.py": {"train"},
    "gitops/training/processes.py": {"train"},
    "gitops/training/program.py": {"train"},
    "gitops/training/rows.py": {"train"},
    "gitops/training/streamed.py": {"train"},
    "gitops/validation/conditions.py": {"validate_data", "validate_model"},
    "gitops/validation/deepchecks.py": {"validate_data", "validate_model"},
    "gitops/validation/exact.py": {"validate_data", "validate_model"},
    "gitops/validation/results.py": {"validate_data", "validate_model"},
    "gitops/validation/sample.py": {"validate_data", "validate_model"},
    "gitops/validation/stages.py": {"validate_data", "validate_model"},
    "gitops/value/curves.py": {"evaluate"},
    "gitops/value/metric.py": {"train", "evaluate"},
    "gitops/value/summary.py": {"evaluate"},
    "gitops/value/today.py": {"train", "evaluate"},
    "gitops/value/worth.py": {"train", "evaluate"},
}

#: The same after a change of a section of params.yaml.
SECTIONS = {
    "data": {"prepare"},
    "value": {"train", "evaluate"},
    "validate_data": {"validate_data"},
    "model": {"train"},
    "train": {"train"},
    "evaluate": {"evaluate"},
    "gate": {"evaluate"},
    "validate_model": {"validate_model"},
    "package": {"package"},
    "request_log": {"package"},
}

#: Changes each module or section, asks DVC what is stale, and restores it.
PROGRAM = """
import json
from pathlib import Path
import yaml
from dvc.repo import Repo

repository = Repo()

def stale(path, changed):
    original = path.read_bytes()
    path.write_bytes(changed)
    try:
        return sorted(repository.status())
    finally:
        path.write_bytes(original)

def other(value):
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else [value, "other"]

modules = sorted(Path("src").rglob("*.py"))
found = {"modules": {str(path): stale(path, path.read_bytes() + b"# changed\\n") for path in modules}, "settings": {}}
params = Path("params.yaml")
settings = yaml.safe_load(params.read_text())
for section, values in settings.items():
    names = {"path", "model_name"}  # dvc.yaml has them in names of files
    changed = {key: value if key in names else other(value) for key, value in values.items()} | {"another": 1}
    found["settings"][section] = stale(params, yaml.safe_dump(settings | {section: changed}).encode())
found["settings"]["a comment"] = stale(params, params.read_bytes() + b"# changed\\n")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """The stages that DVC finds stale after each change to a project with a finished pipeline."""
    project = tmp_path_factory.mktemp("staleness") / "project"
    shutil.copytree(trained, project, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    python = trained / ".venv/pipeline/bin/python"
    done = subprocess.run([python, "-c", PROGRAM], cwd=project, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, dict[str, list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_module_makes_those_stages_stale_that_compute_with_it(found: dict[str, dict[str, list[str]]]) -> None:
    stale = {path.removeprefix("src/"): set(stages) for path, stages in found["modules"].items() if stages}
    package = next(path.partition("/")[0] for path in stale if not path.startswith("gitops/"))
    assert stale == {path.replace("OWN", package): stages for path, stages in MODULES.items()}
    assert len(found["modules"]) > 2 * len(MODULES)


def test_a_section_makes_its_own_stage_stale(found: dict[str, dict[str, list[str]]]) -> None:
    stale = {section: set(stages) for section, stages in found["settings"].items()}
    assert {section: stages for section, stages in stale.items() if stages} == SECTIONS
    assert len(stale) > len(SECTIONS)
