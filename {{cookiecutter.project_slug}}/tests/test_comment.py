"""The pull request's comment: there is one, it is ours, and nothing in a stranger's artifact harms or speaks for us."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PACKAGE, ROOT
from github_server import ACTIONS, GitHub
from markdown_it import MarkdownIt
from project import artifacts, cml, comment, github
from project.markdown import APART, defang
from test_report import facts, report

OLD, SHA = "0" * 39 + "1", "a" * 40
REPORT = "## ✅ Accepted: toy\n\n| metric | candidate |\n| --- | --- |\n| f1 | **0.9** |\n"

#: Where CML is not wanted, PATH holds git alone.
PATH, REAL_CML = os.environ["PATH"], shutil.which("cml")


class Bench:
    """A run of `make comment`: what GitHub tells it, what CI left, and what came out."""

    def __init__(self, server: GitHub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.server, self.folder, self.monkeypatch, self.capsys = server, folder, monkeypatch, capsys
        self.reports = folder / "artifact/reports"
        self.event: dict[str, Any] = {
            "id": 77,
            "html_url": f"{server.url}/owner/name/actions/runs/77",
            "event": "pull_request",
            "conclusion": "success",
            "head_sha": SHA,
            "head_branch": "change",
            "head_repository": {"full_name": "owner/name", "owner": {"login": "owner"}},
            "pull_requests": [],
        }

    def leave(self, report: str | None, number: object = 12) -> None:
        """Lay down what CI's artifact holds."""
        self.reports.mkdir(parents=True, exist_ok=True)
        for name, text in ((artifacts.REPORT, report), (artifacts.PULL_REQUEST, number)):
            if text is not None:
                (self.folder / "artifact" / name).write_text(f"{text}\n", encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status, and what was printed on both outputs."""
        (self.folder / "event.json").write_text(json.dumps({"workflow_run": self.event}))
        self.monkeypatch.setattr(sys, "argv", ["comment", *(arguments or ("--artifact", "artifact"))])
        with pytest.raises(SystemExit) as ended:
            artifacts.run(comment.main)
        out, err = self.capsys.readouterr()
        assert self.server.token not in out + err
        return int(ended.value.code or 0), out, err

    def posted(self) -> list[str]:
        """Return what we have said, in all comments of all pull requests."""
        said = [entry for comments in self.server.comments.values() for entry in comments]
        return [entry["body"] for entry in said if entry["user"]["login"] == ACTIONS]

    def refused(self, match: str) -> None:
        """Run, and require one line of error that `match` finds and no comment."""
        before = self.posted()
        status, _, error = self.run()
        assert (status, error.count("\n")) == (1, 1)
        assert re.search(match, error), error
        assert self.posted() == before


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Bench]:
    """Pull request 12 is open, CI has ended well, and there is no CML."""
    unwanted = r"GITHUB_|CML_|CI$|GIT_|SSL_|NODE_|REPO_TOKEN$|(?i:https?_proxy|all_proxy)$"
    for name in [name for name in os.environ if re.match(unwanted, name)]:
        monkeypatch.delenv(name)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git") or "git")
    with GitHub(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(github, "PAUSE", 0)
        server.open_pull(12, SHA)
        made = Bench(server, tmp_path, monkeypatch, capsys)
        made.leave(REPORT)
        yield made


@pytest.fixture(params=["api", "cml"])
def either(bench: Bench, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The same without CML and, where one is on PATH, with it."""
    if request.param == "cml":
        if not REAL_CML:
            pytest.skip("no cml on PATH")
        monkeypatch.setenv("PATH", PATH)
    return bench


def stub(bench: Bench, script: str) -> Path:
    """Put a `cml` on PATH that is `script`, in Python; return its folder, in which it may leave something."""
    program = bench.folder / "programs/cml"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\nhere = pathlib.Path(__file__).parent\n{script}"
    )
    program.chmod(0o755)
    return program.parent


def writes(server: GitHub) -> list[str]:
    return [call.method for call in server.calls if call.method != "GET"]


