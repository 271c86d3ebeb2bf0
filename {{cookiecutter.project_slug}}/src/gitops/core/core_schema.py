"""YAML as DVC reads it: plain scalars by the core schema of YAML 1.2, where PyYAML has that of YAML 1.1.

So `2e-3` and `1e-05` are numbers, `010` is ten, and `no`, `on` and `2026-01-31` are texts. Source: YAML 1.2.2, section
10.3.2, and the merge key `<<` of YAML 1.1, which DVC reads too.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

#: Tag, form, and the characters that a scalar of this form begins with.
FORMS = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)


def load(text: str) -> Any:
    """Return the values of a YAML document. Raises yaml.YAMLError."""
    return _Loader(text).get_single_data()


class _Loader(yaml.SafeLoader):
    """Reads what `yaml.safe_load` reads, with other rules for plain scalars."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # its stubs say an instance's


def _whole(_: _Loader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


for _tag, _form, _first in FORMS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_form})$"), [*_first])
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
