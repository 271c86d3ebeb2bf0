"""Your checks: which Deepchecks checks run on the splits and on the model, with their limits from params.yaml.

Each is an entry `(applies, check, setting)`. To add one, add an entry: any check of https://docs.deepchecks.com with a
condition, or one of your own, and the setting that holds its limit, if there is one; a condition that fails, or a check
that cannot run, fails the stage and names that setting. Both stages run in the environment `validate`
(gitops/validation/stages.py), which has Deepchecks, pandas and scikit-learn.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from deepchecks.tabular import checks

from gitops.validation.conditions import (
    SCORERS,
    Candidate,
    conflicting_labels,
    critical_value,
    duplicates,
    feature_drift,
    missing_values_drift,
    new_categories,
    no_variants,
    only_warn,
    overall_drift,
    target_leakage,
    train_test_mix,
)

from .settings import ValidateData, ValidateModel


def data_checks(
    settings: ValidateData, schema: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame
) -> list[Candidate]:
    """Return every check of the data. Checks of a single table are meant for `train`."""
    dtypes = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    classes = schema["task"] != "regression"
    features = train[[*dtypes]], test[[*dtypes]]
    drifts = set(dtypes.values()) != {"datetime"}  # Deepchecks has no drift of dates
    label = max(settings.max_label_drift, critical_value(len(train), len(test)))
    return [
        # Untidy columns: a model survives them, a person should look.
        (True, only_warn(checks.IsSingleValue().add_condition_not_single_value()), None),
        (True, only_warn(checks.MixedNulls().add_condition_different_nulls_less_equal_to()), None),
        (True, only_warn(checks.MixedDataTypes().add_condition_rare_type_ratio_not_in_range()), None),
        (True, only_warn(no_variants()), None),
        (True, only_warn(checks.SpecialCharacters().add_condition_ratio_of_special_characters_less_or_equal()), None),
        # Rows and labels.
        (True, duplicates([*dtypes, schema["target"]["name"]], settings.max_duplicates), "max_duplicates"),
        (classes, conflicting_labels(settings.max_conflicting_labels), "max_conflicting_labels"),
        (True, target_leakage(settings.max_predictive_power), "max_predictive_power"),
        # Test against train: rows, ids and times that are in both, values that train lacks, drift.
        (True, train_test_mix(settings.max_train_test_mix), "max_train_test_mix"),
        (
            schema["id"] is not None and schema["repeated_ids"] != "keep",
            checks.IndexTrainTestLeakage().add_condition_ratio_less_or_equal(),
            None,
        ),
        (
            schema["timestamp"] is not None,
            checks.DateTrainTestLeakageOverlap().add_condition_leakage_ratio_less_or_equal(),
            None,
        ),
        (classes, checks.NewLabelTrainTest().add_condition_new_labels_number_less_or_equal(), None),
        ("category" in dtypes.values(), new_categories(settings.max_new_categories), "max_new_categories"),
        (True, missing_values_drift(settings.max_feature_drift, *features), "max_feature_drift"),
        (drifts, feature_drift(settings.max_feature_drift, *features), "max_feature_drift"),
        (drifts, overall_drift(settings.max_feature_drift, train, test), "max_feature_drift"),
        (True, checks.LabelDrift().add_condition_drift_score_less_than(round(label, 3)), "max_label_drift"),
    ]


def model_checks(
    settings: ValidateModel, schema: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame
) -> list[Candidate]:
    """Return every check of the predictions. Checks of a single table are meant for `test`.

    Left out are Deepchecks' checks of regression errors, which crash with scikit-learn 1.6 and later, and its search
    for weak segments, which crashes where the model is nearly perfect and only warns otherwise; `data.slices` is
    for that.
    """
    scorers = SCORERS[schema["task"]]
    classes = schema["task"] != "regression"
    drift = max(settings.max_prediction_drift, critical_value(len(train), len(test)))
    performance = checks.TrainTestPerformance(scorers=scorers)
    simple = checks.SimpleModelComparison(scorers=scorers)
    return [
        (
            True,
            performance.add_condition_train_test_relative_degradation_less_than(settings.max_degradation),
            "max_degradation",
        ),
        (True, simple.add_condition_gain_greater_than(settings.min_gain), "min_gain"),
        # Of the predicted classes, not of their probabilities: those are always more extreme on rows once trained on.
        (
            True,
            checks.PredictionDrift(drift_mode="prediction").add_condition_drift_score_less_than(round(drift, 3)),
            "max_prediction_drift",
        ),
        (classes, checks.ConfusionMatrixReport(), None),
        (classes, checks.RocReport(), None),
    ]
