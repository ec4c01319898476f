"""The one exception whose message is meant for the person at the keyboard."""

from __future__ import annotations


class ReproError(Exception):
    """Something the user can mend; the message says what was expected, got, and likely why."""
