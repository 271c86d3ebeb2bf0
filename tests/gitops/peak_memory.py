"""The peak of a process's own resident memory, for programs that tests start."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak() -> int:
    """Return bytes. On Linux not by getrusage, whose peak begins with that of the process that started this one."""
    if STATUS.exists():
        (found,) = re.findall(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
        return int(found) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
