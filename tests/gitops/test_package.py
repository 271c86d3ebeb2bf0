"""The archive: its contents, that its bytes depend on these alone, and that a failure leaves the previous one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import packing
import pandas as pd
import pytest
import tiny_model
import torch
from breast_cancer import features
from gitops.core import code, params
from gitops.core.artifacts import GOLDEN_REQUEST, MODEL, SCHEMA, ProjectError, digest, write_json
from gitops.serving import package
from gitops.tabular import arrow, columns, request_rows

SERVER = "gitops/serving/server"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository after `evaluate`: the tiny model, its schema and a test split."""
    monkeypatch.chdir(packing.evaluated(tmp_path))
    return tmp_path


@pytest.fixture
def own(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The owner's package of a copy of the code, which is then packed."""
    folder = packing.code(workspace)
    monkeypatch.setattr(code, "SOURCE", workspace / "src")
    monkeypatch.setattr(package, "HANDLER", workspace / "src" / SERVER / "handler.py")
    return folder


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as files:
        return {name: files.read(name) for name in files.namelist()}


def built() -> Path:
    [archive] = Path("package").glob("*.mar")
    return archive


def test_stage_packs_what_a_server_needs_and_repeats_to_the_byte(workspace: Path) -> None:
    package.main()
    archive = built()
    first = digest(archive)
    files = contents(archive)

    assert set(files) == ({"feature_view.json"} if params.load().feature_store else set()) | {
        *("MAR-INF/MANIFEST.json", "golden_request.json", "golden_response.json", "handler.py", "model-config.yaml"),
        *("openapi.json", "v2-model.json"),
        *("model.pt2", "schema.json", "settings.json", "breast_cancer/__init__.py", "breast_cancer/features.py"),
        *("gitops/__init__.py", "gitops/tabular/__init__.py", "gitops/tabular/columns.py"),
        "gitops/tabular/request_rows.py",
        *("gitops/serving/__init__.py", f"{SERVER}/__init__.py", f"{SERVER}/metrics.py", f"{SERVER}/checks.py"),
        *(f"{SERVER}/online_features.py", f"{SERVER}/request_log.py", f"{SERVER}/request_log_files.py"),
        *(f"{SERVER}/{name}.py" for name in ("headers", "messages", "open_inference", "questions", "shapley")),
    }
    assert all(Path("package", name).read_bytes() == files[name] for name in ("openapi.json", "v2-model.json"))
    assert json.loads(files["settings.json"]) == {
        "package": "breast_cancer",
        "request_log": {"sample": 1.0, "redact": []},
    }
    manifest = json.loads(files["MAR-INF/MANIFEST.json"])["model"]
    assert manifest["modelName"] == archive.stem
    golden = json.loads(files["golden_response.json"])
    assert manifest["modelVersion"] == digest(MODEL)[:12] == golden["model_version"]
    assert json.loads(files["schema.json"])["target"]["threshold"] == golden["threshold"] == packing.THRESHOLD

    archive.unlink()
    package.main()
    assert digest(archive) == first


@pytest.mark.parametrize("name", ["agee", "months"])
def test_redacted_columns_are_packed_and_must_be_in_requests(workspace: Path, name: str) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(
        text.replace("redact: []", 'redact: ["age", "client"]').replace("sample: 1.0", "sample: 0.5")
    )
    package.main()
    settings = json.loads(contents(built())["settings.json"])
    assert settings["request_log"] == {"sample": 0.5, "redact": ["age", "client"]}

    Path("params.yaml").write_text(text.replace("redact: []", f'redact: ["age", "{name}"]'))
    with pytest.raises(
        ProjectError, match=rf"request_log\.redact names '{name}', .* it has 'age', \"customer's plan\""
    ):
        package.main()


def test_the_id_and_the_time_of_a_request_can_be_redacted(workspace: Path) -> None:
    """Elsewhere no request has them."""
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("redact: []", 'redact: ["customer", "seen"]'))
    with pytest.raises(ProjectError, match="redact names 'customer', which no request has"):
        package.main()
    write_json(SCHEMA, tiny_model.SCHEMA | {"id": "customer", "timestamp": "seen"})
    package.main()
    assert json.loads(contents(built())["settings.json"])["request_log"]["redact"] == ["customer", "seen"]


