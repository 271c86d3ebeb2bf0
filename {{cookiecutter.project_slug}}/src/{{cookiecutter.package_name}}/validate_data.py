"""Stage `validate_data`: are the splits fit to train and score a model? Runs in the validate environment."""

from __future__ import annotations

import warnings

from . import artifacts, params


def main() -> int:
    """Check the splits, write reports/validate_data.json and .html; return 1 where one failed or did not run.

    "Train" is the training and the validation rows together: all that the model is chosen on, against the test rows.
    """
    settings = params.load().validate_data
    schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    from . import deepchecks_run, deepchecks_suites  # late: takes seconds, and a wrong setting should be told at once

    train = deepchecks_run.read_table([artifacts.TRAIN, artifacts.VAL], schema)
    test = deepchecks_run.read_table([artifacts.TEST], schema)
    candidates = deepchecks_suites.data_checks(settings, schema, train, test)
    suite = deepchecks_run.choose("validate_data", settings, candidates)
    result = deepchecks_run.run(suite, schema, train, test, run_single_dataset="Train")
    return deepchecks_run.report(result, settings.may_not_run, artifacts.DATA_VERDICT, artifacts.DATA_REPORT)


if __name__ == "__main__":
    artifacts.run(main)
