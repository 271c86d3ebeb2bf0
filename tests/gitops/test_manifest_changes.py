"""What the report shows of manifests: each changed value once, with its path."""

from __future__ import annotations

from typing import Any

import yaml
from gitops.rendering import manifests

SERVER = {"name": "server", "image": "a:1", "env": [{"name": "X", "value": "1"}], "command": ["python", "run"]}
OTHER = {"name": "other", "image": "b:1"}


def files(**objects: dict[str, Any]) -> dict[str, bytes]:
    return {
        f"{name}.yaml": yaml.safe_dump({"kind": "Kind", "metadata": {"name": name}} | item).encode()
        for name, item in objects.items()
    }


def test_equal_objects_have_no_line() -> None:
    same = files(a={"spec": {"containers": [SERVER, OTHER]}}, b={})
    assert manifests.changes(same, same) == []
    assert manifests.changes({}, {}) == []


def test_an_entry_of_a_list_goes_by_its_name() -> None:
    """So that one that was put before it does not make another of it."""
    changed = SERVER | {"image": "a:2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "3"}]}
    old, new = files(a={"spec": [SERVER]}), files(a={"spec": [OTHER, changed]})
    assert manifests.changes(old, new) == [
        "@@ Kind a @@",
        "+ spec.other.image: b:1",
        "+ spec.other.name: other",
        "- spec.server.env.X.value: 1",
        "+ spec.server.env.X.value: 3",
        "+ spec.server.env.Y.name: Y",
        "+ spec.server.env.Y.value: 2",
        "- spec.server.image: a:1",
        "+ spec.server.image: a:2",
    ]


def test_values_of_every_type_are_shown() -> None:
    old = files(a={"n": 1, "b": True, "l": ["x"], "e": {}, "o": [{"p": 1}, {"p": 2}], "t": "--"})
    new = files(a={"n": 2, "b": False, "l": ["x", "y"], "e": {"k": None}, "o": [{"p": 1}, {"p": 3}], "t": "++"})
    assert manifests.changes(old, new)[1:] == [
        "- b: true",
        "+ b: false",
        "- e: {}",
        "+ e.k: null",
        '- l: ["x"]',
        '+ l: ["x", "y"]',
        "- n: 1",
        "+ n: 2",
        "- o.1.p: 2",
        "+ o.1.p: 3",
        "- t: --",
        "+ t: ++",
    ]


def test_of_a_text_the_lines_that_differ() -> None:
    old, new = (files(a={"data": {"file": f"first\n{middle}\nlast\n"}}) for middle in ("old", "new\nmore"))
    assert manifests.changes(old, new)[1:] == ["- data.file: old", "+ data.file: new", "+ data.file: more"]


def test_an_object_that_came_or_went_is_one_line() -> None:
    assert manifests.changes(files(a={"x": 1}, b={}), files(b={}, c={"y": 1})) == ["- Kind a", "+ Kind c"]
    assert manifests.changes({}, files(a={}, b={})) == ["+ Kind a", "+ Kind b"]


def test_a_generated_configmap_is_compared_with_the_one_before() -> None:
    """Its name ends with a hash of what it holds."""
    old, new = (
        {
            f"v1_configmap_x-{suffix}.yaml": yaml.safe_dump(
                {"kind": "C", "metadata": {"name": suffix}, "k": key}
            ).encode()
        }
        for suffix, key in (("bc6ck626kf", "a"), ("9m5h2t8g7k", "b"))
    )
    assert manifests.changes(old, new) == [
        "@@ C 9m5h2t8g7k @@",
        "- k: a",
        "+ k: b",
        "- metadata.name: bc6ck626kf",
        "+ metadata.name: 9m5h2t8g7k",
    ]
