"""What the tables share: the paper's numbers, ours from the datasets, and four ways to print."""

from __future__ import annotations

import csv
import functools
import io
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions.errors import ReproError
from logit_distributions.read import distribution
from logit_distributions.recipes import Evaluation
from logit_distributions.store import files, places
from paper import exit_code, parser_of, title
from paper.selection import Selection


@dataclass(frozen=True)
class Table:
    """A table of text, with notes below it."""

    name: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The first line of the table's script."""
        return title(self.name)

    def text(self) -> str:
        """Return the table for a terminal: text to the left, numbers to the right."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]

        def format_line(line: tuple[str, ...]) -> str:
            first, *rest = zip(line, widths, strict=True)
            cells = [first[0].ljust(first[1])] + [cell.rjust(width) for cell, width in rest]
            return "  ".join(cells).rstrip()

        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        body = [self.title, rule, format_line(self.header), rule]
        body += [format_line(row) for row in self.rows] + [rule] + self.notes
        return "\n".join(body) + "\n"

    def csv(self) -> str:
        """Return the table as comma-separated values, without the notes."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.header, *self.rows])
        return file.getvalue()

    def markdown(self) -> str:
        """Return the table in Markdown."""
        aligned = ":--|" + "--:|" * (len(self.header) - 1)
        lines = [f"**{self.title}**", "", _piped(self.header), "|" + aligned]
        lines += [_piped(row) for row in self.rows] + [""] + [f"{note}  " for note in self.notes]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """Return the table as a LaTeX ``table`` with booktabs rules."""
        rows = [" & ".join(map(_escaped, row)) + r" \\" for row in self.rows]
        notes = " ".join(map(_escaped, self.notes))
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_escaped(self.title)}. {notes}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                " & ".join(map(_escaped, self.header)) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def save(self, folder: Path, stem: str) -> None:
        """Write the table as ``.txt``, ``.csv``, ``.md`` and ``.tex`` into `folder`."""
        forms = {"txt": self.text, "csv": self.csv, "md": self.markdown, "tex": self.latex}
        for suffix, form in forms.items():
            with files.atomic(folder / f"{stem}.{suffix}") as temporary:
                temporary.write_text(form(), encoding="utf-8")


def _piped(row: Sequence[str]) -> str:
    return "| " + " | ".join(row) + " |"


def _escaped(text: str) -> str:
    for plain, escaped in (("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("±", r"$\pm$")):
        text = text.replace(plain, escaped)
    return text


def save(name: str, make: Callable[[], Table]) -> Table:
    """Make a table and write it, in every form, to the build folder."""
    table = make()
    table.save(places.build() / "tables", name)
    return table


def main(
    name: str,
    make: Callable[[], Table],
    arguments: Sequence[str] = (),
    of_scale: Callable[[str], Table] | None = None,
) -> int:
    """Make, save and print a table; or say in one line what is missing.

    Parameters
    ----------
    name : str
    make : callable
        Returns the table of the stored networks at the scales that readers prefer.
    arguments : sequence of str
        ``--scale SCALE``, of which the table is made instead, and ``--debug``.
    of_scale : callable, optional
        Returns the table of any scale, a variation or a given teacher; a table without it has no
        such option.
    """
    parser = parser_of(f"paper.{name}", title(name))
    if of_scale is not None:
        parser.add_argument(
            "--scale", help="such as small+eps4 or small+given-NAME, as 'logitdist make' takes it"
        )
    scale = getattr(parser.parse_args(arguments), "scale", None)

    def command() -> int:
        if of_scale is None or scale is None:
            print(save(name, make).text())
        else:
            print(save(f"{name}-{scale}", functools.partial(of_scale, scale)).text())
        return 0

    return exit_code(name, command)


def reported(table: str) -> dict[str, dict[str, Any]]:
    """Return the numbers that the paper prints in a table, by row."""
    file = Path(__file__).with_name("reported.toml")
    rows: dict[str, dict[str, Any]] = tomllib.loads(file.read_text())[table]
    return rows


@dataclass(frozen=True)
class Accuracies:
    """Natural and adversarial accuracy of the networks of one recipe, one entry per seed."""

    natural: NDArray[np.float64]
    adversarial: NDArray[np.float64]
    seeds: tuple[int, ...]
    samples: int
    epochs: tuple[int, ...]


def accuracies(name: str, datasets: Sequence[xr.Dataset]) -> Accuracies:
    """Return the measured accuracies of a recipe's datasets, in percent.

    Raises
    ------
    ReproError
        If they are of different numbers of images.
    """
    samples = {each.sizes["sample"] for each in datasets}
    if len(samples) > 1:
        raise ReproError(f"{name}: seeds were attacked on different numbers of images {samples}")
    natural = [
        100 * distribution.is_correct(each["logits"].values, each["label"].values).mean()
        for each in datasets
    ]
    return Accuracies(
        natural=np.array(natural),
        adversarial=np.array([100 * each["robust"].values[-1].mean() for each in datasets]),
        seeds=tuple(int(each.attrs["seed"]) for each in datasets),
        samples=samples.pop(),
        epochs=tuple(int(each.attrs["checkpoint_epoch"]) for each in datasets),
    )


def in_percent(values: NDArray[np.float64]) -> str:
    """Return ``mean ± sd`` over seeds; only the mean for one seed."""
    mean, spread = distribution.mean_and_sd(values)
    return f"{mean:.2f}" if np.isnan(spread) else f"{mean:.2f} ± {spread:.2f}"


def interval(values: NDArray[np.float64], samples: int) -> str:
    """Return the 95 % Wilson interval of the mean accuracy for the number of test images."""
    low, high = distribution.wilson_interval(float(values.mean()) / 100, samples)
    return f"[{100 * low:.2f}, {100 * high:.2f}]"


def as_reported(pair: Sequence[float]) -> str:
    """Return the paper's ``mean ± sd``."""
    return f"{pair[0]:.2f} ± {pair[1]:.2f}"


HEADER = (
    "scale",
    "natural: paper",
    "ours",
    "95 % interval",
    "adversarial: paper",
    "ours",
    "95 % interval",
)


def accuracy_row(
    label: str, paper: dict[str, Any], scale: str, ours: Accuracies
) -> tuple[str, ...]:
    """Return one row: the paper's accuracies, ours, and the interval of ours."""
    return (
        label,
        scale,
        as_reported(paper["natural"]),
        in_percent(ours.natural),
        interval(ours.natural, ours.samples),
        as_reported(paper["adversarial"]),
        in_percent(ours.adversarial),
        interval(ours.adversarial, ours.samples),
    )


def scale_note(runs: Selection, ours: Accuracies) -> str:
    """Return one line on what the numbers of a scale were made from, one row's for all."""
    plural = "s" if len(ours.seeds) > 1 else ""
    return (
        f"{runs.setting()}; seed{plural} {', '.join(map(str, ours.seeds))}; "
        f"{ours.samples:,} test images each."
    )


def method_note(eps: float = Evaluation.eps) -> str:
    """Return a note on what the numbers are, of attacks in a ball of this radius."""
    return (
        "In percent, mean ± sd over seeds; Wilson interval for the number of test images. "
        f"Adversarial: APGD-CE, then APGD-DLR, Linf {255 * eps:g}/255."
    )
