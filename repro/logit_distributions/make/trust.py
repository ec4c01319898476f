"""Whose code runs: a given network's only if this user named it on this machine.

A file of weights that came from elsewhere, in a tar of results or a shared cache, says which
function makes its network; importing and calling that function would run whatever it names.
"""

from __future__ import annotations

import os
from pathlib import Path

from logit_distributions.errors import ReproError
from logit_distributions.store import files


def trust(factory: str, weights_sha256: str) -> None:
    """Remember that this user named a factory for these weights, outside of cache and data."""
    path = _adopted_file()
    lines = set(_adopted()) | {f"{weights_sha256}  {factory}"}
    with files.atomic(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")


def check_trusted(factory: str, weights_sha256: str) -> None:
    """Refuse a factory that was not named for these weights, before anything of it is imported.

    Raises
    ------
    ReproError
    """
    if f"{weights_sha256}  {factory}" not in _adopted():
        raise ReproError(
            f"a given network names the code {factory!r}, which nobody adopted on this machine; "
            "if you trust it, 'logitdist adopt NAME --checkpoint FILE --model "
            f"{factory}' lets it run"
        )


def _adopted() -> list[str]:
    path = _adopted_file()
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _adopted_file() -> Path:
    named = os.environ.get("XDG_STATE_HOME")
    try:
        folder = Path(named) if named else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise ReproError(
            "no home folder to remember adopted networks in; name one in XDG_STATE_HOME"
        ) from error
    return folder / "logit-distributions" / "adopted"
