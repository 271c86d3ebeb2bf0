"""manifest_checks.problems: what a cluster takes passes, and a field that a kind does not have is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from manifest_checks import LACKING, all_problems, problems

TAKEN = """
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: app, finalizers: [resources-finalizer.argocd.argoproj.io]}
spec:
  project: default
  source: {repoURL: https://example.org/r.git, targetRevision: env/production, path: manifests}
  destination: {server: https://kubernetes.default.svc, namespace: a}
  syncPolicy:
    automated: {prune: true, selfHeal: true}
    syncOptions: [ServerSideApply=true]
    retry: {limit: 3, refresh: true, backoff: {duration: 10s, factor: 2, maxDuration: 1m}}
---
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: set}
spec:
  goTemplate: true
  generators:
    - scmProvider:
        requeueAfterSeconds: 180
        github: {organization: o, allBranches: true, tokenRef: {secretName: s, key: token}}
        filters: [{labelMatch: ml, branchMatch: env/.*}]
  template:
    metadata: {name: "{{.repository}}"}
    spec:
      project: default
      source:
        repoURL: https://example.org/r.git
        path: k8s/tenant
        kustomize: {namespace: a, patches: [{target: {kind: Namespace}, patch: "[]"}]}
      destination: {server: https://kubernetes.default.svc}
---
apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: project}
spec:
  sourceRepos: [https://example.org/r.git]
  destinations: [{server: https://kubernetes.default.svc, namespace: a}]
  namespaceResourceWhitelist: [{group: apps, kind: Deployment}]
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: rollout}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: a, image: a, ports: [{containerPort: 80}]}]}
  strategy:
    canary:
      steps: [{setWeight: 20}, {pause: {duration: 10}}, {analysis: {templates: [{templateName: t}]}}]
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: analysis}
spec:
  metrics: [{name: a, interval: 1m, count: 3, provider: {prometheus: {address: "http://p:9090", query: up}}}]
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: scaled}
spec:
  scaleTargetRef: {name: a}
  triggers: [{type: cron, metadata: {timezone: UTC, start: 0 7 * * *, end: 0 19 * * *, desiredReplicas: "3"}}]
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: rule}
spec:
  groups: [{name: g, rules: [{alert: A, expr: up == 0, for: 5m, labels: {severity: page}, annotations: {summary: s}}]}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: monitor}
spec:
  selector: {matchLabels: {app: a}}
  endpoints: [{port: metrics, interval: 30s, metricRelabelings: [{action: keep, sourceLabels: [__name__]}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: network}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {a: b}}}
  egress:
    - {action: Accept, to: [{pods: {podSelector: {}}}], protocols: [{udp: {destinationPort: {number: 53}}}]}
    - {action: Deny, name: metadata, to: [{networks: [169.254.169.254/32]}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: admission}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [services]}]}
  validations: [{expression: "true", messageExpression: "'a'"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {a: b}
"""

#: Kind, place of a field, its value, and what is said.
REFUSED = [
    ("Application", "spec/syncPolicy/retry/refesh", True, "/spec/syncPolicy/retry/refesh is unknown"),
    ("Application", "spec/syncPolicy/retry/limit", "3", "/spec/syncPolicy/retry/limit must be integer"),
    ("Application", "metadata/label", {}, "/metadata/label is unknown"),
    ("Application", "spek", {}, "/spek is unknown"),
    (
        "ApplicationSet",
        "spec/template/spec/source/targetRevison",
        "a",
        "/spec/template/spec/source/targetRevison is unknown",
    ),
    ("ApplicationSet", "spec/generators/0/scmProvider/github/organisation", "a", "/github/organisation is unknown"),
    ("AppProject", "spec/namespaceResourceWhitelist/0/name", "a", "/spec/namespaceResourceWhitelist/0/name is unknown"),
    ("Rollout", "spec/strategy/canary/steps/0/setWieght", 5, "/spec/strategy/canary/steps/0/setWieght is unknown"),
    ("Rollout", "spec/template/spec/containers/0/imagePullPolcy", "a", "/containers/0/imagePullPolcy is unknown"),
    ("AnalysisTemplate", "spec/metrics/0/failurLimit", 1, "/spec/metrics/0/failurLimit is unknown"),
    ("ScaledObject", "spec/triggers/0/metdata", {}, "/spec/triggers/0/metdata is unknown"),
    ("ScaledObject", "spec/triggers/0/metadata/desiredReplicas", 3, "desiredReplicas must be string"),
    ("PrometheusRule", "spec/groups/0/rules/0/exrp", "up", "/spec/groups/0/rules/0/exrp is unknown"),
    ("PrometheusRule", "spec/groups/0/rules/0/for", "5 min", "/spec/groups/0/rules/0/for must match pattern"),
    ("ServiceMonitor", "spec/endpoints/0/prot", "a", "/spec/endpoints/0/prot is unknown"),
    (
        "ClusterNetworkPolicy",
        "spec/egress/0/form",
        [],
        'must NOT have additional properties {"additionalProperty":"form"}',
    ),
    ("ClusterNetworkPolicy", "spec/egress/1/to/0/networks/0", "169.254.169", 'must match format "cidr"'),
    ("ValidatingAdmissionPolicy", "spec/validations/0/expresion", "true", "'expresion' was unexpected"),
    ("ConfigMap", "date", {}, "'date' was unexpected"),
    ("ServiceMonitor", "kind", "ServiceMonitors", "monitoring.coreos.com/v1 has no schema for this kind"),
    (
        "ServiceMonitor",
        "apiVersion",
        "monitoring.coreos.com/v2",
        "monitoring.coreos.com/v2 has no schema for this kind",
    ),
    ("ClusterNetworkPolicy", "apiVersion", "policy.networking.k8s.io/v1", "/v1 has no schema for this kind"),
    ("ConfigMap", "apiVersion", "v2", "v2 has no schema for this kind"),
    ("ConfigMap", "apiVersion", "example.org/v1", "example.org/v1 has no schema for this kind"),
]


def taken() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(TAKEN))


def changed(item: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a copy with another value of one field."""
    item = copy.deepcopy(item)
    inner: Any = item
    *path, last = [int(step) if step.isdigit() else step for step in place.split("/")]
    for step in path:
        inner = inner[step]
    inner[last] = value
    return item


def test_what_a_cluster_takes_passes() -> None:
    assert all_problems(*taken()) == []


def test_each_change_is_refused_and_nothing_else() -> None:
    originals = {item["kind"]: item for item in taken()}
    objects = [changed(originals[kind], place, value) for kind, place, value, _ in REFUSED]
    for number, item in enumerate(objects):
        item["metadata"]["name"] = f"case-{number}"
    found = problems(*taken(), *objects, *taken())
    assert len(found) == len(REFUSED), found
    for said, item, (*_, expected) in zip(found, objects, REFUSED, strict=True):
        assert said.startswith(f"{item['kind']} {item['metadata']['name']}: ")
        assert expected in said


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("AppProject", "spec/description", "What it is for."),
        ("ApplicationSet", "spec/generators/0/scmProvider/github/excludeArchivedRepos", True),
    ],
    ids=list(LACKING),
)
def test_what_a_package_lacks_is_lacking_still(kind: str, place: str, value: Any) -> None:
    item = changed(next(item for item in taken() if item["kind"] == kind), place, value)
    assert len(all_problems(item)) == 1
    assert problems(item) == []
