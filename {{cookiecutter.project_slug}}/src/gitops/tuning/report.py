"""The results of `make tune`: reports/tune.json, reports/tune.html with plots, and the values in params.yaml."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from gitops.core import artifacts, params
from gitops.core.artifacts import PARAMS, ProjectError
from gitops.core.figures import decimals, signed
from gitops.core.params import Params
from gitops.rendering import html, markdown
from gitops.rendering.html import BLUE, GREY, ORANGE
from gitops.tuning.study import complete, finished, objective_name, sign, values_of

#: Trials that the page lists.
LISTED = 10

#: Complete trials without which the importance of a setting is noise.
ENOUGH = 10


def write(study: optuna.Study, settings: Params, comparison: dict[str, Any] | None) -> str:
    """Write both reports of the study so far, and return a summary.

    `comparison`: as tune.compare returns it, None where Ctrl-C came first.
    """
    trials, ranked, name = finished(study), complete(study), objective_name(settings)
    importances = _importances(study) if len(ranked) >= ENOUGH else None
    verdict = _verdict(len(trials), comparison, name)
    report = {
        "study": study.study_name,
        "objective": name,
        "direction": study.direction.name.lower(),
        "verdict": verdict,
        "finished": len(trials),
        "pruned": len(trials) - len(ranked),
        "comparison": comparison,
        "importances": importances,
        "trials": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "score": trial.value if trial.state == TrialState.COMPLETE else None,
                "values": values_of(trial),
            }
            for trial in trials
        ],
    }
    artifacts.write_json(artifacts.TUNE, report)
    sections = (f"## Tuning\n\n{markdown.plain(verdict, 500)}", _sets(comparison, name), _best(ranked, name))
    title, text = f"{settings.package.model_name}: tuning", "\n\n".join(filter(None, sections))
    plots = _plots(trials, ranked, importances, settings)
    artifacts.write_text(artifacts.TUNE_HTML, html.document(title, text, plots))
    return f"{verdict}\nreports: {artifacts.TUNE}, {artifacts.TUNE_HTML}"


def value_spans(text: str, keys: list[str], path: Path = PARAMS) -> dict[str, tuple[int, int]]:
    """Return where in `text` the value of each key "section.name" starts and ends.

    Raises ProjectError for a key that is missing, or whose value is not a scalar on one line.
    """
    found = {}
    for key in keys:
        node: Any = yaml.compose(text)
        for part in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            node = next((value for name, value in pairs if name.value == part), None)
        if not isinstance(node, yaml.ScalarNode) or node.start_mark.line != node.end_mark.line:
            raise ProjectError(f"{path}: tune.space names {key}, which the file does not set: add it with its value")
        found[key] = (node.start_mark.index, node.end_mark.index)
    return found


def write_params(settings: Params, path: Path = PARAMS) -> None:
    """Change the values of the search space in `path` to those of `settings`, and nothing else of its text.

    A comment behind a value stays in its column, where there is room. Raises ProjectError, and changes nothing, where
    the file would then not be read as `settings`.
    """
    text = path.read_text(encoding="utf-8")
    values = settings.model_dump()
    spans = value_spans(text, list(settings.tune.space), path)
    for key, (start, end) in sorted(spans.items(), key=lambda item: item[1], reverse=True):
        section, _, name = key.partition(".")
        value, rest = yaml.safe_dump(values[section][name]).splitlines()[0], text[end:]
        if rest.lstrip(" ").startswith("#"):
            column = len(rest) - len(rest.lstrip(" ")) + (end - start) - len(value)
            rest = " " * max(2, column) + rest.lstrip(" ")
        text = text[:start] + value + rest
    with artifacts.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        with contextlib.suppress(ProjectError):
            if params.load(temporary) == settings:
                return
        raise ProjectError(f"{path} sets a value twice, or by a reference: write the best set yourself")


def _importances(study: optuna.Study) -> dict[str, float] | None:
    """Return the fraction of the scores' variance that each setting explains (fANOVA); None where there is none."""
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except RuntimeError:  # all trials have the same score
        return None


def _verdict(count: int, comparison: dict[str, Any] | None, name: str) -> str:
    if comparison is None:
        return f"Stopped after {count} trials, before the comparison: params.yaml is unchanged, `make tune` continues."
    now, found = comparison["present"], comparison["best"]
    scores = f"{name} {_spread(found)} with the best of {count} trials, {_spread(now)} with the present set"
    scores += f", from {len(comparison['seeds'])} other seeds"
    if comparison["better"]:
        return f"Better: {scores}; {_judged(comparison['judged'])}. It is written to params.yaml."
    if comparison["judged"]:
        scores += f"; {_judged(comparison['judged'])}"
    return f"No improvement: {scores}. params.yaml is unchanged."


def _judged(judged: dict[str, Any]) -> str:
    """Return in words what the held-out rows have shown."""
    where = f"on rows held out of training, {len(judged['seeds'])} times"
    if judged["difference"] is None:
        return f"{where}, {'the present set' if judged['better'] else 'it'} had no score"
    size, side = abs(judged["difference"]), "better" if judged["difference"] > 0 else "worse"
    chance = "" if judged["better"] else ", which may be chance"
    bound = f"95 % bound {signed(judged['bound'])}, p {judged['p_value']:.2g}"
    return f"{where}, it is {decimals(size)} {side}{chance} ({bound})"


