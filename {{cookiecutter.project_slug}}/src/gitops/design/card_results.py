"""The sections of a model card about what was measured. Each function returns Markdown or raises Missing."""

from __future__ import annotations

from typing import Any

from gitops.design.card_inputs import Inputs
from gitops.design.card_text import MISSING, Missing
from gitops.rendering.markdown import code, interval, measured, number, plain, table

#: What a metric of the template's says; one of the project's own has its name alone.
MEANING = {
    "roc_auc": "how often a positive row gets a higher probability than a negative one; 0.5 is chance",
    "pr_auc": "precision, averaged over what is found of the positive rows; chance is their fraction",
    "f1": "harmonic mean of precision and recall of the positive class, at the decision threshold",
    "macro_f1": "harmonic mean of precision and recall, averaged over the classes",
    "accuracy": "fraction of the rows that are answered rightly",
    "brier": "mean squared error of the probability",
    "log_loss": "mean of minus the logarithm of the actual class's probability",
    "rmse": "root of the mean squared error, in the target's unit",
    "mae": "mean absolute error, in the target's unit",
    "r2": "fraction of the target's variance that is explained",
    "expected_value": "what its decisions are worth",
}

#: Columns that explanations list.
COLUMNS = 15

#: Values of a column, each a slice, that are listed.
SLICES = 20

NOT_EVALUATED = "the model has not been evaluated on what is here: run `make pipeline`"


def performance(inputs: Inputs) -> str:
    """Each metric on the test split with its interval."""
    found = evaluated(inputs)
    rows = [[_arrow(inputs, name), measured(value), MEANING.get(name, "–")] for name, value in found["metrics"].items()]
    groups = f" in {found['groups']} groups" if found["groups"] < found["rows"] else ""
    note = f"On {found['rows']} test rows{groups}, which the training has not seen. ↑ higher, ↓ lower is better."
    if any("coverage" in value for value in found["metrics"].values()):
        note += " “Measured” says how often such intervals held the true value in simulations, where that is not 95 %."
    return table(["metric", "value, with its 95 % interval", "what it says"], rows) + f"\n\n{note}"


def slices(inputs: Inputs) -> str:
    """The metrics that the gate watches, in each group of rows, with intervals."""
    found, gate = evaluated(inputs), inputs.settings.gate
    if not found["slices"]:
        raise Missing("`data.slices` names no column, so the results of single groups of rows are not known")
    names = [name for name in dict.fromkeys([gate.primary_metric, *gate.guardrail_metrics]) if name in found["metrics"]]
    parts = []
    for column, values in found["slices"].items():
        known = {value: cell for value, cell in values.items() if cell["metrics"]}
        rows = [
            [plain(value), str(cell["rows"]), *(_cell(cell["metrics"].get(name)) for name in names)]
            for value, cell in known.items()
        ]
        if rows:
            header = [plain(column), "rows", *(_arrow(inputs, name) for name in names)]
            parts.append(table(header, rows, limit=SLICES))
        if few := len(values) - len(known):
            least = inputs.settings.evaluate.min_slice_rows
            parts.append(f"{code(column)}: {few} more with fewer than {least} rows each, too few for a number.")
    return "\n\n".join(parts)


def decision(inputs: Inputs) -> str:
    """From which probability on the positive class is answered, and how the threshold was chosen."""
    task = inputs.settings.data.task
    if task != "binary":
        return "None: " + ("the likeliest class is answered." if task == "multiclass" else "a number is answered.")
    if not inputs.decision:
        raise Missing("no model has been trained on what is here: run `make pipeline`")
    classes = inputs.schema["target"]["classes"] if inputs.schema else []
    positive = code(classes[-1]) if classes else "The positive class"
    why = "`train.threshold` is null"
    if name := inputs.decision["metric"]:
        why = f"the best {code(name)} on the validation split, {number(inputs.decision['value'])} there"
    return f"{positive} is answered from a probability of **{inputs.decision['threshold']:.4g}** on ({why})."


