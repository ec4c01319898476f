"""The vocabulary of the register of claims: numbers of stored networks, with their uncertainty.

A measure is a formula such as ``robust("at") - robust("st")``. Its terms are the functions of
`Measures`; each returns an `Estimate`: one number per seed, or per pair of networks, and the
same number for 500 resamples of the images. All terms of a formula see the same images and the
same resamples, so that differences and ratios are paired. Where only one seed is stored, every
resample also draws another training of each network, as far away as two trainings of one recipe
are from each other. A new kind of measure is a method of `Measures`, named in `TERMS`.
"""

from __future__ import annotations

import inspect
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import log_softmax, stdtrit

from logit_distributions import choice, images, manipulations, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import capacity, distribution, pictures, ranking
from logit_distributions.store import places
from paper.claims import formulas

RESAMPLES = 500
NEIGHBOURS = 5
BENCH = "bench.json"
"""In the data folder: what ``logitdist bench --json`` measured on an idle machine."""

Array = NDArray[np.float64]
Key = tuple[int, ...]


class Unsuitable(ReproError):
    """Stored data that a measure cannot be taken of: other seeds, another device, few epochs."""


class Unrepeated(ReproError):
    """A measure of one training, where no recipe was trained twice to say how trainings differ."""


@cache
def copies(count: int) -> NDArray[np.float32]:
    """Return how often every image is in the sample, once, and in each resample of it.

    Returns
    -------
    ndarray, shape (1 + RESAMPLES, count)
        Whole numbers; rows sum to `count`.
    """
    draws = np.random.default_rng(count).integers(count, size=(RESAMPLES, count))
    rows = [np.ones(count), *(np.bincount(draw, minlength=count) for draw in draws)]
    return np.array(rows, np.float32)


def resampled(columns: NDArray[Any]) -> Array:
    """Return the mean over images in the sample and in each resample; exact for true and false.

    Parameters
    ----------
    columns : ndarray, shape (count,) or (count, m)

    Returns
    -------
    ndarray, shape (1 + RESAMPLES,) or (1 + RESAMPLES, m)
    """
    totals = copies(len(columns)) @ columns.astype(np.float32)
    means = totals.astype(np.float64) / len(columns)
    means[0] = columns.mean(0, dtype=np.float64)
    return means


def _settled(value: float | np.floating) -> float:
    """Return a number without its last digits, in which sums of another number of threads differ.

    A number on the edge of a rounding or of a rule would otherwise be printed or judged otherwise.
    """
    return float(f"{value:.12g}")


@dataclass(frozen=True)
class Estimate:
    """A number of each seed or pair of networks, in the sample and in each resample.

    Attributes
    ----------
    units : dict of ndarray, shape (1 + RESAMPLES,)
        By seed ``(s,)`` or pair of seeds ``(s, t)``.
    images : int
        How many images were resampled; 0 for what is no mean over images.
    share : bool
        Whether it is a plain percentage of the images, whose interval is Wilson's.
    points : tuple of int, optional
        How many points of a sweep are behind it, and how many the sweep has.
    repeated : bool
        False for a single training or pair, where nothing tells how far another would be.
    """

    units: dict[Key, Array]
    images: int = 0
    share: bool = False
    points: tuple[int, int] | None = None
    repeated: bool = True

    def __sub__(self, other: Estimate | float) -> Estimate:
        return _paired(np.subtract, self, other)

    def __rsub__(self, other: float) -> Estimate:
        return self._each(lambda values: other - values)

    def __add__(self, other: Estimate | float) -> Estimate:
        return _paired(np.add, self, other)

    def __truediv__(self, other: Estimate | float) -> Estimate:
        with np.errstate(divide="ignore", invalid="ignore"):
            return _paired(np.divide, self, other)

    def __abs__(self) -> Estimate:
        return self._each(np.abs)

    def _each(self, function: Callable[[Array], Array]) -> Estimate:
        return Estimate({key: function(v) for key, v in self.units.items()}, self.images)

    @property
    def values(self) -> dict[Key, float]:
        """The number of each seed or pair."""
        return {key: float(draws[0]) for key, draws in self.units.items()}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the networks behind it, of both kinds where pairs are of two kinds."""
        first, last = {key[0] for key in self.units}, {key[-1] for key in self.units}
        of_one_kind = all(key[0] < key[-1] for key in self.units)
        return tuple(sorted(first | last if of_one_kind else first & last))

    @property
    def mean(self) -> float:
        """Mean over seeds or pairs."""
        return _settled(np.mean(list(self.values.values())))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over resamples; where none differ, the range over the seeds."""
        draws = np.mean(list(self.units.values()), 0)[1:]
        if self.share:
            low, high = distribution.wilson_interval(min(self.mean / 100, 1.0), self.images)
            low, high = 100 * low, 100 * high
        elif not self.images and np.all(draws == draws[0]):
            low, high = min(self.values.values()), max(self.values.values())
        elif np.isfinite(draws).all():
            low, high = np.quantile(draws, (0.025, 0.975))
        else:  # a ratio to nothing: between two infinite values none is interpolated
            low, high = np.sort(draws)[
                np.rint(np.array((0.025, 0.975)) * (len(draws) - 1)).astype(int)
            ]
        return _settled(low), _settled(high)


