"""Mean-field theory held against simulation and conic geometry, on stored and known manifolds.

``python -m paper.audit`` prints it; the rule of a row's comparison is in `read.capacity`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions import store
from logit_distributions.errors import ReproError, not_installed
from logit_distributions.jobs import Job
from logit_distributions.read import capacity
from logit_distributions.read.capacity import (
    SIMULATED_LAYERS,
    Row,
    estimates,
    glue_table,
    heading,
    row,
    rows,
    table,
)
from logit_distributions.recipes import CAPACITY_STAGES, Manifolds, recipe
from paper import exit_code, parser_of, selection

Array = NDArray[np.float64]

RECOMPUTED = (Job("checkpoint", recipe("at", "medium"), 0), "layer2.1")
"""A run whose weights are stored, and a layer that is seen through the projection."""


# Manifolds with known answers


def ellipsoids(
    count: int,
    points: int,
    axes: Sequence[float],
    rank: int = 0,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return points on ellipsoids around centres of length one in random directions.

    Parameters
    ----------
    count, points : int
        P and M.
    axes : sequence of float
        Half axes; none for points.
    rank : int
        If positive, nine tenths of the centres' squared length lie in a common subspace of so
        many dimensions.
    seed : int

    Returns
    -------
    ndarray, shape (P, N, M)
        N = P (D + 1) features.
    """
    rng = np.random.default_rng(seed)
    size = len(axes)
    features = count * (size + 1)
    common = np.linalg.qr(rng.standard_normal((features, max(rank, 1))))[0]
    result = np.empty((count, features, points))
    for manifold in result:
        middle = rng.standard_normal(features)
        middle /= np.linalg.norm(middle)
        if rank:
            shared = common @ rng.standard_normal(rank)
            middle = np.sqrt(0.9) * shared / np.linalg.norm(shared) + np.sqrt(0.1) * middle
        manifold[:] = (middle / np.linalg.norm(middle))[:, None]
        if size:
            basis = np.linalg.qr(rng.standard_normal((features, size)))[0]
            sphere = rng.standard_normal((size, points))
            sphere *= np.asarray(axes)[:, None] / np.linalg.norm(sphere, axis=0)
            manifold += basis @ sphere
    return result


@cache
def synthetic() -> list[Row]:
    """Return rows of points, balls, ellipsoids and correlated centres, computed now."""
    import manifold_capacity as mc

    settings = Manifolds(draws=40)
    ball = mc.ball_capacity
    cases: dict[str, tuple[Array, float]] = {
        "points": (ellipsoids(40, 1, ()), mc.point_capacity()),
        "points, centres of rank 4": (ellipsoids(40, 1, (), 4), mc.point_capacity()),
        "balls R 0.5, D 2": (ellipsoids(40, 20, [0.5] * 2), ball(0.5, 2)),
        "balls R 1, D 2": (ellipsoids(40, 20, [1.0] * 2), ball(1, 2)),
        "the same, P 20": (ellipsoids(20, 20, [1.0] * 2), ball(1, 2)),
        "ellipsoids 1, 0.5, 0.2": (ellipsoids(40, 20, [1, 0.5, 0.2]), float("nan")),
        "balls R 0.5, rank 4": (ellipsoids(40, 20, [0.5] * 2, 4), float("nan")),
    }
    return [
        row(name, capacity.measure(points, settings), exact)
        for name, (points, exact) in cases.items()
    ]


# What the audit says


def lines() -> Iterator[str]:
    """Yield the whole audit for a terminal.

    Raises
    ------
    ReproError
        If no capacities are stored.
    """
    by_kind = stored()
    yield __doc__.splitlines()[0] if __doc__ else ""
    yield "Two capacities differ where 1 is outside the 95 % interval of their ratio."
    yield "ρ: correlation of the centres; theory: K dimensions are removed from them by the rule of"
    yield "the package; out: manifolds left hardly a centre, which do not count; ours: by our rule;"
    yield "K = 0: none."
    yield "ball, point: the paper's α_Ball(R, D) and α_point(R√D) over the theory's capacity."
    yield ""
    yield "KNOWN ANSWERS (computed now; exact: many manifolds, centres in random directions)"
    yield from table(synthetic(), exact=True)
    everything: list[Row] = []
    for kind, datasets in by_kind.items():
        for dataset in datasets:
            yield ""
            yield heading(dataset, kind)
            some = rows(dataset)
            yield from table(some)
            yield from glue_table(dataset)
            if kind == "adversarial":
                everything += [each for each in some if each.layer in SIMULATED_LAYERS]
    yield ""
    yield "WHY THEORY AND SIMULATION DIFFER: factors of their ratio, adversarial manifolds"
    yield from _steps(everything)
    yield ""
    yield "What follows for the paper's sentences: python -m paper.claims"


def stored() -> dict[str, list[xr.Dataset]]:
    """Return the stored datasets of capacities by kind of manifold, ``adversarial`` first.

    Raises
    ------
    Missing
        If there is none of adversarial manifolds.
    """
    stages: dict[str, list[str]] = {"adversarial": [], "random": [], "class": []}
    for stage, settings in CAPACITY_STAGES.items():
        stages[settings.get("kind", "adversarial")].append(stage)
    by_kind = {
        kind: [
            each
            for stage in variants
            for each in sorted(store.find(stage, dataset="*"), key=lambda d: str(d.attrs["run"]))
        ]
        for kind, variants in stages.items()
    }
    if not by_kind["adversarial"]:
        store.need("capacity", "at", scale=selection.scales()[-1])
    return by_kind


