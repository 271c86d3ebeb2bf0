"""Which Deepchecks checks the two validations run, and when each of them fails: one half of the Deepchecks edge.

The other half, deepchecks_run.py, hands Deepchecks the tables and takes its results. Deepchecks' ready-made suites are
not used: some of their checks crash without a model object or with today's scikit-learn, some only ever warn, and their
fixed drift limits raise false alarms on splits of a few hundred rows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ["DISABLE_DEEPCHECKS_ANONYMOUS_TELEMETRY"] = "1"  # the import would call home and write into its own folder

import pandas as pd
from deepchecks.core import CheckResult, ConditionCategory, ConditionResult
from deepchecks.tabular import Context, TrainTestCheck, checks
from sklearn.metrics import r2_score

from .params_sections import ValidateData, ValidateModel


def r_squared(model: Any, features: pd.DataFrame, target: pd.Series[float]) -> float:
    """Return R²; Deepchecks' own scorers of regression crash with scikit-learn 1.7 where there is no model object."""
    return float(r2_score(target, model.predict(features)))


#: What a model is held against itself and a constant guess by, one score a task.
SCORERS: dict[str, dict[str, Any]] = {
    "binary": {"ROC AUC": "roc_auc"},
    "multiclass": {"macro F1": "f1_macro"},
    "regression": {"R²": r_squared},
}

#: How often two splits of the same rows may exceed a drift limit by chance, over all features together.
FALSE_ALARM = 0.01

#: Share of the rows on which Deepchecks' multivariate drift scores the classifier that tells train from test.
HELD_OUT = 0.3

#: Columns that a condition names before it says "and more".
NAMED = 10

#: A check, and whether it applies to the project's schema.
Candidate = tuple[bool, Any]


def data_checks(
    settings: ValidateData, schema: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame
) -> list[Candidate]:
    """Return every check of the data. Checks of a single table are meant for `train`."""
    kinds = {feature["name"]: feature["kind"] for feature in schema["features"]}
    classes = schema["task"] != "regression"
    drifts = set(kinds.values()) != {"datetime"}  # Deepchecks has no drift of dates
    held_out = round(HELD_OUT * min(len(train), len(test)))
    together = max(settings.max_feature_drift, by_chance(held_out, held_out))
    label = max(settings.max_label_drift, by_chance(len(train), len(test)))
    return [
        # Untidy columns: a model survives them, a person should look.
        (True, _only_warn(checks.IsSingleValue().add_condition_not_single_value())),
        (True, _only_warn(checks.MixedNulls().add_condition_different_nulls_less_equal_to())),
        (True, _only_warn(checks.MixedDataTypes().add_condition_rare_type_ratio_not_in_range())),
        (True, _only_warn(checks.StringMismatch().add_condition_no_variants())),
        (True, _only_warn(checks.SpecialCharacters().add_condition_ratio_of_special_characters_less_or_equal())),
        # Rows and labels.
        (True, _duplicates([*kinds, schema["target"]["name"]], settings.max_duplicates)),
        (classes, _conflicting_labels(settings.max_conflicting_labels)),
        (True, _leakage(settings.max_predictive_power)),
        # Test against train: rows, ids and times that are in both, values that train lacks, drift.
        (True, checks.TrainTestSamplesMix().add_condition_duplicates_ratio_less_or_equal(settings.max_train_test_mix)),
        (schema["id"] is not None, checks.IndexTrainTestLeakage().add_condition_ratio_less_or_equal()),
        # With an id as well, early rows of an id follow its latest row into a later split, see split.py.
        (
            schema["timestamp"] is not None and schema["id"] is None,
            checks.DateTrainTestLeakageOverlap().add_condition_leakage_ratio_less_or_equal(),
        ),
        (classes, checks.NewLabelTrainTest().add_condition_new_labels_number_less_or_equal()),
        ("category" in kinds.values(), _new_categories(settings.max_new_categories)),
        (True, _missing_drift(settings.max_feature_drift, train[[*kinds]], test[[*kinds]])),
        (drifts, _feature_drift(settings.max_feature_drift, train[[*kinds]], test[[*kinds]])),
        (drifts, checks.MultivariateDrift().add_condition_overall_drift_value_less_than(round(together, 3))),
        (True, checks.LabelDrift().add_condition_drift_score_less_than(round(label, 3))),
    ]


def model_checks(
    settings: ValidateModel, schema: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame
) -> list[Candidate]:
    """Return every check of the predictions. Checks of a single table are meant for `test`.

    Left out are Deepchecks' checks of regression errors, which crash with scikit-learn 1.6 and later, and its search
    for weak segments, which crashes where the model is nearly perfect and only warns otherwise; `evaluate.slices` is
    for that.
    """
    scorers = SCORERS[schema["task"]]
    classes = schema["task"] != "regression"
    drift = max(settings.max_prediction_drift, by_chance(len(train), len(test)))
    performance = checks.TrainTestPerformance(scorers=scorers)
    simple = checks.SimpleModelComparison(scorers=scorers)
    return [
        (True, performance.add_condition_train_test_relative_degradation_less_than(settings.max_degradation)),
        (True, simple.add_condition_gain_greater_than(settings.min_gain)),
        # Of the predicted classes, not of their probabilities: those are always more extreme on rows once trained on.
        (True, checks.PredictionDrift(drift_mode="prediction").add_condition_drift_score_less_than(round(drift, 3))),
        (classes, checks.ConfusionMatrixReport()),
        (classes, checks.RocReport()),
    ]


