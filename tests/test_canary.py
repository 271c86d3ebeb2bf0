"""A canary's predictions beside the stable pods': the rules by Prometheus itself, and how often chance fails one."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from canary_drift import Counts, Traffic, of_labels, of_numbers
from platform_objects import Object, render, select

SLUG, NAMESPACE = "breast-cancer", "m-breast-cancer-production"

#: Minutes after which Prometheus is asked; the pods have counted from the start.
MINUTES = 12


@pytest.fixture(scope="module")
def objects(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What a release with the component applies."""
    folder = tmp_path_factory.mktemp("canary")
    for part in ("k8s", "serving"):
        shutil.copytree(projects["defaults"] / part, folder / part)
    overlay = folder / "k8s/overlays/production/kustomization.yaml"
    settings = yaml.safe_load(overlay.read_text())
    components = [f"../../components/{name}" for name in ("monitoring", "canary")]
    overlay.write_text(yaml.safe_dump(settings | {"components": components}))
    return render(overlay.parent)


@pytest.fixture(scope="module")
def rules(objects: list[Object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its recording rules, as Prometheus reads them."""
    (found,) = (item for item in select(objects, "PrometheusRule") if item["metadata"]["name"] == f"{SLUG}-canary")
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": found["spec"]["groups"]}))
    return path


def series(role: str, pod: str, each_half: Counts, *, counts_rows: bool = True) -> list[dict[str, str]]:
    """Return the series of a pod whose counters rise by so much in half a minute."""
    own = f'namespace="{NAMESPACE}",job="{SLUG}",pod="{pod}",role="{role}"'
    rises = {f'model_predictions_total{{{own},label="{name}"}}': count for name, count in each_half.labels.items()}
    if counts_rows:
        rises[f"model_request_rows_squared_total{{{own}}}"] = each_half.rows_squared
    if [*each_half.labels] == ["number"]:
        rises[f'model_predictions_sum_total{{{own},sign="+"}}'] = max(each_half.total, 0)
        rises[f'model_predictions_sum_total{{{own},sign="-"}}'] = max(-each_half.total, 0)
        rises[f"model_predictions_squares_total{{{own}}}"] = each_half.squares
    return [{"series": name, "values": f"0+{rise:g}x{2 * MINUTES}"} for name, rise in rises.items()]


def asked(rules: Path, given: list[dict[str, str]], expected: float | None) -> None:
    """Fail unless the analysis' query has this value, or none, over the series."""
    found = [] if expected is None else [{"labels": "{}", "value": expected}]
    test = {
        "expr": f'max(round(model:canary_drift:ratio5m{{namespace="{NAMESPACE}"}}, 0.0001))',
        "eval_time": f"{MINUTES}m",
        "exp_samples": found,
    }
    path = rules.with_name("test.yaml")
    tests = [{"interval": "30s", "input_series": given, "promql_expr_test": [test]}]
    path.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "30s", "tests": tests}))
    program = shutil.which("promtool") or pytest.skip("promtool is not installed: `make packages`")
    done = subprocess.run([program, "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def scaled(counts: Counts, factor: float) -> Counts:
    labels = {name: factor * count for name, count in counts.labels.items()}
    return Counts(labels, factor * counts.rows_squared, factor * counts.total, factor * counts.squares)


#: What canary and stable pods count in each half minute, and whether the release passes.
LABELS = {
    "equal": (Counts({"no": 30, "yes": 10}, 40), Counts({"no": 120, "yes": 40}, 160), True),
    "other shares": (Counts({"no": 10, "yes": 30}, 40), Counts({"no": 120, "yes": 40}, 160), False),
    "other shares, within the limit": (Counts({"no": 60, "yes": 40}, 100), Counts({"no": 300, "yes": 100}, 400), True),
    "one large request": (
        Counts({"no": 10, "yes": 30}, 1600),
        Counts({"no": 120, "yes": 40}, 160),
        True,
    ),
    "a class that stable pods lack": (Counts({"no": 10, "new": 40}, 50), Counts({"no": 100, "yes": 100}, 200), False),
    "a class that the canary lacks": (Counts({"no": 50}, 50), Counts({"no": 100, "yes": 100}, 200), False),
    "few requests": (Counts({"no": 0, "yes": 1}, 1), Counts({"no": 2, "yes": 2}, 4), True),
}
NUMBERS = {
    "equal": (Counts({"number": 100}, 100, 500, 2600), Counts({"number": 400}, 400, 2000, 10400), True),
    "higher": (Counts({"number": 100}, 100, 600, 3700), Counts({"number": 400}, 400, 2000, 10400), False),
    "negative": (Counts({"number": 100}, 100, -600, 3700), Counts({"number": 400}, 400, -2000, 10400), False),
}


@pytest.mark.real
@pytest.mark.parametrize(
    ("formula", "canary", "stable", "passes"),
    [pytest.param(of_labels, *case, id=f"labels: {name}") for name, case in LABELS.items()]
    + [pytest.param(of_numbers, *case, id=f"numbers: {name}") for name, case in NUMBERS.items()],
)
def test_prometheus_computes_the_figure(
    formula: Callable[[Counts, Counts], float], canary: Counts, stable: Counts, passes: bool, rules: Path
) -> None:
    figure = formula(scaled(canary, 10), scaled(stable, 10))
    assert (figure <= 1) is passes
    half = scaled(stable, 0.5)
    given = series("canary", "new-1", canary) + series("stable", "old-1", half) + series("stable", "old-2", half)
    asked(rules, given, round(figure, 4))


FEW = Counts({"no": 5}, 5)


@pytest.mark.real
@pytest.mark.parametrize(
    ("canary", "stable", "counts_rows"),
    [(None, FEW, True), (FEW, None, True), (FEW, FEW, False)],
)
def test_nothing_to_compare_is_no_figure(
    canary: Counts | None, stable: Counts | None, counts_rows: bool, rules: Path
) -> None:
    given = series("canary", "new", canary) if canary else []
    given += series("stable", "old", stable, counts_rows=counts_rows) if stable else []
    asked(rules, given, None)


@pytest.mark.real
def test_prometheus_takes_the_rules(rules: Path) -> None:
    program = shutil.which("promtool") or pytest.skip("promtool is not installed: `make packages`")
    done = subprocess.run([program, "check", "rules", "--lint-fatal", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_analysis_asks_what_the_rules_record(objects: list[Object]) -> None:
    (analysis,) = select(objects, "AnalysisTemplate")
    (metric,) = (metric for metric in analysis["spec"]["metrics"] if metric["name"] == "predictions")
    records = {
        rule["record"]
        for item in select(objects, "PrometheusRule")
        for group in item["spec"]["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    query = metric["provider"]["prometheus"]["query"]
    assert query == 'max(model:canary_drift:ratio5m{namespace="{{args.namespace}}"})'
    assert "model:canary_drift:ratio5m" in records
    (monitor,) = select(objects, "ServiceMonitor")
    assert monitor["spec"]["podTargetLabels"] == ["role"]


@pytest.mark.parametrize("sizes", [[1], [1, 1, 1, 50]])
@pytest.mark.parametrize("labels", [2, 5])
def test_chance_fails_one_release_of_a_thousand_at_most(labels: int, sizes: list[int]) -> None:
    traffic, dice = Traffic([1 / labels] * labels, sizes), random.Random(3)
    failed = sum(of_labels(traffic.draw(60, dice), traffic.draw(240, dice)) > 1 for _ in range(3000))
    assert failed <= 8  # 3 are expected at most, and more than 8 come of chance in one run of 260
