"""What a repository's life costs on GitHub: trainings, runs, jobs, and minutes, of which each job is one at least.

    .venv/dev/bin/python benchmarks/runs.py [--real] [STORY ...]

The workflows' own steps are run by the stand-in for GitHub of the tests. On the small project every job is one minute,
which is the floor. With --real the default project is taken: its commands run on this machine, so the minutes are this
machine's; it takes half an hour. Packages come from this machine's caches, and no image is built.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from projects import generate  # noqa: E402
from workflow_project import small_project  # noqa: E402
from workflow_real import real_project  # noqa: E402
from workflow_stories import STORIES, tell  # noqa: E402


def main() -> None:
    """Print a Markdown table, one line a story, as they come."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--real", action="store_true", help="run the real commands")
    parser.add_argument("stories", nargs="*", metavar="STORY", help=f"of {', '.join(STORIES)}")
    options = parser.parse_args()
    for name in ("AUTHOR", "COMMITTER"):
        os.environ |= {f"GIT_{name}_NAME": "Benchmark", f"GIT_{name}_EMAIL": "benchmark@example.org"}
    print("| story | trainings | runs | jobs | minutes |\n| --- | ---: | ---: | ---: | ---: |", flush=True)
    for story in options.stories or STORIES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            generated = generate(folder / "generated")
            start = real_project if options.real else small_project
            with start(folder / "repository", generated) as project:
                project.set_up()
                project.push("main")
                project.deliver()
                project.trainings()
                cost = tell(story, project, folder)
        print(f"| {story} | {cost.trainings} | {cost.runs} | {cost.jobs} | {cost.minutes} |", flush=True)


if __name__ == "__main__":
    main()
