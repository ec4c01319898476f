"""What trained networks say to the assumptions and claims of Appendix C, from stored logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from logit_distributions import plans, store
from logit_distributions.read.distribution import margins
from paper import selection
from paper.appendix_c.surrogate import Array, threshold

EXPLAINED_AT_LEAST = 0.25
"""R² below which a change of the gap counts as neither linear nor quadratic in the gap."""


def expansion_ratio(logits: ArrayLike) -> Array:
    """Return ‖z - β φ‖⁴ / β⁴, which C.2.4 assumes to be far below one.

    Parameters
    ----------
    logits : array_like, shape (n, N)

    Returns
    -------
    ndarray, shape (n,)
        Infinite where the largest logit is zero.
    """
    z = np.asarray(logits, dtype=np.float64)
    beta = z.max(1)
    rest = np.maximum((z**2).sum(1) - beta**2, 0)
    with np.errstate(divide="ignore"):
        return np.asarray((rest / beta**2) ** 2)


@dataclass(frozen=True)
class Fit:
    """How the change of the gap depends on the gap.

    Attributes
    ----------
    linear, quadratic : float
        R² of c₀ + c₁ gap and of c₀ + c₂ gap²: two parameters each.
    exponent : float
        Slope of ln(mean decrease) against ln(mean gap) over ten groups of equal size; 2
        where the decrease is quadratic, 1 where it is proportional. nan where the gap of a
        group grows on average.
    growing : float
        Share of the examples whose gap grows.
    count : int
    """

    linear: float
    quadratic: float
    exponent: float
    growing: float
    count: int

    @property
    def shape(self) -> str:
        """``"linear"``, ``"quadratic"`` or, where neither explains a quarter, ``"neither"``."""
        if not max(self.linear, self.quadratic) >= EXPLAINED_AT_LEAST:
            return "neither"
        return "linear" if self.linear >= self.quadratic else "quadratic"


def fit_change(gap: ArrayLike, change: ArrayLike) -> Fit:
    """Compare a linear and a quadratic dependence of the change of the gap on the gap.

    Parameters
    ----------
    gap, change : array_like, shape (n,)
        Before the attack; after minus before.

    Returns
    -------
    Fit
        R² are nan for fewer than ten examples or a change that does not vary.
    """
    gap, change = np.asarray(gap, dtype=np.float64), np.asarray(change, dtype=np.float64)
    if len(gap) < 10 or change.std() == 0:
        growing = float((change > 0).mean()) if len(gap) else np.nan
        return Fit(np.nan, np.nan, np.nan, growing, len(gap))
    linear, quadratic = (float(np.corrcoef(x, change)[0, 1] ** 2) for x in (gap, gap**2))
    groups = np.array_split(np.argsort(gap, kind="stable"), 10)
    mean_gap = np.array([gap[group].mean() for group in groups])
    decrease = np.array([-change[group].mean() for group in groups])
    exponent = np.nan
    if (decrease > 0).all() and (mean_gap > 0).all():
        exponent = float(np.polyfit(np.log(mean_gap), np.log(decrease), 1)[0])
    return Fit(linear, quadratic, exponent, float((change > 0).mean()), len(gap))


@dataclass(frozen=True)
class LogitStudy:
    """Appendix C against one logit dataset.

    Attributes
    ----------
    run, recipe, scale : str
    seed, count : int
    ratio : tuple of float
        10 %, 50 % and 90 % quantiles of `expansion_ratio`.
    ratio_small : float
        Share of the examples whose ratio is below 0.1.
    largest : float
        Mean of the largest logit over all examples.
    largest_wrong : float
        The same over the misclassified ones.
    wrong_above : float
        Share of the misclassified whose largest logit exceeds `bound`.
    bound : float
        The 3.5 of figure C.1 (for 100 classes 5.15).
    attacked : Fit
        Of the gap change under the stored attack, over all correctly classified examples.
    survivors : Fit
        The same over those that stay correct. An attack that stops at success ends just
        below a margin of zero, which makes the change of the others linear by itself.
    """

    run: str
    recipe: str
    scale: str
    seed: int
    count: int
    ratio: tuple[float, float, float]
    ratio_small: float
    largest: float
    largest_wrong: float
    wrong_above: float
    bound: float
    attacked: Fit
    survivors: Fit


def study_logits(data: xr.Dataset) -> LogitStudy:
    """Return what a dataset of kind ``logits`` says."""
    z, adversarial = data["logits"].values, data["adversarial_logits"].values
    labels = data["label"].values
    ratio = expansion_ratio(z)
    low, middle, high = np.quantile(ratio, (0.1, 0.5, 0.9))
    correct = z.argmax(1) == labels
    largest = z.max(1).astype(np.float64)
    before, after = (margins(x, labels).hard[correct] for x in (z, adversarial))
    survives = after > 0
    bound = threshold(z.shape[1], "flip")
    wrong = largest[~correct]
    return LogitStudy(
        run=data.attrs["run"],
        recipe=store.recipe_of(data)["name"],
        scale=data.attrs["scale"],
        seed=int(data.attrs["seed"]),
        count=len(z),
        ratio=(float(low), float(middle), float(high)),
        ratio_small=float((ratio < 0.1).mean()),
        largest=float(largest.mean()),
        largest_wrong=float(wrong.mean()) if len(wrong) else np.nan,
        wrong_above=float((wrong > bound).mean()) if len(wrong) else np.nan,
        bound=bound,
        attacked=fit_change(before, after - before),
        survivors=fit_change(before[survives], (after - before)[survives]),
    )


@dataclass(frozen=True)
class StepStudy:
    """Appendix C against one dataset of gradient steps (`gradient_step`).

    Attributes
    ----------
    run, recipe, scale : str
    seed, count : int
    eps : tuple of float
        L2 lengths of the steps in units of the length of the image.
    hard, soft, mean : tuple of Fit
        One per step, over the correctly classified examples: change of each margin against
        the hard margin before, which is the gap.
    """

    run: str
    recipe: str
    scale: str
    seed: int
    count: int
    eps: tuple[float, ...]
    hard: tuple[Fit, ...]
    soft: tuple[Fit, ...]
    mean: tuple[Fit, ...]


def study_steps(data: xr.Dataset) -> StepStudy:
    """Return what a dataset of gradient steps says."""
    names = ("hard_margin", "soft_margin", "mean_margin")
    margins_of = {name: data[name].values for name in names}
    eps = data["eps"].values
    gap = margins_of["hard_margin"][0].astype(np.float64)
    correct = gap > 0

    def fits(name: str) -> tuple[Fit, ...]:
        values = margins_of[name].astype(np.float64)[:, correct]
        return tuple(fit_change(gap[correct], after - values[0]) for after in values[1:])

    return StepStudy(
        run=data.attrs["run"],
        recipe=store.recipe_of(data)["name"],
        scale=data.attrs["scale"],
        seed=int(data.attrs["seed"]),
        count=len(gap),
        eps=tuple(float(e) for e in eps[1:]),
        hard=fits("hard_margin"),
        soft=fits("soft_margin"),
        mean=fits("mean_margin"),
    )


@dataclass(frozen=True)
class Studies:
    """What all stored networks say."""

    logits: list[LogitStudy]
    steps: list[StepStudy]


def stored() -> Studies:
    """Study the networks of Table 2, of the scale that readers prefer, in the order of their names.

    The appendix speaks of ten classes and of trained networks: CIFAR-100's and the students of
    sweeps, attacked on fewer images, are none of them.

    Raises
    ------
    ReproError
        If a dataset is damaged.
    """

    def by_run(stage: str) -> list[xr.Dataset]:
        try:
            scale = selection.select(stage, ["at"]).scale
        except store.Missing:
            return []
        datasets = [each for name in plans.TABLE2 for each in store.find(stage, name, scale=scale)]
        return sorted(datasets, key=lambda data: str(data.attrs["run"]))

    return Studies(
        [study_logits(data) for data in by_run("logits")],
        [study_steps(data) for data in by_run("theory")],
    )


MISSING_LOGITS = "no logit datasets in data/logits: make them with `logitdist make table2`"
MISSING_STEPS = "no gradient steps in data/theory: make them with `logitdist make figureC3`"

LOGIT_HEADER = (
    "run", "samples", "ratio 10/50/90 %", "ratio < 0.1", "mean largest", "wrong: mean largest",
    "wrong above bound", "APGD: R² linear/quadratic", "unfooled: R² linear/quadratic",
    "unfooled: gap grows",
)  # fmt: skip
STEP_HEADER = (
    "run", "samples", "ε", "R² linear/quadratic", "exponent", "verdict", "gap grows",
    "soft margin grows", "mean margin grows",
)  # fmt: skip


def logit_rows(studies: list[LogitStudy]) -> list[tuple[str, ...]]:
    """Return one row of text per logit dataset, under `LOGIT_HEADER`."""
    return [
        (
            s.run,
            str(s.count),
            " / ".join(_number(q, ".3g") for q in s.ratio),
            _number(s.ratio_small, ".1%"),
            _number(s.largest, ".2f"),
            _number(s.largest_wrong, ".2f"),
            f"{s.wrong_above:.1%} (> {s.bound:.2f})",
            _explained(s.attacked),
            _explained(s.survivors),
            _number(s.survivors.growing, ".2%"),
        )
        for s in studies
    ]


def step_rows(studies: list[StepStudy]) -> list[tuple[str, ...]]:
    """Return one row of text per run and step length, under `STEP_HEADER`."""
    return [
        (
            s.run,
            str(hard.count),
            _number(eps, "g"),
            _explained(hard),
            _number(hard.exponent, ".2f"),
            hard.shape,
            _number(hard.growing, ".2%"),
            _number(soft.growing, ".2%"),
            _number(mean.growing, ".2%"),
        )
        for s in studies
        for eps, hard, soft, mean in zip(s.eps, s.hard, s.soft, s.mean, strict=True)
    ]


def _explained(fit: Fit) -> str:
    return f"{_number(fit.linear, '.3f')} / {_number(fit.quadratic, '.3f')}"


def _number(value: float, form: str) -> str:
    """Return a formatted number, a dash for what is not known."""
    return format(value, form) if np.isfinite(value) else "–"


def markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def report(studies: Studies) -> Iterator[str]:
    """Yield, as Markdown, what the stored networks say; one line where there are none."""
    if studies.logits:
        yield from markdown_table(LOGIT_HEADER, logit_rows(studies.logits))
    else:
        yield f"There are {MISSING_LOGITS}."
    yield ""
    if studies.steps:
        yield from markdown_table(STEP_HEADER, step_rows(studies.steps))
    else:
        yield f"There are {MISSING_STEPS}."
