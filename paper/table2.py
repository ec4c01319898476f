"""Table 2: accuracies of students distilled using manipulated logits, CIFAR-10."""

import sys
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions import recipes, store
from logit_distributions.read import distribution
from logit_distributions.recipes import Scale
from paper import selection, tables


def make() -> tables.Table:
    """Return the table from the stored datasets."""
    reported = tables.reported("table2")
    return _table(reported, selection.printed("logits", list(reported)))


def of_scale(scale: str) -> tables.Table:
    """Return the table of any scale: a variation, or students of a given teacher."""
    reported = tables.reported("table2")
    runs = selection.at_scale("logits", list(reported), scale)
    made = _table(reported, [runs])
    made.notes.append(_teachers(runs.scale))
    return made


def _table(reported: dict[str, Any], selected: list[selection.Selection]) -> tables.Table:
    rows, notes = [], [tables.method_note(selected[0].eps)]
    for runs in selected:
        measured = {name: tables.accuracies(name, runs[name]) for name in reported}
        for name, ours in measured.items():
            paper = reported[name]
            rows.append(tables.accuracy_row(paper["label"], paper, runs.scale, ours))
        rows += _own_rows(runs.scale)
        notes.append(tables.scale_note(runs, ours))
        errors = [
            100 * log.attrs["teacher_training_error"]
            for log in store.find("log", "normal", scale=runs.scale)
            if log.attrs["seed"] in ours.seeds
        ]
        if errors:
            notes.append(
                f"The averaged targets get {tables.in_percent(np.array(errors))} % of the training "
                "images wrong (paper: 19.6 ± 0.6)."
            )
        if runs is not selected[0]:  # what the smaller ones show is Table S's
            continue
        notes += _order_notes(runs.scale, measured, reported)
        notes += [
            _effect(reported[name]["label"], runs[name], runs["normal"])
            for name in reported
            if name != "normal"
        ]
    return tables.Table("table2", ("student", *tables.HEADER), rows, notes)


def _own_rows(scale: str) -> list[tuple[str, ...]]:
    """Return a row for each student of adopted targets, of which the paper says nothing."""
    own: dict[str, list[xr.Dataset]] = {}
    for each in store.find("logits", f"{recipes.OWN}*", scale=scale):
        own.setdefault(str(store.recipe_of(each)["name"]), []).append(each)
    rows = []
    for name, some in own.items():
        ours = tables.accuracies(name, some)
        numbers = (ours.natural, ours.adversarial)
        cells = [(tables.in_percent(v), tables.interval(v, ours.samples)) for v in numbers]
        rows.append((name, scale, *(text for pair in cells for text in ("–", *pair))))
    return rows


def _teachers(scale: str) -> str:
    """Return a note on the accuracies of the networks that taught the students."""
    given = Scale.parse(scale).given
    words = []
    for name in ("at", "st"):
        if datasets := store.find("logits", name, scale=scale):
            ours = tables.accuracies(name, datasets)
            called = given if given and name == "at" else selection.label(name)
            words.append(
                f"{called} natural {tables.in_percent(ours.natural)}, adversarial "
                f"{tables.in_percent(ours.adversarial)}"
            )
    return f"Teachers: {'; '.join(words) or 'not stored'}."


def _order_notes(
    scale: str, measured: dict[str, tables.Accuracies], reported: dict[str, Any]
) -> list[str]:
    """Say in which order the students are, in the paper and here, by either accuracy."""
    sentences = []
    for kind, sign in (("adversarial", ">"), ("natural", "<")):
        values = np.array([getattr(ours, kind) for ours in measured.values()])
        paper = np.array([reported[name][kind][0] for name in measured])
        order, ours = np.argsort(paper), np.argsort(values.mean(1), kind="stable")
        holds = int((np.diff(values[order], axis=0) > 0).all(axis=0).sum())  # a tie is no order
        if sign == ">":
            order, ours = order[::-1], ours[::-1]
        labels = [reported[name]["label"] for name in measured]
        sentences.append(
            f"Scale {scale}, {kind}: the paper {f' {sign} '.join(labels[i] for i in order)}, ours "
            f"{f' {sign} '.join(labels[i] for i in ours)}; the paper's order in {holds} of "
            f"{values.shape[1]} seeds."
        )
    return sentences


def _effect(label: str, student: list[xr.Dataset], normal: list[xr.Dataset]) -> str:
    """Say how far a student is from the normal one, with the noise of images and of trainings."""
    parts = []
    for kind, of in (("natural", _hits), ("adversarial", _robust)):
        each, base = (100 * np.array([of(d) for d in some]) for some in (student, normal))
        apart = (each - base).mean(0)
        images = float(apart.std(ddof=1)) / np.sqrt(len(apart))
        spread, other = (distribution.mean_and_sd(v.mean(1))[1] for v in (each, base))
        trainings = float(np.hypot(spread, other)) / np.sqrt(len(each))
        noise = "" if np.isnan(trainings) else f", {trainings:.2f} from trainings"
        parts.append(f"{kind} {apart.mean():+.2f} ({images:.2f} from images{noise})")
    return f"{label} minus Normal, with standard errors: {', '.join(parts)}."


def _hits(data: xr.Dataset) -> NDArray[np.bool_]:
    return distribution.is_correct(data["logits"].values, data["label"].values)


def _robust(data: xr.Dataset) -> NDArray[np.bool_]:
    robust: NDArray[np.bool_] = data["robust"].values[-1]
    return robust


if __name__ == "__main__":
    sys.exit(tables.main("table2", make, sys.argv[1:], of_scale))
