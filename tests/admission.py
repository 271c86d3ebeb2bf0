"""What a cluster's API refuses by ValidatingAdmissionPolicies, whose CEL is evaluated here as the API server does it.

Objects are those that an admission sees, but for defaults. The package `common-expression-language` has what the
expressions use, also a number compared with a text (unequal), which is an error in cel-python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import cel

Object = dict[str, Any]

#: Who applies what lies in Git, the platform's and the models'.
ARGO_CD = "system:serviceaccount:argocd:argocd-application-controller"


@dataclass(frozen=True)
class Request:
    """One change of an object: its old state, its new one, or both."""

    new: Object | None
    old: Object | None = None
    user: str = ARGO_CD
    namespace: Object = field(default_factory=dict)

    @property
    def operation(self) -> str:
        return "CREATE" if self.old is None else "DELETE" if self.new is None else "UPDATE"

    @property
    def item(self) -> Object:
        found = self.new or self.old
        assert found is not None
        return found

    def variables(self) -> dict[str, Any]:
        return {
            "object": self.new,
            "oldObject": self.old,
            "request": {"operation": self.operation, "userInfo": {"username": self.user}},
            "namespaceObject": self.namespace,
        }


def refusals(objects: list[Object], request: Request) -> list[str]:
    """Return what the policies among `objects` that are bound to the request's namespace say against it."""
    policies = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [item["spec"] for item in objects if item["kind"] == "ValidatingAdmissionPolicyBinding"]
    return [
        message
        for binding in bindings
        if binding["validationActions"] == ["Deny"] and _selected(binding["matchResources"], request.namespace)
        for message in _refusals(policies[binding["policyName"]]["spec"], request)
    ]


def matched_resources(policy: Object) -> set[str]:
    """Return the plural names of the kinds that a policy reads."""
    return {name for rule in policy["spec"]["matchConstraints"]["resourceRules"] for name in rule["resources"]}


def plural(kind: str) -> str:
    """Return the name of a kind in the API's addresses."""
    return f"{kind[:-1]}ies".lower() if kind.endswith("y") else f"{kind}s".lower()


def _selected(match: Object, namespace: Object) -> bool:
    assert match.keys() == {"namespaceSelector"} and match["namespaceSelector"].keys() == {"matchLabels"}
    wanted: dict[str, str] = match["namespaceSelector"]["matchLabels"]
    labels: dict[str, str] = namespace["metadata"].get("labels", {})
    return wanted.items() <= labels.items()


def _refusals(spec: Object, request: Request) -> list[str]:
    if not any(_constrained(rule, request) for rule in spec["matchConstraints"]["resourceRules"]):
        return []
    assert spec["failurePolicy"] == "Fail"
    variables = request.variables()
    definitions = {each["name"]: each["expression"] for each in spec.get("variables", [])}
    try:
        if not all(_true(each["expression"], variables) for each in spec.get("matchConditions", [])):
            return []
        found = []
        for validation in spec["validations"]:
            names = set(re.findall(r"variables\.(\w+)", validation["expression"]))
            values = {name: cel.evaluate(definitions[name], variables) for name in names}
            if not _true(validation["expression"], variables | {"variables": values}):
                found.append(str(validation["message"]))
    except (KeyError, TypeError, RuntimeError) as error:  # an expression that cannot be evaluated refuses
        return [f"error: {error!r}"]
    return found


def _constrained(rule: Object, request: Request) -> bool:
    group, _, version = request.item["apiVersion"].rpartition("/")
    return (
        group in rule["apiGroups"]
        and version in rule["apiVersions"]
        and plural(request.item["kind"]) in rule["resources"]
        and request.operation in rule["operations"]
    )


def _true(expression: str, variables: dict[str, Any]) -> bool:
    value = cel.evaluate(expression, variables)
    assert isinstance(value, bool), expression
    return value