def calibration(inputs: Inputs) -> str:
    """How far probabilities are from what is observed."""
    if inputs.settings.data.task == "regression":
        return "None: the model answers no probability."
    found = evaluated(inputs)["calibration"]
    return (
        f"On the test rows probabilities differ from observed fractions by **{found['error_after']:.4f}** in the mean "
        f"(expected calibration error, no interval). They are scaled by a temperature of {found['temperature']:.4g}, "
        f"chosen on the validation split; without it the difference would be {found['error_before']:.4f}."
    )


def value(inputs: Inputs) -> str:
    """What the model's decisions are worth a month, beside what is done without it."""
    found = evaluated(inputs).get("value")
    if not found:
        raise Missing("what right and wrong answers are worth is not known (`value` in params.yaml is null)")
    unit = plain(found["unit"])
    rows = [
        ["with the model", _interval(found["model"])],
        [f"today: {plain(found['today']['name'])}", _interval(found["today"])],
        ["gain", _interval(found["gain"])],
    ]
    note = (
        f"Expected from the test rows for {number(found['decisions'])} decisions a month; running the model costs "
        f"{number(found['running_cost'])} {unit} of it. What each answer earns is said in `value` of params.yaml."
    )
    return table(["", f"{unit} a month, with its 95 % interval"], rows) + f"\n\n{note}"


def explanations(inputs: Inputs) -> str:
    """The columns that the model relies on most."""
    found = inputs.explanations
    if not found or not found.get("features"):
        raise Missing("which columns the model relies on has not been measured (`evaluation/explanations.json`)")
    shown = found["features"][:COLUMNS]
    rows = [[code(one["name"]), interval(one["importance"], one["low"], one["high"])] for one in shown]
    left_out = found.get("of_columns", len(found["features"])) - len(shown)
    more = f" {left_out} more columns matter less, or were not tried." if left_out > 0 else ""
    note = (
        f"By how much {code(found['metric'])} gets worse on {found['rows']} rows when a column's values are shuffled "
        f"among them (permutation importance).{more} It says what the model uses, not what causes the target."
    )
    return table(["column", "importance, with its 95 % interval"], rows) + f"\n\n{note}"


def validation(inputs: Inputs) -> str:
    """What the checks of data and model have found."""
    parts = []
    for name in ("data", "model"):
        result = inputs.validations.get(name)
        if result is None:
            parts.append(f"- **{name}**: {MISSING} the checks have not run on what is here.")
            continue
        counts = dict.fromkeys(("passed", "warned", "failed"), 0)
        for condition in result["conditions"]:
            counts[condition["status"]] += 1
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "no condition"
        absent = [check for check in result["not_run"] if not check["allowed"]]
        said += f", {len(absent)} could not run" if absent else ""
        parts.append(f"- **{name}**: {'passed' if result['passed'] else '**failed**'} ({said})")
        notable = [one for one in result["conditions"] if one["status"] != "passed"]
        parts += [f"  - {plain(one['status'])}: {plain(one['check'])}, {plain(one['condition'])}" for one in notable]
    limits = "the limits of `validate_data` and `validate_model` in params.yaml"
    return f"Checks by Deepchecks, with {limits}:\n\n" + "\n".join(parts)


def gate(inputs: Inputs) -> str:
    """Whether the model may replace the one in production, and why."""
    if inputs.gate is None:
        raise Missing("the gate has not decided about this model: run `make gate`")
    found = inputs.gate
    passed = sum(bool(rule["passed"]) for rule in found["rules"])
    kept = f"{passed} of {len(found['rules'])} rules hold."
    release = f" It was compared with release {code(found['release'][:12])}." if found["release"] else ""
    return f"**{plain(found['reason'], 1000)}**\n\n{kept}{release}"


def evaluated(inputs: Inputs) -> dict[str, Any]:
    """Return the results of the evaluation. Raises Missing where there are none."""
    if not inputs.metrics:
        raise Missing(NOT_EVALUATED)
    return inputs.metrics


def _arrow(inputs: Inputs, name: str) -> str:
    unit, better = inputs.settings.unit(name), inputs.settings.better.get(name)
    arrow = {"higher": " ↑", "lower": " ↓"}.get(better or "", "")
    return plain(name) + (f" ({plain(unit)})" if unit else "") + arrow


def _cell(found: dict[str, Any] | None) -> str:
    return measured(found) if found else "not defined"


def _interval(found: dict[str, Any]) -> str:
    return interval(found["value"], found["low"], found["high"])
