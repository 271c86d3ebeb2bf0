"""Clients that ask the service and that no file of the repository names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitops.debt.finding import CONSUMERS, Finding, found, unknown
from gitops.integrations import git

#: Where an owner would say who asks the service: what documents it, and what lets requests in.
DECLARED_IN = ("README.md", "docs", "k8s")


def find(consumers: dict[str, Any]) -> Iterator[Finding]:
    """Yield the clients of monitoring/consumers.json that no file of DECLARED_IN names as a word of its own."""
    if consumers["clients"] is None:
        yield unknown(CONSUMERS, "Who asks the service: there is no request log here; set REQUEST_LOG to where it lies")
        return
    texts = _texts()
    for client, requests in consumers["clients"].items():
        if not re.search(rf"(?<![\w.:-]){re.escape(client)}(?![\w:-]|\.\w)", texts):
            name = "Clients that send no X-Client-Id" if client == "unknown" else client
            text = (
                f"{name}: {requests} logged rows in {consumers['days']} days, and no file of {', '.join(DECLARED_IN)} "
                "names it: who would be told of a change of the model?"
            )
            yield found(CONSUMERS, text)


def _texts() -> str:
    """Return the text of all files in which a client may be declared, as the working tree has them."""
    names = git.run("ls-files", "-z", "--", *DECLARED_IN).split("\0")
    return "\n".join(Path(name).read_text("utf-8", "replace") for name in names if name and Path(name).is_file())
