"""The feature store: the point-in-time join, and online features that equal the offline ones, with Feast itself."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from breast_cancer import features
from defaults import ROOT, complete
from gitops.core import artifacts, params
from gitops.core.artifacts import FEATURE_VIEW, JOINED, ProjectError
from gitops.feature_store import feature_store
from gitops.retraining import ingest
from gitops.serving.server.online_features import OnlineFeatures
from gitops.tabular import arrow, columns, request_rows, schema
from ports import free_port

NOON = pd.Timestamp("2025-03-10T12:00:00Z")
TTL = 30

SETTINGS: dict[str, Any] = complete(
    {
        "data": {
            "path": "data/joined.parquet",
            "target": "left",
            "task": "binary",
            "id": "customer",
            "timestamp": "asked",
            "categorical": ["postcode"],
            "max_lost": 0.5,
        },
        "feature_store": {"labels": "labels.csv", "features": "features.csv", "ttl_days": TTL},
        "gate": {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.5}},
        "package": {"model_name": "left-soon"},
    }
)

#: Runs the stage in each folder that it is given, in one process: importing Feast takes seconds.
DRIVER = """
import os, sys
from gitops.feature_store import join
for folder in sys.argv[1:]:
    os.chdir(folder)
    join.main()
"""


def run(*arguments: str, folder: Path) -> str:
    """Run Python in the environment `features`, and return what it printed."""
    done = subprocess.run(
        [ROOT / ".venv/features/bin/python", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | {"FEATURE_STORE_REDIS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(folder: Path, labels: pd.DataFrame, history: pd.DataFrame, **changes: Any) -> Path:
    """Write the two tables and params.yaml; return the folder."""
    folder.mkdir(exist_ok=True)
    labels.to_csv(folder / "labels.csv", index=False)
    history.to_csv(folder / "features.csv", index=False)
    settings = SETTINGS | {"feature_store": SETTINGS["feature_store"] | changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    return folder


def observations(*rows: tuple[str, pd.Timestamp]) -> pd.DataFrame:
    left = ["yes" if index % 2 else "no" for index in range(len(rows))]
    return pd.DataFrame(rows, columns=["customer", "asked"]).assign(left=left)


def history(*rows: tuple[str, pd.Timestamp, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer", "event_timestamp", "age"])


#: Observation -> the age that its model may know, None where it knows nothing and must be left out.
DAY, TICK = pd.Timedelta(days=1), pd.Timedelta(microseconds=1)
HISTORY = history(
    ("anna", NOON - DAY, 1.0),
    ("anna", NOON, 2.0),
    ("anna", NOON + DAY, 3.0),
    ("bert", NOON, 4.0),
    ("cleo", NOON - 10 * DAY, 5.0),
)
KNOWN: list[tuple[str, pd.Timestamp, float | None]] = [
    ("anna", NOON + 2 * DAY, 3.0),
    ("anna", NOON, 2.0),  # the very same time counts as known
    ("anna", NOON - TICK, 1.0),  # and the tick before does not see it
    ("anna", NOON + DAY - TICK, 2.0),
    ("anna", NOON - DAY - TICK, None),
    ("bert", NOON - TICK, None),  # nothing but the future is known of him
    ("bert", NOON + TTL * DAY, 4.0),  # as old as may be
    ("bert", NOON + TTL * DAY + TICK, None),  # too old
    ("anna", NOON, 2.0),  # two observations of one time are two
    ("cleo", NOON, 5.0),
    ("dora", NOON, None),  # there is no such customer
]


def random_case() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return 300 observations and 400 rows of features of 20 customers, many of them of the same hour."""
    dice = np.random.default_rng(7)
    times = NOON + pd.to_timedelta(dice.integers(0, 24 * 90, 700), unit="h")
    who = [f"customer {number}" for number in dice.integers(0, 20, 700)]
    rows = pd.DataFrame({"customer": who[300:], "event_timestamp": times[300:]}).drop_duplicates()
    return observations(*zip(who[:300], times[:300], strict=True)), rows.assign(age=np.arange(len(rows)) + 0.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders in which the stage has run: the cases above, random ones, the same shuffled, all kinds of columns."""
    top = tmp_path_factory.mktemp("store")
    labels, rows = random_case()
    made = {
        "cases": write(top / "cases", observations(*[(who, when) for who, when, _ in KNOWN]), HISTORY),
        "random": write(top / "random", labels, rows),
        "shuffled": write(top / "shuffled", labels, rows.sample(frac=1, random_state=3)),
        "kinds": write(top / "kinds", *kinds(), ttl_days=None),
    }
    run("-c", DRIVER, *map(str, made.values()), folder=top)
    return made


def joined(folder: Path) -> pd.DataFrame:
    return artifacts.read_parquet(folder / JOINED)


def test_no_observation_knows_the_future_or_what_is_too_old(folders: dict[str, Path]) -> None:
    frame = joined(folders["cases"])
    expected = [(who, when, age, "yes" if n % 2 else "no") for n, (who, when, age) in enumerate(KNOWN) if age]
    assert [tuple(row) for row in frame[["customer", "asked", "age", "left"]].itertuples(index=False)] == expected


def test_a_random_table_is_joined_by_the_definition(folders: dict[str, Path]) -> None:
    labels, rows = random_case()
    expected = []
    for one in labels.itertuples():
        own = rows[(rows["customer"] == one.customer) & (rows["event_timestamp"] <= one.asked)]
        own = own[own["event_timestamp"] >= one.asked - TTL * DAY].sort_values("event_timestamp")
        if len(own):
            expected.append((one.customer, one.asked, one.left, own["age"].iloc[-1]))
    assert 100 < len(expected) < 300
    assert [tuple(row) for row in joined(folders["random"]).itertuples(index=False)] == expected


def test_the_order_of_the_features_changes_no_byte(folders: dict[str, Path]) -> None:
    assert (folders["random"] / JOINED).read_bytes() == (folders["shuffled"] / JOINED).read_bytes()


def kinds() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return observations and features of every kind, with gaps; each customer has two rows, and one in the future."""
    dice = np.random.default_rng(5)
    rows = []
    for number in range(40):
        for day in (-20, -10, 36500):
            rows.append(
                {
                    "customer": str(number),
                    "event_timestamp": (NOON + day * DAY).isoformat(),
                    "age": None if number % 7 == 0 else dice.normal(40, 9),
                    "orders": dice.integers(0, 9),
                    "member": [True, False, None][number % 3],
                    "since": None if number % 5 == 0 else (NOON - dice.integers(1, 10**9) * TICK).isoformat(),
                    "plan": ["gold", "silver", " NA ", "größe"][number % 4],
                    "postcode": dice.integers(10000, 10009),
                }
            )
    return observations(*[(str(number), NOON) for number in range(40)]), pd.DataFrame(rows)


@pytest.fixture(scope="module")
def online(folders: dict[str, Path]) -> Iterator[str]:
    """The address of a feature server on what was materialised in the folder `kinds`."""
    folder = folders["kinds"]
    assert "40 of 40 entities" in run("-m", "gitops.feature_store.materialize", folder=folder)
    port = free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | {"FEATURE_STORE_REDIS": ""}
    command = [ROOT / ".venv/features/bin/python", "-m", "gitops.feature_store.feature_server", "--port", str(port)]
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        for _ in range(1200):
            assert process.poll() is None, (folder / "server.log").read_text()
            if status(f"http://127.0.0.1:{port}/health") == 200:
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def status(url: str, body: bytes | None = None) -> int | None:
    """Return the status that an address answers, None where nothing does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_offline_and_online_agree_for_every_entity(
    folders: dict[str, Path], online: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server is told by id makes the model's tensors that the joined row makes: predictions are the same."""
    frame = joined(folders["kinds"])
    settings = params.load(folders["kinds"] / "params.yaml")
    contract = schema.describe(frame, {}, settings.data, {})
    assert len(frame) == 40
    assert [f["dtype"] for f in contract["features"]] == [
        *("number", "number", "boolean", "datetime", "category", "category")
    ]
    asker = OnlineFeatures(online, artifacts.read_json(folders["kinds"] / FEATURE_VIEW, ""), contract)
    ids = frame["customer"].to_list()
    (answered, problems), (_, refused) = asker.complete(
        [([{"customer": each} for each in ids], []), ([{"customer": "40"}], [])]
    )
    assert problems == []
    assert [problem["column"] for problem in refused] == ["customer"]

    rows = [request_rows.check_row(index, row, contract) for index, row in enumerate(answered)]
    by_id, by_table = columns.from_rows(rows, contract), arrow.from_frame(frame, contract)
    for one, other in zip(features.encode(by_id, contract), features.encode(by_table, contract), strict=True):
        # To the microsecond: texts of times have no more digits.
        assert np.allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-6, equal_nan=True)
    assert frame.isna().any().sum() >= 4  # gaps are compared too


