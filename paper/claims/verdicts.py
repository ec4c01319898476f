"""Every claim of the paper against the stored datasets: the register, the rules, the verdicts.

The register is ``paper/claims.toml``; its head states the rules that `judge` applies.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from logit_distributions import store
from logit_distributions.errors import ReproError, brief
from paper import selection
from paper.claims.terms import Estimate, Unsuitable, evaluate

REGISTER = Path(__file__).parents[1] / "claims.toml"
SEEDS_OF_THE_PAPER = 3

VerdictName = Literal[
    "does not hold", "undecided", "holds in direction", "holds",
    "needs the paper's scale", "a file is missing", "not trained here",
]  # fmt: skip
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)
"""The unfavourable first, and last what is not judged."""
UNDECIDED, NEEDS_SCALE, MISSING, UNTRAINED = VERDICTS[1], *VERDICTS[4:]


@dataclass(frozen=True)
class Window:
    """A range of numbers, as the register writes it: ``> 0``, ``< 0.5`` or ``-1 to 1``."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read a window.

        Raises
        ------
        ReproError
            If the text is none.
        """
        number = r"(-?\d+(?:\.\d+)?)"
        if match := re.fullmatch(f"> {number}", text):
            return cls(float(match[1]), np.inf)
        if match := re.fullmatch(f"< {number}", text):
            return cls(-np.inf, float(match[1]))
        if match := re.fullmatch(f"{number} to {number}", text):
            return cls(float(match[1]), float(match[2]))
        raise ReproError(f"expected '> a', '< b' or 'a to b', got {text!r}")

    def holds(self, low: float, high: float) -> bool:
        """Return whether a whole interval is inside; a bound alone is not beyond itself."""
        if np.isinf(self.high) or np.isinf(self.low):
            return self.low < low and high < self.high
        return self.low <= low and high <= self.high

    def excludes(self, low: float, high: float) -> bool:
        """Return whether a whole interval is outside."""
        if np.isinf(self.high) or np.isinf(self.low):
            return high <= self.low or low >= self.high
        return high < self.low or low > self.high

    def distance(self, value: float) -> float:
        """Return how far a value is from the nearest bound."""
        return min(abs(value - bound) for bound in (self.low, self.high))


@dataclass(frozen=True)
class Claim:
    """An entry of the register; see the head of ``paper/claims.toml``."""

    id: str
    place: str
    quotation: str
    statistic: str
    artefact: str
    measure: str | None = None
    unit: str = ""
    stated: str = ""
    direction: str | None = None
    dataset: str = "cifar10"
    scale: str | None = None
    needs: str | None = None
    decision: str = ""
    fixed: Literal["before", "after"] = "before"
    because: str = ""
    untrained: bool = False

    @property
    def rule(self) -> str:
        """The decision rule in words."""
        if self.measure is None:
            return self.decision
        stated = f"as stated if {self.stated}"
        return f"{stated}, in direction if {self.direction}" if self.direction else stated


@dataclass(frozen=True)
class Verdict:
    """What becomes of a claim.

    Attributes
    ----------
    claim : Claim
    verdict : str
        One of `VERDICTS`.
    reason : str
        What decided: data that are missing, or what is short of the statement.
    value, low, high : float or None
        The measure, mean over seeds or pairs, and its interval.
    each : tuple of float
        The measure of each seed or pair.
    scale : str or None
        Of the data.
    seeds : tuple of int
    images : int
    points : tuple of int, optional
        How many points of a sweep are behind it, and how many the sweep has.
    clearness : float
        Distance from the rule's nearest bound, in half widths of the interval.
    short : bool
        Whether the data fall short of the statement, and not only of its scale.
    """

    claim: Claim
    verdict: VerdictName
    reason: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    each: tuple[float, ...] = ()
    scale: str | None = None
    seeds: tuple[int, ...] = ()
    images: int = 0
    points: tuple[int, int] | None = None
    clearness: float = 0.0
    short: bool = False

    @property
    def compared(self) -> bool:
        """Whether the measure was held against the rule."""
        return self.value is not None and self.verdict != NEEDS_SCALE

    @property
    def judged(self) -> bool:
        """Whether there are data that could have decided, undecided ones among them."""
        return self.verdict in VERDICTS[:4]

    @property
    def reach(self) -> float | None:
        """How far beyond a bound the value must be to be decided, with noise such as this."""
        if self.value is None or self.low is None or self.high is None:
            return None
        ends = (self.low, self.high, *self.each)
        reach = max(max(ends) - self.value, self.value - min(ends))
        return reach if np.isfinite(reach) and reach > 0 else None


def register() -> tuple[Claim, ...]:
    """Return every claim of the paper, in its order; as `read`."""
    return read(REGISTER)


@cache
def read(path: Path) -> tuple[Claim, ...]:
    """Return the claims that a register holds, in its order.

    Parameters
    ----------
    path : Path
        TOML, as the head of ``paper/claims.toml`` describes it.

    Raises
    ------
    ReproError
        If the register is no TOML, or an entry lacks a field or has an unknown one.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
    except (ValueError, KeyError) as error:
        raise ReproError(f"{path}: expected TOML with [[claim]] ({brief(error)})") from error
    return tuple(_entry(entry, path) for entry in entries)