def _paired(operation: np.ufunc, first: Estimate, second: Estimate | float) -> Estimate:
    """Combine seed by seed; where one of them is about other pairs, with its mean."""
    if not isinstance(second, Estimate):
        return Estimate({k: operation(v, second) for k, v in first.units.items()}, first.images)
    seeds = all(len(key) == 1 for key in (*first.units, *second.units))
    images = max(first.images, second.images)
    if seeds or first.units.keys() == second.units.keys():
        keys = _common([first, second])
        return Estimate({k: operation(first.units[k], second.units[k]) for k in keys}, images)
    mean = np.mean(list(second.units.values()), 0)
    return Estimate({k: operation(v, mean) for k, v in first.units.items()}, images)


def _common(estimates: Sequence[Estimate]) -> list[Key]:
    if not estimates:
        raise Unsuitable("no run of this scale is among those compared")
    keys = [key for key in estimates[0].units if all(key in e.units for e in estimates)]
    if not keys:
        raise Unsuitable("the networks compared have no seed in common; train the same seeds")
    return keys


Sweep = Mapping[float, Estimate]
"""A measure at several places, such as every k of fix-k."""


def _over(
    function: Callable[[Array], Array],
) -> Callable[[Iterable[Estimate] | Sweep], Estimate]:
    """Return a function of several estimates from one along the first axis of an array."""

    def combined(estimates: Iterable[Estimate] | Sweep) -> Estimate:
        several = list(estimates.values() if isinstance(estimates, Mapping) else estimates)
        units = {
            key: function(np.stack([e.units[key] for e in several])) for key in _common(several)
        }
        return Estimate(units, max(e.images for e in several))

    return combined


def _slope(sweep: Sweep) -> Estimate:
    """Return the least-squares slope of a measure against its places."""
    at = np.array(list(sweep)) - np.mean(list(sweep))
    return _over(lambda values: at @ values / (at @ at))(sweep)


def _steps(sweep: Sweep) -> list[Estimate]:
    """Return by how much a measure changes from each place to the next."""
    at = sorted(sweep)
    return [sweep[after] - sweep[before] for before, after in pairwise(at)]


def _sweep(measure: Callable[[Any], Estimate], at: Iterable[Any]) -> dict[Any, Estimate]:
    """Return a measure at those places, of the seeds that most have, where it is stored.

    Raises
    ------
    Missing
        If it is stored in fewer than two places.
    """
    points, missing = {}, None
    for place in at:
        try:
            points[place] = measure(place)
        except store.Missing as error:
            missing = missing or error
    counts = Counter(key for each in points.values() for key in each.units)
    most = {key for key, count in counts.items() if count == max(counts.values())}
    points = {place: each for place, each in points.items() if most <= each.units.keys()}
    if len(points) < 2:
        raise missing or Unsuitable("a sweep needs two points of one seed")
    return points


def _log_correlation(first: Sequence[Estimate], second: Sequence[Estimate]) -> Estimate:
    """Return Pearson's correlation of the logarithms of two lists, where both are known.

    Not resampled: the noise of resamples in both lists would lower every correlation.
    """

    def of(key: Key) -> Array:
        pairs = np.array(
            [(x.units[key][0], y.units[key][0]) for x, y in zip(first, second, strict=True)]
        )
        known = np.isfinite(pairs).all(1) & (pairs > 0).all(1)
        x, y = np.log(pairs[known]).T
        return np.full(1 + RESAMPLES, np.corrcoef(x, y)[0, 1])

    return Estimate({key: of(key) for key in _common([*first, *second])})


def _retrained(estimate: Estimate) -> Estimate:
    """Return an estimate whose interval is one for other trainings too, not for images alone.

    Every resample moves all seeds together by a draw of Student's t, times the standard error of
    the mean over seeds. Of one seed it is what it was: `Measures.another_training` draws for it.
    """
    values = np.array(list(estimate.values.values()))
    if len(values) < 2:
        return estimate
    quantiles = stdtrit(len(values) - 1, (np.arange(RESAMPLES) + 0.5) / RESAMPLES)
    draws = np.random.default_rng(len(values)).permutation(quantiles)
    moved = np.concatenate([[0.0], draws * values.std(ddof=1) / np.sqrt(len(values))])
    return Estimate({key: v + moved for key, v in estimate.units.items()}, estimate.images)


COMBINATIONS: dict[str, Any] = {
    "abs": abs,
    "range": range,
    "least": _over(lambda values: values.min(0)),
    "most": _over(lambda values: values.max(0)),
    "average": _over(lambda values: values.mean(0)),
    "middle": _over(lambda values: np.median(values, 0)),
    "slope": _slope,
    "steps": _steps,
    "log_correlation": _log_correlation,
    "retrained": _retrained,
    "blocks": capacity.BLOCKS,
    "layers": capacity.LAYERS,
    "simulated_layers": capacity.SIMULATED_LAYERS,
    "figure5": recipes.FIGURE5,
}

