"""What is alerted of and who is told, by Prometheus' and Alertmanager's own programs; and who reaches Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from platform_objects import PLATFORM, README, Object, copied, one, render, select

SLUG, MODEL = "breast-cancer", "breast_cancer"
READER = f"{SLUG}-drift-metrics"

NAMESPACE = f"m-{SLUG}-production"


def program(name: str) -> str:
    """Return the path of a program of Debian's packages prometheus and prometheus-alertmanager; skip without it."""
    if found := shutil.which(name):
        return found
    pytest.skip(f"{name} is not installed: `make packages`")


@pytest.fixture(scope="module")
def rules(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules of a project whose overlay has all components with alerts, as Prometheus reads them."""
    folder = tmp_path_factory.mktemp("rules")
    for part in ("k8s", "serving"):
        shutil.copytree(projects["defaults"] / part, folder / part)
    overlay = folder / "k8s/overlays/production/kustomization.yaml"
    settings = yaml.safe_load(overlay.read_text())
    components = [f"../../components/{name}" for name in ("monitoring", "request-log", "drift-metrics")]
    overlay.write_text(yaml.safe_dump(settings | {"components": components}))
    found = select(render(overlay.parent), "PrometheusRule")
    assert len(found) == 2
    groups = [group for item in found for group in item["spec"]["groups"]]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    return folder / "rules.yaml"


#: For each case: series with a value a minute, the minutes after which Prometheus is asked, and what then fires.
CASES: dict[str, tuple[dict[str, str], int, set[str]]] = {
    "the monitor has run and found nothing": (
        {"status": "0x2880", "last_run": "0x2880", "service": "1x2880"},
        40 * 60,
        set(),
    ),
    "drift": ({"status": "0x5 1x60", "last_run": "0x70", "service": "1x70"}, 10, {"ModelDrift"}),
    "too few rows": ({"status": "2x60", "last_run": "0x60", "service": "1x60"}, 10, set()),
    "invalid requests": ({"status": "3x60", "last_run": "0x60", "service": "1x60"}, 10, {"ModelInvalidRequests"}),
    "no run for two days": (
        {"status": "0x2900", "last_run": "0x2900", "service": "1x2900"},
        2881,
        {"ModelNotMonitored"},
    ),
    "drift, then no run any more": (
        {"status": "1x2900", "last_run": "0x2900", "service": "1x2900"},
        2881,
        {"ModelDrift", "ModelNotMonitored"},
    ),
    "nothing in the first night": ({"service": "1x3000"}, 25 * 60, set()),
    "nothing for longer": ({"service": "1x3000"}, 27 * 60, {"ModelNotMonitored"}),
    "it was there and is gone": (
        {"status": "0x60", "last_run": "0x60", "service": "1x3000"},
        28 * 60,
        {"ModelNotMonitored"},
    ),
    "gone for an hour": (
        {"status": "0x60 _x60 0x2000", "last_run": "0x60 _x60 7200x2000", "service": "1x3000"},
        28 * 60,
        set(),
    ),
    "no such component": ({}, 48 * 60, set()),
    "another project's": ({"status": "1x60", "last_run": "0x60", "job": "other-drift-metrics"}, 10, set()),
}


def series(case: dict[str, str]) -> list[Object]:
    """Return a case's series as Prometheus has them: with the labels of the target, and the monitor's own."""
    own = f'namespace="{NAMESPACE}",job="{case.get("job", READER)}",pod="p",model="{MODEL}",version="v"'
    names = {
        "status": f"model_monitor_status{{{own}}}",
        "last_run": f"model_monitor_last_run_timestamp_seconds{{{own}}}",
        "service": f'kube_service_info{{namespace="{NAMESPACE}",job="kube-state-metrics",service="{READER}"}}',
    }
    return [{"series": name, "values": case[key]} for key, name in names.items() if key in case]


@pytest.mark.real
@pytest.mark.parametrize("case", CASES)
def test_alerts_of_the_monitor(case: str, rules: Path) -> None:
    given, minutes, firing = CASES[case]
    labels = f'namespace="{NAMESPACE}",model="{SLUG}",severity="warning",alertstate="firing"'
    found = [{"labels": f'{{alertname="{name}",{labels}}}', "value": 1} for name in sorted(firing)]
    asked = {
        "expr": 'max by (alertname, namespace, model, severity, alertstate) (ALERTS{alertstate="firing"})',
        "eval_time": f"{minutes}m",
        "exp_samples": found,
    }
    test = {"interval": "1m", "input_series": series(given), "promql_expr_test": [asked]}
    path = rules.with_name("test.yaml")
    path.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([program("promtool"), "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_prometheus_takes_all_rules(rules: Path) -> None:
    command = [program("promtool"), "check", "rules", "--lint-fatal", str(rules)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_operators_learn_what_to_do(rules: Path, projects: dict[str, Path]) -> None:
    """From docs/operate.md, about each alert."""
    groups = yaml.safe_load(rules.read_text())["groups"]
    names = {rule["alert"] for group in groups for rule in group["rules"]}
    assert {"ModelErrors", "ModelDrift", "ModelNotMonitored"} <= names
    operate = (projects["defaults"] / "docs/operate.md").read_text()
    told = {name for title in re.findall(r"(?m)^\*\*(Model.*?)\.\*\*", operate) for name in title.split(", ")}
    assert told == names


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Object:
    """The Application of the monitoring stack with the component that tells people."""
    path = copied(tmp_path_factory.mktemp("receiver")) / "monitoring/kustomization.yaml"
    text = path.read_text()
    assert "# components:\n#   - receiver " in text
    path.write_text(text.replace("# components:\n#   - receiver ", "components:\n  - receiver "))
    return one(render(path.parent), "Application", "monitoring")


def alertmanager(application: Object) -> dict[str, Any]:
    found: dict[str, Any] = application["spec"]["source"]["helm"]["valuesObject"]["alertmanager"]
    return found


def test_nobody_is_told_unless_the_component_is_listed(receiving: Object) -> None:
    """And with it, nothing else of the stack is different."""
    plain = one(render(PLATFORM / "monitoring"), "Application", "monitoring")
    values = receiving["spec"]["source"]["helm"]["valuesObject"]
    without = {name: value for name, value in values.items() if name != "alertmanager"}
    assert without == plain["spec"]["source"]["helm"]["valuesObject"]


def test_the_address_is_a_file_of_the_secret_that_the_readme_creates(receiving: Object) -> None:
    values = alertmanager(receiving)
    [secret] = values["alertmanagerSpec"]["secrets"]
    places = [
        value
        for receiver in values["config"]["receivers"]
        for kind, settings in receiver.items()
        if kind != "name"
        for setting in settings
        for name, value in setting.items()
        if name.endswith("_file")
    ]
    assert places == [f"/etc/alertmanager/secrets/{secret}/url"]
    assert f"kubectl --namespace monitoring create secret generic {secret} \\\n  --from-literal=url=" in README
    assert "hooks.slack.com" not in json.dumps(receiving)


@pytest.mark.real
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "ModelErrors", "severity": "critical"}, "people"),
        ({"alertname": "ModelDrift", "severity": "warning"}, "people"),
        ({"alertname": "Theirs"}, "people"),
        ({"alertname": "Watchdog", "severity": "none"}, "null"),
        ({"alertname": "InfoInhibitor", "severity": "none"}, "null"),
        ({"alertname": "CPUThrottlingHigh", "severity": "info"}, "null"),
    ],
)
def test_alertmanager_tells(labels: dict[str, str], receiver: str, receiving: Object, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yaml"
    path.write_text(yaml.safe_dump(alertmanager(receiving)["config"]))
    amtool = program("amtool")
    done = subprocess.run([amtool, "check-config", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = [f"{name}={value}" for name, value in ({"namespace": NAMESPACE} | labels).items()]
    command = [amtool, "config", "routes", "test", f"--config.file={path}", f"--verify.receivers={receiver}", *asked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_critical_alerts_do_not_wait_for_others(receiving: Object) -> None:
    route = alertmanager(receiving)["config"]["route"]
    [critical] = [each for each in route["routes"] if "critical" in str(each["matchers"])]
    assert (critical["group_wait"], route["group_wait"]) == ("30s", "10m")


def test_argo_rollouts_and_nobody_else_asks_prometheus() -> None:
    """Whose pods the operator labels so; the parts of the stack talk among themselves."""
    policies = select(render(PLATFORM / "monitoring"), "NetworkPolicy")
    opened = [
        (item["spec"]["podSelector"], rule)
        for item in policies
        for rule in item["spec"].get("ingress", [])
        if rule.get("ports") != [{"port": 10250}] and rule.get("from") != [{"podSelector": {}}]
    ]
    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "argo-rollouts"}}}
    prometheus = {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    assert opened == [(prometheus, {"from": [namespace], "ports": [{"port": 9090}]})]
    assert all(item["metadata"]["namespace"] == "monitoring" for item in policies)


def test_prometheus_reaches_every_pod_that_lets_it_in() -> None:
    egress = [
        rule
        for item in select(render(PLATFORM / "monitoring"), "NetworkPolicy")
        if item["spec"]["podSelector"] == {}
        for rule in item["spec"].get("egress", [])
    ]
    assert {"to": [{"namespaceSelector": {}}]} in egress
    assert [port["port"] for rule in egress if "to" not in rule for port in rule["ports"]] == [443, 6443, 10250]
