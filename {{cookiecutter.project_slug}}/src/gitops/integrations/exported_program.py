"""Check that a file of `torch.export` is a model that runs nothing when it is read, before it is read.

`torch.export.load` trusts its file: it unpickles, evaluates expressions and guards that are stored as text, imports
what a tree names, and calls the functions that the graph names, which may be any that is reachable from `torch`
(torch/export/__init__.py: "Never load data from an untrusted source"). So everything in the file that PyTorch would
follow is compared with what an exported network needs. The file is read by PyTorch's own reader: another one could see
other contents in the same bytes.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError

#: Members of the archive: one graph, tensors, and what describes the archive.
MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/(?:weights|constants)/(?:model_\w+_config\.json|weight_\d+|tensor_\d+)"
)

GRAPH = "models/model.json"
SAMPLE = "data/sample_inputs/model.pt"
TENSORS = ("data/weights/", "data/constants/")

#: Operators of a graph: PyTorch's on tensors (but `from_file`, which opens files), and arithmetic with sizes.
OPERATORS = re.compile(
    r"torch\.ops\.(?:aten|prims)\.(?!from_file\b)\w+\.\w+|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(?:getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)

#: Names in expressions of sizes, which are calls of sympy's and PyTorch's functions.
FUNCTIONS = frozenset(
    [
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Mod",
        "PythonMod",
        "Max",
        "Min",
        "FloorDiv",
        "CeilDiv",
        "CleanDiv",
        "IntTrueDiv",
        "FloatTrueDiv",
        "PowByNatural",
        "ToFloat",
        "TruncToInt",
        "CeilToInt",
        "FloorToInt",
        "floor",
        "ceiling",
    ]
)

#: Nodes of Python's grammar in expressions and guards. Names, calls and attributes are looked at one by one.
NODES = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Subscript, ast.Constant, ast.Name, ast.Load,
    ast.Call, ast.Attribute, ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip

#: Node types of the trees of inputs and outputs.
TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def check(path: Path, name: Path) -> None:
    """Raise ProjectError where the file is no exported network, or holds anything that would run when it is read.

    `name` is what an error calls the file.
    """
    from torch.export.pt2_archive._package import PT2ArchiveReader

    try:
        with PT2ArchiveReader(str(path)) as reader:
            members = reader.get_file_names()
            if strange := sorted(member for member in members if not MEMBERS.fullmatch(member)):
                raise ValueError(f"holds {strange[0][:100]!r}")
            if len(members) != len({*members}):
                raise ValueError("holds a member twice")
            for problem in _problems(json.loads(reader.read_bytes(GRAPH)), ""):
                raise ValueError(problem)
            for member in members:
                if member.startswith(TENSORS) and member.endswith(".json"):
                    _check_tensors(json.loads(reader.read_bytes(member)))
            sample = reader.read_bytes(SAMPLE)
        if sample:
            _check_sample(sample)
    except Exception as error:  # PyTorch's readers raise whatever they stumble on
        reason = " ".join(str(error).split())[:300]
        raise ProjectError(f"{name} is no model that may be read: {reason}") from error


def _check_tensors(config: dict[str, Any]) -> None:
    """Raise ValueError for tensors that are not stored as plain numbers: others are pickled."""
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(?:weight|tensor)_\d+", payload["path_name"]):
            raise ValueError(f"tensor {name[:100]!r} is pickled")


def _check_sample(content: bytes) -> None:
    """Raise ValueError for a sample of the inputs that is more than tensors: PyTorch would go on to unpickle it."""
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # of many kinds
        raise ValueError("its sample of inputs is pickled") from error


def _problems(value: Any, key: str) -> Iterator[str]:
    """Yield what is not allowed in the graph's JSON, where `value` stands under `key`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _problems(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _problems(inner, key)
    elif isinstance(value, str):
        if key == "target" and not OPERATORS.fullmatch(value):
            yield f"calls {value[:100]!r}, which is no operator on tensors"
        elif key in ("expr_str", "guards_code") and not _harmless(value):
            yield f"evaluates {value[:100]!r}"
        elif key in ("in_spec", "out_spec") and value and not _is_tree(value):
            yield f"has a tree of inputs or outputs that is not allowed: {value[:100]!r}"
        elif key in ("as_custom_obj", "class_fqn", "as_operator"):
            yield f"refers to {value[:100]!r}"


def _harmless(text: str) -> bool:
    """Tell whether evaluating `text` only computes with sizes of inputs."""
    try:
        nodes = [*ast.walk(ast.parse(text, mode="eval"))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_allowed(node) for node in nodes)


def _allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in FUNCTIONS or re.fullmatch(r"L|[su]\d+|int_oo|oo", node.id) is not None
    if isinstance(node, ast.Attribute):
        return node.attr == "size"
    if isinstance(node, ast.Call):  # what is called is a name above, or a size
        return isinstance(node.func, ast.Name | ast.Attribute)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.fullmatch(r"\w+", node.value) is not None
    return isinstance(node, NODES)


def _is_tree(text: str) -> bool:
    """Tell whether a tree of inputs or outputs is one of tuples, lists and dictionaries with text keys."""
    try:
        _, root = json.loads(text)
        waiting = [root]
        for node in waiting:
            keys = json.loads(node["context"]) if node["context"] else None
            plain = keys is None or (isinstance(keys, list) and all(isinstance(key, str) for key in keys))
            if node["type"] not in TREES or not plain:
                return False
            waiting += node["children_spec"]
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return True
