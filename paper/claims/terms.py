"""The vocabulary of the register of claims: numbers of stored networks, with their uncertainty.

A measure is a formula such as ``robust("at") - robust("st")``. Its terms are the functions of
`Measures`; each returns an `Estimate`: one number per seed, or per pair of networks, and the
same number for 500 resamples of the images. All terms of a formula see the same images and the
same resamples, so that differences and ratios are paired. A new kind of measure is a method of
`Measures`, named in `TERMS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import log_softmax

from logit_distributions import images, manipulations, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import capacity, distribution, pictures, ranking
from logit_distributions.store import places
from paper.claims import formulas

RESAMPLES = 500
NEIGHBOURS = 5
BORDER = 4

Array = NDArray[np.float64]
Key = tuple[int, ...]


class Unsuitable(ReproError):
    """Stored data that a measure cannot be taken of: other seeds, another device, few epochs."""


@cache
def weights(count: int) -> NDArray[np.float32]:
    """Return the weight of every image in the sample and in each resample of it.

    Returns
    -------
    ndarray, shape (1 + RESAMPLES, count)
        Rows sum to one; the first is the sample itself.
    """
    draws = np.random.default_rng(count).integers(count, size=(RESAMPLES, count))
    rows = [np.ones(count), *(np.bincount(draw, minlength=count) for draw in draws)]
    return np.array(rows, np.float32) / np.float32(count)


def resampled(columns: NDArray[Any]) -> Array:
    """Return the mean over images in the sample and in each resample.

    Parameters
    ----------
    columns : ndarray, shape (count,) or (count, m)

    Returns
    -------
    ndarray, shape (1 + RESAMPLES,) or (1 + RESAMPLES, m)
    """
    means = (weights(len(columns)) @ columns.astype(np.float32)).astype(np.float64)
    means[0] = columns.mean(0, dtype=np.float64)
    return means


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
    """

    units: dict[Key, Array]
    images: int = 0
    share: bool = False

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
        return float(np.mean(list(self.values.values())))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over images; without images the range over the seeds."""
        if self.share:
            low, high = distribution.wilson_interval(min(self.mean / 100, 1.0), self.images)
            return 100 * low, 100 * high
        if not self.images:
            return min(self.values.values()), max(self.values.values())
        low, high = np.quantile(np.mean(list(self.units.values()), 0)[1:], (0.025, 0.975))
        return float(low), float(high)


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


def _over(function: Callable[[Array], Array]) -> Callable[[Iterable[Estimate]], Estimate]:
    """Return a function of several estimates from one along the first axis of an array."""

    def combined(estimates: Iterable[Estimate]) -> Estimate:
        several = list(estimates)
        units = {
            key: function(np.stack([e.units[key] for e in several])) for key in _common(several)
        }
        return Estimate(units, max(e.images for e in several))

    return combined


def _slope(values: Array) -> Array:
    """Return the least-squares slope against 1, 2, ... along the first axis."""
    at = np.arange(len(values)) - (len(values) - 1) / 2
    slopes: Array = at @ values / (at @ at)
    return slopes


def _log_correlation(first: Sequence[Estimate], second: Sequence[Estimate]) -> Estimate:
    """Return Pearson's correlation of the logarithms of two lists, over the lists."""
    keys = _common([*first, *second])

    def of(key: Key) -> Array:
        x, y = (np.log([each.units[key] for each in side]) for side in (first, second))
        x, y = x - x.mean(0), y - y.mean(0)
        return np.asarray((x * y).sum(0) / np.sqrt((x**2).sum(0) * (y**2).sum(0)))

    return Estimate({key: of(key) for key in keys}, first[0].images)


COMBINATIONS: dict[str, Any] = {
    "abs": abs,
    "range": range,
    "least": _over(lambda values: values.min(0)),
    "most": _over(lambda values: values.max(0)),
    "average": _over(lambda values: values.mean(0)),
    "middle": _over(lambda values: np.median(values, 0)),
    "slope": _over(_slope),
    "log_correlation": _log_correlation,
    "blocks": capacity.BLOCKS,
    "simulated_layers": capacity.SIMULATED_LAYERS,
    "figure5": recipes.FIGURE5,
}

