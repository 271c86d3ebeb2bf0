"""With NO_SKIPS a test that did not run is red; without it pytest says why it was skipped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SKIPPED = {
    "marked": "import pytest\n\n@pytest.mark.skipif(True, reason='no database')\ndef test_it(): pass\n",
    "called": "import pytest\n\ndef test_it(): pytest.skip('no database')\n",
    "fixture": "import pytest\n\n@pytest.fixture\ndef it(): pytest.skip('no database')\n\ndef test_it(it): pass\n",
    "module": "import pytest\n\npytest.skip('no database', allow_module_level=True)\n",
}
RUN = "import pytest\n\ndef test_it(): pass\n\n@pytest.mark.xfail\ndef test_known(): assert False\n"


def outcome(folder: Path, test: str, *options: str, **environment: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(test)
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_SKIPS", "PYTEST_ADDOPTS")}
    command = [sys.executable, "-m", "pytest", "-p", "no_skips", "-rs", "-c", "/dev/null", *options, str(folder)]
    done = subprocess.run(
        command, env=inherited | {"PYTHONPATH": str(HERE)} | environment, cwd=folder, capture_output=True, text=True
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("how", SKIPPED)
def test_a_skipped_test_fails_where_all_have_to_run(tmp_path: Path, how: str) -> None:
    status, said = outcome(tmp_path, SKIPPED[how], "-n", "0", NO_SKIPS="1")
    assert status not in (0, 5), said
    assert re.search("did not run, and NO_SKIPS is set. .*no database", said)
    status, said = outcome(tmp_path, SKIPPED[how], "-n", "0")
    assert status in (0, 5), said
    assert re.search(r"SKIPPED \[1\] .*no database", said)


def test_it_fails_in_a_worker_too_and_what_ran_does_not(tmp_path: Path) -> None:
    status, said = outcome(tmp_path, SKIPPED["called"], "-n", "1", NO_SKIPS="1")
    assert status == 1, said
    status, said = outcome(tmp_path, RUN, "-n", "1", NO_SKIPS="1")
    assert status == 0, said


def test_these_tests_are_held_to_it(pytestconfig: pytest.Config) -> None:
    hooks = pytestconfig.hook.pytest_runtest_makereport.get_hookimpls()
    assert any(hook.function.__module__ == "no_skips" for hook in hooks)
