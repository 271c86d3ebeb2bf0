"""Who sent what a retraining appends: the rows that a person must look at before they are merged, and the draft."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from github_server import GitHub
from gitops.core import artifacts
from gitops.integrations import github, github_pulls
from gitops.retraining import clients, proposals
from releases import isolate
from retraining_bench import TABLE, Bench, on_github

LOOK = "Do not merge before somebody has looked at the rows"


@pytest.fixture
def bench(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    isolate(monkeypatch)
    return Bench(origin, tmp_path, monkeypatch)


@pytest.fixture
def server(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    with on_github(tmp_path / "github", monkeypatch) as made:
        yield made


def send(bench: Bench, name: str, rows: int, **options: Any) -> None:
    for number in range(rows):
        bench.ask(f"{name}-{number}", "yes", **options)


def unreviewed(bench: Bench) -> Any:
    """Return what the only proposal says of rows that nobody has looked at."""
    (branch,) = bench.branches()
    return json.loads(bench.show(branch, "data/appended.json"))["unreviewed"]


def test_many_rows_of_requests_make_a_draft_that_lists_them(bench: Bench, server: GitHub) -> None:
    send(bench, "few", 1, on=1, client="team-a")
    send(bench, "many", 3, on=2, client="203.0.113.77")
    send(bench, "other", 1, on=2, client="203.0.113.9")
    send(bench, "six", 2, on=3, client="2001:db8:1:2::3")
    assert bench.run() == 0
    (pull,) = server.pulls
    assert pull["draft"] and pull["title"] == "Retrain: drift"
    first, _, rest = pull["body"].partition("\n")
    assert LOOK in first and "7 of the table's 47 rows (14.9%) came as requests" in first
    assert "retrain.max\\_logged is 0.1" in first
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in rest.splitlines() if "| 2026" in line]
    assert rows == [
        ["2026-11-02", "203.0.113.0/24", "4"],
        ["2026-11-03", "2001:db8:1::/48", "2"],
        ["2026-11-01", "team-a", "1"],
    ]
    (branch,) = bench.branches()
    for text in (pull["body"], bench.show(branch, "data/appended.json")):
        assert not re.search(r"113\.77|113\.9|db8:1:2", text), text
    message = bench.seed.git("log", "-1", "--format=%B", branch, at=bench.origin)
    assert "\nBefore you merge, look at the rows: 7 of the table's 47 rows" in message


def test_few_rows_make_an_ordinary_pull_request(bench: Bench, server: GitHub) -> None:
    send(bench, "a", 2, client="team-a")
    send(bench, "b", 1, client="team-b")
    assert bench.run() == 0
    (pull,) = server.pulls
    assert not pull["draft"] and LOOK not in pull["body"]
    assert "requests that were in no draft yet: 3 of the table's 43 rows; clients: 2" in pull["body"]
    assert unreviewed(bench) == {"2026-11-01": {"team-a": 2, "team-b": 1}}


def test_exactly_the_limit_is_no_draft(bench: Bench, server: GitHub) -> None:
    change(bench, 0.2)
    send(bench, "a", 10)
    assert bench.run() == 0
    assert [pull["draft"] for pull in server.pulls] == [False]


def change(bench: Bench, limit: float) -> None:
    """Set `retrain.max_logged` on main."""
    path = bench.seed.path / "params.yaml"
    path.write_text(re.sub(r"\nretrain:.*", "", path.read_text()) + f"\nretrain: {{max_logged: {limit}}}\n")
    bench.seed.merge("Limit")


def test_small_retrainings_add_up_to_a_draft(bench: Bench, server: GitHub) -> None:
    """Each is below the limit. The draft lists the rows of all of them; after its merge the count begins anew."""
    bodies = []
    for turn, on in enumerate((1, 2, 3)):
        send(bench, f"turn-{turn}", 3, on=on, client=f"team-{turn}")
        assert bench.run(forced=True) == 0
        bodies.append(server.pulls[-1])
        seen = unreviewed(bench)
        bench.merge()
        server.pulls[-1]["state"] = "closed"
    assert [pull["draft"] for pull in bodies] == [False, True, False]
    assert "6 of the table's 46 rows (13.0%) came as requests, 3 of them before, and" in bodies[1]["body"]
    assert "| 2026-11-01 | `team-0` | 3 |" in bodies[1]["body"] and "`team-1`" in bodies[1]["body"]
    assert seen == {"2026-11-03": {"team-2": 3}}


def test_a_closed_draft_is_drawn_again(bench: Bench, server: GitHub) -> None:
    """Nothing was merged, so nobody has accepted the rows."""
    send(bench, "a", 9)
    for _ in range(2):
        assert bench.run(forced=True) == 0
        server.pulls[-1]["state"] = "closed"
    assert [pull["draft"] for pull in server.pulls] == [True, True]


def test_a_table_that_a_person_replaces_was_looked_at(bench: Bench, server: GitHub) -> None:
    send(bench, "a", 4, client="team-a")
    assert bench.run() == 0
    bench.merge()
    server.pulls[-1]["state"] = "closed"
    bench.commit((TABLE + "7,a,2026-01-01,no\n").encode())
    send(bench, "b", 1, on=2, client="team-b")
    assert bench.run(forced=True) == 0
    assert unreviewed(bench) == {"2026-11-02": {"team-b": 1}}


def test_a_plan_without_drafts_gets_a_title_that_says_so(bench: Bench, server: GitHub) -> None:
    server.drafts = False
    send(bench, "a", 9)
    assert bench.run() == 0
    (pull,) = server.pulls
    assert (pull["draft"], pull["title"]) == (False, f"{proposals.REVIEW}Retrain: drift")
    assert LOOK in pull["body"].splitlines()[0]


def test_another_refusal_of_a_draft_is_an_error(bench: Bench, server: GitHub) -> None:
    server.refusals["POST"] = [(422, {}, {"message": "Validation Failed"})]
    send(bench, "a", 9)
    with pytest.raises(github.GitHubError, match="Validation Failed"):
        bench.run()
    assert server.pulls == []


def test_a_draft_whose_answer_is_lost_is_opened_once(bench: Bench, server: GitHub) -> None:
    server.late, server.refusals["POST"] = True, [(502, {}, {})]
    send(bench, "a", 9)
    assert bench.run() == 0
    assert [pull["draft"] for pull in server.pulls] == [True]


@pytest.mark.parametrize("draft", [False, True])
def test_an_open_pull_request_is_edited(bench: Bench, server: GitHub, draft: bool) -> None:
    """One that is no draft cannot be made one with Actions' token: its title says it. Another limit, the same model."""
    send(bench, "a", 9)
    change(bench, 0.1 if draft else 1)
    assert bench.run() == 0
    change(bench, 1 if draft else 0.1)
    client = github.connect()
    warning = "" if draft else proposals.REVIEW
    assert github_pulls.open_or_edit(client, *bench.branches(), "Retrain: drift", "text", warning=warning)
    (pull,) = server.pulls
    assert pull["draft"] == draft
    assert pull["title"] == ("" if draft else proposals.REVIEW) + "Retrain: drift"