def _entry(entry: dict[str, Any], path: Path) -> Claim:
    known = {field.name: field.default is dataclasses.MISSING for field in fields(Claim)}
    wrong = [f"unknown field {name!r}" for name in entry if name not in known]
    wrong += [f"no {name!r}" for name, needed in known.items() if needed and name not in entry]
    wrong += [
        f"{name} is no text" for name, text in entry.items() if not isinstance(text, str | bool)
    ]
    if wrong:
        raise ReproError(f"{path}: claim {entry.get('id')!r}: {'; '.join(wrong)}")
    return Claim(**entry)


def judge(claim: Claim) -> Verdict:
    """Judge a claim about networks by its measure on the stored datasets.

    Data of the paper's scale are taken where there are any; of the others those of the scale
    that readers prefer, unless a less preferred one has more seeds, or as many and a larger part
    of a sweep. Scales are never mixed.
    """
    assert claim.measure is not None
    if claim.untrained:
        return Verdict(claim, UNTRAINED, f"needs {claim.needs}")
    chosen: tuple[str, Estimate] | None = None
    reasons = []
    for scale in selection.scales():
        try:
            estimate = evaluate(claim.measure, claim.dataset, scale)
        except (store.Missing, Unsuitable) as error:
            reasons.append(str(error))
            continue
        if scale == "paper":
            return _decide(claim, estimate, scale)
        if chosen is None or _amount(estimate) > _amount(chosen[1]):
            chosen = scale, estimate
    if claim.scale == "paper":
        reason = f"{claim.needs}: {reasons[0]}"
        if chosen is None:
            return Verdict(claim, NEEDS_SCALE, reason)
        return _verdict(claim, NEEDS_SCALE, reason, chosen[1], chosen[0])
    if chosen is None:
        return Verdict(claim, MISSING, reasons[-1])
    return _decide(claim, chosen[1], chosen[0])


def _amount(estimate: Estimate) -> tuple[int, float]:
    """Return how many seeds there are, and which share of the points of a sweep."""
    stored, planned = estimate.points or (1, 1)
    return len(estimate.seeds), stored / planned


