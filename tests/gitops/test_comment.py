"""The pull request's comment: there is one, it is ours, and it is about the right run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
from commenting import OLD, REPORT, SHA, Bench, stub, writes
from defaults import ROOT
from github_server import ACTIONS, GitHub
from gitops.core import artifacts
from gitops.integrations import cml
from gitops.rendering.markdown import APART


def test_two_pushes_leave_one_comment(either: Bench) -> None:
    status, out, error = either.run()
    (first,) = either.server.comments[12]
    by_cml = [call for call in either.server.calls if call.path.endswith("/comments") and not call.query]
    assert (len(by_cml), error) == (2 if cml.shutil.which("cml") else 1, "")  # CML asks for a page of no size
    assert (status, out.strip()) == (0, first["html_url"])
    assert "Accepted: toy" in first["body"]
    assert f"[Run 77]({either.run_of_ci['html_url']}) of commit `aaaaaaaaaaaa`" in first["body"]

    either.server.say(12, "Nice.")
    either.run_of_ci["head_sha"] = either.server.pulls[0]["head"]["sha"] = "b" * 40
    either.leave(REPORT.replace("Accepted", "Refused"))
    assert either.run()[:2] == (0, out)
    (body,) = either.posted()
    assert "Refused: toy" in body
    assert "Accepted" not in body
    assert writes(either.server) == ["POST", "PATCH"]


def test_our_comment_is_found_in_a_long_thread(either: Bench) -> None:
    for place in range(500):
        if place == 250:
            either.server.say(12, f"outdated\n\n{cml.watermark(OLD)}", ACTIONS)
        either.server.say(12, f"Comment {place}")
    assert either.run()[0] == 0
    assert len(either.server.comments[12]) == 501
    (body,) = either.posted()
    assert "Accepted: toy" in body
    assert "outdated" not in body


@pytest.mark.parametrize("ours", [0, 10, 40, None])
def test_a_comment_that_quotes_ours_is_not_edited(either: Bench, ours: int | None) -> None:
    quote = f"> outdated\n\nI do not agree.\n\n{cml.watermark(OLD)}"
    for place in range(50):
        if place == ours:
            either.server.say(12, f"outdated\n\n{cml.watermark(OLD)}", ACTIONS)
        either.server.say(12, quote if place == 5 else "Hm.")
    assert either.run()[0] == 0
    assert [entry["body"] for entry in either.server.comments[12] if entry["user"]["login"] != ACTIONS].count(
        quote
    ) == 1
    (body,) = either.posted()
    assert "Accepted: toy" in body


def test_a_comment_of_another_workflow_is_not_ours(either: Bench) -> None:
    other = "Coverage\n\n" + cml.watermark(OLD).replace(cml.TITLE, "coverage")
    quoted = f"Somebody wrote:\n> {cml.watermark(OLD)}\n\nThanks!"
    for text in (other, quoted):
        either.server.say(12, text, ACTIONS)
    either.run()
    assert either.run()[0] == 0
    assert either.posted()[:2] == [other, quoted]
    assert len(either.posted()) == 3


def test_a_report_that_is_too_long_is_cut(either: Bench) -> None:
    either.leave("## Long\n" + "".join(f"| {number} | @you |\n" for number in range(40_000)))
    assert either.run()[0] == 0
    (body,) = either.posted()
    assert 59_000 < len(body) <= 60_000
    assert body.index("The report is cut") < body.index("## Long")
    assert "[Run 77]" in body
    shown = body.partition(f"\n\n{cml.watermark(SHA)}")[0].splitlines()
    assert re.fullmatch(rf"\| \d+ \| @{APART}you \|", shown[-1])


def test_a_closed_or_newer_pull_request_gets_no_comment(bench: Bench) -> None:
    bench.server.pulls[0]["head"]["sha"] = "b" * 40
    assert bench.run()[0] == 0
    bench.server.pulls[0]["head"]["sha"] = SHA
    bench.server.pulls[0]["state"] = "closed"
    status, out, _ = bench.run()
    assert (status, out.startswith("nothing is posted: ")) == (0, True)
    assert writes(bench.server) == []


def test_a_fork_is_distinguished_from_its_namesakes(bench: Bench) -> None:
    """The same branch and commit in three repositories; one has been deleted."""
    bench.server.open_pull(20, SHA, fork="stranger/name")
    bench.server.open_pull(21, SHA, fork="stranger/other")
    bench.server.open_pull(22, SHA, fork="stranger/name")["head"]["repo"] = None
    bench.of_fork()
    assert bench.run()[0] == 0
    assert list(bench.server.comments) == [20]


def test_each_pull_request_of_the_branch_is_told(bench: Bench) -> None:
    """GitHub lets a branch have one for each base."""
    bench.server.open_pull(13, SHA)["base"]["ref"] = "other"
    assert bench.run()[0] == 0
    assert sorted(bench.server.comments) == [12, 13]


def jobs(server: GitHub) -> list[dict[str, Any]]:
    def entry(name: str, conclusion: str, *steps: tuple[str, str]) -> dict[str, Any]:
        told = [{"name": step, "conclusion": ended} for step, ended in steps]
        return {"name": name, "conclusion": conclusion, "steps": told, "html_url": f"{server.url}/job/{name[:4]}"}

    return [
        entry("lint", "success", ("Lint", "success")),
        entry("pipeline", "failure", ("Check out", "success"), ("Train", "failure"), ("Keep", "failure")),
        entry(
            "@everyone](//evil.example) <img src=x>\n# Title\n",
            "timed_out",
            ("see www.evil.example #1 | `x`", "timed_out"),
        ),
        *(entry(f"many {number}", "cancelled") for number in range(150)),
        entry("pass", "skipped"),
    ]


@pytest.mark.parametrize("left", [REPORT, None])
def test_a_failed_run_says_what_failed(either: Bench, left: str | None) -> None:
    either.run_of_ci["conclusion"] = "failure"
    either.server.jobs[77] = jobs(either.server)
    either.leave(left)
    assert either.run()[0] == 0
    (body,) = either.posted()
    assert body.startswith("## ❌ The run's conclusion: failure\n\n- [pipeline](")
    assert f"[pipeline]({either.server.url}/job/pipe), in step Train\n" in body
    assert "and 132 more" in body
    assert "lint" not in body
    assert "\n# Title" not in body
    assert "@everyone" not in body
    assert "<img" not in body
    assert "www.evil" not in body
    assert ("Accepted: toy" in body) == (left is not None)
    assert ("left no report" in body) == (left is None)


def test_a_report_does_not_outlive_its_commit(bench: Bench) -> None:
    """A run that ends well without a report, as a fork's may that edits the workflow, takes the old report away."""
    bench.run()
    bench.leave(None)
    assert bench.run()[0] == 0
    (body,) = bench.posted()
    assert body.startswith("## ❌ No report")
    assert "Accepted" not in body


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"event": "merge_group"}, "not for a branch"),
        ({"event": "pull_request"}, "not for a branch"),  # skipped: the push has a run
        ({"event": "schedule"}, "not for a branch"),
        ({"event": "pull_request", "head_repository": None}, "not for a branch"),
        ({"conclusion": "action_required"}, "action required"),
        ({"conclusion": "cancelled"}, "cancelled"),  # by a newer push, mostly, whose run reports
        ({"conclusion": "skipped"}, "skipped"),
    ],
)
def test_nothing_is_posted_where_there_is_nothing_to_say(bench: Bench, changes: dict[str, Any], why: str) -> None:
    bench.run_of_ci |= changes
    bench.silent(why)
    assert bench.server.calls == []