TERMS = (
    "natural", "robust", "robust_within", "validation_robust", "teacher_error", "hours", "mean",
    "skewness", "above", "below", "first_bin", "disagreement", "errors_at", "overlap",
    "border_roughness", "neighbour_distance", "neighbour_same_class", "distance_to_teacher",
    "best_epoch", "stored_epochs", "manifold", "radius_share", "separable_share",
)  # fmt: skip

QUANTITIES = {"max": distribution.max_logit, "gap": distribution.logit_gap}


class Measures:
    """The terms of formulas, for the stored networks of one data set and scale.

    Parameters
    ----------
    dataset, scale : str
    limit : int or None
        Only the first so many test images count, because a network compared saw no others.
    """

    def __init__(self, dataset: str, scale: str, limit: int | None = None):
        self.dataset, self.scale, self.limit = dataset, scale, limit
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

    # Distributions of the max logit and of the logit gap

    def mean(self, quantity: str, name: str, **where: Any) -> Estimate:
        """Return the mean of ``"max"`` or ``"gap"``; `where` as in `_quantity`."""
        return self._quantity(quantity, name, resampled, **where)

    def skewness(self, quantity: str, name: str, **where: Any) -> Estimate:
        """Return the skewness, as `skewness`."""
        return self._quantity(quantity, name, _skewness, **where)

    def above(self, bound: float, quantity: str, name: str) -> Estimate:
        """Return the percentage of images above a bound."""
        return self._share(name, lambda d: QUANTITIES[quantity](d["logits"].values) > bound)

    def below(self, bound: float, quantity: str, name: str) -> Estimate:
        """Return the percentage of images below a bound."""
        return self._share(name, lambda d: QUANTITIES[quantity](d["logits"].values) < bound)

    def first_bin(self, width: float, quantity: str, name: str) -> Estimate:
        """Return the percentage in the bin at zero minus that in the fullest other one."""

        def values(numbers: NDArray[Any]) -> Array:
            bins = np.minimum(numbers // width, 99).astype(int)
            shares = 100 * resampled(np.eye(100)[bins])
            return np.asarray(shares[:, 0] - shares[:, 1:].max(1))

        return self._quantity(quantity, name, values)

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

        As `errors_by_rank`: rank one is, as a rule, the true class itself.
        """

        def values(data: xr.Dataset) -> Array:
            labels, natural = data["label"].values.astype(int), data["logits"].values
            means = ranking.mean_correct_logits(natural, labels)
            logits = data["adversarial_logits"].values if attacked else natural
            predictions = logits.argmax(1)
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
                logits = logits[ranking.permuted_within(one["label"].values, seed=0)]
            return resampled(ranking.average_overlap(one["logits"].values, logits))

        return self._pairs(first, second, values)

    # Pictures

    def border_roughness(self, name: str) -> Estimate:
        """Return how uneven the borders of the images are that a network is most confident of.

        The standard deviation of the grey values in the outer four pixels, averaged over the
        tenth of each class with the largest softmax values.
        """
        grey = self._pictures().mean(1)
        frame = np.ones(grey.shape[1:], bool)
        frame[BORDER:-BORDER, BORDER:-BORDER] = False
        roughness = grey[:, frame].std(1)

        def values(data: xr.Dataset) -> Array:
            labels = data["label"].values[: len(roughness)]
            confidence = distribution.log_confidence(data["logits"].values[: len(roughness)])
            chosen = np.zeros(len(labels), bool)
            for label in np.unique(labels):
                members = np.flatnonzero(labels == label)
                order = np.argsort(-confidence[members], kind="stable")
                chosen[members[order[: max(1, len(members) // 10)]]] = True
            return _ratio(chosen * roughness, chosen) / 100

        return replace(self._each(name, values), images=len(grey))

    def neighbour_distance(self, by: str, name: str) -> Estimate:
        """Return the mean ``"colour"`` or ``"shape"`` distance to the five nearest images."""
        sheet = self._pictures()
        edges = pictures.edge_thumbnails(sheet) if by == "shape" else None

        def values(data: xr.Dataset) -> Array:
            near = self._nearest(data, len(sheet))
            if edges is None:
                distance = pictures.colour_distance(sheet[:, None], sheet[near])
            else:
                distance = pictures.correlation_distance(edges[:, None], edges[near])
            return resampled(distance.mean(1))

        return replace(self._each(name, values), images=len(sheet))

    def neighbour_same_class(self, name: str) -> Estimate:
        """Return the percentage of the five nearest images that are of the image's class."""
        count = len(self._pictures())

        def values(data: xr.Dataset) -> Array:
            labels = data["label"].values[:count]
            same = labels[self._nearest(data, count)] == labels[:, None]
            return 100 * resampled(same.mean(1))

        return replace(self._each(name, values), images=count)

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
        epochs = np.array(self.teacher_epochs, float)
        return _over(lambda values: epochs[values.argmax(0)])(
            accuracy(e) for e in epochs.astype(int)
        )

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
        ``center_correlation`` is not resampled.
        """

        def values(data: xr.Dataset) -> Array:
            def of(variable: str) -> NDArray[Any]:
                return np.asarray(data[variable].sel(layer=layer).values)

            if quantity in ("radius", "dimension"):
                return resampled(of(quantity))
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
            return 1 / resampled(1 / each)

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

    def _open(self, stage: str, name: str) -> list[tuple[int, xr.Dataset]]:
        """Return the stored datasets of a recipe, each with its seed."""
        datasets = store.need(stage, name, self.dataset, self.scale)
        if self.limit is not None and stage.startswith("logits"):
            datasets = [data.isel(sample=slice(self.limit)) for data in datasets]
        return [(int(data.attrs["seed"]), data) for data in datasets]

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
        epoch: int | None = None,
        part: str = "test",
        dataset: str | None = None,
    ) -> Estimate:
        """Apply a function to the max logits or gaps of a network.

        Of the network that stands for the run, or of an `epoch` of its training: 0 the first
        stored, -1 the last; there of the ``"train"`` or ``"test"`` part.
        """
        if dataset is not None and dataset != self.dataset:
            other = Measures(dataset, self.scale, self.limit)
            return other._quantity(quantity, name, function, epoch, part)
        if epoch is None:
            return self._each(name, lambda d: function(QUANTITIES[quantity](d["logits"].values)))
        units: dict[Key, Array] = {}
        for seed, data in self._open("epochs", name):
            chosen = data["test"].values == (part == "test")
            at = self._epoch(data, epoch)
            values = data["largest"].values[at, chosen]
            if quantity == "gap":
                values = values - data["second"].values[at, chosen]
            units[(seed,)] = function(values)
        return Estimate(units, int(chosen.sum()))

    def _epoch(self, data: xr.Dataset, epoch: int) -> int:
        epochs = data["epoch"].values.tolist()
        if epoch in (0, -1):
            return epoch
        if epoch not in epochs:
            raise Unsuitable(f"{data.attrs['run']} was trained to epoch {epochs[-1]}, not {epoch}")
        return int(epochs.index(epoch))

    def _pictures(self) -> NDArray[np.uint8]:
        path = images.stored_sheet(self.dataset)
        if not path.is_file():
            raise store.Missing(path, "logitdist fetch")
        return _pictures(path)


@cache
def _pictures(path: Path) -> NDArray[np.uint8]:
    return images.read_sheet(path)


@cache
def _measures(folder: Path, dataset: str, scale: str, limit: int | None) -> Measures:
    return Measures(dataset, scale, limit)


def forget() -> None:
    """Forget what was read and computed: the files have changed."""
    _measures.cache_clear()


def evaluate(formula: str, dataset: str, scale: str) -> Estimate:
    """Return what a formula of the register comes to.

    Parameters
    ----------
    formula : str
        Python, of the methods of `Measures` and `COMBINATIONS`.
    dataset, scale : str

    Raises
    ------
    Missing
        If a dataset is not stored, with the command that makes it.
    Unsuitable
        If those stored are not what the formula needs.
    """
    result, sizes = _evaluate(formula, _measures(places.data(), dataset, scale, None))
    if len(sizes) > 1:
        result, _ = _evaluate(formula, _measures(places.data(), dataset, scale, min(sizes)))
    return result


def _evaluate(formula: str, terms: Measures) -> tuple[Estimate, set[int]]:
    sizes: set[int] = set()

    def noted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            value = terms.term(name, *arguments, **options)
            if isinstance(value, Estimate) and value.images:
                sizes.add(value.images)
            return value

        return call

    names = COMBINATIONS | {name: noted(name) for name in TERMS}
    names |= {"teacher_epochs": terms.teacher_epochs}
    if "teacher_epoch}" in formula:
        names["teacher_epoch"] = terms.teacher_epoch
    return formulas.value(formula, names), sizes


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