def test_golden_request_has_rows_of_the_test_split_and_one_of_nulls(workspace: Path) -> None:
    package.main()
    request = json.loads(Path("package/golden_request.json").read_text())
    response = json.loads(Path("package/golden_response.json").read_text())

    assert request["instances"][0] == {"age": 30.0, "customer's plan": "gold"}
    assert request["instances"][-1] == {"age": None, "customer's plan": None}
    assert len(response["predictions"]) == len(request["instances"])
    expected = torch.sigmoid(torch.tensor(1.3)).item()
    assert response["predictions"][0]["probabilities"]["yes"] == pytest.approx(expected)


def test_failure_leaves_the_previous_archive(workspace: Path) -> None:
    package.main()
    archive = built()
    before = archive.read_bytes()
    GOLDEN_REQUEST.unlink()

    with pytest.raises(ProjectError, match="golden_request"):
        package.pack(params.load(), tiny_model.SCHEMA)
    assert archive.read_bytes() == before
    assert list(archive.parent.glob(".*")) == []


def test_features_are_packed_with_the_owners_modules_that_they_import(tmp_path: Path) -> None:
    files = contents(packing.with_derived(tmp_path))
    own = {name for name in files if name.startswith("breast_cancer/")}
    assert own == {f"breast_cancer/{name}.py" for name in ("__init__", "features", "ages")}
    assert files["breast_cancer/ages.py"].decode() == packing.MONTHS

    request, response = (json.loads(files[f"golden_{name}.json"]) for name in ("request", "response"))
    assert request["instances"][0] == {"age": 30.0, "customer's plan": "gold"}
    expected = torch.sigmoid(torch.tensor(30 * 12 / 100 + 1)).item()
    assert response["predictions"][0]["probabilities"]["yes"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("import pandas as pd", "pandas"),
        ("from sklearn.preprocessing import scale", "sklearn"),
        ("def encode(columns, schema):\n    import pandas", "pandas"),
        ("class Encoder:\n    from pandas import Series", "pandas"),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import pandas", "pandas"),
        ("try:\n    import pandas\nexcept KeyError:\n    pass", "pandas"),
        ("try:\n    import pandas\nexcept ImportError:\n    import polars", "polars"),
        ("import tor", "tor"),  # the beginning of the name of an installed package
        ("from gitops.core import params", "pandas"),
    ],
)
def test_import_that_servers_lack_is_refused_by_file_and_package(own: Path, text: str, missing: str) -> None:
    file = "gitops/core/artifacts.py" if "gitops" in text else "breast_cancer/ages.py"
    (own / "ages.py").write_text(f"from typing import TYPE_CHECKING\n\n{text}\n")
    with (own / "features.py").open("a") as features:
        features.write("from . import ages\n")
    with pytest.raises(ProjectError, match=rf"^src/{file} imports '{missing}', which servers lack: add it to require"):
        package.pack(params.load(), tiny_model.SCHEMA)
    assert not Path("package").exists()


def test_imports_that_a_server_does_not_need_are_no_obstacle(own: Path) -> None:
    with (own / "features.py").open("a") as features:
        features.write(
            "import typing\nimport tomllib\nimport typing_extensions\nfrom typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import pandas\nif typing.TYPE_CHECKING:\n    import sklearn\n"
            "try:\n    import polars\nexcept (ImportError, AttributeError):\n    polars = None\n"
        )
    package._check_imports([own / "features.py"])


def test_instances_encode_as_the_frame_does() -> None:
    dtypes = {"n": "number", "b": "boolean", "t": "datetime", "c": "category"}
    schema: dict[str, Any] = {
        "features": [{"name": name, "dtype": dtype} for name, dtype in dtypes.items()],
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
    assert rows[1] == dict.fromkeys(dtypes)

    checked = [request_rows.check_row(index, row, schema) for index, row in enumerate(rows)]
    served = features.encode(columns.from_rows(checked, schema), schema)
    trained = features.encode(arrow.from_frame(frame, schema), schema)
    for one, other in zip(served, trained, strict=True):
        assert torch.allclose(one, other, equal_nan=True)
