"""The 28 tests of "The ML Test Score: A Rubric for ML Production Readiness and Technical Debt Reduction".

Breck, Cai, Nielsen, Salib and Sculley, IEEE Big Data 2017, https://research.google/pubs/pub46555/. Half a point is for
a test that is run by hand, with its result written down, a full point for one that runs by itself, again and again.
The score is the smallest of the four sections' sums, because all four are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gitops.debt import evidence_data, evidence_infrastructure, evidence_model, evidence_monitoring
from gitops.debt.project import Project, Seen

SECTIONS = {"Data": "data", "Model": "model", "Infra": "infrastructure", "Monitor": "monitoring"}


class Step(NamedTuple):
    """What earns half a point, and what it takes: 1 a command, 2 an answer or a setting, 3 something to set up."""

    command: str
    effort: int


CI, MONITOR = ("ci.yaml", "pipeline"), ("monitor.yaml", "monitor")
GATE, TESTS = ("ci.yaml", "gate"), ("ci.yaml", "test")

#: What makes a workflow run; ci.yaml runs by itself once the repository is on GitHub.
RUN = {
    "ci.yaml": Step("make github", 3),
    "monitor.yaml": Step('make github ARGS="--variable REQUEST_LOG=s3://BUCKET/PATH"', 3),
    "retrain.yaml": Step("gh workflow run retrain.yaml", 2),
    "rollback.yaml": Step("gh workflow run rollback.yaml, once there are two releases", 3),
}

PIPELINE, TEST = Step("make pipeline", 1), Step("make test", 1)
WATCH = Step("make monitor, after requests to make serve", 2)
LABELS = Step("make monitor, with labels of requests in labels/", 3)
OBSERVED = Step("take components/monitoring into k8s/overlays/production/kustomization.yaml, then make deploy", 3)
LIVE = Step("set up Argo CD's notifications (docs/operate.md, Is it live?)", 3)


@dataclass(frozen=True)
class Test:
    """A test of the paper. `evidence` finds whether it was done, `repeated`: by which workflow's `make` target it is.

    `first` is the next step where nothing was found, `complete` where a part was, None where nothing earns the rest.
    """

    id: str
    text: str
    where: str  # where the evidence is looked up
    evidence: Callable[[Project], Seen]
    repeated: tuple[str, str] | None
    first: Step
    complete: Step | None = None

    @property
    def section(self) -> str:
        """The name of its section."""
        return SECTIONS[self.id.partition(" ")[0]]


_d, _m, _i, _o = evidence_data, evidence_model, evidence_infrastructure, evidence_monitoring
_ANSWER = "answer in {}: {}"
_SLICES = Step("limits in gate.slices of params.yaml, then make gate", 2)

TABLE = (
    Test(
        "Data 1",
        "Feature expectations are captured in a schema",
        "data/prepared/schema.json, reports/validate_data.json",
        _d.schema,
        CI,
        PIPELINE,
    ),
    Test(
        "Data 2",
        "All features are beneficial",
        "evaluation/explanations.json: each feature's importance; half where one adds nothing",
        _d.beneficial,
        CI,
        PIPELINE,
        Step("make debts, data.drop in params.yaml for what it says adds nothing, then make pipeline", 2),
    ),
    Test(
        "Data 3",
        "No feature's cost is too much",
        "docs/data-understanding.md: the question about costs; half at most, as nothing measures it",
        _d.cost,
        None,
        Step(_ANSWER.format(_d.DATA, _d.COST), 2),
    ),
    Test(
        "Data 4",
        "Features adhere to meta-level requirements",
        "docs/data-understanding.md: what is known when it is asked; reports/validate_data.json: the check of leaks",
        _d.requirements,
        CI,
        PIPELINE,
        Step(_ANSWER.format(_d.DATA, _d.KNOWN), 2),
    ),
    Test(
        "Data 5",
        "The data pipeline has appropriate privacy controls",
        "docs/system-design.md: the questions about privacy, half; reports/erase.md: an erasure",
        _d.privacy,
        None,
        Step(f"answer the questions of {_d.SYSTEM}, {_d.PRIVACY}", 2),
        Step("make erase ID=SOMEBODY", 1),
    ),
    Test(
        "Data 6",
        "New features can be added quickly",
        "release log: a release with a new column, and its time since the commit",
        _d.quickly,
        ("ci.yaml", "deploy"),
        Step("release a model with one more column: make deploy", 3),
    ),
    Test(
        "Data 7",
        "All input feature code is tested",
        "tests/test_features.py and tests/test_prepare.py in build/tests.xml",
        _d.code_is_tested,
        TESTS,
        TEST,
    ),
    Test(
        "Model 1",
        "Model specs are reviewed and submitted",
        "Git: params.yaml and your package are committed, half; GitHub's rules of main: approvals",
        _m.reviewed,
        None,
        Step("git commit", 1),
        Step('make github ARGS="--approvals 1"', 2),
    ),
    Test(
        "Model 2",
        "Offline and online metrics correlate",
        "the monitor's result: performance on labelled requests is that of the test rows",
        _m.online,
        MONITOR,
        LABELS,
    ),
    Test(
        "Model 3",
        "All hyperparameters have been tuned",
        "reports/tune.json, else MLflow: 10 trials; half without retrain.tune_trials",
        _m.tuned,
        ("retrain.yaml", "retrain"),
        Step("make tune", 1),
        Step("retrain.tune_trials in params.yaml: 10", 2),
    ),
    Test(
        "Model 4",
        "The impact of model staleness is known",
        "reports/gate.json: releases with older data, on today's rows",
        _m.staleness,
        GATE,
        Step("make retrain, with newer data, after a release", 3),
    ),
    Test(
        "Model 5",
        "A simpler model is not better",
        "reports/validate_model.json: a constant guess, half; value.today: a rule on a column",
        _m.simple,
        CI,
        PIPELINE,
        Step("a rule on a column in value.today of params.yaml, then make pipeline", 2),
    ),
    Test(
        "Model 6",
        "Model quality is sufficient on important data slices",
        "evaluation/metrics.json: slices, half; gate.slices: limits",
        _m.slices,
        GATE,
        Step("columns in data.slices of params.yaml, then make pipeline", 2),
        _SLICES,
    ),
    Test(
        "Model 7",
        "The model is tested for considerations of inclusion",
        "docs/data-understanding.md and docs/model-card.md: who is rare, who may be harmed, half; slices with limits",
        _m.inclusion,
        GATE,
        Step(_ANSWER.format(_m.CARD, _m.HARM), 2),
        _SLICES,
    ),
    Test(
        "Infra 1",
        "Training is reproducible",
        "tests/test_train.py: test_the_same_training_is_the_same_file in build/tests.xml",
        _i.reproducible,
        TESTS,
        TEST,
    ),
    Test(
        "Infra 2",
        "Model specs are unit tested",
        "tests/test_model.py and tests/test_settings.py in build/tests.xml",
        _i.specification,
        TESTS,
        TEST,
    ),
    Test(
        "Infra 3",
        "The ML pipeline is integration tested",
        "dvc.lock: no stage is out of date",
        _i.integrated,
        CI,
        PIPELINE,
    ),
    Test(
        "Infra 4",
        "Model quality is validated before serving",
        "reports/gate.json, of this model",
        _i.validated,
        GATE,
        Step("make gate", 1),
    ),
    Test(
        "Infra 5",
        "The model is debuggable",
        "the archive in package/ explains single answers",
        _i.debuggable,
        CI,
        PIPELINE,
    ),
    Test(
        "Infra 6",
        "Models are canaried before serving",
        "production's manifests: a Rollout with steps, half; GitHub: Argo CD reports it as live",
        _i.canary,
        None,
        Step("take components/canary into k8s/overlays/production/kustomization.yaml, then make deploy", 3),
        LIVE,
    ),
    Test(
        "Infra 7",
        "Serving models can be rolled back",
        "release log: a release that was taken back",
        _i.rolled_back,
        ("rollback.yaml", "rollback"),
        Step("make rollback, once there are two releases", 3),
    ),
    Test(
        "Monitor 1",
        "Dependency changes result in notification",
        "Git: the locks were changed, half; .github/dependabot.yaml with commits or pull requests of Dependabot",
        _o.dependencies,
        None,
        Step("make lock ARGS=--upgrade, and a commit of it", 1),
        Step("make github", 3),
    ),
    Test(
        "Monitor 2",
        "Data invariants hold for inputs",
        "the monitor's result: missing, unseen, out of range, refused",
        _o.invariants,
        MONITOR,
        WATCH,
    ),
    Test(
        "Monitor 3",
        "Training and serving are not skewed",
        "the monitor's result: feature drift",
        _o.skew,
        MONITOR,
        WATCH,
    ),
    Test(
        "Monitor 4",
        "Models are not too stale",
        "production's manifests: the alert ModelStale, half; GitHub: Argo CD reports it as live",
        _o.stale,
        None,
        OBSERVED,
        LIVE,
    ),
    Test(
        "Monitor 5",
        "Models are numerically stable",
        "tests/test_model.py: test_a_column_of_one_value_or_of_none_is_finite in build/tests.xml",
        _o.stable,
        TESTS,
        TEST,
    ),
    Test(
        "Monitor 6",
        "Computing performance has not regressed",
        "production's manifests: the alert ModelSlow, half; GitHub: Argo CD reports it as live",
        _o.performance,
        None,
        OBSERVED,
        LIVE,
    ),
    Test(
        "Monitor 7",
        "Prediction quality has not regressed",
        "the monitor's result: performance on labelled requests",
        _o.quality,
        MONITOR,
        LABELS,
    ),
)
