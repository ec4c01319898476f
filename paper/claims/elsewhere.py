"""Section 4.1 on other networks: its claims on one robust or standard network, on any dataset."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from logit_distributions import recipes, store
from paper.claims import terms
from paper.claims.verdicts import UNDECIDED, Claim, number, placed, register

SECTION = "4.1"

OF_LOGITS = (
    "natural", "robust", "robust_within", "mean", "skewness", "above", "below", "first_bin",
    "errors_at",
)  # fmt: skip
"""Terms that need no more than a network's logits on images, with the verdicts."""


def network(claim: Claim) -> str | None:
    """Return the one network of which a claim speaks, ``"at"`` or ``"st"``; else None.

    None, too, where its measure needs more than one dataset of logits.
    """
    if claim.measure is None or SECTION not in claim.place or claim.dataset != "cifar10":
        return None
    tree = ast.parse(claim.measure, mode="eval")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    options = {keyword.arg for node in calls for keyword in node.keywords}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    teachers = [name for name in recipes.TEACHERS if name in texts]
    alone = len(teachers) == 1 and not texts & ({*recipes.NAMES} - {*teachers})
    plain = names <= {*OF_LOGITS, *terms.COMBINATIONS} and not options & {"epoch", "engine"}
    return teachers[0] if alone and plain else None


def claims() -> list[Claim]:
    """Return the claims that speak of one network's logits."""
    return [claim for claim in register() if network(claim)]


def lines(files: Sequence[Path]) -> Iterator[str]:
    """Yield, for each file, a line for each of these claims: number, interval, verdict, rule.

    Raises
    ------
    ReproError
        If a file is no dataset of logits.
    """
    for file in files:
        data = store.open_dataset(file, "logits")
        yield f"{data.attrs['run']} ({file}; {data.sizes['sample']:,} images)"
        for claim in claims():
            name = network(claim)
            assert claim.measure is not None
            assert name is not None
            if "robust" not in data and "robust" in claim.measure:
                yield f"  {claim.id:24s} not judged: the dataset has no verdicts under attack"
                continue
            estimate = terms.evaluate_on(claim.measure, name, data)
            low, high = estimate.interval
            known = np.isfinite([estimate.mean, low, high]).all()
            verdict = placed(claim, [(estimate.mean,) * 2, (low, high)]) if known else UNDECIDED
            value = f"{number(estimate.mean)} [{number(low)}, {number(high)}] {claim.unit}"
            of = {"at": "of a robust network", "st": "of a standard one"}[name]
            yield f"  {claim.id:24s} {value:34s} {verdict}: {claim.rule} ({of})"
            yield f"    “{claim.quotation}”"
    yield "95 % interval for the images, none for another training; the paper speaks of its own AT."
