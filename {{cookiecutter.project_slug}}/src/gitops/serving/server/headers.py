"""What the headers of a request say. The proxy sets them; TorchServe passes on neither path nor query.

================ ==================================================================================================
header           says
================ ==================================================================================================
X-Request-Id     the request's id in the log and in the answer: the client's, or one that the proxy has made
X-Client-Id      who sent it: what a gateway says, or the address of the connection
X-Query          the raw query string
X-Protocol       `v2`: the body is one of the Open Inference Protocol
X-Model-Version  the version in the path, if it names one; another one than the server's is refused
================ ==================================================================================================

Names come in any case: HTTP/1 proxies write them in lower case, clients that ask TorchServe itself as they like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from gitops.serving.server.request_log import FLUSH

REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

#: An id, or an address.
CLIENT = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

#: Characters of a refused value that are shown.
SHOWN = 60


@dataclass(frozen=True)
class Headers:
    """What a request's headers say: an empty text where they say nothing, or nothing valid."""

    request_id: str
    client: str = ""
    query: str = ""
    open_inference: bool = False
    version: str = ""


def read(context: Any, index: int) -> Headers:
    """Return what the headers of a batch's request say. Without a valid id it gets TorchServe's own, a UUID."""
    sent = context.get_all_request_header(index).items()
    found = {name.lower(): value for name, value in sent if isinstance(value, str)}
    request_id, client = found.get("x-request-id", ""), found.get("x-client-id", "")
    return Headers(
        request_id if request_id == FLUSH or REQUEST_ID.fullmatch(request_id) else str(context.get_request_id(index)),
        client if CLIENT.fullmatch(client) else "",
        found.get("x-query", ""),
        found.get("x-protocol") == "v2",
        found.get("x-model-version", ""),
    )


def explains(query: str) -> bool:
    """Tell whether a query asks for explanations, `explain=true`. Other parameters are ignored.

    Raises ValueError, with what would be right, for another value than true or false, and for both.
    """
    if not query:
        return False
    given = {value for name, value in parse_qsl(query, keep_blank_values=True) if name == "explain"}
    if len(given) > 1 or not given <= {"true", "false"}:
        shown = " and ".join(repr(value[:SHOWN]) for value in sorted(given)[:2])
        raise ValueError(f"the parameter explain is {shown}: true or false is expected")
    return given == {"true"}
