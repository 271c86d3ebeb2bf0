"""Stages `validate_data` and `validate_model`: run the project's checks, in the environment `validate`."""

from __future__ import annotations

import sys
import warnings

from gitops import owner
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError


def validate_data() -> int:
    """Check the splits, write reports/validate_data.json and .html; return 1 where a check failed or did not run.

    "Train" here means training and validation rows together, on which the model is chosen; they are compared with test.
    """
    settings = params.load().validate_data
    from gitops.validation import deepchecks, exact, results  # late: seconds, after a wrong setting is reported

    schema, own = deepchecks.read_schema()
    paths = [artifacts.TRAIN, artifacts.VAL], [artifacts.TEST]
    (train, of_train), (test, of_test) = (deepchecks.read_table(its, schema, own) for its in paths)
    samples = {"train": of_train, "test": of_test}
    checks = owner.checks().data_checks(settings, schema, train, test)
    suite = deepchecks.choose("validate_data", settings, checks, samples)
    if results.sampled(samples):
        exact.put_in(suite, *paths, schema, own)
    result = deepchecks.run(suite, schema, train, test, run_single_dataset="Train")
    return results.report(result, settings.optional_checks, samples, artifacts.DATA_VERDICT, artifacts.DATA_REPORT)


def validate_model() -> int:
    """Check the predictions, write reports/validate_model.json and .html; return 1 where a check failed or did not run.

    Neither the model nor the packages that load it are needed: `evaluate` has written its predictions.
    """
    settings = params.load().validate_model
    from gitops.validation import deepchecks, results  # late: an import of seconds, after a wrong setting is reported

    schema, own = deepchecks.read_schema()
    train, test = (deepchecks.read_table([path], schema, own) for path in (artifacts.TRAIN, artifacts.TEST))
    samples = {"train": train[1], "test": test[1]}
    predictions = deepchecks.read_predictions(artifacts.PREDICTIONS, schema, train, test)
    checks = owner.checks().model_checks(settings, schema, train[0], test[0])
    suite = deepchecks.choose("validate_model", settings, checks, samples)
    result = deepchecks.run(suite, schema, train[0], test[0], run_single_dataset="Test", **predictions)
    return results.report(result, settings.optional_checks, samples, artifacts.MODEL_VERDICT, artifacts.MODEL_REPORT)


STAGES = {"data": validate_data, "model": validate_model}


def main() -> int:
    """Run the stage that the command line names."""
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    if len(sys.argv) != 2 or sys.argv[1] not in STAGES:
        raise ProjectError(f"name the validation to run, one of {', '.join(STAGES)}")
    return STAGES[sys.argv[1]]()


if __name__ == "__main__":
    artifacts.run(main)