def _spread(one: dict[str, Any]) -> str:
    return "no score" if one["mean"] is None else f"{decimals(one['mean'])} ± {decimals(one['deviation'])}"


def _sets(comparison: dict[str, Any] | None, name: str) -> str:
    """Return a table of the present set and the finalists: their settings, and their scores from other seeds."""
    if comparison is None:
        return ""
    sets = [comparison["present"], *comparison["finalists"]]
    rows = [[markdown.code(key), *(str(one["values"][key]) for one in sets)] for key in sets[0]["values"]]
    for index, seed in enumerate(comparison["seeds"]):
        scores = [one["scores"][index] for one in sets]
        rows.append([f"seed {seed}", *("no score" if score is None else decimals(score) for score in scores)])
    rows.append(["mean ± deviation", *(f"**{_spread(one)}**" for one in sets)])
    header = [markdown.plain(name), "present", *(f"trial {one['trial']}" for one in sets[1:])]
    return "### Present set and finalists\n\n" + markdown.table(header, rows) + _held_out(comparison)


def _held_out(comparison: dict[str, Any]) -> str:
    """Return a table of the scores by which the best finalist was judged."""
    judged = comparison["judged"]
    if judged is None:
        return ""
    rows = [
        [f"seed {seed}", *("no score" if score is None else decimals(score) for score in scores)]
        for seed, *scores in zip(judged["seeds"], judged["present"], judged["best"], strict=True)
    ]
    title = f"### Judged on {judged['held_out']:.0%} of the training rows, held out of training"
    return f"\n\n{title}\n\n" + markdown.table(["", "present", f"trial {comparison['best']['trial']}"], rows)


def _best(ranked: list[FrozenTrial], name: str) -> str:
    """Return a table of the best trials."""
    if not ranked:
        return ""
    settings = [markdown.code(key.partition(".")[2]) for key in values_of(ranked[0]) or {}]
    rows = [
        [str(trial.number), decimals(trial.value or 0.0), *map(str, (values_of(trial) or {}).values())]
        for trial in ranked[:LISTED]
    ]
    return "### Best trials of the search\n\n" + markdown.table(["trial", markdown.plain(name), *settings], rows)


def _plots(
    trials: list[FrozenTrial], ranked: list[FrozenTrial], importances: dict[str, float] | None, settings: Params
) -> list[tuple[str, Any]]:
    plots: list[tuple[str, Any]] = [("History", lambda axes: _history(axes, trials, settings))]
    if importances:
        plots.append(("Importance", lambda axes: _bars(axes, importances)))
    scored = sorted(ranked, key=lambda trial: trial.number)
    for key in settings.tune.space:
        plots.append((key, lambda axes, key=key: _slice(axes, scored, key, settings)))
    return plots if ranked else []


def _history(axes: Any, trials: list[FrozenTrial], settings: Params) -> None:
    """Each trial's score in the order of their numbers, and the best so far; the worst tenth is cut off.

    A pruned trial has no score: it is marked at the edge of the bad ones.
    """
    better = sign(settings)
    scored = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    numbers, scores = [trial.number for trial in scored], [trial.value or 0.0 for trial in scored]
    pruned = [trial.number for trial in trials if trial.state == TrialState.PRUNED]
    edge = [0.02 if better > 0 else 0.98] * len(pruned)
    axes.plot(pruned, edge, "x", color=GREY, label="pruned", transform=axes.get_xaxis_transform())
    axes.plot(numbers, scores, "o", color=BLUE, alpha=0.6, label="complete")
    best = [max(scores[: end + 1], key=lambda score: better * score) for end in range(len(scores))]
    axes.step(numbers, best, where="post", color=ORANGE, label="best")
    worst = sorted(scores, key=lambda score: better * score)[len(scores) // 10]
    worst = min(scores[0], worst, key=lambda score: better * score)
    margin = 0.1 * abs(best[-1] - worst) or 0.1
    axes.set(xlabel="trial", ylabel=objective_name(settings))
    axes.set_ylim(*sorted([best[-1] + better * margin, worst - better * margin]))
    axes.legend(frameon=False)


def _bars(axes: Any, importances: dict[str, float]) -> None:
    names = list(reversed(importances))
    axes.barh(names, [importances[name] for name in names], color=BLUE)
    axes.set(xlabel="fraction of the variance explained (fANOVA)")


def _slice(axes: Any, scored: list[FrozenTrial], key: str, settings: Params) -> None:
    """The score over one setting: a point for each trial, later ones darker."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = [(values_of(trial) or {})[key] for trial in scored]
    numbers = isinstance(values[0], int | float)
    axes.scatter(
        values if numbers else [str(value) for value in values],
        [trial.value for trial in scored],
        c=[trial.number for trial in scored],
        cmap="Blues",
        edgecolors=GREY,
        vmin=-len(scored) / 3,
    )
    if settings.tune.space[key].log and numbers:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=key, ylabel=objective_name(settings))
