"""MLflow's address, and what is said where nothing useful answers there: one line, within seconds.

MLflow by itself asks again for minutes, a database for half an hour, and then shows a traceback.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gitops.core.artifacts import ProjectError
from gitops.core.console import one_line

VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_URI = "sqlite:///mlflow.db"

#: Seconds in which a server must begin to answer.
TIMEOUT = 5

#: Seconds before a server is asked a second time.
PAUSE = 2

#: Ports of databases, where an address names none.
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}

#: How MLflow says that it lacks a run; a server with accounts answers "forbidden" for a run that it does not have.
NO_SUCH_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED")

REMEDY = f"start that server, correct {VARIABLE}, or unset it to log to {DEFAULT_URI} here"


def uri() -> str:
    """Return MLflow's address as it is set, which may hold a password."""
    return os.environ.get(VARIABLE) or DEFAULT_URI


def address() -> str:
    """Return MLflow's address, without the user name and password that it may hold."""
    return re.sub(r"//[^/]*@", "//", uri())


def without_password() -> str:
    """Return the address for MLflow, which prints that of a server and writes it into files.

    User and password of a server go into MLflow's variables for them; a database's stay in its address.
    """
    found = re.fullmatch(r"(https?://)([^/:@]*):([^/]*)@(.*)", uri())
    if not found:
        return uri()
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = map(unquote, found.group(2, 3))
    return found[1] + found[4]


def bound_waiting() -> None:
    """Limit how long MLflow waits for a server: seven retries of two minutes by default. A user's values stay."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


@contextmanager
def errors(remedy: str = REMEDY) -> Iterator[None]:
    """Turn MLflow's exceptions in the block into a ProjectError that names its address, without its password."""
    bound_waiting()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        why = f"request failed: {_reason(error)}"
        raise ProjectError(f"MLflow at {address()} ({VARIABLE}): {why}: {remedy}") from error


def problem() -> str | None:
    """Return why MLflow cannot be used at its address, or None; a few seconds at most, and none for SQLite.

    What only MLflow's client can tell, such as a plugin's way to sign in, is left to that: then this is None too.
    """
    try:
        parts = urlsplit(uri())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"{VARIABLE} is {address()}: {error}"
    kind = parts.scheme.partition("+")[0]
    why = None
    if kind == "sqlite":
        why = _no_file(uri().partition("///")[2].partition("?")[0])
    elif kind in ("http", "https") and (why := _no_server()):
        time.sleep(PAUSE)  # a server that is being replaced
        why = _no_server()
    elif kind in PORTS and host:
        why = _no_database(host, port or PORTS[kind])
    return f"MLflow at {address()} ({VARIABLE}) {why}: {REMEDY}" if why else None


def _no_server() -> str | None:
    import requests

    user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
    certificate = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    try:
        answer = requests.get(
            f"{uri().rstrip('/')}/api/2.0/mlflow/experiments/search",
            params={"max_results": "1"},
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None,
            verify=certificate or os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1"),
            timeout=TIMEOUT,
            stream=True,
        )
    except requests.exceptions.SSLError:
        return None  # MLflow's client has more settings for that
    except requests.exceptions.Timeout:
        return f"does not answer within {TIMEOUT} seconds"
    except requests.exceptions.RequestException as error:
        return f"cannot be reached ({_reason(error)})"
    with answer:
        signs_in = Path.home().joinpath(".mlflow/credentials").exists() or any(
            os.environ.get(name) for name in ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
        )
        if answer.status_code in (401, 403):
            if signs_in:
                return None
            wanted = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, must fit"
            return f"refuses the user, with status {answer.status_code} ({wanted})"
        if answer.status_code >= 500:
            return f"answers with status {answer.status_code}"
        if "html" in answer.headers.get("Content-Type", ""):
            return "answers with a page for people, as a login or another server does, and not as MLflow"
    return None


def _reason(error: BaseException) -> str:
    """Return what went wrong, on one line without a password; of a connection that failed only how."""
    text = str(error)
    for pattern, words in (
        (r"NameResolutionError|getaddrinfo", "its name does not resolve"),
        (r"Connection refused", "connection refused"),
        (r"Read timed out|ConnectTimeout", "it does not answer in time"),
    ):
        if re.search(pattern, text):
            return words
    return one_line(text.replace(uri(), address()))


def _no_database(host: str, port: int) -> str | None:
    """Return why the database cannot be used: MLflow would try for half an hour, with a wrong password too."""
    import sqlalchemy

    limits = {} if uri().startswith("mssql") else {"connect_timeout": TIMEOUT}
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
        engine = sqlalchemy.create_engine(uri(), connect_args=limits)
        engine.connect().close()
        engine.dispose()
    except (OSError, ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        return f"cannot be used ({_reason(error)})"
    return None


def _no_file(name: str) -> str | None:
    """Return why SQLite could not write the file: MLflow would try for half an hour."""
    path = Path(name)
    nearest = next((one for one in (path, *path.parents) if one.exists()), Path())
    if name and (nearest.is_dir() == (nearest == path) or not os.access(nearest, os.W_OK)):
        return f"cannot be written: {nearest} is no {'file' if nearest == path else 'folder'} that this user may write"
    return None