def test_two_pushes_leave_one_comment(either: Bench) -> None:
    status, out, error = either.run()
    (first,) = either.server.comments[12]
    by_cml = [call for call in either.server.calls if call.path.endswith("/comments") and not call.query]
    assert (len(by_cml), error) == (2 if cml.shutil.which("cml") else 1, "")  # CML asks for a page of no size
    assert (status, out.strip()) == (0, first["html_url"])
    assert "Accepted: toy" in first["body"]
    assert f"[Run 77]({either.event['html_url']}) of commit `aaaaaaaaaaaa`" in first["body"]

    either.server.say(12, "Nice.")
    either.event["head_sha"] = either.server.pulls[0]["head"]["sha"] = "b" * 40
    either.leave(REPORT.replace("Accepted", "Refused"))
    assert either.run()[:2] == (0, out)
    (body,) = either.posted()
    assert "Refused: toy" in body
    assert "Accepted" not in body
    assert writes(either.server) == ["POST", "PATCH"]


def test_our_comment_is_found_in_a_long_thread(either: Bench) -> None:
    for place in range(500):
        if place == 250:
            either.server.say(12, f"outdated\n\n{cml.mark(OLD)}", ACTIONS)
        either.server.say(12, f"Comment {place}")
    assert either.run()[0] == 0
    assert len(either.server.comments[12]) == 501
    (body,) = either.posted()
    assert "Accepted: toy" in body
    assert "outdated" not in body


@pytest.mark.parametrize("ours", [0, 10, 40, None])
def test_whoever_quotes_the_comment_keeps_theirs(either: Bench, ours: int | None) -> None:
    quote = f"> outdated\n\nI do not agree.\n\n{cml.mark(OLD)}"
    for place in range(50):
        if place == ours:
            either.server.say(12, f"outdated\n\n{cml.mark(OLD)}", ACTIONS)
        either.server.say(12, quote if place == 5 else "Hm.")
    assert either.run()[0] == 0
    assert [entry["body"] for entry in either.server.comments[12] if entry["user"]["login"] != ACTIONS].count(
        quote
    ) == 1
    (body,) = either.posted()
    assert "Accepted: toy" in body


def test_a_comment_of_another_workflow_is_not_ours(either: Bench) -> None:
    other = "Coverage\n\n" + cml.mark(OLD).replace(cml.TITLE, "coverage")
    quoted = f"Somebody wrote:\n> {cml.mark(OLD)}\n\nThanks!"
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
    assert body.index("cut") < body.index("## Long")
    assert "[Run 77]" in body
    shown = body.partition(f"\n\n{cml.mark(SHA)}")[0].splitlines()
    assert re.fullmatch(rf"\| \d+ \| @{APART}you \|", shown[-1])


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50_000_000)


def a_linked_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


@pytest.mark.parametrize("name", [artifacts.REPORT, artifacts.PULL_REQUEST], ids=str)
@pytest.mark.parametrize("make", [a_link, Path.mkdir, a_large_file, os.mkfifo, a_linked_folder])
def test_what_is_no_plain_small_file_is_not_read(bench: Bench, name: Path, make: Callable[[Path], None]) -> None:
    path = bench.folder / "artifact" / name
    path.unlink()
    make(path)
    bench.refused("^error: artifact/reports/")


@pytest.mark.parametrize("claimed", ["13", "0", "-12", "12; 13", "../12", "๑๒", "", "1" * 21])
def test_another_pull_request_cannot_be_named(bench: Bench, claimed: str) -> None:
    bench.server.open_pull(13, "b" * 40)
    bench.leave(REPORT, claimed)
    bench.refused("pull_request.txt")


