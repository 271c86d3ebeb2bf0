"""The text of the pull request by which a release is promoted: what changes in production, and why it may."""

from __future__ import annotations

from collections.abc import Sequence

from gitops.integrations.kustomize import STAGING
from gitops.releases.record import Deployed, Release, changed_params, short
from gitops.releases.release import BRANCH
from gitops.rendering.markdown import changes, code, interval, plain, table

NEXT = f"{BRANCH}-next"

#: In which direction a metric is better.
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


def trailer(record: Release) -> str:
    """Return the line by which a merge whose message is the pull request's text tells the commit of main too."""
    return f"Main-commit: {record.commit}"


def body(record: Release, present: Deployed | None, wait: str | None = None, needed: Sequence[str] = ()) -> str:
    """Return the pull request's text: what changes, the gate's reason, metrics and parameters.

    `wait` is what staging has not shown yet, or not any more, where the release is proposed all the same; `needed` is
    what production's cluster has to have for it.
    """
    old = present.record if present else None
    names = ("model", "commit of main", "data", "MLflow run", "image")
    rows = [
        [name, code(before), code(after)]
        for name, before, after in zip(names, _identity(old), _identity(record), strict=True)
    ]
    if record.threshold is not None:
        shown = [f"{it.threshold:.4g}" if it and it.threshold is not None else "–" for it in (old, record)]
        rows.append(["decision threshold", *shown])
    overview = table(["", "in production", "proposed"], rows)
    gate = f"Gate, before {STAGING}: {plain(record.gate.reason, 1000)}"
    if record.gate.release != (present.commit if present else None):
        gate += " **It compared with another release than the one in production now.**"
    intro = "Staging runs this release; merging brings it to production. The diff shows what changes in the cluster."
    if record.lifts:
        rollbacks = ", ".join(code(commit[:12]) for commit in record.lifts)
        intro += f" **Production had rolled this back ({rollbacks}); REDEPLOY=1 proposes it again.**"
    if wait:
        intro += f"\n\n**Staging:** {plain(wait, 1000)}"
    intro += "".join(f"\n\n⚠️ {plain(line, 500)}." for line in needed)
    parts = [
        f"{intro}\n\n{overview}",
        f"### Gate\n\n{gate}",
        f"### Metrics\n\n{_metrics(record, old)}",
    ]
    if old and (changed := changed_params(old.params, record.params)):
        parts.append("### Parameters\n\n" + table(["", "in production", "proposed"], changes(changed)))
    warning = f"Only `make promote` writes to `{NEXT}`: other commits on it are lost."
    parts.append(f"---\nAfter the merge, `make rollback` takes it back. {warning}\n\n{trailer(record)}")
    return "\n\n".join(parts) + "\n"


def _identity(record: Release | None) -> list[str]:
    """Return what distinguishes a release from another; of an image reference with a digest, only the digest."""
    if record is None:
        return ["–"] * 5
    run_id, image = record.mlflow_run_id or "none", record.image.rpartition("@")[2]
    return [record.model.version, record.commit[:12], short(record.data_md5), run_id, image]


def _metrics(record: Release, old: Release | None) -> str:
    """Return both models' metrics, each with its 95 % interval."""
    comparable, rows = old.comparable(record.params.get("value")) if old else {}, []
    for name, new in record.metrics.items():
        scores = (comparable.get(name), new)
        values = [interval(score.value, score.low, score.high) if score else "–" for score in scores]
        rows.append([f"{plain(name)}{ARROWS[new.better]}", *values])
    note = "On the test split, with 95 % intervals; ↑ higher, ↓ lower is better."
    if old and old.test_md5 != record.test_md5:
        note += " **The two were not measured on the same rows.**"
    return table(["metric", "in production", "proposed"], rows) + f"\n\n{note}"
