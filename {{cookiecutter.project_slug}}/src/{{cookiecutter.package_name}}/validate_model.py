"""Stage `validate_model`: do the model's predictions hold on the test rows? Runs in the validate environment."""

from __future__ import annotations

import warnings

from . import artifacts, params


def main() -> int:
    """Check the predictions, write reports/validate_model.json and .html; return 1 where one failed or did not run.

    The model itself is not needed, nor are the packages that could load it: evaluate has written its predictions.
    """
    settings = params.load().validate_model
    schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    from . import deepchecks_run, deepchecks_suites  # late: takes seconds, and a wrong setting should be told at once

    train = deepchecks_run.read_table([artifacts.TRAIN], schema)
    test = deepchecks_run.read_table([artifacts.TEST], schema)
    predictions = deepchecks_run.read_predictions(artifacts.PREDICTIONS, schema, train.index, test.index)
    candidates = deepchecks_suites.model_checks(settings, schema, train, test)
    suite = deepchecks_run.choose("validate_model", settings, candidates)
    result = deepchecks_run.run(suite, schema, train, test, run_single_dataset="Test", **predictions)
    return deepchecks_run.report(result, settings.may_not_run, artifacts.MODEL_VERDICT, artifacts.MODEL_REPORT)


if __name__ == "__main__":
    artifacts.run(main)
