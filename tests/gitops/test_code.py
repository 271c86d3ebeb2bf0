"""Which modules a module imports, by its text: nothing that Python would run is missed, nothing else is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from defaults import ROOT
from gitops.core import code


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty src/."""
    monkeypatch.setattr(code, "SOURCE", tmp_path)
    return tmp_path


def write(source: Path, **files: str) -> Path:
    """Write modules by their dotted names, with __ for a dot, and return the first one's path."""
    paths = [source / f"{name.replace('__', '/').replace('@', '__init__')}.py" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths[0]


def names(source: Path, found: list[Path]) -> list[str]:
    return [path.relative_to(source).as_posix() for path in found]


@pytest.mark.parametrize(
    "statement",
    [
        "from .b import name",
        "from . import b as other",
        "from own.b import name",
        "from own import name, b",
        "from own.b import *",
        "import own.b",
        "import os, own.b as other",
        "def late():\n    from . import b",
        "try:\n    import own.b\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    from . import c\nelse:\n    from . import b",
    ],
)
def test_an_import_is_found_however_it_is_written(source: Path, statement: str) -> None:
    module = write(
        source, own__a=statement, own__b="from .deep import d", own__c="", own__deep__d="from ..e import f", own__e=""
    )
    assert names(source, code.imported(module)) == ["own/a.py", "own/b.py", "own/deep/d.py", "own/e.py"]


@pytest.mark.parametrize("guard", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_what_is_imported_for_type_checkers_alone_is_left_out(source: Path, guard: str) -> None:
    module = write(source, own__a=f"if {guard}:\n    from .b import B", own__b="")
    assert names(source, code.imported(module)) == ["own/a.py"]


def test_each_package_on_the_way_is_named_with_what_it_imports(source: Path) -> None:
    module = write(
        source,
        **{
            "own__a": "from own.deep.deeper import module",
            "own__@": '"""The package."""\nfrom . import base',
            "own__base": "",
            "own__deep__@": "",
            "own__deep__deeper__module": "",  # a namespace package: it has no __init__.py
        },
    )
    assert names(source, code.imported(module)) == [
        *("own/__init__.py", "own/a.py", "own/base.py", "own/deep/__init__.py", "own/deep/deeper/module.py")
    ]


def test_a_circle_ends_and_other_packages_are_nobodys_files(source: Path) -> None:
    module = write(source, own__a="import json, torch\nfrom . import b, missing", own__b="from . import a")
    assert names(source, code.imported(module)) == ["own/a.py", "own/b.py"]


def test_what_computes_is_neither_settings_nor_logging_nor_what_only_they_import(source: Path) -> None:
    files = {
        "own__train": "from gitops.core import artifacts\nfrom gitops.integrations import tracking\n"
        "from gitops.tabular import arrow\nfrom gitops import owner\nfrom .settings import Settings",
        "own__settings": "from .metrics import METRICS",
        "own__metrics": "",
        "own__@": '"""Only a docstring."""',
        "gitops__@": "VERSION = 1",
        "gitops__core__artifacts": "from gitops.core import other",
        "gitops__core__other": "",
        "gitops__integrations__tracking": "from gitops.tabular import helper",
        "gitops__owner": "",
        "gitops__tabular__@": "",
        "gitops__tabular__arrow": "",
        "gitops__tabular__helper": "",
    }
    module = write(source, **files)
    assert names(source, code.computing(module)) == ["gitops/tabular/arrow.py", "own/train.py"]
    assert len(code.imported(module)) == len(files)


def test_a_projects_own_package_may_compute_in_its_init(source: Path) -> None:
    module = write(
        source,
        **{"own__train": "from .net import Net", "own__net__@": "from .layers import Net", "own__net__layers": ""},
    )
    assert names(source, code.computing(module)) == ["own/net/__init__.py", "own/net/layers.py", "own/train.py"]


def test_a_module_named_settings_elsewhere_computes(source: Path) -> None:
    module = write(source, own__train="from .net import settings", own__net__settings="")
    assert names(source, code.computing(module)) == ["own/net/settings.py", "own/train.py"]


@pytest.mark.parametrize("module", ["breast_cancer/features.py", "gitops/tabular/derived.py", "gitops/core/params.py"])
def test_python_itself_imports_no_other_file(module: str) -> None:
    """Compared with what a fresh process has in sys.modules; settings' late import of the project is not by name."""
    dotted = module.removesuffix(".py").replace("/", ".")
    files = "(getattr(module, '__file__', None) for module in list(sys.modules.values()))"
    program = f"import sys, {dotted}\nprint(*filter(None, {files}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    ran = {Path(name) for name in done.stdout.split() if Path(name).is_relative_to(ROOT / "src")}
    assert ran == {*code.imported(ROOT / "src" / module)}
