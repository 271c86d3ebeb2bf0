"""The section `value` that the tests share: a tumour that is missed costs many biopsies, and today all get one."""

from __future__ import annotations

from typing import Any


def tumours(bad: str = "bad", good: str = "good", missed: float = -20000) -> dict[str, Any]:
    """Return the section for the classes `bad` and `good`; a biopsy costs 400, and `missed` is what a bad one costs."""
    return {
        "unit": "EUR",
        "decisions": 400,
        "running_cost": 500,
        "answers": {bad: {bad: -400, good: missed}, good: {bad: -400, good: 0}},
        "error": None,
        "today": {"answer": bad},
    }