HOSTILE = """
@everyone @owner/team a@b.example &#64;everyone &commat;everyone @\u200deveryone \u202e@everyone
<!-- hidden --> <img src=x onerror=alert(1)> <script>x</script> <details open> <a href="https://evil.example">x</a> <b/>
![image](https://evil.example/x.png) [link](//evil.example) [x]: https://evil.example [x] [x][x] <https://evil.example>
https://evil.example http://evil.example ftp://evil.example www.evil.example WWW.evil.example
#1 owner/name#1 GH-1 gh-1 &num;1
/merge
  /approve
\u200b/close
\u2028/label bug
]\u200b(https://evil.example)

```mermaid
flowchart LR
  click A href "http:evil.example"
```

````mermaid
xychart-beta
```
````

~~~geojson
{}
~~~
"""


def test_hostile_text_does_nothing_but_show(bench: Bench) -> None:
    spoof = "\n".join(f"{cml.mark(OLD)}{end}" for end in ("", " "))
    bench.leave(f"{HOSTILE}\n{spoof}\n\n<details>\n\n```\nswallowed?")
    assert bench.run()[0] == 0
    assert bench.run()[0] == 0
    (body,) = bench.posted()
    assert len(cml.MARK.findall(body)) == 1
    shown = body.replace(cml.mark(SHA), "")
    for sign in ("@", "#1", "&#", "&c", "&n", "<!", "<img", "<s", "<a", "<b", "<http", "://", "www.", "WWW.", "GH-1"):
        assert not re.search(re.escape(sign) + rf"(?!{APART})\w", shown.replace(bench.event["html_url"], "")), sign
    assert not re.search(r"(?m)^\W*?/\w", shown)
    assert "\u202e" not in shown
    assert "\u200d" not in shown
    rendered = MarkdownIt("commonmark").enable("table").render(shown)
    assert re.findall(r'(?:href|src)="([^"]*)"', rendered) == [bench.event["html_url"]]
    assert set(re.findall(r"<(\w+)[^>]*>", rendered)) <= {"p", "a", "code", "pre", "details", "br", "em", "strong"}
    assert re.findall(r'"language-(\w+)">(\S*)', rendered) == [("mermaid", "xychart-beta")]


def test_our_own_report_reads_as_before() -> None:
    text = report.compose(facts())
    shown = defang(text)
    assert shown.replace(APART, "") == text.replace(APART, "")
    rendered = [
        MarkdownIt("commonmark").enable("table").render(version).replace(APART, "") for version in (text, shown)
    ]
    assert rendered[0] == rendered[1]
    for kept in ("```mermaid\nxychart-beta\n", "```diff\n", "<details><summary>", "| --- |"):
        assert kept in shown
    chart = re.search(r"```mermaid\n.*?```", text, re.DOTALL)
    assert chart is not None
    assert chart[0] in shown


def test_a_pull_request_that_has_moved_on_gets_no_comment(bench: Bench) -> None:
    bench.server.pulls[0]["head"]["sha"] = "b" * 40
    assert bench.run()[0] == 0
    bench.server.pulls[0]["head"]["sha"] = SHA
    bench.server.pulls[0]["state"] = "closed"
    status, out, _ = bench.run()
    assert (status, out.startswith("nothing is posted: ")) == (0, True)
    assert writes(bench.server) == []


def test_a_fork_is_told_from_its_namesakes(bench: Bench) -> None:
    """The same branch and commit in three repositories; one has been deleted. No number was left."""
    bench.server.open_pull(20, SHA, fork="stranger/name")
    bench.server.open_pull(21, SHA, fork="stranger/other")
    bench.server.open_pull(22, SHA, fork="stranger/name")["head"]["repo"] = None
    (bench.folder / "artifact" / artifacts.PULL_REQUEST).unlink()
    bench.event["head_repository"] = {"full_name": "stranger/name", "owner": {"login": "stranger"}}
    assert bench.run()[0] == 0
    assert list(bench.server.comments) == [20]


