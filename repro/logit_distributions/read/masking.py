"""Signs of masked gradients in what attacks of several strengths and kinds found. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

TOLERATED = 1.0
"""Percent of the images that two attacks may differ by; the convention of the claims."""

OF_ONE_LOSS = 5.0
"""Points by which a second loss may lower what the first leaves, unless it is most of it."""


@dataclass(frozen=True)
class Masking:
    """What attacks found on one network, in percent of its images.

    Attributes
    ----------
    natural : float
    by_eps, by_iterations, by_restarts : dict of float
        Accuracy under attack, by radius in 255ths, iterations, restarts; but for what is varied all
        are in the ball of the recipe, of 100 iterations and one start.
    one_loss : float
        Accuracy after the first loss alone, in that ball.
    square : float
        Accuracy after Square alone.
    only_square : float
        What only Square fools, of all images.
    only_others : dict of float
        By name, what only the adversarial images of another network fool.
    no_gradient : float
        Correct images without any gradient of the cross-entropy.
    """

    natural: float
    by_eps: dict[float, float]
    by_iterations: dict[int, float]
    by_restarts: dict[int, float]
    one_loss: float
    square: float
    only_square: float
    only_others: dict[str, float]
    no_gradient: float

    @property
    def accuracy(self) -> float:
        """Accuracy under the main attack."""
        return self.by_restarts[min(self.by_restarts)]

    @property
    def signs(self) -> dict[str, str]:
        """Each sign of masked gradients, by a word for it, as a clause."""
        by_eps = {0.0: self.natural, **self.by_eps}
        radii = sorted(by_eps)
        rise = max(by_eps[larger] - by_eps[smaller] for smaller, larger in pairwise(radii))
        more, longer = (
            self.accuracy - each[max(each)] for each in (self.by_restarts, self.by_iterations)
        )
        helper = max(self.only_others, key=self.only_others.__getitem__, default="")
        helped = self.only_others.get(helper, 0.0)
        one = self.one_loss - self.accuracy
        signs = {
            "radius": (
                by_eps[radii[-1]] > TOLERATED,
                f"{by_eps[radii[-1]]:.1f} % survive in a ball of {radii[-1]:.0f}/255",
            ),
            "rise": (rise > TOLERATED, f"accuracy rises by {rise:.1f} points in a larger ball"),
            "iterations": (
                longer > TOLERATED,
                f"{max(self.by_iterations)} iterations lower it by {longer:.1f} points more",
            ),
            "restarts": (
                more > TOLERATED,
                f"{max(self.by_restarts)} restarts lower it by {more:.1f} points more",
            ),
            "square": (
                self.only_square > TOLERATED,
                f"Square, which needs no gradient, fools {self.only_square:.1f} % that the "
                "gradient attacks leave",
            ),
            "transfer": (
                helped > TOLERATED,
                f"adversarial images of {helper} fool {helped:.1f} % that its own leave",
            ),
            "loss": (
                one > OF_ONE_LOSS and self.one_loss > 2 * self.accuracy,
                f"the cross-entropy alone leaves {self.one_loss:.1f} %, of which the second loss "
                f"fools {one:.1f}",
            ),
            "gradient": (
                self.no_gradient > TOLERATED,
                f"the cross-entropy has no gradient at all on {self.no_gradient:.1f} %",
            ),
        }
        return {word: clause for word, (is_sign, clause) in signs.items() if is_sign}

    def sentence(self, name: str) -> str:
        """Return what the checks say of a network of this name."""
        if signs := self.signs:
            return f"{name}: signs of masked gradients: {'; '.join(signs.values())}."
        radius, longest = max(self.by_eps), max(self.by_iterations)
        longer = self.accuracy - self.by_iterations[longest]
        others = max(self.only_others.values(), default=0.0)
        return (
            f"{name}: no sign of masked gradients: {self.by_eps[radius]:.1f} % survive in a ball "
            f"of {radius:.0f}/255, {longest} iterations lower accuracy by {longer:.1f} points "
            f"more, only Square fools {self.only_square:.1f} %, only another network's images "
            f"{others:.1f} %."
        )


def masking(dataset: xr.Dataset, others: Mapping[str, xr.Dataset] | None = None) -> Masking:
    """Return what a dataset of kind ``masking`` shows.

    Parameters
    ----------
    dataset : Dataset
    others : mapping, optional
        By name, those of other networks, whose adversarial images may have been tried on this one.
    """
    eps, iterations, restarts = (dataset[word].values for word in ("eps", "iterations", "restarts"))
    survives = dataset["survives"].values
    last = survives[:, -1]
    most = restarts.argmax()  # differs from the main attack in restarts only
    usual, once, here = iterations == iterations[most], restarts == 1, eps == eps[most]
    main = last[usual & once & here][0]
    name = json.loads(dataset.attrs["recipe"])["name"]
    tried = {
        other: each["transferred"].sel(target=name).values
        for other, each in (others or {}).items()
        if name in each["target"].values
    }
    return Masking(
        natural=_percent(dataset["natural"].values),
        by_eps={
            round(float(255 * radius), 3): _percent(row)
            for radius, row in zip(eps[usual & once], last[usual & once], strict=True)
        },
        by_iterations=_by(iterations[once & here], last[once & here]),
        by_restarts=_by(restarts[usual & here], last[usual & here]),
        one_loss=_percent(survives[usual & once & here][0, 0]),
        square=_percent(dataset["survives_square"].values),
        only_square=_percent(main & ~dataset["survives_square"].values),
        only_others={other: _percent(main & ~right) for other, right in tried.items()},
        no_gradient=_percent(dataset["no_gradient"].values & dataset["natural"].values),
    )


def _by(keys: NDArray[np.integer], rows: NDArray[np.bool_]) -> dict[int, float]:
    return {int(keys[i]): _percent(rows[i]) for i in np.argsort(keys)}


def _percent(hits: NDArray[np.bool_]) -> float:
    return 100 * float(hits.mean())