PAIRED_TERMS = ("disagreement", "overlap", "average_vector_overlap")
"""Terms of pairs of networks."""

TERMS = (
    *PAIRED_TERMS, "natural", "robust", "robust_within", "validation_robust", "teacher_error",
    "hours", "bench_ratio", "mean", "skewness", "above", "below", "first_bin", "share_rising",
    "margin_fall", "errors_at", "border_roughness", "picture_diversity", "neighbour_distance",
    "random_distance", "neighbour_same_class", "distance_to_teacher", "best_epoch",
    "chosen", "stored_epochs", "manifold", "radius_share", "separable_share",
)  # fmt: skip

Role = tuple[str, str, tuple[int, ...]]
"""A name in a formula, and the recipe and seeds that stand for it."""

QUANTITIES = {"max": distribution.max_logit, "gap": distribution.logit_gap}


class Measures:
    """The terms of formulas, for the stored networks of one data set and scale.

    Parameters
    ----------
    dataset, scale : str
    limit : int or None
        Only the first so many test images count, because a network compared saw no others.
    roles : tuple
        Recipes whose place others take, as `placebo` gives them: name, recipe, seeds.
    """

    def __init__(
        self, dataset: str, scale: str, limit: int | None = None, roles: tuple[Role, ...] = ()
    ):
        self.dataset, self.scale, self.limit = dataset, scale, limit
        self.roles = {name: (recipe, seeds) for name, recipe, seeds in roles}
        self.teacher_epochs = recipes.Scale.parse(scale).teacher_epochs
        self._known: dict[Any, Any] = {}
        self._overlaps = cache(self._overlaps)  # type: ignore[method-assign]

    @property
    def teacher_epoch(self) -> int:
        """Epoch of the teacher whose logits on the test images are stored."""
        _, at = self._open("logits", "at")[0]
        return int(at.attrs["checkpoint_epoch"])

    # Accuracies, in percent

    def natural(self, name: str) -> Estimate:
        """Return the natural accuracy of a network on the test images."""
        return self._share(
            name, lambda d: distribution.is_correct(d["logits"].values, d["label"].values)
        )

    def robust(self, name: str, engine: str | None = None) -> Estimate:
        """Return the adversarial accuracy, under the stored attack or another `engine`'s."""
        return self._share(name, lambda d: d["robust"].values[-1], engine=engine)

    def robust_within(self, low: float, high: float, name: str) -> Estimate:
        """Return the adversarial accuracy of the images between two quantiles of the gap."""

        def values(data: xr.Dataset) -> Array:
            gap = distribution.logit_gap(data["logits"].values)
            below, above = np.quantile(gap, (low, high))
            within = (gap >= below) & ((gap < above) | (high == 1))
            return _ratio(within & data["robust"].values[-1], within)

        return self._each(name, values)

    def validation_robust(self, name: str, epoch: int) -> Estimate:
        """Return the PGD accuracy on the validation images after an epoch, from the log."""
        return self._constant(
            "log",
            name,
            lambda d: 100 * d["validation_robust_accuracy"].values[self._epoch(d, epoch)],
        )

    def teacher_error(self, name: str) -> Estimate:
        """Return the error of a student's teacher on the training images, in percent."""
        return self._constant("log", name, lambda d: 100 * d.attrs["teacher_training_error"])

    def hours(self, name: str, device: str | None = None) -> Estimate:
        """Return the wall time of the training run, if it was on that device."""

        def value(data: xr.Dataset) -> float:
            used = json.loads(data.attrs["training"])["device"]
            if device is not None and device.lower() not in used.lower():
                raise Unsuitable(f"trained on {used}, not on a {device}")
            return float(data["seconds"].values.sum() / 3600)

        return self._constant("log", name, value)

    def bench_ratio(self, one: str, other: str) -> Estimate:
        """Return the median time of an epoch of one method over another's, measured together."""
        path = places.data() / BENCH
        if not path.is_file():
            raise store.Missing(path, f"logitdist bench --json {places.brief(path)}")
        measured = json.loads(path.read_text(encoding="utf-8"))
        ratio = np.median(measured[one]["seconds"]) / np.median(measured[other]["seconds"])
        return Estimate({(0,): np.full(1 + RESAMPLES, ratio)})

    # Distributions of the max logit and of the logit gap

    def mean(self, quantity: str, name: str, **where: Any) -> Estimate:
        """Return the mean of ``"max"`` or ``"gap"``; `where` as in `_quantity`."""
        return self._quantity(quantity, name, resampled, **where)

    def skewness(self, quantity: str, name: str, **where: Any) -> Estimate:
        """Return the skewness, as `skewness`."""
        return self._quantity(quantity, name, _skewness, **where)

    def above(self, bound: float, quantity: str, name: str, **where: Any) -> Estimate:
        """Return the percentage of images above a bound."""
        share = self._quantity(quantity, name, lambda v: 100 * resampled(v > bound), **where)
        return replace(share, share=True)

    def below(self, bound: float, quantity: str, name: str, **where: Any) -> Estimate:
        """Return the percentage of images below a bound."""
        share = self._quantity(quantity, name, lambda v: 100 * resampled(v < bound), **where)
        return replace(share, share=True)

    def first_bin(self, width: float, quantity: str, name: str, **where: Any) -> Estimate:
        """Return the percentage in the bin at zero minus that in the fullest other one."""

        def values(numbers: NDArray[Any]) -> Array:
            bins = np.minimum(numbers // width, 99).astype(int)
            shares = 100 * resampled(np.eye(100)[bins])
            return np.asarray(shares[:, 0] - shares[:, 1:].max(1))

        return self._quantity(quantity, name, values, **where)

    def share_rising(self, quantity: str, name: str, part: str = "train") -> Estimate:
        """Return the percentage of images of a part on which it is larger last than first."""
        units: dict[Key, Array] = {}
        for seed, data in self._open("epochs", name):
            first, last = (_recorded(data, quantity, part, at) for at in (0, -1))
            units[(seed,)] = 100 * resampled(last > first)
        return Estimate(units, len(first), share=True)

    def margin_fall(self, eps: float, name: str, within: tuple[float, float]) -> Estimate:
        """Return by how much the label's margin falls under a gradient step of length `eps`.

        Mean over the correctly classified images whose gap lies between two quantiles of it.
        """

        def values(data: xr.Dataset) -> Array:
            before, after = data["hard_margin"].sel(eps=[0, eps], method="nearest").values
            correct = before > 0
            below, above = np.quantile(before[correct], within)
            inside = correct & (before >= below) & ((before < above) | (within[1] == 1))
            return _ratio(np.where(inside, before - after, 0), inside) / 100

        networks = self._open("theory", name)
        images = min(data.sizes["sample"] for _, data in networks)
        return Estimate({(seed,): values(data) for seed, data in networks}, images)

    # Which images, which classes

    def disagreement(
        self, first: str, second: str, by: str = "softmax", label: str | None = None
    ) -> Estimate:
        """Return the percentage of images that two networks rank far apart in their class.

        Averaged, as `rank_disagreement` over its classes, which are of
        one size; `by` the softmax value or the ``"logit"``, of all classes or of `label`.
        """
        confidence = distribution.log_confidence if by == "softmax" else distribution.max_logit

        def values(one: xr.Dataset, other: xr.Dataset) -> Array:
            labels = one["label"].values
            left, right = (confidence(d["logits"].values) for d in (one, other))
            apart = ranking.ranked_far_apart(left, right, labels)
            counted = np.ones(len(labels))
            if label is not None:
                counted = labels == one["class"].values.tolist().index(label)
            return _ratio(apart * counted, counted)

        return self._pairs(first, second, values)

    def errors_at(self, places: tuple[int, int], name: str, attacked: bool = False) -> Estimate:
        """Return the percentage of errors on these ranks of the average logit vector.

        As `errors_by_rank`: rank one is, as a rule, the true class itself. Attacked, of the
        errors that the attack adds.
        """

        def values(data: xr.Dataset) -> Array:
            labels, natural = data["label"].values.astype(int), data["logits"].values
            means = ranking.mean_correct_logits(natural, labels)
            predictions = natural.argmax(1)
            if attacked:
                hits = predictions == labels
                predictions = np.where(hits, data["adversarial_logits"].values.argmax(1), labels)
            place = 1 + np.argsort(manipulations.ranking(means), 1)[labels, predictions]
            wrong = (predictions != labels) & np.isfinite(means[labels]).all(1)
            return _ratio(wrong & (place >= places[0]) & (place <= places[1]), wrong)

        return self._each(name, values)

    def overlap(self, k: int, first: str, second: str, permuted: bool = False) -> Estimate:
        """Return AO@k of two networks on the same images, or on others of the same class."""
        overlaps = self._overlaps(first, second, permuted)
        return Estimate({key: v[:, k - 1] for key, v in overlaps.units.items()}, overlaps.images)

    def _overlaps(self, first: str, second: str, permuted: bool) -> Estimate:
        def values(one: xr.Dataset, other: xr.Dataset) -> Array:
            logits = other["logits"].values
            if permuted:
                logits = logits[ranking.deranged_within(one["label"].values, seed=0)]
            return resampled(ranking.average_overlap(one["logits"].values, logits))

        return self._pairs(first, second, values)

    def average_vector_overlap(self, k: int, first: str, second: str) -> Estimate:
        """Return AO@k of the classes' mean logit vectors over correct answers, mean over them."""

        def values(one: xr.Dataset, other: xr.Dataset) -> Array:
            means = [
                ranking.mean_correct_logits(d["logits"].values, d["label"].values.astype(int))
                for d in (one, other)
            ]
            return np.full(1 + RESAMPLES, ranking.average_overlap(*means)[:, k - 1].mean())

        return replace(self._pairs(first, second, values), images=0)

    # Pictures

    def border_roughness(self, name: str) -> Estimate:
        """Return how uneven the borders of the images are that a network is most confident of.

        As `pictures.background_variation`, averaged over the tenth of each class with the
        largest softmax values.
        """
        sheet = self._pictures()
        roughness = pictures.background_variation(sheet)

        def values(data: xr.Dataset) -> Array:
            chosen = _most_confident(data, len(sheet))
            return _ratio(chosen * roughness, chosen) / 100

        return replace(self._each(name, values), images=len(sheet))

    def picture_diversity(self, by: str, name: str) -> Estimate:
        """Return the mean ``"colour"`` or ``"shape"`` distance within what a network is sure of.

        Over pairs among the tenth of each class with the largest softmax values, mean over
        classes.
        """
        looks, distance = self._compared(by)

        def values(data: xr.Dataset) -> Array:
            labels = data["label"].values[: len(looks)]
            chosen = _most_confident(data, len(looks))
            means = []
            for label in np.unique(labels):
                some = np.flatnonzero(chosen & (labels == label))
                if len(some) < 2:
                    continue
                apart = distance(looks[some][:, None], looks[some])
                counted = copies(len(looks))[:, some].astype(float)
                pairs = counted.sum(1) ** 2 - (counted**2).sum(1)
                total = np.einsum("ri,ij,rj->r", counted, apart * (1 - np.eye(len(some))), counted)
                means.append(np.divide(total, pairs, np.full(len(pairs), np.nan), where=pairs > 0))
            return np.asarray(np.nanmean(means, 0))

        return replace(self._each(name, values), images=len(looks))

    def random_distance(self, by: str) -> float:
        """Return the mean ``"colour"`` or ``"shape"`` distance between two of the images."""
        looks, distance = self._compared(by)
        apart = np.array([distance(each, looks) for each in looks])
        return float((apart.sum() - np.trace(apart)) / len(looks) / (len(looks) - 1))

    def neighbour_distance(self, by: str, name: str) -> Estimate:
        """Return the mean ``"colour"`` or ``"shape"`` distance to the five nearest images."""
        looks, distance = self._compared(by)

        def values(data: xr.Dataset) -> Array:
            near = self._nearest(data, len(looks))
            return resampled(distance(looks[:, None], looks[near]).mean(1))

        return replace(self._each(name, values), images=len(looks))

    def neighbour_same_class(self, name: str) -> Estimate:
        """Return the percentage of the five nearest images that are of the image's class."""
        count = len(self._pictures())

        def values(data: xr.Dataset) -> Array:
            labels = data["label"].values[:count]
            same = labels[self._nearest(data, count)] == labels[:, None]
            return 100 * resampled(same.mean(1))

        return replace(self._each(name, values), images=count)

    def _compared(self, by: str) -> tuple[Array, Callable[[Array, Array], Array]]:
        """Return what is compared of the images, and how far apart two are in it."""
        describe, distance = pictures.COMPARED[by]
        return describe(self._pictures()), distance

    def _nearest(self, data: xr.Dataset, count: int) -> NDArray[np.intp]:
        run = data.attrs["run"], count
        if run not in self._known:
            logits = data["logits"].values[:count]
            self._known[run] = ranking.nearest(logits, np.arange(count), NEIGHBOURS)
        near: NDArray[np.intp] = self._known[run]
        return near

    # Students and teachers

    def distance_to_teacher(self, metric: str, name: str) -> Estimate:
        """Return the mean ``"l1"`` (over classes) or ``"kl"`` of a student to its teacher."""
        teachers = dict(self._open("logits", "at"))
        units: dict[Key, Array] = {}
        images = 0
        for seed, student in self._open("logits", name):
            epoch = store.recipe_of(student)["distillation"]["epoch"]
            if seed not in teachers or teachers[seed].attrs["checkpoint_epoch"] != epoch:
                continue
            count = student.sizes["sample"]
            ours, its = student["logits"].values, teachers[seed]["logits"].values[:count]
            if metric == "l1":
                apart = np.abs(ours - its).mean(1)
            else:
                teacher, log = log_softmax(its.astype(float), 1), log_softmax(ours.astype(float), 1)
                apart = (np.exp(teacher) * (teacher - log)).sum(1)
            units[(seed,)] = resampled(apart)
            images = count
        return Estimate(units, images)

    def best_epoch(self, accuracy: Callable[[int], Estimate]) -> Estimate:
        """Return the teacher's epoch that maximises an accuracy of the student."""
        points = _sweep(accuracy, self.teacher_epochs)
        return _over(lambda values: np.array(list(points), float)[values.argmax(0)])(points)

    def chosen(self, regularizer: str) -> str:
        """Return the recipe of a regularizer at the strength that `choice.best_strength` takes."""
        return choice.best_strength(regularizer, self.scale, self.dataset)

    def stored_epochs(self, name: str, until: float = 1.0) -> list[int]:
        """Return the epochs of which logits are stored, up to a share of the training."""
        _, data = self._open("epochs", name)[0]
        last = until * store.recipe_of(data)["epochs"]
        return [int(epoch) for epoch in data["epoch"].values if epoch <= last]

    # Manifolds

    def manifold(self, quantity: str, layer: str, name: str) -> Estimate:
        """Return a number of a layer's manifolds, with exemplars or draws resampled.

        ``capacity``, ``radius``, ``dimension``, ``ball_capacity`` and ``point_capacity`` (the
        paper's approximations by R and D), ``simulated_capacity``, ``conic_capacity``;
        ``center_correlation`` is not resampled. Manifolds that the low-rank step leaves no centre
        are left out of those that rest on it, see `capacity.is_kept`.
        """

        def values(data: xr.Dataset) -> Array:
            def of(variable: str) -> NDArray[Any]:
                return np.asarray(data[variable].sel(layer=layer).values)

            def mean_of_kept(each: NDArray[Any]) -> Array:
                kept = capacity.is_kept(data.sel(layer=layer))
                return resampled(np.where(kept, each, 0.0)) / resampled(kept)

            if quantity in ("radius", "dimension"):
                return mean_of_kept(of(quantity))
            if quantity == "simulated_capacity":
                return data.sizes["manifold"] / _medians(of("simulated_features"))
            if quantity == "conic_capacity":
                return data.sizes["manifold"] / resampled(of("conic_dimensions"))
            if quantity == "center_correlation":
                return np.full(1 + RESAMPLES, float(of(quantity)))
            if quantity == "capacity":
                each = of("capacity")
            else:
                formula = {"ball_capacity": capacity.ball, "point_capacity": capacity.point}
                each = formula[quantity](of("radius"), of("dimension"))
            return 1 / mean_of_kept(1 / each)

        return self._manifolds(name, values)

    def radius_share(self, first: str, last: str, name: str) -> Estimate:
        """Return R's share in the fall of capacity between layers, as `capacity.radius_share`."""
        ends = [
            [self.manifold(quantity, layer, name) for layer in (first, last)]
            for quantity in ("radius", "dimension")
        ]
        units = {
            key: capacity.radius_share(*((a.units[key], b.units[key]) for a, b in ends))
            for key in ends[0][0].units
        }
        return Estimate(units, ends[0][0].images)

    def separable_share(self, load: float, layer: str, name: str) -> Estimate:
        """Return the share of dichotomies separable at a multiple of the simulated capacity."""

        def values(data: xr.Dataset) -> Array:
            fewest = data["simulated_features"].sel(layer=layer).values
            critical = data.sizes["manifold"] / float(data["simulated_capacity"].sel(layer=layer))
            return resampled(fewest <= critical / load)

        return self._manifolds(name, values)

    def _manifolds(self, name: str, function: Callable[[xr.Dataset], Array]) -> Estimate:
        networks = self._open("capacity", name)
        exemplars = min(data.sizes["manifold"] for _, data in networks)
        return Estimate({(seed,): function(data) for seed, data in networks}, exemplars)

    # How the terms reach the data

    def term(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Return a term of a formula, computed once."""
        key = (name, arguments, tuple(options.items()))
        if name == "best_epoch":
            return self.best_epoch(*arguments)
        if key not in self._known:
            self._known[key] = getattr(self, name)(*arguments, **options)
        return self._known[key]

    def another_training(self, term: str, *arguments: Any, **options: Any) -> Any:
        """Return a term with another training of its network drawn in every resample.

        The same one under every attack: an `engine` attacks what another one did.

        Raises
        ------
        Unrepeated
            If no recipe tells how much trainings differ.
        """
        value = self.term(term, *arguments, **options)
        if not isinstance(value, Estimate):
            return value
        if term in PAIRED_TERMS:
            raise Unrepeated("a single pair of trainings")
        called = inspect.signature(getattr(self, term)).bind(*arguments, **options)
        if "name" not in called.arguments:
            return value
        called.arguments.pop("engine", None)
        network = self.dataset, self.scale, term, called.args, tuple(called.kwargs.items())
        sd = self._between_trainings(term, called)
        units = {}
        for key, draws in value.units.items():
            text = repr((*network, key))
            noise = np.random.default_rng(zlib.crc32(text.encode())).normal(0, sd, RESAMPLES)
            units[key] = np.concatenate([draws[:1], draws[1:] + noise])
            if value.share:
                units[key][1:] = units[key][1:].clip(0, 100)
        return Estimate(units, value.images)

    def _between_trainings(self, term: str, called: inspect.BoundArguments) -> float:
        """Return the largest sd of a term between trainings of one recipe, of the same method."""
        known: dict[str, dict[Key, float]] = {}
        method = recipes.recipe(called.arguments["name"], self.scale, self.dataset).method
        for name, its_method in self._methods.items():
            if its_method != method:
                continue
            called.arguments["name"] = name
            try:
                value = self.term(term, *called.args, **called.kwargs)
                known[name] = value.values
            except (store.Missing, Unsuitable):
                continue
        groups = [list(values.values()) for values in known.values()]
        for seed, value in known.get("normal", {}).items():
            twin = known.get(f"logits-epoch-{self._teacher_epoch_of(seed[0])}", {})
            if seed in twin:
                groups.append([value, twin[seed]])
        spreads = [np.std(each, ddof=1) for each in groups if len(each) > 1]
        if not spreads:
            raise Unrepeated(f"no {method} training is stored with two seeds")
        return float(max(spreads))

    @cached_property
    def _methods(self) -> dict[str, str]:
        """How each recipe of the scale is trained."""
        names = recipes.names(recipes.Scale.parse(self.scale))
        return {name: recipes.recipe(name, self.scale, self.dataset).method for name in names}

    def _teacher_epoch_of(self, seed: int) -> int | None:
        epochs = {s: int(data.attrs["checkpoint_epoch"]) for s, data in self._open("logits", "at")}
        return epochs.get(seed)

    def _open(self, stage: str, name: str) -> list[tuple[int, xr.Dataset]]:
        """Return the stored datasets of a recipe, each with its seed.

        Of one that plays a part, each with its place among the seeds that do.
        """
        recipe, seeds = self.roles.get(name, (name, None))
        datasets = self._stored(stage, recipe)
        if seeds is not None:
            by_seed = {int(data.attrs["seed"]): data for data in datasets}
            if not by_seed.keys() >= set(seeds):
                raise Unsuitable(f"{recipe} of seeds {seeds} is not stored in {stage}")
            datasets = [by_seed[seed] for seed in seeds]
        if self.limit is not None and stage.startswith("logits"):
            datasets = [data.isel(sample=slice(self.limit)) for data in datasets]
        if seeds is not None:
            return list(enumerate(datasets))
        return [(int(data.attrs["seed"]), data) for data in datasets]

    def _stored(self, stage: str, recipe: str) -> list[xr.Dataset]:
        """Return the stored datasets of a recipe, looked for once."""
        key = "stored", stage, recipe
        if key not in self._known:
            self._known[key] = store.find(stage, recipe, self.dataset, self.scale)
        datasets: list[xr.Dataset] = self._known[key]
        return datasets or store.need(stage, recipe, self.dataset, self.scale)

    def _each(
        self, name: str, function: Callable[[xr.Dataset], Array], engine: str | None = None
    ) -> Estimate:
        networks = self._open("logits" if engine is None else f"logits/{engine}", name)
        images = min(data.sizes["sample"] for _, data in networks)
        return Estimate({(seed,): function(data) for seed, data in networks}, images)

    def _share(
        self,
        name: str,
        function: Callable[[xr.Dataset], NDArray[np.bool_]],
        engine: str | None = None,
    ) -> Estimate:
        share = self._each(name, lambda data: 100 * resampled(function(data)), engine)
        return Estimate(share.units, share.images, share=True)

    def _constant(self, kind: str, name: str, function: Callable[[xr.Dataset], float]) -> Estimate:
        networks = self._open(kind, name)
        return Estimate({(s,): np.full(1 + RESAMPLES, function(data)) for s, data in networks})

    def _pairs(
        self, first: str, second: str, function: Callable[[xr.Dataset, xr.Dataset], Array]
    ) -> Estimate:
        one, other = self._open("logits", first), self._open("logits", second)
        pairs = combinations(one, 2) if first == second else product(one, other)
        units: dict[Key, Array] = {(i, j): function(a, b) for (i, a), (j, b) in pairs}
        if not units:
            path = store.path_of("logits", f"{self.dataset}-{self.scale}-{first}-seed1")
            command = recipes.command("logits", first, self.scale, self.dataset)
            raise store.Missing(path, command)
        return Estimate(units, one[0][1].sizes["sample"])

    def _quantity(
        self,
        quantity: str,
        name: str,
        function: Callable[[NDArray[Any]], Array],
        epoch: int | str | None = None,
        part: str = "test",
        dataset: str | None = None,
    ) -> Estimate:
        """Apply a function to the max logits or gaps of a network.

        Of the network that stands for the run, or of an `epoch` of its training: 0 the first
        stored, -1 the last, ``"at"`` the recorded one nearest to that at which AT of the same
        seed is evaluated; there of the ``"train"`` or ``"test"`` part.
        """
        if dataset is not None and dataset != self.dataset:
            other = Measures(dataset, self.scale, self.limit)
            return other._quantity(quantity, name, function, epoch, part)
        if epoch is None:
            return self._each(name, lambda d: function(QUANTITIES[quantity](d["logits"].values)))
        units: dict[Key, Array] = {}
        for seed, data in self._open("epochs", name):
            wanted = self._teacher_epoch_of(seed) if isinstance(epoch, str) else epoch
            if wanted is None:
                continue
            if isinstance(epoch, str):
                recorded = data["epoch"].values
                wanted = int(recorded[np.abs(recorded - wanted).argmin()])
            values = _recorded(data, quantity, part, self._epoch(data, wanted))
            units[(seed,)] = function(values)
        if not units:
            raise Unsuitable(f"no {name} is of a seed whose AT is stored; train the same seeds")
        return Estimate(units, len(values))

    def _epoch(self, data: xr.Dataset, epoch: int) -> int:
        epochs = data["epoch"].values.tolist()
        if epoch in (0, -1):
            return epoch
        if epoch not in epochs:
            raise Unsuitable(
                f"{data.attrs['run']}: epoch {epoch} is not among those stored, {epochs}"
            )
        return int(epochs.index(epoch))

    def _pictures(self) -> NDArray[np.uint8]:
        path = images.stored_sheet(self.dataset)
        if not path.is_file():
            raise store.Missing(path, "logitdist fetch")
        return _pictures(path)


@cache
def _pictures(path: Path) -> NDArray[np.uint8]:
    return images.read_sheet(path)


def _recorded(data: xr.Dataset, quantity: str, part: str, at: int) -> NDArray[Any]:
    """Return the max logits or gaps of the images of a part, at a place among the epochs."""
    chosen = data["test"].values == (part == "test")
    values: NDArray[Any] = data["largest"].values[at, chosen]
    return values - data["second"].values[at, chosen] if quantity == "gap" else values


def _most_confident(data: xr.Dataset, count: int) -> NDArray[np.bool_]:
    """Return which of the first images are in the tenth of their class with the largest softmax."""
    labels = data["label"].values[:count]
    confidence = distribution.log_confidence(data["logits"].values[:count])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = np.argsort(-confidence[members], kind="stable")
        chosen[members[order[: max(1, len(members) // 10)]]] = True
    return chosen


@cache
def _measures(
    folder: Path, dataset: str, scale: str, limit: int | None, roles: tuple[Role, ...] = ()
) -> Measures:
    return Measures(dataset, scale, limit, roles)


def forget() -> None:
    """Forget what was read and computed: the files have changed."""
    _measures.cache_clear()


def evaluate(formula: str, dataset: str, scale: str, roles: tuple[Role, ...] = ()) -> Estimate:
    """Return what a formula of the register comes to.

    Of one seed its interval includes what two trainings of one recipe differ by, or it is not
    `repeated`.

    Parameters
    ----------
    formula : str
        Python, of the methods of `Measures` and `COMBINATIONS`.
    dataset, scale : str
    roles : tuple, optional
        Networks that others stand for, as in `Measures`.

    Raises
    ------
    Missing
        If a dataset is not stored, with the command that makes it.
    Unsuitable
        If those stored are not what the formula needs.
    """
    measures = _measures(places.data(), dataset, scale, None, roles)
    result, sizes = _evaluate(formula, measures, measures.term)
    if len(sizes) > 1:
        measures = _measures(places.data(), dataset, scale, min(sizes), roles)
        result, _ = _evaluate(formula, measures, measures.term)
    if roles or len(result.seeds) > 1:
        return result
    try:
        return _evaluate(formula, measures, measures.another_training)[0]
    except Unrepeated:
        return replace(result, repeated=False)


class _OneDataset(Measures):
    """The terms of formulas for one network, of which no more than a dataset of logits is known."""

    def __init__(self, name: str, data: xr.Dataset):
        super().__init__("cifar10", next(iter(recipes.SCALES)))
        self._given = name, data

    def _open(self, stage: str, name: str) -> list[tuple[int, xr.Dataset]]:
        given, data = self._given
        if (stage, name) != ("logits", given):
            raise Unsuitable(f"{stage} of {name} are not given")
        return [(0, data)]


def evaluate_on(formula: str, name: str, data: xr.Dataset) -> Estimate:
    """Return what a formula comes to with a dataset of logits in the place of a network.

    Its interval is for the images; nothing is known of another training.

    Raises
    ------
    Unsuitable
        If the formula needs another network, or more than logits.
    """
    measures = _OneDataset(name, data)
    return _evaluate(formula, measures, measures.term)[0]


def _evaluate(
    formula: str, measures: Measures, term: Callable[..., Any]
) -> tuple[Estimate, set[int]]:
    sizes: set[int] = set()
    points: list[tuple[int, int]] = []

    def noted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            value = term(name, *arguments, **options)
            if isinstance(value, Estimate) and value.images:
                sizes.add(value.images)
            return value

        return call

    def sweep(measure: Callable[[Any], Estimate], at: Sequence[Any]) -> dict[Any, Estimate]:
        stored = _sweep(measure, at)
        points.append((len(stored), len(at)))
        return stored

    names: dict[str, Any] = COMBINATIONS | {name: noted(name) for name in TERMS}
    names |= {"sweep": sweep, "teacher_epochs": measures.teacher_epochs}
    if "teacher_epoch}" in formula:
        names["teacher_epoch"] = measures.teacher_epoch
    result = formulas.value(formula, names)
    return replace(result, points=min(points, default=None)), sizes


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Array:
    """Return a part of the images as a percentage of others, resampled."""
    means = resampled(np.stack([part, whole], 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(100 * means[:, 0] / means[:, 1])


def _medians(values: NDArray[Any]) -> Array:
    """Return the median of the sample and of each resample of it."""
    draws = np.random.default_rng(len(values)).integers(len(values), size=(RESAMPLES, len(values)))
    return np.concatenate([[np.median(values)], np.median(values[draws], axis=1)])


def _skewness(values: NDArray[Any]) -> Array:
    deviation = values.astype(np.float64) - values.mean(dtype=np.float64)
    first, second, third = resampled(np.stack([deviation, deviation**2, deviation**3], 1)).T
    variance = second - first**2
    return np.asarray((third - 3 * first * second + 2 * first**3) / variance**1.5)