def test_several_pull_requests_of_a_branch_need_the_number(bench: Bench) -> None:
    bench.server.open_pull(13, SHA)["base"]["ref"] = "other"
    bench.leave(REPORT, 13)
    assert bench.run()[0] == 0
    assert list(bench.server.comments) == [13]
    (bench.folder / "artifact" / artifacts.PULL_REQUEST).unlink()
    bench.refused("12, 13")


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
    either.event["conclusion"] = "failure"
    either.server.jobs[77] = jobs(either.server)
    if left is None:
        shutil.rmtree(either.folder / "artifact")
    assert either.run()[0] == 0
    (body,) = either.posted()
    assert body.startswith("## ❌ The run ended in: failure\n\n- [pipeline](")
    assert f"[pipeline]({either.server.url}/job/pipe), in step Train\n" in body
    assert "and 132 more" in body
    assert "lint" not in body
    assert "\n# Title" not in body
    assert "@everyone" not in body
    assert "<img" not in body
    assert "www.evil" not in body
    assert ("Accepted: toy" in body) == (left is not None)
    assert ("has left no report" in body) == (left is None)


def test_a_verdict_does_not_outlive_its_commit(bench: Bench) -> None:
    """A run that ends well without a report, as a fork's may that edits the workflow, takes the old report away."""
    bench.run()
    shutil.rmtree(bench.reports)
    assert bench.run()[0] == 0
    (body,) = bench.posted()
    assert body.startswith("## ❌ No report")
    assert "Accepted" not in body


@pytest.mark.parametrize("changes", [{"event": "push"}, {"conclusion": "action_required"}, {"head_repository": None}])
def test_nothing_is_posted_where_there_is_nothing_to_say(bench: Bench, changes: dict[str, Any]) -> None:
    bench.event |= changes
    status, out, _ = bench.run()
    assert (status, out.startswith("nothing is posted: ")) == (0, True)
    assert bench.server.calls == []


ECHO = {"message": "Bad token ghs_thisIsTheTokenOfTheTests0123456789", "errors": [{"message": "why"}]}


@pytest.mark.parametrize(
    ("status", "told"), [(401, "not valid"), (403, "pull-requests: write"), (404, "see"), (422, "why")]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refusal_is_told_in_one_line(bench: Bench, method: str, status: int, told: str) -> None:
    bench.server.refusals[method] = [(status, {}, ECHO)] * 9
    bench.refused(rf"^error: {method} https://127\S+: GitHub answers {status}, .*{told}")
    assert len(bench.server.refusals[method]) == 8  # asked once


def test_what_passes_is_waited_for(bench: Bench) -> None:
    waits: list[float] = []
    bench.monkeypatch.setattr(github.time, "sleep", waits.append)
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}
    bench.server.refusals = {
        "GET": [(502, {}, {}), (503, {"Retry-After": "7"}, {}), (403, limit, {})],
        "POST": [(429, {"Retry-After": "60"}, {}), (403, {"Retry-After": "2"}, {})],
    }
    assert bench.run()[0] == 0
    assert waits == [0, 7, 0, 60, 2]
    assert len(bench.posted()) == 1


@pytest.mark.parametrize("refusals", [[(503, {}, {})] * 4, [(503, {"Retry-After": "61"}, {})]])
def test_it_does_not_wait_for_ever(bench: Bench, refusals: Any) -> None:
    bench.server.refusals["GET"] = refusals
    bench.refused("GitHub answers 503")


def test_a_comment_whose_making_was_not_answered_is_not_made_twice(bench: Bench) -> None:
    bench.server.late = True
    bench.server.refusals["POST"] = [(502, {}, {})]
    assert bench.run()[0] == 0
    assert len(bench.posted()) == 1
    assert writes(bench.server) == ["POST", "PATCH"]


