"""The one exception whose message is meant for the person at the keyboard."""

from __future__ import annotations


class ReproError(Exception):
    """Something the user can mend; the message says what was expected, got, and likely why."""


def brief(error: object) -> str:
    """Return the first line of what another library said, at most 160 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def not_installed(error: ImportError) -> ReproError:
    """Return the error of a command that needs what readers do not install."""
    return ReproError(
        f"this command needs {error.name}, which is not installed; "
        "install the extra 'train': pip install '.[train]'"
    )
