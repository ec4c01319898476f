"""Every rule that compares two networks, judged where there is nothing to find, or the reverse.

A placebo has both roles filled by different seeds of one recipe. A rule that holds on all of
them, or with the roles exchanged as well, does not discriminate. Of most others some placebos hold,
because two trainings differ by more than the noise of images: a verdict needs every seed to agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from logit_distributions import recipes, store
from paper.claims.terms import Estimate, Role, Unsuitable, evaluate
from paper.claims.verdicts import Claim, Verdict, Window

NETWORK = r'(?<!epoch=)"([\w-]+)"'
"""A name in a formula that may be a network's."""


@dataclass(frozen=True)
class Trial:
    """What becomes of a claim with other networks in its roles.

    Attributes
    ----------
    verdict : Verdict
        With the networks that the claim names.
    placebos, holding : int
        Trials with two seeds of one recipe, and those of them that would hold.
    exchanged : bool
        Whether it holds with the roles exchanged.
    """

    verdict: Verdict
    placebos: int
    holding: int
    exchanged: bool

    @property
    def discriminates(self) -> bool:
        """Whether some placebo does not hold, nor both the claim and its reverse."""
        both = self.exchanged and self.verdict.verdict.startswith("holds")
        return self.holding < self.placebos and not both

    @property
    def chance(self) -> float:
        """How likely as many independent pairs as the verdict has seeds would all hold."""
        return float((self.holding / self.placebos) ** len(self.verdict.seeds))


def roles(claim: Claim) -> tuple[str, str] | None:
    """Return the two networks that a formula compares on one data set, or None."""
    if claim.measure is None or "dataset=" in claim.measure:
        return None
    known = set(recipes.names(recipes.Scale.parse("paper")))
    quoted: list[str] = re.findall(NETWORK, claim.measure)
    names = list(dict.fromkeys(name for name in quoted if name in known))
    return (names[0], names[1]) if len(names) == 2 else None


def trial(verdict: Verdict) -> Trial | None:
    """Return a claim's trial at the scale of its verdict, or None where it has none.

    That is where it is not about two networks, or was not judged, or no recipe has seeds enough.
    """
    claim, scale = verdict.claim, verdict.scale
    pair = roles(claim)
    if pair is None or scale is None or not verdict.judged:
        return None
    assert claim.measure is not None
    results = []
    for recipe in pair:
        seeds = [int(d.attrs["seed"]) for d in store.find("logits", recipe, claim.dataset, scale)]
        for few, more in permutations(seeds, 2):
            others = tuple(seed for seed in seeds if seed != more)
            for first, second in (((few,), (more,)), (others, (more,)), ((more,), others)):
                parts = ((pair[0], recipe, first), (pair[1], recipe, second))
                estimate = _with(claim, scale, parts)
                if estimate is not None:
                    results.append(_holds(claim, estimate))
                    break
    if not results:
        return None
    swapped = evaluate(_exchanged(claim.measure, pair), claim.dataset, scale)
    return Trial(verdict, len(results), sum(results), _holds(claim, swapped))


def _with(claim: Claim, scale: str, parts: tuple[Role, ...]) -> Estimate | None:
    """Return a claim's measure with other networks in its roles, or None if there are too few."""
    try:
        estimate = evaluate(claim.measure or "", claim.dataset, scale, parts)
    except (store.Missing, Unsuitable):
        return None
    return estimate if np.isfinite([estimate.mean, *estimate.interval]).all() else None


def _exchanged(measure: str, pair: tuple[str, str]) -> str:
    other = dict(zip(pair, reversed(pair), strict=True))
    return re.sub(NETWORK, lambda name: f'"{other.get(name[1], name[1])}"', measure)


def _holds(claim: Claim, estimate: Estimate) -> bool:
    """Return whether every number is where the claim holds at least in direction."""
    window = Window.parse(claim.direction or claim.stated)
    numbers = [(value, value) for value in estimate.values.values()] + [estimate.interval]
    return all(window.holds(*each) for each in numbers)


def trials(verdicts: Sequence[Verdict]) -> list[Trial]:
    """Return the trial of every claim that has one."""
    return [each for each in map(trial, verdicts) if each is not None]


def by_chance(made: Sequence[Trial]) -> float:
    """Return how many of the claims would hold if there were nothing to find, on average."""
    return sum(each.chance for each in made)


def lines(made: Sequence[Trial]) -> Iterator[str]:
    """Yield what the placebos say, and every rule that does not discriminate."""
    yield (
        f"PLACEBO: {len(made)} rules compare two networks; {by_chance(made):.1f} of them would "
        "hold by chance, were all recipes one (the share of pairs of seeds of one recipe on which "
        "a rule holds, to the power of the verdict's seeds). Do not discriminate, as what says "
        "that two networks are alike cannot:"
    )
    for each in made:
        if not each.discriminates:
            both = "; holds with the roles exchanged too" if each.exchanged else ""
            yield (
                f"  {each.verdict.claim.id:32s} holds on {each.holding} of {each.placebos} "
                f"placebos{both} ({each.verdict.verdict})"
            )
