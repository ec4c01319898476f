"""Every location, once; and how a file comes into being whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logit_distributions.recipes import Recipe

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[2]


def data() -> Path:
    """Folder of the stored results (``REPRO_DATA``, by default ``data/`` of the checkout)."""
    return Path(os.environ.get("REPRO_DATA", ROOT / "data"))


def cache() -> Path:
    """Folder of images, rolling checkpoints and targets (``REPRO_CACHE``)."""
    default = Path.home() / ".cache" / "logit-distributions"
    return Path(os.environ.get("REPRO_CACHE", default))


def build() -> Path:
    """Folder that figures and tables are written to (``REPRO_BUILD``)."""
    return Path(os.environ.get("REPRO_BUILD", ROOT / "build"))


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Folder of the checkpoints of a run, in the cache."""
    return cache() / "runs" / recipe.run(seed)


def epoch_file(recipe: Recipe, seed: int, epoch: int) -> Path:
    """Path of the checkpoint after `epoch` epochs."""
    return run_folder(recipe, seed) / f"epoch-{epoch:03d}.safetensors"


def rolling_file(recipe: Recipe, seed: int) -> Path:
    """Path of the checkpoint that a killed run resumes from."""
    return run_folder(recipe, seed) / "rolling.safetensors"


def given_file(name: str) -> Path:
    """Path of a network that was given under this name, in the cache."""
    return cache() / "given" / f"{name}.safetensors"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there only if the block succeeds.

    The bytes are on disk before the rename, so a reader, or the next start after a
    crash, sees the old file or the new one and never a part. What a killed process leaves
    behind ends in ``.part``, so that no pattern takes it for a result.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on `folder` against other processes, where the system has such locks."""
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
