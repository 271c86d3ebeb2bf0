"""The demo's last chapters: the world changes, the monitor sees it, a retraining is proposed, merged and released.

The bundled patients are sent again, as single requests, as if seen through another microscope, which shows a coarser
texture; later both microscopes are in use. Labels are the diagnoses of the table.
"""

from __future__ import annotations

import csv
import http.client
import json
import random
import subprocess
from typing import Any
from urllib.parse import urlsplit

import demo

#: The other microscope multiplies these columns by this factor.
FACTOR, CHANGED = 1.15, ("mean texture", "worst texture")
TARGET = "diagnosis"

Row = dict[str, Any]


def drift(url: str) -> None:
    """Send the changed patients to the server; the monitor must name what has changed. Raises SystemExit."""
    seen = changed()
    demo.chapter("The world changes")
    old = demo.production()["release"]["model"]["version"]
    with demo.meanwhile("tell the registry what runs", "make register"):
        demo.step(f"{len(seen)} requests, each with its label later", run=lambda: use(url, "changed", seen))
        demo.step("watch production", "make monitor")
    result = monitored("drift", old)
    columns = {check["column"] for check in result["checks"] if not check["passed"] and check["column"]}
    if columns != set(CHANGED):
        raise SystemExit(f"the monitor names {sorted(columns)}, but {sorted(CHANGED)} have changed")


def retrained_release(*, again: bool) -> dict[str, Any]:
    """Retrain after the drift, merge, and return the release; with `again`, watch production. Raises SystemExit."""
    both = random.Random(7).sample([*read(), *changed()], k=400)
    demo.step("retrain on the labelled requests", "make retrain REASON=drift")
    branch = proposed()

    demo.chapter("Merge the retrained model, release")
    merge = f"git merge --quiet --no-ff -m 'Merge {branch}' origin/{branch}"
    demo.step("merge its branch", "git switch --quiet main", "git fetch --quiet", merge, "git push --quiet origin main")
    demo.release()
    demo.step("let the registry follow", "make register")
    released = demo.production()
    new: str = released["release"]["model"]["version"]
    if not branch.endswith(new):
        raise SystemExit(f"{branch} was merged, but model {new} is released")
    if again:
        with demo.served() as url:
            demo.step(f"{len(both)} requests, from both", run=lambda: use(url, "both", both))
        demo.step("watch production", "make monitor")
        monitored("ok", new)
    return released


def changed() -> list[tuple[Row, str]]:
    """Return the patients as the other microscope shows them."""
    return [(row | {name: round(row[name] * FACTOR, 6) for name in CHANGED}, label) for row, label in read()]


def read() -> list[tuple[Row, str]]:
    """Return features and diagnosis of each patient of the bundled table, before anything is appended to it."""
    with (demo.PROJECT / "data/raw.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [({name: float(row[name]) for name in row if name != TARGET}, row[TARGET]) for row in rows]


def use(url: str, name: str, rows: list[tuple[Row, str]]) -> None:
    """Ask for each row by itself, and write down its label under the request's id."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    for number, (row, _) in enumerate(rows):
        headers = {"Content-Type": "application/json", "X-Request-Id": f"{name}-{number}"}
        connection.request("POST", address.path, json.dumps({"instances": [row]}), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200 or json.loads(answer)["request_id"] != headers["X-Request-Id"]:
            raise SystemExit(f"request {number} is answered {response.status}: {answer[:500]!r}")
    connection.close()
    folder = demo.PROJECT / "labels"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("request_id", "label"), *((f"{name}-{n}", row[1]) for n, row in enumerate(rows))])


def monitored(status: str, version: str) -> Row:
    """Return the monitor's result. Raises SystemExit unless it has this `status`, for this model."""
    result: Row = json.loads((demo.PROJECT / "reports/monitor.json").read_text(encoding="utf-8"))
    if (result["status"], result["model_version"]) != (status, version):
        raise SystemExit(f"the monitor says {result['status']} of {result['model_version']}, not {status} of {version}")
    return result


def proposed() -> str:
    """Return the branch of the retraining. Raises SystemExit where there is none, as after a refusal."""
    command = ["git", "--git-dir", str(demo.ORIGIN), "branch", "--list", "retrain/*", "--format=%(refname:short)"]
    branches = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if len(branches) != 1:
        raise SystemExit(f"one retraining should be proposed, not {branches}: see demo/breast-cancer/reports/retrain")
    return branches[0]
