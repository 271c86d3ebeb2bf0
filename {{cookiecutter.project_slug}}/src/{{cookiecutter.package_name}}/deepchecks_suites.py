"""Which Deepchecks checks the two validations run, and when each of them fails: half of the Deepchecks edge.

The other half, deepchecks_run.py, hands Deepchecks the tables and takes its results. Deepchecks' own suites are not
used as they are: some of their checks crash or only warn without a model object, with scikit-learn 1.6 or later, or for
a task that they are not made for, and some of their fixed limits raise false alarms on splits of a few hundred rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from deepchecks.core import CheckResult, ConditionCategory, ConditionResult
from deepchecks.tabular import Context, TrainTestCheck, checks

from .params import ValidateData, ValidateModel

#: What a model is scored by where it is compared with itself or a trivial model, by task; scikit-learn's names.
SCORERS = {"binary": "roc_auc", "multiclass": "f1_macro", "regression": "r2"}

#: An honest split fails a drift condition by chance this rarely, over all its features together.
FALSE_ALARM = 0.01

#: Share of the rows that Deepchecks' multivariate drift scores its classifier on; it fits on the others.
HELD_OUT = 0.3

Tables = Mapping[str, pd.DataFrame]


def data_checks(settings: ValidateData, schema: dict[str, Any], tables: Tables) -> list[tuple[bool, Any]]:
    """Return every check of the data, each with whether it applies to this schema.

    `tables` holds the rows under "train" (the rows that the model is chosen on) and "test". The checks of one table look
    at "train".
    """
    classes = schema["task"] != "regression"
    columns = [feature["name"] for feature in schema["features"]] + [schema["target"]["name"]]
    smallest = round(HELD_OUT * min(len(rows) for rows in tables.values()))
    return [
        # Untidy cells, which a model survives and a person should look at.
        (True, _advice(checks.IsSingleValue().add_condition_not_single_value())),
        (True, _advice(checks.MixedNulls().add_condition_different_nulls_less_equal_to())),
        (True, _advice(checks.MixedDataTypes().add_condition_rare_type_ratio_not_in_range())),
        (True, _advice(checks.StringMismatch().add_condition_no_variants())),
        (True, _advice(checks.SpecialCharacters().add_condition_ratio_of_special_characters_less_or_equal())),
        # Rows and labels.
        (True, _duplicates(columns, settings.max_duplicates)),
        (classes, checks.ConflictingLabels().add_condition_ratio_of_conflicting_labels_less_or_equal(settings.max_conflicting_labels)),
        (True, _leakage(settings.max_predictive_power)),
        # The test rows against the training rows.
        (classes, checks.NewLabelTrainTest().add_condition_new_labels_number_less_or_equal(0)),
        (True, _new_categories(settings.max_new_categories)),
        (True, checks.TrainTestSamplesMix().add_condition_duplicates_ratio_less_or_equal(settings.max_train_test_mix)),
        (schema["id"] is not None, checks.IndexTrainTestLeakage().add_condition_ratio_less_or_equal(0)),
        # With an id as well, the early rows of an id follow its latest one into a later split (split.py).
        (
            schema["timestamp"] is not None and schema["id"] is None,
            checks.DateTrainTestLeakageOverlap().add_condition_leakage_ratio_less_or_equal(0),
        ),
        (True, _missing_drift(settings.max_feature_drift, tables)),
        (True, _feature_drift(settings.max_feature_drift, tables)),
        (True, checks.MultivariateDrift().add_condition_overall_drift_value_less_than(_limit(settings.max_feature_drift, smallest, smallest))),
        (True, checks.LabelDrift().add_condition_drift_score_less_than(_limit(settings.max_label_drift, *_sizes(tables)))),
    ]


def model_checks(settings: ValidateModel, schema: dict[str, Any], tables: Tables) -> list[tuple[bool, Any]]:
    """Return every check of the model's predictions, each with whether it applies to this schema."""
    scorers = [SCORERS[schema["task"]]]
    classes = schema["task"] != "regression"
    return [
        (True, checks.TrainTestPerformance(scorers=scorers).add_condition_train_test_relative_degradation_less_than(settings.max_degradation)),
        (True, checks.SimpleModelComparison(scorers=scorers).add_condition_gain_greater_than(settings.min_gain)),
        (True, checks.PredictionDrift(drift_mode="prediction").add_condition_drift_score_less_than(_limit(settings.max_prediction_drift, *_sizes(tables)))),
        (True, checks.WeakSegmentsPerformance(n_top_features=5).add_condition_segments_relative_performance_greater_than()),
        (classes, checks.ConfusionMatrixReport()),
        (classes, checks.RocReport()),
    ]
