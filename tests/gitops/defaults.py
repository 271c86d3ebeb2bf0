"""Settings of tests: a stage's setting that a test does not name has the default project's value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gitops
import yaml

#: The project.
ROOT = Path(gitops.__file__).resolve().parents[2]

#: The sections that stages read: none of their settings has a default.
STAGES = ("data", "validate_data", "model", "train", "evaluate", "validate_model", "package", "request_log")

DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
DEFAULTS["data"] |= {"positive": None, "test_size": 0.2, "seed": 42}
DEFAULTS["train"]["threshold"] = "f1"


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which each stage's section is whole."""
    return {"value": None} | values | {name: DEFAULTS[name] | values.get(name, {}) for name in STAGES}


def complete_file(text: str) -> str:
    """Return a params.yaml that begins with `text` and in which each stage's section is whole.

    What is added is written after what is there, so that a test finds its own lines and comments as they were.
    """
    values = yaml.safe_load(text)
    lines = text.rstrip("\n").split("\n") + ([] if "value" in values else ["value: null"])
    for name in STAGES:
        missing = {key: value for key, value in DEFAULTS[name].items() if key not in values.get(name, {})}
        added = [f"  {line}" for line in yaml.safe_dump(missing, sort_keys=False).splitlines()] if missing else []
        starts = [at for at, line in enumerate(lines) if line.startswith(f"{name}:")]
        if starts and isinstance(values[name], dict) and lines[starts[0]].rstrip() != f"{name}:":
            lines[starts[0]] = (
                f"{name}: " + yaml.safe_dump(values[name] | missing, default_flow_style=True, width=10_000).strip()
            )
        elif starts:
            lines[starts[0] + 1 : starts[0] + 1] = added
        else:
            lines += [f"{name}:", *added]
    return "\n".join(lines) + "\n"
