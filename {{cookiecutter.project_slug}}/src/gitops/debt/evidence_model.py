"""Evidence of the tests of model development: Model 1 to 7."""

from __future__ import annotations

from pathlib import Path

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.debt.evidence_data import DATA
from gitops.debt.project import Project, Seen
from gitops.integrations import git, logged_study
from gitops.releases import workspace

CARD = Path("docs/model-card.md")
MISSING, HARM = (
    "Who or what is missing or rare in it?",
    "Whom may it harm or treat unfairly, and what is done about it?",
)

#: The check of the model against a constant guess.
SIMPLE = "Simple Model Comparison"

#: Trials below which nothing was searched.
TRIALS = 10


def reviewed(project: Project) -> Seen:
    """Model 1: settings and code of the model are committed, and main takes nothing without an approval."""
    sources = (f"src/{params.package()}", "params.yaml")
    tracked = all(git.run("ls-files", "--", source) for source in sources)
    if not tracked or any(path.startswith(sources) for path in git.changes()):
        return Seen(0, "settings or code of the model differ from the commit")
    try:
        rules = project.ask("rules/branches/main")
    except ProjectError:
        return Seen(0.5, "committed; whether main asks for a review is not known", known=False)
    approvals = [one["parameters"]["required_approving_review_count"] for one in rules if one["type"] == "pull_request"]
    count = max(approvals, default=0)
    return Seen(1 if count else 0.5, f"committed; main asks for {count} approvals")


def online(project: Project) -> Seen:
    """Model 2: labelled requests give the metric that the test rows gave, within monitor.max_performance_drop."""
    performance = (project.monitored or {}).get("performance")
    if not performance or performance["passed"] is not True:
        return Seen(0, str(performance["reason"]) if performance else "no labelled requests were evaluated")
    return Seen(1, str(performance["reason"]))


def tuned(project: Project) -> Seen:
    """Model 3: a study of the settings, here or in MLflow; automatic where retraining has trials of its own."""
    study, automatic = project.written(artifacts.TUNE), project.settings.retrain.tune_trials
    count, where = (study["finished"], artifacts.TUNE) if study else (0, "MLflow")
    if not study:
        try:
            count = logged_study.finished(project.settings)
        except ProjectError as error:  # the file lies where `make tune` was run
            return Seen(0, f"{artifacts.TUNE} is not here, and what MLflow has is not known: {error}", known=False)
    if count < TRIALS:
        return Seen(0, f"{where} has {count} trials")
    return Seen(1 if automatic else 0.5, f"{where} has {count} trials; retrain.tune_trials is {automatic}")


def staleness(project: Project) -> Seen:
    """Model 4: releases with older data were compared with this model, on today's rows."""
    compared = [one for one in (project.gate or {}).get("releases", []) if one["difference"]]
    md5 = workspace.data_md5(project.settings.data)
    older = {one.record.model.version for one in project.releases() if one.record.data_md5 != md5}
    found = [one for one in compared if one["model_version"] in older]
    return Seen(float(bool(found)), f"{len(found)} releases of older data compared with it on today's rows")


def simple(project: Project) -> Seen:
    """Model 5: better than a constant guess; all of it where a rule on a column is compared too."""
    checked = project.result(artifacts.MODEL_VERDICT, "validate_model") or {"conditions": []}
    if not any(one["check"] == SIMPLE and one["status"] == "passed" for one in checked["conditions"]):
        return Seen(0, "not seen to be better than a constant guess")
    value = project.settings.value
    rule = value is not None and value.today.column is not None
    return Seen(
        1 if rule else 0.5, f"better than a constant guess; {'and' if rule else 'no'} rule on a column compared"
    )


def slices(project: Project) -> Seen:
    """Model 6: metrics of slices; all of it where the gate holds limits for them."""
    metrics = project.result(artifacts.METRICS, "evaluate") or {}
    judged = _judged(metrics)
    limits = len(project.settings.gate.slices)
    return Seen(
        (1 if limits else 0.5) if judged else 0, f"{judged} slices with metrics, {limits} limits in gate.slices"
    )


def inclusion(project: Project) -> Seen:
    """Model 7: who is rare or may be harmed is written down, and measured by slices with limits."""
    documented = project.answered(DATA, MISSING) and project.answered(CARD, HARM)
    judged = _judged(project.result(artifacts.METRICS, "evaluate") or {})
    full = judged and project.settings.gate.slices
    text = f"{'' if documented else 'not '}written down in {DATA} and {CARD}; {judged} slices with metrics"
    return Seen((1 if full else 0.5) if documented else 0, text)


def _judged(metrics: dict[str, object]) -> int:
    """Return how many slices have metrics."""
    columns = metrics.get("slices")
    found = columns.values() if isinstance(columns, dict) else ()
    return sum(bool(cell["metrics"]) for values in found for cell in values.values())
