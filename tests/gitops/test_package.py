"""The archive: what it holds, that its bytes depend on its contents alone, and that a failure leaves the former one."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny_model
import torch
from breast_cancer import features
from conftest import ROOT
from gitops.core import params
from gitops.core.artifacts import FEATURE_VIEW, GOLDEN_REQUEST, MODEL, SCHEMA, TEST, ProjectError, digest, write_json
from gitops.serving import package


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository after `evaluate`: the tiny model, its schema and a test split."""
    for name in (".venv", "serving"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in (MODEL, TEST):
        path.parent.mkdir(parents=True, exist_ok=True)
    tiny_model.save(MODEL)
    write_json(SCHEMA, tiny_model.SCHEMA)
    write_json(FEATURE_VIEW, {})  # goes along where the project has a feature store
    columns = {"age": [30.0, None, 50.0, 60.0], "customer's plan": ["gold", None, "silver", "gold"]}
    pd.DataFrame(columns).to_parquet(TEST)
    return tmp_path


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as files:
        return {name: files.read(name) for name in files.namelist()}


def test_stage_packs_what_a_server_needs_and_repeats_to_the_byte(workspace: Path) -> None:
    package.main()
    archive = next(Path("package").glob("*.mar"))
    first = digest(archive)
    files = contents(archive)

    more = {path.name for path in package.ONLINE if params.load().feature_store}
    assert set(files) == more | {
        *("MAR-INF/MANIFEST.json", "features.py", "golden_request.json", "golden_response.json"),
        *("handler.py", "model-config.yaml", "model.pt2", "schema.json", "serving_metrics.py"),
        *("request_log.json", "request_log.py", "request_log_files.py"),
    }
    assert json.loads(files["request_log.json"]) == {"sample": 1.0, "mask": []}
    manifest = json.loads(files["MAR-INF/MANIFEST.json"])["model"]
    assert manifest["modelName"] == archive.stem
    assert manifest["modelVersion"] == digest(MODEL)[:12] == json.loads(files["golden_response.json"])["model_version"]

    archive.unlink()
    package.main()
    assert digest(archive) == first


def test_mask_of_params_goes_along_and_names_columns_that_exist(workspace: Path) -> None:
    settings = Path("params.yaml").read_text()
    Path("params.yaml").write_text(settings.replace("mask: []", 'mask: ["age"]').replace("sample: 1.0", "sample: 0.5"))
    package.main()
    files = contents(next(Path("package").glob("*.mar")))
    assert json.loads(files["request_log.json"]) == {"sample": 0.5, "mask": ["age"]}

    Path("params.yaml").write_text(settings.replace("mask: []", 'mask: ["age", "agee"]'))
    with pytest.raises(ProjectError, match=r"request_log\.mask names 'agee', .* it has 'age', \"customer's plan\""):
        package.main()


def test_golden_request_has_rows_of_the_test_split_and_one_of_nulls(workspace: Path) -> None:
    package.main()
    request = json.loads(Path("package/golden_request.json").read_text())
    response = json.loads(Path("package/golden_response.json").read_text())

    assert request["instances"][0] == {"age": 30.0, "customer's plan": "gold"}
    assert request["instances"][-1] == {"age": None, "customer's plan": None}
    assert len(response["predictions"]) == len(request["instances"])
    expected = torch.sigmoid(torch.tensor(1.3)).item()
    assert response["predictions"][0]["probabilities"]["yes"] == pytest.approx(expected)


def test_failure_leaves_the_former_archive(workspace: Path) -> None:
    package.main()
    archive = next(Path("package").glob("*.mar"))
    before = archive.read_bytes()
    GOLDEN_REQUEST.unlink()

    with pytest.raises(ProjectError, match="golden_request"):
        package.pack(archive.stem)
    assert archive.read_bytes() == before
    assert list(archive.parent.glob(".*")) == []


def test_instances_encode_as_the_frame_does() -> None:
    kinds = {"n": "number", "b": "boolean", "t": "datetime", "c": "category"}
    schema: dict[str, Any] = {
        "features": [{"name": name, "kind": kind} for name, kind in kinds.items()],
        "missing_markers": [""],
    }
    frame = pd.DataFrame(
        {
            "n": [1.5, None],
            "b": pd.array([True, None], dtype="boolean"),
            "t": pd.Series([pd.Timestamp("2026-01-31T12:00:00.5Z"), pd.NaT]),
            "c": pd.Series(["ü", None], dtype=object),
            "target": [0.0, 1.0],
        }
    )
    rows = json.loads(json.dumps(package.instances(frame, schema), allow_nan=False))
    assert rows[0] == {"n": 1.5, "b": True, "t": "2026-01-31T12:00:00.500000+00:00", "c": "ü"}
    assert rows[1] == dict.fromkeys(kinds)

    checked = [features.check_row(index, row, schema) for index, row in enumerate(rows)]
    served, trained = features.encode_rows(checked, schema), features.encode_frame(frame, schema)
    for one, other in zip(served, trained, strict=True):
        assert torch.allclose(one, other, equal_nan=True)