@pytest.mark.parametrize("event", ["push", "workflow_dispatch"])
def test_a_branch_and_what_was_started_on_it_report(bench: Bench, event: str) -> None:
    """A retraining's run is started by hand, as GitHub says."""
    bench.run_of_ci["event"] = event
    assert bench.run()[0] == 0
    assert len(bench.posted()) == 1


def test_it_runs_on_bare_python(bench: Bench) -> None:
    """As in its job: the system's Python, of which -S hides what is installed, and an empty environment."""
    bench.run()
    command = [sys.executable, "-S", "-m", "gitops.reporting.comment"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert bench.server.token not in done.stdout + done.stderr
    assert writes(bench.server) == ["POST", "PATCH"]


def test_a_person_posts_from_a_laptop(either: Bench) -> None:
    server = either.server
    server.tokens[server.token] = "maria"
    either.name = "push"
    for name in ("GITHUB_ACTIONS", "GITHUB_EVENT_PATH", "GITHUB_REPOSITORY"):
        either.monkeypatch.delenv(name)
    home = either.folder / "home"
    either.monkeypatch.setenv("HOME", str(home))
    origin = f"https://maria:secret@{server.url.removeprefix('https://')}/owner/name.git"
    for command in (
        "init",
        f"remote add origin {origin}",
        "-c user.name=m -c user.email=m@x commit -qm x --allow-empty",
    ):
        subprocess.run(["git", *command.split()], check=True, capture_output=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    server.say(12, f"by CI\n\n{cml.watermark(OLD)}", ACTIONS)
    (either.folder / "artifact/reports").mkdir(parents=True)
    (either.folder / "artifact" / artifacts.REPORT).write_text(REPORT)

    for _ in range(2):
        assert either.run("--artifact", "artifact", "--pull-request", "12")[0] == 0
    theirs, mine = server.comments[12]
    assert (theirs["body"], theirs["user"]["login"]) == (f"by CI\n\n{cml.watermark(OLD)}", ACTIONS)
    assert (mine["user"]["login"], cml.watermark(commit) in mine["body"]) == ("maria", True)
    assert f"workspace at commit `{commit[:12]}`" in mine["body"]
    assert not home.exists()  # nothing of the user's is written, by CML neither

    assert "GitHub answers 404" in either.run("--pull-request", "99", "--artifact", "artifact")[2]
    assert "run `make report` first" in either.run("--pull-request", "12")[2]
    either.ref = ""
    assert "--pull-request NUMBER" in either.run()[2]
    subprocess.run(["git", "remote", "set-url", "origin", origin.replace("127.0.0.1", "elsewhere")], check=True)
    error = either.run("--pull-request", "12", "--artifact", "artifact")[2]
    assert "GITHUB_REPOSITORY" in error
    assert "secret" not in error


def test_cml_gets_what_it_needs_and_no_more(bench: Bench) -> None:
    here = stub(
        bench,
        "(here / 'seen.json').write_text(json.dumps([sys.argv[1:-1], dict(os.environ), open(sys.argv[-1]).read()]))\n"
        "print('https://posted.example/1')\n",
    )
    bench.monkeypatch.setenv("CML_COMMENT_PUBLISH", "true")
    assert bench.run()[:2] == (0, "https://posted.example/1\n")
    arguments, environment, text = json.loads((here / "seen.json").read_text())
    assert arguments == [
        "comment",
        "update",
        "--publish=false",
        "--target=pr/12",
        f"--watermark-title={cml.TITLE}",
        f"--repo={bench.server.url}/owner/name",
    ]
    expected = {"REPO_TOKEN": bench.server.token, "GITHUB_SHA": SHA, "ITERATIVE_DO_NOT_TRACK": "1"}
    assert expected.items() <= environment.items()
    assert "CML_COMMENT_PUBLISH" not in environment
    assert environment["HOME"] != os.environ["HOME"]
    assert "Accepted: toy" in text
    assert cml.WATERMARK.search(text) is None  # CML adds it
    assert writes(bench.server) == []


def test_where_cml_fails_the_api_posts_the_comment(either: Bench) -> None:
    either.server.refusals["POST"] = [(403, {}, {"message": "Not for CML"})]
    if not shutil.which("cml"):
        either.refused("Not for CML")
        return
    status, _, error = either.run()
    assert (status, error) == (0, "cml failed with exit status 1: Not for CML; calling the API instead\n")
    assert len(either.posted()) == 1


def test_a_comment_that_cml_made_before_it_failed_is_edited(bench: Bench) -> None:
    address = f"{bench.server.api}/repos/owner/name/issues/12/comments"
    stub(
        bench,
        "from urllib.request import Request, urlopen\n"
        f"body = {{'body': {f'by CML{chr(10)}{cml.watermark(SHA)}'!r}}}\n"
        "headers = {'Authorization': 'token ' + os.environ['REPO_TOKEN']}\n"
        f"urlopen(Request({address!r}, json.dumps(body).encode(), headers)).close()\n"
        "print('token', os.environ['REPO_TOKEN'], '##[error]', file=sys.stderr)\n"
        "sys.exit(3)\n",
    )
    status, _, error = bench.run()
    assert (status, error) == (0, "cml failed with exit status 3: token *** ## [error]; calling the API instead\n")
    (body,) = bench.posted()
    assert "Accepted: toy" in body
    assert writes(bench.server) == ["POST", "PATCH"]
