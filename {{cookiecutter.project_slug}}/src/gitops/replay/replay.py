"""Run production's logged requests through the candidate and the release (`make replay`): reports/replay.json.

Both models run on the same rows, anew: a value that is redacted in the log is missing for both, so the answers that
were logged, which knew it, are no measure. The rows stay in this process; what is written are numbers, names of columns
and classes, and values of `data.slices` that training has named.

A replay informs and decides nothing. Its exit status is 0 whatever became of it: `status` in replay.json is `ok`,
`none` where there is nothing to replay, `too_few` rows, or `failed`. The last two are a warning on the run's page too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gitops.core import artifacts, params
from gitops.core.artifacts import MODEL, REPLAY, ProjectError, run
from gitops.core.console import annotate, echo
from gitops.core.failures import without_secrets
from gitops.core.params import Params
from gitops.gate import opponents
from gitops.monitoring import request_log
from gitops.monitoring.tables import may_be_redacted
from gitops.releases import release
from gitops.releases.record import Release
from gitops.replay import figures, fitting, logged, models
from gitops.replay.logged import Hidden
from gitops.replay.models import Pair
from gitops.tabular.columns import raised

Result = dict[str, Any]


def main() -> None:
    """Write reports/replay.json, and print in one line what was found."""
    import torch

    settings = params.load()
    torch.set_num_threads(1)  # as in a server, whose workers have a core each
    archive = models.archive(settings)
    about = {
        "model_sha256": artifacts.digest(MODEL) if MODEL.exists() else None,
        "package_md5": artifacts.digest(archive, "md5") if archive.exists() else None,
        "release": None,
    }
    artifacts.write_json(REPLAY, about | _nothing("failed", "it did not finish"))
    try:
        result = about | evaluate(settings, datetime.now(UTC))
    except Exception as error:
        result = about | _nothing("failed", reason(error))
    artifacts.write_json(REPLAY, result)
    echo(f"{line(result)}\nAll figures: {REPLAY}")
    if result["status"] in ("failed", "too_few"):
        annotate("warning", "Replay", line(result))


def evaluate(settings: Params, now: datetime) -> Result:
    """Return the contents of replay.json but for what it is about. Raises ProjectError, or what a library raises."""
    present = release.production()
    if present is None:
        return _nothing("none", f"nothing is released on {release.BRANCH} yet")
    found: Result = {"release": present.commit}
    if request_log.absent("REQUEST_LOG"):
        return found | _nothing("none", "there is no request log: REQUEST_LOG is not set")
    if changed := opponents.other_subject(settings, present.record):
        return found | _nothing("none", f"the release is for another task ({', '.join(changed)} changed)")
    pair = models.load(settings, present.record)
    if pair.same:
        return found | _nothing("none", "the candidate is the model in production")
    schemas = pair.production.schema, pair.candidate.schema
    read = logged.read(settings, _hidden(settings, present.record, pair), fitting.changed(*schemas), now)
    answers = figures.answer(pair, read.sample)
    rows = len(answers.kept) if answers else 0
    if answers is None or rows < settings.monitor.min_rows:
        days = "day" if read.days == 1 else f"{read.days} days"
        why = f"{rows} rows of the last {days}, and monitor.min_rows is {settings.monitor.min_rows}"
        return found | _nothing("too_few", why)
    return found | {"status": "ok", "reason": None} | figures.of(settings, pair, read, answers)


def _hidden(settings: Params, record: Release, pair: Pair) -> Hidden:
    """Return what is redacted in the log: what the release's setting names, and the candidate's, which may be newer."""
    columns, schema = {*record.params.get("request_log", {}).get("redact", [])}, pair.production.schema
    # In any other column than a category's the text cannot be a value.
    no_text = {*may_be_redacted([], schema), *filter(None, [schema.get("timestamp")])}
    return Hidden(columns | {*settings.request_log.redact}, no_text, schema.get("id"))


def _nothing(status: str, why: str) -> Result:
    return {"status": status, "reason": why}


def line(result: Result) -> str:
    """Return in one line what became of the replay."""
    if result["status"] != "ok":
        said = {"none": "Nothing to replay", "too_few": "Too few requests to replay", "failed": "The replay failed"}
        return f"{said[result['status']]}: {result['reason']}"
    low, value, high = (100 * result["changed"][key] for key in ("low", "value", "high"))
    return f"{value:.2f} % ({low:.2f} to {high:.2f} %) of {result['rows']} logged rows would be decided otherwise"


def reason(error: Exception) -> str:
    """Return why a replay failed. A ProjectError says it; of any other exception class and place, as its text may quote
    a row.
    """
    return without_secrets(str(error)) if isinstance(error, ProjectError) else raised(error)


if __name__ == "__main__":
    run(main)