def by_chance(first: int, second: int, comparisons: int = 1) -> float:
    """Return the drift that two samples of `first` and `second` rows show by chance, where nothing has drifted.

    It is the critical value of the two-sample Kolmogorov-Smirnov test, sqrt(-ln(a / 2) / 2 * (n + m) / (n m)), at
    a = FALSE_ALARM / comparisons (Bonferroni). The statistic bounds the others used here: a difference of shares is the
    statistic of a 0/1 column, and 2 AUC - 1 is never larger than that of the classifier's scores. For Cramér's V it is
    a rule of thumb. With under one row in a sample everything is chance, and the value 1.
    """
    if min(first, second) < 1:
        return 1.0
    level = FALSE_ALARM / comparisons
    return min(1.0, math.sqrt(-math.log(level / 2) / 2 * (first + second) / (first * second)))


class MissingValuesDrift(TrainTestCheck):  # type: ignore[misc]  # Deepchecks has no type hints
    """Compare the share of missing values in each feature; Deepchecks' own drift looks at the values alone."""

    def run_logic(self, context: Context) -> CheckResult:
        """Return `{feature: |share missing in test - share missing in train|}`, with both shares on display."""
        shares = pd.DataFrame(
            {
                "Missing in train": context.train.features_columns.isna().mean(),
                "Missing in test": context.test.features_columns.isna().mean(),
            }
        )
        change = (shares["Missing in test"] - shares["Missing in train"]).abs()
        shown = shares.loc[change[change > 0].sort_values(ascending=False, kind="stable").index[:NAMED]]
        return CheckResult(change.to_dict(), display=[shown] if len(shown) else None)


def _missing_drift(maximum: float, train: pd.DataFrame, test: pd.DataFrame) -> Any:
    limit = max(maximum, by_chance(len(train), len(test), train.shape[1]))
    return MissingValuesDrift().add_condition(
        f"Share of missing values changes by at most {limit:.3g} in every feature",
        lambda changes: _each_at_most(changes, dict.fromkeys(changes, limit)),
    )


def _feature_drift(maximum: float, train: pd.DataFrame, test: pd.DataFrame) -> Any:
    counts = zip(train.columns, train.count(), test.count(), strict=True)
    limits = {name: max(maximum, by_chance(first, second, train.shape[1])) for name, first, second in counts}

    def decide(scores: dict[str, dict[str, Any]]) -> ConditionResult:
        # No score: under ten values in one of the tables, which is for the missing values' check to judge.
        found = {name: score["Drift score"] for name, score in scores.items() if score["Drift score"] is not None}
        return _each_at_most(found, limits)

    return checks.FeatureDrift().add_condition(
        f"Drift score of every feature is at most {maximum:.3g}, or what chance makes of so few rows", decide
    )


def _new_categories(maximum: float) -> Any:
    def decide(found: pd.DataFrame) -> ConditionResult:
        shares = {str(name): float(share) for name, share in found["Ratio of New Categories"].items()}
        return _each_at_most(shares, dict.fromkeys(shares, maximum))

    return checks.NewCategoryTrainTest().add_condition(
        f"Share of test rows with a category that train lacks is at most {maximum:.3g} in every feature", decide
    )


def _leakage(maximum: float) -> Any:
    # An invalid score is NaN here, which counts as not measured; Deepchecks' default of 0 would let it pass.
    check = checks.FeatureLabelCorrelation(random_state=42, ppscore_params={"invalid_score": math.nan})
    return check.add_condition(
        f"Predictive power score of every feature by itself is at most {maximum:.3g}, more is most likely a leak",
        lambda scores: _each_at_most(scores, dict.fromkeys(scores, maximum)),
    )


def _conflicting_labels(maximum: float) -> Any:
    return checks.ConflictingLabels().add_condition_ratio_of_conflicting_labels_less_or_equal(maximum)


def _duplicates(columns: list[str], maximum: float) -> Any:
    def decide(share: float) -> ConditionResult:  # Deepchecks' own condition only warns
        category = ConditionCategory.PASS if share <= maximum else ConditionCategory.FAIL
        return ConditionResult(category, f"{share:.3g} of the rows repeat another one")

    return checks.DataDuplicates(columns=columns).add_condition(
        f"Share of rows that repeat another one is at most {maximum:.3g}", decide
    )


def _each_at_most(values: Mapping[str, float], limits: Mapping[str, float]) -> ConditionResult:
    """Fail where a column's value is above its limit; the details name the columns, worst first.

    Raises ValueError for NaN, which Deepchecks reports as a condition in error and the verdict as a check not run.
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


def _only_warn(check: Any) -> Any:
    """Make the check's failed conditions warnings."""
    decide: Callable[[CheckResult], list[ConditionResult]] = check.conditions_decision

    def softened(result: CheckResult) -> list[ConditionResult]:
        results = decide(result)
        for condition in results:
            if condition.category is ConditionCategory.FAIL:
                condition.category = ConditionCategory.WARN
        return results

    check.conditions_decision = softened
    return check
