"""`make explore` for real: in a fresh project, with skrub in its own environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from projects import ROOT, generate, make, module_of

pytestmark = pytest.mark.real

_elements = module_of(ROOT, "tests/gitops/page_elements.py")
Elements, HOSTILE = _elements.Elements, _elements.HOSTILE

#: Prints the packages of an environment, and the names under which they are imported.
PACKAGES = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"


#: What params.yaml has for a table of three classes in another file, by section.
HOSTILE_TABLE: dict[str, dict[str, object]] = {
    "data": {"path": "data/hostile.csv", "target": "y", "task": "multiclass", "positive": None},
    "train": {"threshold": None},
    "gate": {
        "primary_metric": "accuracy",
        "thresholds": {"accuracy": 0.1},
        "guardrail_metrics": {"log_loss": 0.02},
    },
}


@pytest.fixture(scope="module")
def made(identity: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default project, in which nothing was installed or run before `make explore`."""
    project = generate(tmp_path_factory.mktemp("explore"))
    make(project, "explore")
    return project


def page(project: Path) -> str:
    return (project / "build/explore.html").read_text()


def test_a_fresh_project_is_explored_before_anything_else(made: Path) -> None:
    """The splits are prepared for it, and kept; no model is trained, and no other environment made."""
    assert {path.name for path in (made / ".venv").iterdir()} - {"uv"} == {"pipeline", "explore"}
    text = Elements(page(made)).text
    schema = json.loads((made / "data/prepared/schema.json").read_text())
    assert all(feature["name"] in text for feature in schema["features"])
    assert "The table has 569 rows" in text and "malignant" in text and "By skrub's TableReport" in text
    assert not (made / "model").exists()
    done = subprocess.run(["git", "status", "--porcelain"], cwd=made, capture_output=True, text=True, check=True)
    assert done.stdout == "?? dvc.lock\n"
    assert "Running stage" not in make(made, "explore")


def test_the_page_loads_nothing(made: Path) -> None:
    """It says so to the browser, too, and has nothing that would."""
    text = page(made)
    assert "default-src 'none'" in text
    assert not re.findall(r"<link|<iframe|<object|<base|@import|url\((?!['\"]?data:|#)", text)
    assert {each[:5] for each in re.findall(r"""src=["']?([^\s"'>]+)""", text)} <= {"data:"}


def test_its_environment_is_small_and_its_own(made: Path) -> None:
    command: list[str | Path] = [made / ".venv/explore/bin/python", "-c", PACKAGES]
    packages = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert "skrub" in packages and not {"torch", "mlflow", "dvc"} & packages.keys()
    hook = (ROOT / "hooks/pre_gen_project.py").read_text()
    refused = set(re.split(r'"""', hook[hook.index("IMPORTED = set(") :])[1].split())
    names = {name for name in packages if re.fullmatch(r"[a-z][a-z0-9_]+", name) and "__mypyc" not in name}
    assert names - refused - set(sys.stdlib_module_names) == set()  # no package of a project may be called so


def test_hostile_texts_are_text_to_skrub_too(made: Path) -> None:
    """The page of a table of hostile texts has the elements of one of harmless texts, and no other script."""
    settings, pages = (made / "params.yaml").read_text(), []
    for texts in (HOSTILE, [f"name {at}" for at in range(len(HOSTILE))]):
        rows = [[str(row % 7), texts[row % 5], texts[row % 3]] for row in range(300)]
        table = [[*texts[:2], "y"], *rows]
        lines = (",".join('"' + text.replace('"', '""') + '"' for text in row) for row in table)
        (made / "data/hostile.csv").write_text("\n".join(lines))
        changed = yaml.safe_load(settings) | {"value": None}
        for section, values in HOSTILE_TABLE.items():
            assert values.keys() <= changed[section].keys()
            changed[section] |= values
        (made / "params.yaml").write_text(yaml.safe_dump(changed))
        make(made, "explore")
        pages.append(Elements(page(made)))
    (made / "params.yaml").write_text(settings)
    hostile, tame = pages
    assert hostile.tags == tame.tags
    assert not {name for name in hostile.attributes if name.startswith("on")}
    assert len(hostile.scripts) == len(tame.scripts)
    assert all(text in hostile.text for text in HOSTILE[:3])


def test_a_table_that_prepare_refuses(made: Path) -> None:
    """The command ends well, says why, and the page has the table; DVC's own prints are not what it shows."""
    settings = (made / "params.yaml").read_text()
    (made / "params.yaml").write_text(settings.replace("target: diagnosis", "target: diagnose"))
    said = make(made, "explore")
    (made / "params.yaml").write_text(settings)
    assert "prepare refuses this table" in said and "data.target names column 'diagnose'" in said
    text = Elements(page(made)).text
    assert "data.target names column 'diagnose', which data/raw.csv lacks" in text and "mean radius" in text