def _steps(some: Sequence[Row]) -> Iterator[str]:
    names = list(some[0].steps)
    logs = np.log(np.array([[each.steps[name] for name in names] for each in some]))
    for name, column in zip(names, logs.T, strict=True):
        low, middle, high = np.exp(np.quantile(column, (0.1, 0.5, 0.9)))
        yield f"  {name:34s} median {middle:.3f}, 80 % of rows {low:.2f} to {high:.2f}"
    whole = logs.sum(1)
    correlations = np.array([each.correlation for each in some])
    yield (
        "  correlation of the log ratio with the centres' correlation: "
        f"{np.corrcoef(whole, correlations)[0, 1]:.2f}, with log capacity: "
        f"{np.corrcoef(whole, _logs(some, 'simulated'))[0, 1]:.2f}"
    )
    worst = np.array([each.worst for each in some])
    yield (
        f"  leaving out one manifold, the worst, raises the theory by {np.median(worst):.1%} "
        f"(median), more than 5 % in {(worst > 0.05).sum()} of {len(some)} rows, at most "
        f"{worst.max():.0%}"
    )
    ratios = {each.name: each for each in synthetic()}
    for name in ("balls R 1, D 2", "the same, P 20"):
        each = ratios[name]
        yield (
            f"  finite P, {name:16s} theory / exact "
            f"{each.capacities['theory'].value / each.exact:.2f}, conic / exact "
            f"{each.capacities['conic'].value / each.exact:.2f}, simulation / exact "
            f"{each.capacities['unbiased'].value / each.exact:.2f}"
        )


def _logs(some: Sequence[Row], name: str) -> Array:
    values = np.array([each.capacities[name].value for each in some])
    return np.asarray(np.log(values))


# Recomputing


def recompute(say: Callable[[str], Any] = print) -> bool:
    """Measure a layer of a stored network again, from weights and images; return if it agrees.

    Agreement: every capacity lies in the 95 % interval of the stored one, radius and dimension
    within 1.96 of their standard errors on average, the centres' correlation within 1 %. Where the
    package's search of the low rank ends at another one, which rounding decides, what rests on it
    is shown and does not count.
    """
    from logit_distributions.make.capacity import again
    from logit_distributions.make.checkpoint import Checkpoint

    wanted, layer = RECOMPUTED
    run = wanted.run
    dataset = store.open_dataset(Job("capacity", wanted.recipe, wanted.seed).path, "capacity")
    checkpoint = Checkpoint.of(wanted)
    if checkpoint.weights_sha256 != dataset.attrs["checkpoint_sha256"]:
        raise ReproError(f"{run}: stored capacities are of other weights than those stored")
    say(f"RECOMPUTED: {run}, {layer}, from weights and stored images")
    now, unprojected = again(dataset, checkpoint, layer)
    agrees = agreement(dataset.sel(layer=layer), now, say)
    first, other = estimates(now), estimates(unprojected)
    apart = {name: other[name].value / first[name].value - 1 for name in first}
    apart |= {
        name: float(unprojected[name].mean() / now[name].mean()) - 1
        for name in ("radius", "dimension", "center_correlation")
    }
    say(
        f"  without the projection from {int(dataset['features'].sel(layer=layer)):,} features: "
        + ", ".join(f"{name.replace('_', ' ')} {part:+.1%}" for name, part in apart.items())
    )
    return agrees


def agreement(old: xr.Dataset, new: xr.Dataset, say: Callable[[str], Any]) -> bool:
    """Return whether a layer measured again agrees with what is stored, and say how closely."""
    agrees = True
    ranks = int(old["low_rank_dimension"]), int(new["low_rank_dimension"])

    def line(name: str, stored: str, now: float, good: bool, counts: bool = True) -> None:
        nonlocal agrees
        agrees &= good or not counts
        end = "agree" if good else "DIFFER" if counts else "removes {} then, {} now".format(*ranks)
        say(f"  {name:34s} stored {stored:28s} now {now:.4f}  {end}")

    again = estimates(new)
    for name, was in estimates(old).items():
        if name == "guarded" and "guarded_capacity" not in old:
            continue
        now = again[name]
        good = was.contains(now.value) if was.known else not now.known
        text = f"{was.value:.4f} [{was.low:.4f}, {was.high:.4f}]"
        counts = name != "theory" or ranks[0] == ranks[1]
        line(capacity.ESTIMATORS[name], text, now.value, good, counts)
    for name in ("radius", "dimension", "center_correlation"):
        before, after = float(old[name].mean()), float(new[name].mean())
        reach = 0.01 * before
        if f"{name}_se" in old:
            reach = 1.96 * float(np.sqrt((old[f"{name}_se"] ** 2).mean()))
        line(
            name.replace("_", " "), f"{before:.4f} ± {reach:.4f}", after,
            abs(after - before) <= reach, name == "center_correlation" or ranks[0] == ranks[1],
        )  # fmt: skip
    return agrees


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the audit and return the exit code: 1 if what is measured again does not agree."""
    parser = parser_of("paper.audit", __doc__)
    parser.add_argument(
        "--recompute", action="store_true", help="measure a layer of a stored network again first"
    )
    parsed = parser.parse_args(arguments)
    return exit_code("audit", lambda: _print(parsed.recompute))


def _print(again: bool) -> int:
    agrees = True
    if again:
        try:
            agrees = recompute()
        except ImportError as error:
            raise not_installed(error) from error
    for line in lines():
        print(line, flush=True)
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
