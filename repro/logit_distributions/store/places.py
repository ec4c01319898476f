"""Every location, once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from logit_distributions.errors import ReproError

ROOT = Path(__file__).resolve().parents[3]
"""The checkout, where this is one."""

_at: Path | None = None


@contextmanager
def at(folder: Path | None) -> Iterator[None]:
    """Let another folder be that of the stored results, unless it is None."""
    global _at
    before, _at = _at, folder or _at
    try:
        yield
    finally:
        _at = before


def data() -> Path:
    """Folder of the stored results: `at`, ``REPRO_DATA``, the checkout's ``data/``, ``./data``."""
    return _at or _named("REPRO_DATA", "data")


def build() -> Path:
    """Folder that figures and tables are written to: ``REPRO_BUILD``, or like `data`."""
    return _named("REPRO_BUILD", "build")


def _named(variable: str, name: str) -> Path:
    named = os.environ.get(variable)
    if named:
        return Path(named)
    return ROOT / name if (ROOT / "pyproject.toml").exists() else Path(name)


def cache() -> Path:
    """Folder of images, trainings and targets: ``REPRO_CACHE``, or one in the home folder.

    Raises
    ------
    ReproError
        If there is neither.
    """
    named = os.environ.get("REPRO_CACHE")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "logit-distributions"
    except RuntimeError as error:
        raise ReproError(
            "no home folder to keep images and trainings in; name one in REPRO_CACHE"
        ) from error


def brief(path: Path) -> Path:
    """Return a path as seen from the checkout, where it is inside."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def name_in_data(path: Path) -> str | None:
    """Return the name of a file as seen from the data folder, or None of a file outside.

    Links are followed, not resolved: what lies in a folder of the data is inside, be the folder a
    link to another disk.
    """
    for place, folder in (
        (Path(os.path.abspath(path)), Path(os.path.abspath(data()))),
        (path.resolve(), data().resolve()),  # where the data folder itself is reached by a link
    ):
        if place.is_relative_to(folder):
            return place.relative_to(folder).as_posix()
    return None


def path_of(kind: str, run: str) -> Path:
    """Path of a stored dataset by kind (a folder of the data) and run."""
    return data() / kind / f"{run}.nc"
