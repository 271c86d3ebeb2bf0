"""Deepchecks' checks with conditions that hold on small splits; a project's checks.py chooses among them.

Deepchecks' ready-made suites are not used: some of their checks crash without a model object or with current versions
of scikit-learn, some only ever warn, and their fixed drift limits raise false alarms on small splits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from deepchecks.core import CheckResult, ConditionCategory, ConditionResult
from deepchecks.tabular import Context, TrainTestCheck, checks
from sklearn.metrics import r2_score

#: Whether a check applies to the project's schema, the check, and the setting of its section that holds its limit.
Candidate = tuple[bool, Any, str | None]

#: Probability that two splits without drift exceed a drift limit by chance, over all features together.
FALSE_ALARM = 0.01

#: Fraction of the rows on which Deepchecks' multivariate drift scores the classifier that tells train from test.
HELD_OUT = 0.3

#: Columns that a condition names; further ones are counted.
NAMED = 10


def r_squared(model: Any, features: pd.DataFrame, target: pd.Series[float]) -> float:
    """Return R²; Deepchecks' own scorers of regression crash with scikit-learn 1.7 where there is no model object."""
    return float(r2_score(target, model.predict(features)))


#: The score of each task by which a model is compared on train and test, and with a constant guess.
SCORERS: dict[str, dict[str, Any]] = {
    "binary": {"ROC AUC": "roc_auc"},
    "multiclass": {"macro F1": "f1_macro"},
    "regression": {"R²": r_squared},
}


def critical_value(first: int, second: int, level: float = FALSE_ALARM) -> float:
    """Return the drift that two samples of `first` and `second` rows without drift exceed with probability `level`.

    It is the critical value of the two-sample Kolmogorov-Smirnov test, sqrt(-ln(level / 2) / 2 * (n + m) / (n m)). The
    statistic bounds the others used here: a difference of fractions is the statistic of a 0/1 column, and 2 AUC - 1 is
    never larger than that of the classifier's scores. For Cramér's V it is a rule of thumb. For an empty sample the
    value is 1.
    """
    if min(first, second) < 1:
        return 1.0
    return min(1.0, math.sqrt(-math.log(level / 2) / 2 * (first + second) / (first * second)))


class MissingValuesDrift(TrainTestCheck):  # type: ignore[misc]  # Deepchecks has no type hints
    """Compare the fraction of missing values in each feature, which Deepchecks' own drift leaves out."""

    def run_logic(self, context: Context) -> CheckResult:
        """Return `{feature: |fraction missing in test - fraction missing in train|}`, and display both fractions."""
        fractions = pd.DataFrame(
            {
                "Missing in train": context.train.features_columns.isna().mean(),
                "Missing in test": context.test.features_columns.isna().mean(),
            }
        )
        change = (fractions["Missing in test"] - fractions["Missing in train"]).abs()
        shown = fractions.loc[change[change > 0].sort_values(ascending=False, kind="stable").index[:NAMED]]
        return CheckResult(change.to_dict(), display=[shown] if len(shown) else None)


def missing_values_drift(maximum: float, train: pd.DataFrame, test: pd.DataFrame) -> Any:
    """Limit how much the fraction of missing values may change, in each feature."""
    limit = max(maximum, critical_value(len(train), len(test), FALSE_ALARM / train.shape[1]))
    return MissingValuesDrift().add_condition(
        f"Fraction of missing values changes by at most {limit:.3g} in every feature",
        lambda changes: each_at_most(changes, dict.fromkeys(changes, limit)),
    )


def feature_drift(maximum: float, train: pd.DataFrame, test: pd.DataFrame) -> Any:
    """Limit the drift of each feature: `maximum`, or the critical value for so few rows."""
    counts, level = zip(train.columns, train.count(), test.count(), strict=True), FALSE_ALARM / train.shape[1]
    limits = {name: max(maximum, critical_value(first, second, level)) for name, first, second in counts}

    def decide(scores: dict[str, dict[str, Any]]) -> ConditionResult:
        # No score: under ten values in one of the tables, which is up to the check of missing values.
        found = {name: score["Drift score"] for name, score in scores.items() if score["Drift score"] is not None}
        return each_at_most(found, limits)

    return checks.FeatureDrift().add_condition(
        f"Drift score of every feature is at most {maximum:.3g}, or the critical value for so few rows", decide
    )


