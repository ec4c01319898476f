"""Figure A.6: accuracies of students against the epoch of their teacher."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from logit_distributions import recipes, store
from paper import selection, style
from paper.figure4 import errorbars

LOSSES = {
    "logits": (style.GREEN, "o", "L1 on logits"),
    "softmax": (style.PURPLE, "s", "KL on softmax"),
}


def names(scale: str, losses: Sequence[str]) -> list[str]:
    """Return the recipes of the students of a figure."""
    epochs = sorted(recipes.Scale.parse(scale).teacher_epochs)
    return [f"{loss}-epoch-{epoch}" for loss in losses for epoch in epochs]


def make(artefact: str = "figureA6", losses: Sequence[str] = ("logits",)) -> Figure:
    """Return the figure; figure A.7 is the same with two losses."""
    runs = selection.select(
        "logits", ["at"], optional=lambda scale: names(scale, losses), paired=False
    )
    epochs = sorted(recipes.SCALES[runs.scale].teacher_epochs)
    accuracies, about = selection.sweep(runs)
    points = {
        loss: {
            e: accuracies[f"{loss}-epoch-{e}"] for e in epochs if f"{loss}-epoch-{e}" in accuracies
        }
        for loss in losses
    }
    figure = style.canvas(7.2, 2.7, _text(artefact, points, about, runs))
    for axes, letter, kind in zip(
        figure.subplots(1, 2), "AB", ("adversarial", "natural"), strict=True
    ):
        _teacher(axes, runs, kind)
        for number, (loss, by_epoch) in enumerate(points.items()):
            if not by_epoch:
                continue
            colour, marker, _ = LOSSES[loss]
            x = np.array(sorted(by_epoch))
            aside = 0.012 * max(epochs) * (number - (len(points) - 1) / 2)
            errorbars(axes, x + aside, [by_epoch[e] for e in x], kind, colour, marker)
        axes.set_xticks(epochs)
        axes.set(xlabel="teacher's epoch", ylabel=f"{kind} accuracy (%)", ylim=(0, None))
        style.panel(axes, letter, f"{kind} accuracy")
    legend = [(LOSSES[loss][0], LOSSES[loss][2]) for loss in losses] + [("#888888", "teacher")]
    for number, (colour, text) in enumerate(legend):
        axes.text(
            0.98, 0.28 - 0.1 * number, text, color=colour, weight="bold", ha="right",
            transform=axes.transAxes,
        )  # fmt: skip
    return figure


def _teacher(axes: Any, runs: selection.Selection, kind: str) -> None:
    """Draw the own accuracy of the students' teachers on validation images, mean over seeds."""
    variable = "validation_robust_accuracy" if kind == "adversarial" else "validation_accuracy"
    seeds = selection.seeds_of_students(runs)
    logs = [log for log in store.find("log", "at", scale=runs.scale) if log.attrs["seed"] in seeds]
    if not logs:
        return
    accuracy = 100 * np.mean([log[variable].values for log in logs], axis=0)
    axes.plot(logs[0]["epoch"].values, accuracy, color="#888888", linestyle="--", linewidth=1)


def _text(
    artefact: str,
    points: dict[str, dict[int, selection.Accuracy]],
    about: str,
    runs: selection.Selection,
) -> str:
    described, seeds = [], selection.seeds_of_students(runs)
    for loss, by_epoch in points.items():
        if by_epoch:
            best = max(by_epoch, key=lambda epoch: by_epoch[epoch].adversarial)
            last = max(by_epoch)
            described.append(
                f"{LOSSES[loss][2]}: best {by_epoch[best].adversarial:.1f} % adversarial at epoch "
                f"{best}, {by_epoch[last].adversarial:.1f} % at epoch {last}"
            )
    differences = [
        points["logits"][epoch].adversarial - points["softmax"][epoch].adversarial
        for epoch in points.get("softmax", {})
        if epoch in points["logits"]
    ]
    versus = "paper: from nearly 40 % with the teacher of epoch 20 to 0 % with that of epoch 200"
    if "softmax" in points:
        versus = "paper: logits transfer more at every epoch, by 25 points at epoch 100"
    if differences:
        versus = (
            f"logits better at {sum(d > 0 for d in differences)} of {len(differences)} epochs, by "
            f"{min(differences):.1f} to {max(differences):.1f} points; {versus}"
        )
    best_of = max(points["logits"], key=lambda e: points["logits"][e].adversarial, default=None)
    own = [
        int(each.attrs["checkpoint_epoch"]) for each in runs["at"] if each.attrs["seed"] in seeds
    ]
    late = (
        "The paper's students lose their robustness with teachers of more than 100 of 200 epochs; "
        f"here teachers of all {runs.epochs} epochs, the fall of the rate included."
        if runs.ends_early
        else ""
    )
    if own and best_of not in (None, *own):
        late += f" Table 2's teacher is of epoch {' and '.join(map(str, own))}."
    return f"""
        {style.printed(artefact)}. Students taught from unmodified AT logits, against the epoch of
        the teacher's checkpoint; APGD-CE, then APGD-DLR, Linf 8/255. {"; ".join(described)}
        ({versus}). {late} Dashed: the teacher of the same seed{"s" * (len(seeds) > 1)} itself, on
        validation images and, adversarial, by PGD on some of them. {about}
    """


if __name__ == "__main__":
    sys.exit(style.main("figureA6", make, sys.argv[1:]))