def test_the_feature_server_only_reads(online: str) -> None:
    for route in ("push", "write-to-online-store", "materialize", "materialize-incremental", "docs", "openapi.json"):
        assert status(f"{online}/{route}", b"{}") == 404


def test_the_last_days_are_enough_unless_the_store_is_new_or_lost(folders: dict[str, Path]) -> None:
    program = """
import os, sys
from gitops.feature_store import feature_store, materialize
sys.argv += ["--days", "0.001"]
materialize.main()
materialize.main()
os.remove(feature_store.ONLINE)
materialize.main()
"""
    said = [line for line in run("-c", program, folder=folders["cases"]).splitlines() if "entities" in line]
    assert [line.partition(" entities")[0] for line in said] == ["3 of 3", "0 of 3", "3 of 3"]


@pytest.mark.parametrize(
    ("labels", "rows", "message"),
    [
        (
            observations(("anna", NOON)),
            pd.concat([HISTORY, HISTORY[1:2]]),
            # by its row, not its id
            r"repeat another's 'customer' and 'event_timestamp', the first is row 5 \(counted",
        ),
        (observations(("anna", NOON)), HISTORY.drop(columns="event_timestamp"), "lacks the column 'event_timestamp'"),
        (observations(("anna", NOON)), HISTORY.assign(event_timestamp="soon"), "is not an ISO 8601 date or time"),
        (
            observations(("anna", NOON)),
            HISTORY.assign(customer=None),
            "column 'customer' of features.csv is missing in 5",
        ),
        (observations(("anna", NOON)), HISTORY.drop(columns="age"), "there is no feature"),
        (observations(("anna", NOON)).drop(columns="left"), HISTORY, "lacks the column 'left' of data.target"),
        (observations(("anna", NOON)).drop(columns="customer"), HISTORY, "feature_store.labels: labels.csv lacks"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: pd.DataFrame, rows: pd.DataFrame, message: str
) -> None:
    monkeypatch.chdir(write(tmp_path / "bad", labels, rows))
    settings = params.load()
    with pytest.raises(ProjectError, match=message):
        (feature_store.read_labels(settings), feature_store.read_features(settings))


def test_a_retraining_takes_new_versions_of_both_tables_and_no_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(tmp_path / "new", observations(("anna", NOON)), HISTORY))
    Path("labels.csv.dvc").write_text("outs:\n- md5: a\n  path: labels.csv\n")
    Path("features.csv.dvc").write_text("deps:\n- path: s3://b/f.csv\nouts:\n- md5: b\n  path: features.csv\n")
    updated: list[Path] = []

    def update(path: Path) -> None:
        updated.append(path)
        Path(f"{path}.dvc").write_text("deps:\n- path: s3://b/f.csv\nouts:\n- md5: c\n  path: features.csv\n")

    monkeypatch.setattr("gitops.integrations.dvc.update", update)
    update = ingest.update_tables(params.load())
    assert updated == [Path("features.csv")]
    assert update == {"kind": "import", "rows": 0, "before": "b", "after": "c", "left_out": {}}


@pytest.mark.parametrize("address", ["redis://:hush@redis:6379", "redis,password=hush", "hush"])
def test_what_is_no_address_of_redis_is_refused_and_not_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURE_STORE_REDIS", address)
    with pytest.raises(ProjectError, match="must be like HOST:6379,password") as refused, feature_store.opened({}):
        pass
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": SETTINGS["data"] | {"path": "data/raw.csv"}}, "with feature_store it is 'data/joined.parquet'"),
        ({"data": SETTINGS["data"] | {"id": None}}, r"feature_store needs data\.id"),
        ({"feature_store": SETTINGS["feature_store"] | {"ttl_days": 0}}, r"feature_store\.ttl_days is 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    with pytest.raises(ProjectError, match=message):
        params.load(path)
