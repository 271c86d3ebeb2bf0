"""Which modules of src/ a module imports: what a stage's result depends on, and what goes into the model archive."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

#: The folder of the packages.
SOURCE = Path(__file__).resolve().parents[2]

#: Modules that never change a stage's result: paths, settings (their values are in params.yaml), logging.
NOT_COMPUTING = ("gitops/core/", "gitops/integrations/", "gitops/owner.py")


def imported(*modules: Path) -> list[Path]:
    """Return `modules` and every file in src/ that they import, directly or not, in the order of their paths.

    Late imports count, and so does the `__init__.py` of each package on the way, which Python runs as well. Imports for
    type checkers alone do not, nor do modules that are imported by a computed name: pass those as `modules` too.
    Raises SyntaxError for a file that is not Python.
    """
    return _closure(modules, lambda path: True)


def computing(*modules: Path) -> list[Path]:
    """Return those files of `imported` that can change what the stage of `modules` computes.

    Left out, with whatever only they import, are NOT_COMPUTING, the project's settings.py, and each `__init__.py` that
    defines nothing: one in gitops never does, one of the project may.
    """

    def computes(path: Path) -> bool:
        package, *rest = path.relative_to(SOURCE).parts
        if path.name == "__init__.py":
            return package != "gitops" and _defines(path)
        return rest != ["settings.py"] and not path.relative_to(SOURCE).as_posix().startswith(NOT_COMPUTING)

    return _closure(modules, computes)


def _closure(modules: tuple[Path, ...], keep: Callable[[Path], bool]) -> list[Path]:
    found: set[Path] = set()
    waiting = [path.resolve() for path in modules]
    while waiting:
        path = waiting.pop()
        if path not in found and keep(path):
            found.add(path)
            waiting += [*_packages(path), *_imports(path)]
    return sorted(found)


def _packages(path: Path) -> Iterator[Path]:
    """Yield the `__init__.py` of each package that the module is in."""
    for folder in path.relative_to(SOURCE).parents[:-1]:
        file = SOURCE / folder / "__init__.py"
        if file.is_file():
            yield file


def _imports(path: Path) -> Iterator[Path]:
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(SOURCE, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else SOURCE
            for alias in node.names:  # a name in a module, or a module in a package
                yield from _files(base, f"{node.module}.{alias.name}" if node.module else alias.name)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the tree, but for what is under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _type_checking(node.test):
            for alternative in node.orelse:
                yield alternative
                yield from _statements(alternative)
        else:
            yield node
            yield from _statements(node)


def _type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is `TYPE_CHECKING` or `typing.TYPE_CHECKING`."""
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def _files(base: Path, dotted: str) -> Iterator[Path]:
    """Yield the files that Python runs to import `dotted` from the folder `base`, as far as they exist."""
    path = base
    for part in dotted.split("."):
        path = path / part
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                yield file


def _defines(path: Path) -> bool:
    """Tell whether a file holds any statement but its docstring."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in statements)
