"""Addresses in settings, as fsspec takes them: a path, or `s3://`, `gs://`, `abfs://` and others.

For a cloud the environment needs fsspec's library, which it has for the cloud of the DVC remote. That library finds the
credentials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gitops.core.artifacts import ProjectError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow import fs as pafs

#: Suffixes of tables.
PARQUET = ".parquet"
SUFFIXES = (".csv", ".csv.gz", PARQUET)


def locate(setting: str, address: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of an address and the path there. Raises ProjectError naming the setting."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        return filesystem, str(path)
    except (ImportError, ValueError, OSError) as error:
        lock = ': the package belongs into requirements/, then `make lock` (docs/system-design.md, "Addresses")'
        help_ = lock if isinstance(error, ImportError) else ""
        raise ProjectError(f"{setting} is {address!r}, which cannot be opened ({error}){help_}") from error


@contextmanager
def reached(setting: str, address: str) -> Iterator[None]:
    """Turn every error in the block into a ProjectError that names the setting."""
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:  # each cloud's library and each file format has its own errors
        raise ProjectError(f"{setting} is {address!r}, which cannot be used: {error}") from error


def suffix(setting: str, address: str) -> str:
    """Return the one of SUFFIXES in which the address ends. Raises ProjectError naming the setting if there is none."""
    for known in SUFFIXES:
        if address.endswith(known):
            return known
    raise ProjectError(f"{setting} is {address!r}: a name that ends in {', '.join(SUFFIXES)} is needed")


def arrow_filesystem(filesystem: AbstractFileSystem) -> pafs.FileSystem:
    """Return the file system in pyarrow's form: pyarrow's own for local files, which reads without Python."""
    from fsspec.implementations.local import LocalFileSystem
    from pyarrow import fs as pafs

    if isinstance(filesystem, LocalFileSystem):
        return pafs.LocalFileSystem()
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
