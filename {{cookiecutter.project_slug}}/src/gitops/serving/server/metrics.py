"""The handler's metrics, in addition to TorchServe's: a latency histogram, and counts of predictions, refusals and
requests that were not logged.

TorchServe's histograms have fixed buckets, the first of 5 ms, in which a model such as this one answers every request.
So the histogram is built from counters: `_bucket` with the label `le`, `_sum` and `_count` are all that PromQL needs. A
thread reports them every few seconds, because each is a line that Java has to parse.

A canary's analysis compares its predictions with those of the stable pods by these counts (k8s/components/canary). For
that, numbers are summed too, by their sign because a counter never falls, and so are their squares; and the squares of
each request's rows, which say how many independent rows the counts are worth at least.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import accumulate
from math import isfinite
from typing import Any

#: Upper bounds of the buckets, in seconds: from a single row to a worker that is about to be restarted.
BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

#: Seconds between two reports to TorchServe; Prometheus scrapes it every thirty.
INTERVAL = 5.0

#: Labels of one metric: Prometheus keeps a series for each. Further classes are counted as "other".
MAX_LABELS = 100

Key = tuple[str, str]

#: name -> unit and the label's name
METRICS = {
    "model_request_seconds_bucket": ("s", "le"),
    "model_request_seconds_sum": ("s", ""),
    "model_request_seconds_count": ("count", ""),
    "model_predictions_total": ("count", "label"),
    "model_predictions_sum_total": ("count", "sign"),
    "model_predictions_squares_total": ("count", ""),
    "model_request_rows_squared_total": ("count", ""),
    "model_refused_total": ("count", ""),
    "model_request_log_dropped_total": ("count", "reason"),
}


class Metrics:
    """Counts, and reports the counts to TorchServe: `cache` is its context's `metrics`."""

    def __init__(self, cache: Any, classes: list[str]) -> None:
        """Report zeros first, so that rates include the first request; regression has no `classes`."""
        self.counters = {
            name: cache.add_metric_to_cache(name, unit, [label] if label else [])
            for name, (unit, label) in METRICS.items()
        }
        self.lock = threading.Lock()
        self.labels = {name: _label(name) for name in classes[:MAX_LABELS]}
        self.counts: defaultdict[Key, float] = defaultdict(float)
        self.buckets = [0] * (len(BUCKETS) + 1)
        for label in self.labels.values() or ["number"]:
            self.counts["model_predictions_total", label] = 0
        for reason in ("full", "failed"):
            self.counts["model_request_log_dropped_total", reason] = 0
        for name, (_, label) in METRICS.items():
            if not label and (not classes or name != "model_predictions_squares_total"):
                self.counts[name, ""] = 0
        for sign in () if classes else ("+", "-"):
            self.counts["model_predictions_sum_total", sign] = 0
        self.flush(zeros=True)
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def answered(self, seconds: float, requests: int) -> None:
        """Count a batch of so many requests that was answered in so many seconds."""
        with self.lock:
            self.buckets[bisect_left(BUCKETS, seconds)] += requests
            self.counts["model_request_seconds_sum", ""] += seconds * requests
            self.counts["model_request_seconds_count", ""] += requests

    def predicted(self, predictions: list[Any]) -> None:
        """Count the predictions of a request by their label; a number counts as "number", and is summed."""
        labels = [each["label"] if isinstance(each, dict) else None for each in predictions]
        found = Counter("number" if label is None else self.labels.get(label, "other") for label in labels)
        values = [each for each in predictions if not isinstance(each, dict)]
        with self.lock:
            self.counts["model_request_rows_squared_total", ""] += len(predictions) ** 2
            for label, number in found.items():
                self.counts["model_predictions_total", label] += number
            for value in values:
                self.counts["model_predictions_sum_total", "-" if value < 0 else "+"] += abs(value)
                self.counts["model_predictions_squares_total", ""] += value * value

    def refused(self) -> None:
        """Count a request that did not fit the schema."""
        with self.lock:
            self.counts["model_refused_total", ""] += 1

    def dropped(self, reason: str, requests: int) -> None:
        """Count requests that are missing from the log: its queue was "full", or writing it "failed"."""
        with self.lock:
            self.counts["model_request_log_dropped_total", reason] += requests

    def flush(self, *, zeros: bool = False) -> None:
        """Report what was counted since the last report."""
        with self.lock:
            counts, buckets = self.counts, self.buckets
            self.counts, self.buckets = defaultdict(float), [0] * len(buckets)
        bounds = [*map(str, BUCKETS), "+Inf"]
        for le, below in zip(bounds, accumulate(buckets), strict=True):
            counts["model_request_seconds_bucket", le] = below
        for (name, label), value in counts.items():
            if (value or zeros) and isfinite(value):  # the square of a very large number is not
                self.counters[name].add_or_update(float(f"{value:.12g}"), [label] if label else [])

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(INTERVAL):
            self.flush()


def _label(name: str) -> str:
    """Return a class's name without the characters that separate the fields of a line to TorchServe."""
    return re.sub(r"[^\w .+-]", "_", name)[:60] or "_"
