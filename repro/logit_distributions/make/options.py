"""A limit on wall time, so that a run stops where it can go on, not where it is killed."""

from __future__ import annotations

import time

from logit_distributions.errors import ReproError


class OutOfTime(ReproError):
    """The budget is spent; all that was done is saved, and the same command goes on."""


class Budget:
    """Seconds that may pass from now on.

    Parameters
    ----------
    seconds : float, optional
        Default: no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.end = None if seconds is None else time.monotonic() + seconds

    @property
    def spent(self) -> bool:
        """Whether the time is over."""
        return self.end is not None and time.monotonic() >= self.end

    def check(self, what: str) -> None:
        """Refuse to begin `what` once the time is over.

        Raises
        ------
        OutOfTime
        """
        if self.spent:
            raise OutOfTime(
                f"the budget of {self.seconds:,.0f} s is spent; next comes {what}; the same "
                "command goes on there"
            )
