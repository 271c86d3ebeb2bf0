"""The report's sections, one function each, and their order.

model_sections.py has those about the model's results, value_section.py the one about their value, gate_section.py the
gate's, retraining_sections.py those about a retraining.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gitops.releases import workspace
from gitops.releases.record import Release, changed_params, short
from gitops.rendering import markdown
from gitops.rendering.markdown import code, details, fenced, plain, table
from gitops.reporting.context import Context
from gitops.reporting.debt_section import debt
from gitops.reporting.documents_section import documents
from gitops.reporting.explanations_section import explanations
from gitops.reporting.gate_section import gate
from gitops.reporting.model_sections import confusion, decision, learning_curve, metrics, slices, validation
from gitops.reporting.replay_section import replay
from gitops.reporting.retraining_sections import retraining, review
from gitops.reporting.value_section import value

Section = Callable[[Context], str]


def join(context: Context, sections: Iterable[Section]) -> str:
    """Return the text of the sections that have something to show."""
    return "\n\n".join(filter(None, (section(context) for section in sections)))


def result(context: Context) -> str:
    """The answer first: may this be merged?"""
    if context.gate:
        title = "✅ Accepted" if context.gate["accepted"] else "❌ Refused"
        return f"## {title}: {plain(context.settings.package.model_name)}\n\n{plain(context.gate['reason'], 1000)}"
    if failed := [name for name, outcome in context.validations.items() if not outcome["passed"]]:
        note = "The failed conditions are listed below; no later stage was run."
        return f"## ❌ Stopped: validation of the {failed[0]} failed\n\n{note}"
    if context.failure:
        return f"## ❌ Stopped: {code(context.failure.stage)} failed\n\nNo later stage was run."
    if context.stale:
        stage = code(context.stale[0])
        return f"## ❌ Incomplete: stage {stage} has no result for this commit\n\nRun `make pipeline`."
    return "## ❌ No gate result\n\nThe gate has not run for this model: run `make gate`."


def rollbacks(context: Context) -> str:
    """Whether merging would bring back what an environment has rolled back, which would not be released."""
    parts = []
    for environment, found in context.rollbacks.items():
        if found.refusals:
            reasons = "\n".join(f"- {plain(reason, 1000)}" for reason in found.refusals.values())
            parts.append(f"### ⛔ Will not be released to {environment}: it was rolled back there\n\n{reasons}")
        elif found.undone:
            names = (f"{plain(hold.unwanted.title)} of {code(hold.unwanted.commit[:12])}" for hold in found.undone)
            undone = f"What {environment} rolled back, {', '.join(names)}, is undone here"
            parts.append(f"### Will be released to {environment} again\n\n{undone}: merging is not held up.")
    return "\n\n".join(parts)


def failure(context: Context) -> str:
    """The last lines of the stage that failed."""
    if not context.failure:
        return ""
    return f"### Last lines of {code(context.failure.stage)}\n\n" + fenced("\n".join(context.failure.lines), "text")


def changes(context: Context) -> str:
    """Parameters and data that differ from production's."""
    if not context.production:
        return "### Changes\n\nNothing is in production yet: this would be the first release."
    record = context.production.record
    rows = markdown.changes(changed_params(record.params, context.settings.model_dump(mode="json")))
    rows += _data_changes(context, record)
    if not rows:
        return "### Changes\n\nParameters and data are the same as in production."
    return "### Changes\n\n" + table(["", "production", "candidate"], rows)


def deployment(context: Context) -> str:
    """What merging would change in the cluster, and why Argo CD might not do it."""
    if not context.deployment and not context.curve:
        return ""
    warnings = [f"⚠️ {plain(warning, 500)}." for warning in context.warnings]
    shown = (
        details("What merging would change in the manifests", fenced(context.deployment, "diff"))
        if context.deployment
        else "Merging changes no manifest."
    )
    return "\n\n".join(["### Deployment", *warnings, shown])


def lineage(context: Context) -> str:
    """Commit, data, model, run and release that all this comes from, in one line."""
    known = [
        f"commit {code(context.commit[:12])}",
        f"data {code(short(workspace.data_md5(context.settings.data)))}",
    ]
    if context.metrics:
        known.append(f"model {code(context.metrics['model_sha256'][:12])}")
    if context.run:
        known.append(f"MLflow run {code(context.run['run_id'])}")
    if context.production:
        known.append(f"compared with release {code(context.production.commit[:12])}")
    return "---\n" + " · ".join(known)


ORDER: tuple[Section, ...] = (
    review,
    result,
    rollbacks,
    value,
    retraining,
    failure,
    metrics,
    decision,
    gate,
    changes,
    replay,
    validation,
    learning_curve,
    confusion,
    slices,
    explanations,
    debt,
    documents,
    deployment,
    lineage,
)

#: The text of a retraining's pull request; CI's comment has the whole report.
SUMMARY: tuple[Section, ...] = (review, result, rollbacks, value, retraining, metrics, changes, gate)

#: Sections that are left out of a report that is too long, in this order.
EXPENDABLE = (
    "debt",
    "documents",
    "deployment",
    "explanations",
    "slices",
    "confusion",
    "validation",
    "replay",
    "changes",
    "gate",
    "learning_curve",
    "decision",
    "metrics",
    "failure",
    "value",
)


def _data_changes(context: Context, record: Release) -> list[list[str]]:
    rows = []
    old, new = record.data_md5, workspace.data_md5(context.settings.data)
    if new != old:
        rows.append([plain(context.settings.data.path), f"md5 {code(short(old))}", f"md5 {code(short(new))}"])
    if context.schema:
        now = context.schema["rows"]
        rows += [
            [f"rows: {plain(key.replace('_', ' '))}", str(record.rows.get(key, 0)), str(now[key])]
            for key in now
            if now[key] != record.rows.get(key, 0)  # a reason that an earlier version did not know left out none
        ]
        dtypes = {feature["name"]: feature["dtype"] for feature in context.schema["features"]}
        rows += [
            [f"column {code(name)}", plain(record.columns.get(name, "–")), plain(dtypes.get(name, "–"))]
            for name in [*dtypes, *(name for name in record.columns if name not in dtypes)]
            if dtypes.get(name) != record.columns.get(name)
        ]
    return rows
