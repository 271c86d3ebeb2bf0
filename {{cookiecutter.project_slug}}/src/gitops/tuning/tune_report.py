"""What `make tune` found: reports/tune.json, reports/tune.html with plots, and the lines it prints."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gitops.core import artifacts
from gitops.core.params import Params
from gitops.rendering import html, markdown
from gitops.rendering.html import BLUE, GREY, ORANGE
from gitops.tuning.tune_study import finished, values_of

#: Trials that the page lists.
LISTED = 10

#: Trials that were trained to their end without which the importance of a setting is noise.
ENOUGH = 10


def write(study: optuna.Study, settings: Params, comparison: dict[str, Any] | None) -> str:
    """Write both reports of the study so far and return what there is to say. `comparison`: of tune.compare, or None
    where Ctrl-C came before it.
    """
    trials = finished(study)
    complete = sorted((trial for trial in trials if trial.state == TrialState.COMPLETE), key=_loss)
    importances = _importances(study) if len(complete) >= ENOUGH else None
    verdict = _verdict(len(trials), comparison)
    report = {
        "study": study.study_name,
        "verdict": verdict,
        "finished": len(trials),
        "pruned": len(trials) - len(complete),
        "comparison": comparison,
        "importances": importances,
        "trials": [
            {"number": trial.number, "state": trial.state.name.lower(), "loss": trial.value, "values": values_of(trial)}
            for trial in trials
        ],
    }
    artifacts.write_json(artifacts.TUNE, report)
    text = "\n\n".join(
        filter(None, (f"## Tuning\n\n{markdown.plain(verdict, 500)}", _sets(comparison), _best(complete)))
    )
    title = f"{settings.package.model_name}: tuning"
    artifacts.write_text(artifacts.TUNE_HTML, html.document(title, text, _plots(trials, importances, settings)))
    return f"{verdict}\nreports: {artifacts.TUNE}, {artifacts.TUNE_HTML}"


def line(trial: FrozenTrial) -> str:
    """Return one line about a trial that has just ended."""
    values = " ".join(f"{key}={value}" for key, value in (values_of(trial) or {}).items())
    if trial.state == TrialState.COMPLETE:
        ending = f"{trial.value:.4f}"
    elif "diverged" in trial.user_attrs:
        ending = "diverged"
    else:
        ending = f"pruned in epoch {trial.last_step}"
    return f"trial {trial.number}: {ending}, {values}"


def best(study: optuna.Study) -> str:
    """Return the best validation loss so far, for the progress bar."""
    losses = [_loss(trial) for trial in finished(study) if trial.state == TrialState.COMPLETE]
    return f"best {min(losses):.4f}" if losses else ""


def _loss(trial: FrozenTrial) -> float:
    return float("inf") if trial.value is None else trial.value


def _importances(study: optuna.Study) -> dict[str, float] | None:
    """Return each setting's share in how the loss varies (fANOVA); None where it does not vary."""
    try:
        return optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    except RuntimeError:  # all trials have the same loss
        return None


def _verdict(count: int, comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return f"Stopped after {count} trials, before a comparison: params.yaml is as it was, `make tune` goes on."
    now, found = comparison["present"], comparison["best"]
    losses = f"validation loss {_spread(found)} with the best of {count} trials, {_spread(now)} with the present set"
    losses += f", from {len(comparison['seeds'])} other seeds"
    if comparison["better"]:
        return f"Better: {losses}. It is written to params.yaml."
    return f"No better beyond the spread between seeds: {losses}. params.yaml is as it was."


def _spread(one: dict[str, Any]) -> str:
    return "diverging" if one["mean"] is None else f"{one['mean']:.4f} ± {one['deviation']:.4f}"


def _number(loss: float | None) -> str:
    return "diverged" if loss is None else f"{loss:.4f}"


def _sets(comparison: dict[str, Any] | None) -> str:
    """Return a table of the present set and the finalists: their settings, and their losses from other seeds."""
    if comparison is None:
        return ""
    sets = [comparison["present"], *comparison["finalists"]]
    rows = [[markdown.code(key), *(str(one["values"][key]) for one in sets)] for key in sets[0]["values"]]
    for place, seed in enumerate(comparison["seeds"]):
        rows.append([f"loss from seed {seed}", *(_number(one["losses"][place]) for one in sets)])
    rows.append(["mean ± deviation", *(f"**{_spread(one)}**" for one in sets)])
    header = ["", "present", *(f"trial {one['trial']}" for one in sets[1:])]
    return "### Present set and finalists\n\n" + markdown.table(header, rows)


def _best(complete: list[FrozenTrial]) -> str:
    """Return a table of the best trials."""
    if not complete:
        return ""
    names = [markdown.code(key.partition(".")[2]) for key in values_of(complete[0]) or {}]
    rows = [
        [str(trial.number), _number(trial.value), *map(str, (values_of(trial) or {}).values())]
        for trial in complete[:LISTED]
    ]
    return "### Best trials of the search\n\n" + markdown.table(["trial", "loss", *names], rows)


def _plots(trials: list[FrozenTrial], importances: dict[str, float] | None, settings: Params) -> list[tuple[str, Any]]:
    plots: list[tuple[str, Any]] = [("History", lambda axes: _history(axes, trials))]
    if importances:
        plots.append(("Importance", lambda axes: _bars(axes, importances)))
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    for key, wanted in settings.tune.space.items():
        plots.append((key, lambda axes, key=key, log=wanted.log: _slice(axes, complete, key, log)))
    return plots if complete else []


def _history(axes: Any, trials: list[FrozenTrial]) -> None:
    """Each trial's loss in the order of their numbers, and the best so far; the worst tenth is cut off."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.value is not None]
    losses = [_loss(trial) for trial in complete]
    numbers = [trial.number for trial in complete]
    axes.plot([t.number for t in pruned], [t.value for t in pruned], "x", color=GREY, label="pruned")
    axes.plot(numbers, losses, "o", color=BLUE, alpha=0.6, label="trained to its end")
    axes.step(numbers, [min(losses[: n + 1]) for n in range(len(losses))], where="post", color=ORANGE, label="best")
    shown = sorted(losses + [t.value for t in pruned if t.value is not None])
    low, high = min(losses), max(losses[0], shown[int(0.9 * (len(shown) - 1))])
    axes.set(xlabel="trial", ylabel="validation loss", ylim=(low - 0.05 * (high - low), high + 0.1 * (high - low)))
    axes.legend(frameon=False)


def _bars(axes: Any, importances: dict[str, float]) -> None:
    names = list(reversed(importances))
    axes.barh(names, [importances[name] for name in names], color=BLUE)
    axes.set(xlabel="share in how the loss varies (fANOVA)")


def _slice(axes: Any, complete: list[FrozenTrial], key: str, log: bool) -> None:
    """The loss over one setting: a point a trial, later ones darker."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = [(values_of(trial) or {})[key] for trial in complete]
    numbers = isinstance(values[0], int | float)
    axes.scatter(
        values if numbers else [str(value) for value in values],
        [_loss(trial) for trial in complete],
        c=[trial.number for trial in complete],
        cmap="Blues",
        edgecolors=GREY,
        vmin=-len(complete) / 3,
    )
    if log and numbers:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=key, ylabel="validation loss")