def _decide(claim: Claim, estimate: Estimate, scale: str) -> Verdict:
    stated = Window.parse(claim.stated)
    direction = Window.parse(claim.direction or claim.stated)
    if not np.isfinite([estimate.mean, *estimate.interval]).all():
        return _verdict(claim, UNDECIDED, "the measure is not a number", estimate, scale)
    if not estimate.repeated:
        reason = "one pair of trainings, and nothing to tell how far another would be"
        return _verdict(claim, UNDECIDED, reason, estimate, scale)
    low, high = estimate.interval
    numbers = [(value, value) for value in estimate.values.values()] + [(low, high)]
    where = placed(claim, numbers)
    if where == "holds":
        lacking = []
        if scale != "paper":
            lacking.append(f"the data are of the {scale} scale")
        if len(estimate.seeds) < SEEDS_OF_THE_PAPER:
            lacking.append(f"{len(estimate.seeds)} of {SEEDS_OF_THE_PAPER} seeds")
        verdict: VerdictName = "holds in direction" if lacking else "holds"
        return _verdict(claim, verdict, "as stated" + _but(lacking), estimate, scale, stated)
    if where == "holds in direction":
        reason = f"weaker than stated: {claim.stated}"
        weaker = _verdict(claim, "holds in direction", reason, estimate, scale, stated)
        return replace(weaker, short=True)
    if where == "does not hold":
        reason = f"not {claim.direction or claim.stated}, at the {scale} scale"
        return _verdict(claim, "does not hold", reason, estimate, scale, direction)
    reason = f"seeds or interval on both sides of {claim.direction or claim.stated}"
    undecided = _verdict(claim, UNDECIDED, reason, estimate, scale)
    if undecided.reach is None:
        return undecided
    unit = f" {claim.unit}" if claim.unit else ""
    shown = f"{number(undecided.reach)}{unit} beyond it would have been the smallest to decide"
    return replace(undecided, reason=f"{reason}; {shown}")


def placed(claim: Claim, numbers: Sequence[tuple[float, float]]) -> VerdictName:
    """Return where intervals lie by a claim's rule, whatever networks they are of."""
    stated = Window.parse(claim.stated)
    direction = Window.parse(claim.direction or claim.stated)
    if all(stated.holds(*each) for each in numbers):
        return "holds"
    if all(direction.holds(*each) for each in numbers):
        return "holds in direction"
    if all(direction.excludes(*each) for each in numbers):
        return "does not hold"
    return "undecided"


def _but(lacking: Sequence[str]) -> str:
    return f", but {' and '.join(lacking)}" if lacking else ""


def _verdict(
    claim: Claim,
    verdict: VerdictName,
    reason: str,
    estimate: Estimate,
    scale: str,
    window: Window | None = None,
) -> Verdict:
    low, high = estimate.interval
    half = max((high - low) / 2, 1e-9)
    return Verdict(
        claim,
        verdict,
        reason,
        value=estimate.mean,
        low=low,
        high=high,
        each=tuple(estimate.values.values()),
        scale=scale,
        seeds=estimate.seeds,
        images=estimate.images,
        points=estimate.points,
        clearness=0.0 if window is None else window.distance(estimate.mean) / half,
    )


def basis(verdict: Verdict) -> str:
    """Return the data behind a verdict in words: scale, seeds, images, points of a sweep."""
    parts = [f"scale {verdict.scale}"]
    if verdict.seeds:
        plural = "s" * (len(verdict.seeds) > 1)
        parts.append(f"seed{plural} {', '.join(map(str, verdict.seeds))}")
    if verdict.images:
        parts.append(f"{verdict.images:,} images")
    if verdict.points:
        parts.append(f"{verdict.points[0]} of {verdict.points[1]} points")
    if len(verdict.seeds) == 1 and verdict.low != verdict.high:
        parts.append("interval with another training of each network")
    return "; ".join(parts)


def number(value: float) -> str:
    """Return a number with three significant digits, at least to the unit."""
    digits = 3 if abs(value) < 1000 else 4
    return f"{value:.{digits}g}".replace("e-0", "e-")


def measured(verdict: Verdict) -> str:
    """Return the value with its interval and unit, or nothing."""
    if verdict.value is None or verdict.low is None or verdict.high is None:
        return ""
    unit = f" {verdict.claim.unit}" if verdict.claim.unit else ""
    return f"{number(verdict.value)} [{number(verdict.low)}, {number(verdict.high)}]{unit}"