def test_an_answer_that_never_comes_is_not_waited_for(bench: Bench) -> None:
    bench.monkeypatch.setattr(github, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench.monkeypatch.setenv("GITHUB_API_URL", f"https://127.0.0.1:{silent.getsockname()[1]}")
        bench.refused("had no answer: .*timed out")


def test_an_unknown_certificate_is_not_trusted(bench: Bench) -> None:
    bench.monkeypatch.delenv("SSL_CERT_FILE")
    bench.refused("(?i)certificate")
    assert bench.server.calls == []


def test_the_token_goes_to_no_other_host(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    with GitHub(tmp_path_factory.mktemp("other")) as other:
        both = bench.server.certificate.read_text() + other.certificate.read_text()
        bench.server.certificate.write_text(both)
        bench.server.refusals["GET"] = [(301, {"Location": f"{other.api}/repos/owner/name/pulls"}, {})]
        bench.refused("GitHub answers 301")
        assert other.calls == []


def test_a_renamed_repository_is_followed(bench: Bench) -> None:
    bench.server.refusals["GET"] = [(301, {"Location": f"{bench.server.api}/repos/owner/name/pulls"}, {})]
    assert bench.run()[0] == 0
    assert len(bench.posted()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", ""),
        ("GITHUB_TOKEN", "ghs_thisIsTheTokenOfTheTests0123456789\r\nX: y"),
        ("GITHUB_API_URL", "http://127.0.0.1"),
        ("GITHUB_SERVER_URL", "http://127.0.0.1"),
        ("GITHUB_REPOSITORY", "owner/name/../../user"),
    ],
)
def test_a_wrong_setting_is_named(bench: Bench, name: str, value: str) -> None:
    bench.monkeypatch.setenv(name, value)
    bench.refused(f"^error: {name}")
    assert bench.server.calls == []


def test_it_needs_nothing_that_is_installed(bench: Bench) -> None:
    """As in its job: the system's Python, of which -S hides what is installed, and an empty environment."""
    bench.run()
    command = [sys.executable, "-S", "-m", f"{PACKAGE}.comment", "--artifact", "artifact"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert bench.server.token not in done.stdout + done.stderr
    assert writes(bench.server) == ["POST", "PATCH"]


def test_a_person_posts_from_a_laptop(either: Bench) -> None:
    server = either.server
    server.tokens[server.token] = "maria"
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
    server.say(12, f"by CI\n\n{cml.mark(OLD)}", ACTIONS)

    for _ in range(2):
        assert either.run("--artifact", "artifact", "--pull-request", "12")[0] == 0
    theirs, mine = server.comments[12]
    assert (theirs["body"], theirs["user"]["login"]) == (f"by CI\n\n{cml.mark(OLD)}", ACTIONS)
    assert (mine["user"]["login"], cml.mark(commit) in mine["body"]) == ("maria", True)
    assert f"workspace at commit `{commit[:12]}`" in mine["body"]
    assert not home.exists()  # nothing of the user's is written, by CML neither

    assert "GitHub answers 404" in either.run("--pull-request", "99", "--artifact", "artifact")[2]
    assert "run `make report` first" in either.run("--pull-request", "12")[2]
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
    assert cml.MARK.search(text) is None  # CML adds it
    assert writes(bench.server) == []


def test_where_cml_fails_the_comment_is_posted_all_the_same(either: Bench) -> None:
    either.server.refusals["POST"] = [(403, {}, {"message": "Not for CML"})]
    if not shutil.which("cml"):
        either.refused("Not for CML")
        return
    status, _, error = either.run()
    assert (status, error) == (0, "cml ended with status 1: Not for CML; going on without it\n")
    assert len(either.posted()) == 1


def test_a_comment_that_cml_made_before_it_failed_is_edited(bench: Bench) -> None:
    address = f"{bench.server.api}/repos/owner/name/issues/12/comments"
    stub(
        bench,
        "from urllib.request import Request, urlopen\n"
        f"body = {{'body': {f'by CML{chr(10)}{cml.mark(SHA)}'!r}}}\n"
        "headers = {'Authorization': 'token ' + os.environ['REPO_TOKEN']}\n"
        f"urlopen(Request({address!r}, json.dumps(body).encode(), headers)).close()\n"
        "print('token', os.environ['REPO_TOKEN'], '##[error]', file=sys.stderr)\n"
        "sys.exit(3)\n",
    )
    status, _, error = bench.run()
    assert (status, error) == (0, "cml ended with status 3: token *** ## [error]; going on without it\n")
    (body,) = bench.posted()
    assert "Accepted: toy" in body
    assert writes(bench.server) == ["POST", "PATCH"]
