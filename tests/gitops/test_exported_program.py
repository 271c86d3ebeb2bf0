"""Model files of strangers: none is read that is no network, or would run something; exported networks are."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from gitops.core.artifacts import ProjectError
from gitops.integrations import exported_program


class Runs:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> Any:
        return (Path("executed").touch, ())


def rewritten(path: Path, name: str, content: bytes) -> bytes:
    """Return the model with a member added, or replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for member in old.namelist():
            if member != f"{root}/{name}":
                new.writestr(member, old.read(member))
        new.writestr(f"{root}/{name}", content)
    return buffer.getvalue()


def graph(path: Path, old: str, new: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        text = archive.read(name).decode()
    assert old in text
    return rewritten(path, "models/model.json", text.replace(old, new).encode())


#: What is put in place of the model file, by the honest one.
MODELS: dict[str, Any] = {
    "no archive": lambda path: b"no model at all",
    "a pickle": lambda path: pickle.dumps(Runs()),
    "a pickled sample": lambda path: rewritten(path, "data/sample_inputs/model.pt", saved(Runs())),
    "a pickled weight": lambda path: rewritten(
        path,
        "data/weights/model_weights_config.json",
        b'{"config": {"w": {"path_name": "weight_0", "is_param": true, "use_pickle": true, "tensor_meta": null}}}',
    ),
    "an object": lambda path: rewritten(path, "data/constants/custom_obj_0", pickle.dumps(Runs())),
    "a compiled library": lambda path: rewritten(path, "data/aotinductor/model/model.so", b"\x7fELF"),
    "another program": lambda path: rewritten(path, "models/other.json", b"{}"),
    "a call": lambda path: graph(path, "torch.ops.aten.sigmoid.default", "torch.serialization.os.system"),
    "a method": lambda path: graph(path, "torch.ops.aten.sigmoid.default", "_operator.methodcaller"),
    "an expression": lambda path: graph(path, "Symbol('s", "__import__('os').system('touch executed') or Symbol('s"),
    "a guard": lambda path: graph(path, '"guards_code": [', '"guards_code": ["exit() or L", '),
    "a tree": lambda path: graph(path, "builtins.tuple", "collections.defaultdict"),
}


def saved(value: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save(tmp_path_factory.mktemp("model") / "model.pt2")


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_is_none_or_runs_something_is_not_read(
    model: str, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "claimed"
    path.write_bytes(MODELS[model](honest))
    with pytest.raises(ProjectError, match=r"model/model\.pt2 is no model that may be read: "):
        exported_program.check(path, Path("model/model.pt2"))
    assert not (tmp_path / "executed").exists()


def test_exported_networks_are_read(honest: Path, tmp_path: Path) -> None:
    """With convolutions, control over sizes and several inputs and outputs too."""
    import torch

    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.BatchNorm1d(4), torch.nn.GELU())

        def forward(self, rows: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            found = self.layers(rows["x"].unsqueeze(1)).flatten(1)
            return [found.reshape(rows["x"].shape[0] * 2, -1), found.mean(0)]

    rows = {"rows": {"x": {0: torch.export.Dim("batch", min=2, max=64)}}}
    program = torch.export.export(Wide().eval(), ({"x": torch.zeros(4, 9)},), dynamic_shapes=rows)
    torch.export.save(program, tmp_path / "wide.pt2")
    for path in (honest, tmp_path / "wide.pt2"):
        exported_program.check(path, path)
