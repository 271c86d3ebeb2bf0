"""The addresses that settings name, which are fsspec's: a path, or `s3://`, `gs://`, `abfs://` and others.

For those the environment must have fsspec's library, as it has for the cloud of the DVC remote. Credentials come from
where that library looks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gitops.core.artifacts import ProjectError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow import fs as pafs

#: Ends of the names of tables.
PARQUET = ".parquet"
SUFFIXES = (".csv", ".csv.gz", PARQUET)


def locate(setting: str, address: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of an address and the path there. Raises ProjectError naming the setting."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        return filesystem, str(path)
    except (ImportError, ValueError, OSError) as error:
        raise ProjectError(f"{setting} is {address!r}: there is no way to it ({error})") from error


@contextmanager
def reached(setting: str, address: str) -> Iterator[None]:
    """Whatever goes wrong at an address is a ProjectError that names the setting."""
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # each cloud's library has errors of its own, and so has each kind of file
        raise ProjectError(f"{setting} is {address!r}, which cannot be used: {error}") from error


def suffix(setting: str, address: str) -> str:
    """Return which of SUFFIXES the address ends in. Raises ProjectError naming the setting where it is none."""
    for known in SUFFIXES:
        if address.endswith(known):
            return known
    raise ProjectError(f"{setting} is {address!r}: a name that ends in {', '.join(SUFFIXES)} is needed")


def arrow_filesystem(filesystem: AbstractFileSystem) -> pafs.FileSystem:
    """Return the file system as pyarrow takes it: its own for local files, which needs no Python to read."""
    from fsspec.implementations.local import LocalFileSystem
    from pyarrow import fs as pafs

    if isinstance(filesystem, LocalFileSystem):
        return pafs.LocalFileSystem()
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
