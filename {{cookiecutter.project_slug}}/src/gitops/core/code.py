"""Which modules of src/ a module imports: what a stage's result depends on, and what goes along into an archive."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

#: The folder of the packages.
SOURCE = Path(__file__).resolve().parents[2]

#: What never changes a stage's result: paths, settings (their values stand in params.yaml), logging.
NOT_COMPUTING = ("gitops/core/", "gitops/integrations/", "gitops/owner.py")


def imported(module: Path) -> list[Path]:
    """Return `module` and all files in src/ that it imports, late imports and packages' `__init__.py` included.

    What is imported for type checkers alone is not. Raises SyntaxError for a file that is no Python.
    """
    return _closure(module, lambda path: True)


def computing(module: Path) -> list[Path]:
    """Return those of `imported` that can change what the stage `module` computes, not those that only they import."""
    own_settings = {*SOURCE.glob("*/settings.py")}

    def computes(path: Path) -> bool:
        name = path.relative_to(SOURCE).as_posix()
        return path.name != "__init__.py" and path not in own_settings and not name.startswith(NOT_COMPUTING)

    return _closure(module, computes)


def _closure(module: Path, keep: Callable[[Path], bool]) -> list[Path]:
    found: set[Path] = set()
    module = module.resolve()
    waiting = [*_files(SOURCE, ".".join(module.relative_to(SOURCE).with_suffix("").parts))]
    while waiting:
        path = waiting.pop()
        if path not in found and keep(path):
            found.add(path)
            waiting += _imports(path)
    return sorted(found)


def _imports(path: Path) -> Iterator[Path]:
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(SOURCE, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else SOURCE
            yield from _files(base, node.module or "")
            for alias in node.names:
                yield from _files(base, f"{node.module}.{alias.name}" if node.module else alias.name)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the tree, but for what stands under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from _statements(node)


def _files(base: Path, dotted: str) -> Iterator[Path]:
    """Return the module `dotted` below `base`, and the `__init__.py` of each package on the way, where they exist."""
    path = base
    for part in filter(None, dotted.split(".")):
        path = path / part
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                yield file