def test_without_github_the_message_says_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    send(bench, "a", 9)
    assert bench.run() == 0
    told = capsys.readouterr().out
    assert "look at the rows in reports/retrain/report.md before you merge: 9 of the table's 49 rows" in told


def test_a_hostile_client_is_unknown(bench: Bench, server: GitHub) -> None:
    """The log is data from outside; what is no id and no address is not shown."""
    for number, name in enumerate(["@everyone", "a\n::error::b", "<img>", 7, ["x"], "x" * 65, None, "unknown", "a|b"]):
        bench.ask(f"r{number}", "yes", client=name)
    assert bench.run() == 0
    assert "| 2026-11-01 | `unknown` | 9 |" in server.pulls[0]["body"]


def test_the_list_is_limited(bench: Bench, server: GitHub) -> None:
    for number in range(60):
        bench.ask(f"r{number}", "yes", client=f"client-{number}")
    bench.ask("more", "yes", client="client-59")
    assert bench.run() == 0
    lines = [line for line in server.pulls[0]["body"].splitlines() if line.startswith("| 2026")]
    assert len(lines) == 40 and lines[0] == "| 2026-11-01 | `client-59` | 2 |"
    assert "… and 20 more." in server.pulls[0]["body"]


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("10.1.2.3", "10.1.2.0/24"),
        ("2001:db8:a:b:c::1", "2001:db8:a::/48"),
        ("10", "10"),
        ("1.2.3.4.5", "1.2.3.4.5"),
        ("team-a", "team-a"),
        ("unknown", "unknown"),
    ],
)
def test_of_an_address_the_network_is_kept(client: str, expected: str) -> None:
    assert clients.network(client) == expected


def test_a_candidate_that_tuning_changed_is_a_draft_too(bench: Bench, server: GitHub) -> None:
    from gitops.retraining import candidate

    path = bench.seed.path / "params.yaml"
    path.write_text(path.read_text() + "retrain: {tune_trials: 3}\n")
    bench.seed.merge("Tune")

    def tune(settings: Any) -> str:
        artifacts.PARAMS.write_text(artifacts.PARAMS.read_text().replace("width: 96", "width: 8"))
        return "Better: by far."

    bench.monkeypatch.setattr(candidate, "tune", tune)
    send(bench, "a", 9)
    assert bench.run() == 0
    (pull,) = server.pulls
    assert pull["draft"] and LOOK in pull["body"] and "Better: by far." in pull["body"]
