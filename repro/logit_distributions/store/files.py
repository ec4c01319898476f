"""How a file comes into being whole or not at all; the registry of their hashes."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logit_distributions.errors import ReproError, brief
from logit_distributions.store import places

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

REGISTRY, LOCK = "SHA256SUMS", ".lock"

PROBE = 1 << 20
"""Bytes for which there must be room if a disk is not to count as full."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there only if the block succeeds.

    The bytes are on disk before the rename, so a reader, or the next start after a
    crash, sees the old file or the new one and never a part. What a killed process leaves
    behind ends in ``.part``, so that no pattern takes it for a result.

    Raises
    ------
    ReproError
        If the block fails otherwise than by one: `path` could not be written, and why.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mode = temporary.stat().st_mode & 0o777  # by the umask; a writer may put a file of its own
        try:
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        except Exception as error:
            _check_room(temporary, error)
            raise
        finally:
            temporary.unlink(missing_ok=True)
    except ReproError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {brief(error)}"
        raise ReproError(f"{path}: could not be written: {reason}") from error


def _check_room(temporary: Path, error: Exception) -> None:
    """Raise an OSError of its own if what failed as `error` is that the disk is full.

    The libraries behind netCDF, safetensors and PNG each have other words for it: "Permission
    denied" of the first.
    """
    if not isinstance(error, ReproError):
        with temporary.open("ab") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def locked(
    path: Path, what: str = "", check: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock on a file against other processes; those that wait say once for what.

    Parameters
    ----------
    path : Path
        Made if need be, and left there. A file, not a folder, so that the nodes of a network file
        system see each other's locks.
    what : str
        For what others wait, in words.
    check : callable, optional
        Called every second of waiting with those words; may raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        said = False
        while not _lock(handle, path):
            if what and not said:
                print(f"logitdist: waits for another process: {what}", file=sys.stderr, flush=True)
                said = True
            if check is not None:
                check(what)
            time.sleep(1 if what else 0.05)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> bool:
    """Take a lock that nobody holds; go on without one where the file system has none."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        print(
            f"logitdist: warning: {path.parent}: this file system has no locks "
            f"({error.strerror}); let one process at a time work here",
            file=sys.stderr,
        )
    return True


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def registered() -> dict[str, str]:
    """Return the SHA-256 of every file that the registry of the data folder lists, by name.

    As ``sha256sum`` writes it, in text mode (two spaces) or binary mode (a space and a star).

    Raises
    ------
    ReproError
        If a line is none of these.
    """
    file = places.data() / REGISTRY
    if not file.exists():
        return {}
    entries = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if match is None:
            raise ReproError(
                f"{file}: expected lines of a SHA-256, two spaces and a name, got {line[:80]!r}; "
                "likely damaged: restore it, or delete it and 'logitdist make' enters anew what "
                "it checks"
            )
        entries[match[2]] = match[1]
    return entries


def registry(path: Path) -> str | None:
    """Return the SHA-256 that the registry of the data folder lists for a file in it, if any.

    Registries of other folders, above or beside, never count.
    """
    name = places.name_in_data(path)
    return None if name is None else registered().get(name)


def replaced(path: Path) -> str | None:
    """Return in one line that a stored file is not the one in the registry, if it is not."""
    listed = registry(path)
    if listed is None or (got := sha256(path)) == listed:
        return None
    return (
        f"expected SHA-256 {listed} as in {REGISTRY}, got {got}; likely damaged, or changed "
        "without 'logitdist' knowing"
    )


def hold_to_registry(path: Path) -> None:
    """Refuse a stored file that is not the one in the registry.

    Raises
    ------
    ReproError
    """
    if fault := replaced(path):
        raise ReproError(f"{path}: {fault}")


@contextmanager
def registering(path: Path) -> Iterator[None]:
    """Enter a stored file in the registry of the data folder once the block has written it.

    The old entry is taken out first, so that a kill at any moment leaves either no entry
    or the right one. The format is that of ``sha256sum``: in the data folder,
    ``sha256sum -c SHA256SUMS`` checks every file.
    """
    _set_entry(path, None)
    yield
    _set_entry(path, sha256(path))


def _set_entry(path: Path, digest: str | None) -> None:
    file = places.data() / REGISTRY
    name = places.name_in_data(path)
    assert name is not None, path
    with locked(file.with_name(LOCK)):
        entries = registered()
        if entries.get(name) == digest:
            return
        entries.pop(name, None)
        if digest is not None:
            entries[name] = digest
        with atomic(file) as temporary:
            temporary.write_text(
                "".join(f"{entries[n]}  {n}\n" for n in sorted(entries)), encoding="utf-8"
            )


def resume(path: Path, key: str) -> dict[str, NDArray[Any]] | None:
    """Return what a killed call left at `path`; None if nothing, or of other settings."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            saved = {name: file[name] for name in file.files}
        return saved if str(saved["key"]) == key else None
    except Exception as error:
        raise ReproError(
            f"{path}: expected the finished part of a run, got something unreadable "
            f"({type(error).__name__}); likely damaged: delete it to begin anew"
        ) from error


def keep(path: Path, key: str, **arrays: Any) -> None:
    """Write what an unfinished stage has so far, for `resume` with the same key."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, key=np.array(key), **arrays)
