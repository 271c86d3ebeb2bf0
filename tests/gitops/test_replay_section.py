"""What the report says of a replay, and when: numbers, with names that can neither break nor abuse it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from breast_cancer.settings import Settings
from conftest import SETTINGS
from gitops.core import artifacts
from gitops.rendering.html import document
from gitops.reporting import context, replay_plot
from gitops.reporting.context import Context
from gitops.reporting.replay_section import replay
from replaying import COMMIT, World, prepared, schema
from test_report import HOSTILE


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Production, and a candidate that answers otherwise and needs another column."""
    made = prepared(tmp_path, monkeypatch)
    made.release(redact=["joined"])
    made.candidate(schema("binary", {"name": HOSTILE, "dtype": "number"}), bias=0.3)
    made.log(made.rows(150), redact=["joined"])
    made.log(made.rows(50, seed=1, plan="plus", income=-0.2), redact=["joined"])
    made.refuse(2, HOSTILE)
    return made


def told(found: dict[str, Any]) -> Context:
    return Context(Settings.model_validate(SETTINGS), [], None, replay=found)


def test_what_a_replay_found(world: World) -> None:
    found = world.run()
    text = replay(told(found))
    assert f"**{100 * found['changed']['value']:.2f} %** (" in text and "of 200 rows that production was asked" in text
    assert "| no | yes | " in text and "| yes | no |" not in text
    assert "**200 of these rows (100 %) would be refused** unless clients change" in text
    assert "2 of 2 refused requests" in text
    assert "Redacted in the log, and missing for both models: `joined`" in text
    assert "| plus | " in text and "| 100 | " in text
    assert "<img" not in text and "@everyone" not in text and "<!--" not in text


def test_value_and_labels() -> None:
    """The two beliefs side by side, and what is known of the truth."""
    belief = {"value": 1234.4, "low": -10.0, "high": 2500.0, "at_stake": 3000.0}
    difference = {"value": -0.1, "low": -0.2, "high": -0.05}
    found: dict[str, Any] = {
        **{
            "status": "ok",
            "task": "regression",
            "from": "2026-11-01",
            "to": "2026-11-20",
            "rows": 2000,
            "groups": 1500,
        },
        "changed": {"value": 0.125, "low": 0.1, "high": 0.15},
        **{"tolerance": 0.1, "transitions": [], "drift": 0.05, "slices": {}, "largest": None, "redacted": []},
        "sizes": {
            "quantiles": {"0.5": 0.01},
            "largest": 3.0,
            "histogram": {"edges": [-1.0, 0.0, 1.0], "counts": [5, 9]},
        },
        "value": {"unit": HOSTILE, "decisions": 400, "candidate": belief, "production": belief | {"value": -500.0}},
        "labelled": {
            "rows": 800,
            "metrics": {"rmse": {"candidate": 2.5, "production": 2.4, "difference": difference}},
            "reason": None,
        },
        "refusals": {
            "accepted": {"rows": 0, "columns": []},
            "refused": {"requests": 9, "by_changed_columns": 0},
            "changed_columns": [],
        },
        **{"logged": {"days": 30, "answered": 5000, "other_form": 7}, "left_out": 12},
        "latency": {name: {"1": 0.5, "100": 2.25} for name in ("candidate", "production")},
    }
    text = replay(told(found))
    assert "(2026-11-01 to 2026-11-20) would get an answer that differs by more than 0.1 standard deviations" in text
    assert "| by the candidate's probabilities | **+1,234** (-10 to +2,500) | 3,000 |" in text
    assert "| by the model in production's probabilities | **-500** " in text and "<img" not in text
    assert "| rmse | 2.5 | 2.4 | -0.1000 (-0.2000 to -0.0500) 🔴 |" in text
    assert "| 100 | 2.25 ms | 2.25 ms |" in text and "12 rows were left out" in text and "7 lines of the log" in text
    assert "refused" not in text.replace("would refuse", "")
    page = document("t", text, replay_plot.plots(told(found)))
    assert page.count("data:image/png") == 1 and "Replay: changes of the answers" in page
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    difference.update(nothing)
    belief.update(nothing, at_stake=0.0)
    same = replay(told(found))
    assert "| by the candidate's probabilities | **the same** | 0 |" in same and "| 2.5 | 2.4 | same |" in same


@pytest.mark.parametrize(
    ("status", "said"), [("none", "Nothing was replayed"), ("too_few", "⚠️ Too few"), ("failed", "holds up no merge")]
)
def test_nothing_was_replayed(status: str, said: str) -> None:
    text = replay(told({"status": status, "reason": HOSTILE}))
    assert said in text and "<img" not in text
    assert replay_plot.plots(told({"status": status, "reason": ""})) == []


def test_without_a_replay_there_is_no_section() -> None:
    assert replay(Context(Settings.model_validate(SETTINGS), [], None)) == ""


def test_a_replay_of_another_model_is_not_shown(world: World) -> None:
    """Nor one of another threshold, which the archive holds, nor one against an earlier release."""
    world.run()
    settings = Settings.model_validate(world.settings)
    assert context.replayed(settings, COMMIT) is not None
    assert context.replayed(settings, "f" * 40) is None and context.replayed(settings, None) is None
    world.candidate(schema(threshold=0.6))
    assert context.replayed(settings, COMMIT) is None
    artifacts.REPLAY.unlink()
    assert context.replayed(settings, COMMIT) is None
