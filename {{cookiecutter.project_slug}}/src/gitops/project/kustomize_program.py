"""kustomize, fetched from its release where neither it nor kubectl is on PATH."""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
import sys
import tarfile
import urllib.request

from gitops.project.uv import VENV

KUSTOMIZE = "5.8.1"
KUSTOMIZE_URL = (
    "https://github.com/kubernetes-sigs/kustomize/releases/download/kustomize%2Fv{0}/kustomize_v{0}_{1}.tar.gz"
)
KUSTOMIZE_SHA256 = {  # from the release's checksums.txt
    "linux_amd64": "029a7f0f4e1932c52a0476cf02a0fd855c0bb85694b82c338fc648dcb53a819d",
    "linux_arm64": "0953ea3e476f66d6ddfcd911d750f5167b9365aa9491b2326398e289fef2c142",
    "darwin_amd64": "ee7cf0c1e3592aa7bb66ba82b359933a95e7f2e0b36e5f53ed0a4535b017f2f8",
    "darwin_arm64": "8886f8a78474e608cc81234f729fda188a9767da23e28925802f00ece2bab288",
}


def set_up() -> None:
    """Fetch kustomize to .venv/bin, where neither it nor kubectl is on PATH."""
    program = VENV / "bin" / "kustomize"
    if shutil.which("kustomize") or shutil.which("kubectl") or shutil.which(program):
        return
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = f"{platform.system().lower()}_{machine}"
    if system not in KUSTOMIZE_SHA256:
        sys.exit(f"error: kustomize has no pinned release for {system}: install kubectl or kustomize")
    url = KUSTOMIZE_URL.format(KUSTOMIZE, system)
    print(f"{program}: fetching {url}", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            archive = answer.read()
    except OSError as error:
        sys.exit(f"error: {url} cannot be fetched ({error}): install kubectl or kustomize, or try again")
    found = hashlib.sha256(archive).hexdigest()
    if found != KUSTOMIZE_SHA256[system]:
        sys.exit(f"error: {url} has sha256 {found}, not {KUSTOMIZE_SHA256[system]} as released: it is not installed")
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        content = members.extractfile("kustomize")
        if content is None:
            sys.exit(f"error: {url} holds no file named kustomize")
        program.parent.mkdir(parents=True, exist_ok=True)
        draft = program.with_name(".kustomize")
        draft.write_bytes(content.read())
    draft.chmod(0o755)
    draft.replace(program)
