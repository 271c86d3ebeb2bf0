"""A repository whose environment holds torch, and indexes on this machine: PyPI's, a company's, PyTorch's own."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None: ...


class World:
    """A repository with the environment `tiny`, which holds torch and another package, and indexes on this machine."""

    def __init__(self, environments: ModuleType, folder: Path) -> None:
        self.environments, self.folder = environments, folder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder / "www")))
        self.hashes = {"other": self.add("pypi", "other", "1.0")}
        (folder / "requirements").mkdir()
        (folder / "requirements/tiny.in").write_text("torch\n")

    def address(self, index: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{index}"

    def add(self, index: str, name: str, version: str) -> str:
        """Add a package to an index, and return its wheel's sha256."""
        page = self.folder / "www" / index / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        path = wheel(page.parent, name, version)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with page.open("a") as file:
            file.write(f'<a href="{path.name.replace("+", "%2B")}#sha256={digest}">{path.name}</a>\n')
        return digest

    def lock(self, builds: str, *hashes: str) -> None:
        lines = [self.environments.locks.digest_line("tiny"), f"other==1.0 --hash=sha256:{self.hashes['other']}"]
        lines += [" \\\n    ".join(["torch==2.13.0", *(f"--hash=sha256:{digest}" for digest in hashes)])]
        lines += [f"    # hashes of the builds {builds}"] * bool(builds)
        (self.folder / "requirements/tiny.txt").write_text("\n".join(lines) + "\n")

    def set_up(self) -> str:
        """Make the environment anew, and return torch's version in it."""
        shutil.rmtree(self.folder / ".venv/tiny", ignore_errors=True)
        self.environments.torch_source.find_torch.cache_clear()
        self.environments.set_up("tiny")
        return self.installed()["torch"]

    def installed(self) -> dict[str, str]:
        packages = self.folder.glob(".venv/tiny/lib/python*/site-packages/*.dist-info")
        return dict(path.stem.split("-")[:2] for path in packages)


def wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any") -> Path:
    """Write a wheel with nothing in it, which torch's asks for another package besides."""
    path, info = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    needs = "Requires-Dist: other\n" if name == "torch" else ""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{info}/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD")))
    return path


class PyTorch(Handler):
    """Stands for a proxy and, behind it, for download.pytorch.org: serves the folder, by HTTPS with `context`."""

    context: ssl.SSLContext
    refuses = False

    def do_CONNECT(self) -> None:
        assert self.path == "download.pytorch.org:443"
        self.send_response(200)
        self.end_headers()
        self.request = self.context.wrap_socket(self.connection, server_side=True)
        self.setup()
        self.close_connection = False

    def do_GET(self) -> None:
        if self.refuses:
            self.send_error(403)
        else:
            super().do_GET()