def overall_drift(maximum: float, train: pd.DataFrame, test: pd.DataFrame) -> Any:
    """Limit the drift of all features together: `maximum`, or the critical value for so few rows."""
    held_out = round(HELD_OUT * min(len(train), len(test)))
    limit = max(maximum, critical_value(held_out, held_out))
    return checks.MultivariateDrift().add_condition_overall_drift_value_less_than(round(limit, 3))


def train_test_mix(maximum: float) -> Any:
    """Limit the fraction of test rows that are training rows too."""
    return checks.TrainTestSamplesMix().add_condition_duplicates_ratio_less_or_equal(maximum)


def new_categories(maximum: float) -> Any:
    """Limit the fraction of test rows with a category that train lacks, in each feature."""

    def decide(found: pd.DataFrame) -> ConditionResult:
        fractions = {str(name): float(ratio) for name, ratio in found["Ratio of New Categories"].items()}
        return each_at_most(fractions, dict.fromkeys(fractions, maximum))

    return checks.NewCategoryTrainTest().add_condition(
        f"Fraction of test rows with a category that train lacks is at most {maximum:.3g} in every feature", decide
    )


def target_leakage(maximum: float) -> Any:
    """Limit how well a feature alone may predict the target."""
    # An invalid score is NaN here, which counts as not measured; Deepchecks' default of 0 would let it pass.
    check = checks.FeatureLabelCorrelation(random_state=42, ppscore_params={"invalid_score": math.nan})
    return check.add_condition(
        f"Predictive power score of every feature by itself is at most {maximum:.3g}; more is most likely a leak",
        lambda scores: each_at_most(scores, dict.fromkeys(scores, maximum)),
    )


def no_variants() -> Any:
    """Condition that no text is spelt in several ways, such as `Paris` and `paris`; the details name columns only."""

    def decide(found: dict[str, Any]) -> ConditionResult:  # Deepchecks' own condition quotes the texts
        spelt = {str(name): len(forms) for name, forms in found["columns"].items() if forms}
        if not spelt:
            return ConditionResult(ConditionCategory.PASS, "no text has variants")
        shown = ", ".join(f"{name} ({count})" for name, count in [*spelt.items()][:NAMED])
        return ConditionResult(ConditionCategory.WARN, f"texts with variants, by column: {shown}")

    return checks.StringMismatch().add_condition("No string variants", decide)


def conflicting_labels(maximum: float) -> Any:
    """Limit the fraction of rows that differ in nothing but the class."""
    return checks.ConflictingLabels().add_condition_ratio_of_conflicting_labels_less_or_equal(maximum)


def duplicates(columns: list[str], maximum: float) -> Any:
    """Limit the fraction of rows that repeat another one."""

    def decide(fraction: float) -> ConditionResult:  # Deepchecks' own condition only warns
        category = ConditionCategory.PASS if fraction <= maximum else ConditionCategory.FAIL
        return ConditionResult(category, f"{fraction:.3g} of the rows repeat another one")

    return checks.DataDuplicates(columns=columns).add_condition(
        f"Fraction of rows that repeat another one is at most {maximum:.3g}", decide
    )


def each_at_most(values: Mapping[str, float], limits: Mapping[str, float]) -> ConditionResult:
    """Fail where a column's value is above its limit; the details name the columns, worst first.

    Raises ValueError for NaN, which Deepchecks reports as a condition in error and the result as a check not run.
    """
    unknown = [name for name, value in values.items() if math.isnan(value)]
    if unknown:
        raise ValueError(f"no value for {', '.join(unknown)}")
    worst = sorted(values, key=lambda name: (-values[name], name))
    over = [f"{name} {values[name]:.3g} (limit {limits[name]:.3g})" for name in worst if values[name] > limits[name]]
    if over:
        more = f" and {len(over) - NAMED} more" if len(over) > NAMED else ""
        return ConditionResult(ConditionCategory.FAIL, ", ".join(over[:NAMED]) + more)
    largest = f"the largest is {values[worst[0]]:.3g}, of {worst[0]}" if worst else "no feature could be compared"
    return ConditionResult(ConditionCategory.PASS, largest)


def only_warn(check: Any) -> Any:
    """Turn the check's failed conditions into warnings."""
    decide: Callable[[CheckResult], list[ConditionResult]] = check.conditions_decision

    def softened(result: CheckResult) -> list[ConditionResult]:
        results = decide(result)
        for condition in results:
            if condition.category is ConditionCategory.FAIL:
                condition.category = ConditionCategory.WARN
        return results

    check.conditions_decision = softened
    return check
