"""What all figures share: colours, caption, and saving the same pixels every time."""

from __future__ import annotations

import argparse
import functools
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from logit_distributions.errors import ReproError
from logit_distributions.store import files, places
from paper import exit_code, parser_of, title

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "pdf.fonttype": 42,
}

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#aa4499", "#777777"
COLOURS = {"st": BLUE, "at": ORANGE}
CYCLE = (ORANGE, BLUE, GREEN, PURPLE, GREY, "#b58900", "#56b4e9", "#333333")
"""Colours of other networks, in the order in which they are taken."""

ORIGIN = "Images: CIFAR-10 (Krizhevsky 2009), see data/README.md."
"""The last sentence below figures that show some."""

LINE_INCHES = 0.145
"""Height of a line of the caption."""


NO_BREAK = "\N{NO-BREAK SPACE}"


def caption(figure: Figure, text: str, width: int = 150) -> None:
    """Write a wrapped caption below the panels."""
    unbroken = textwrap.fill(text.replace(" %", NO_BREAK + "%"), width)
    figure.text(0.01, 0.005, unbroken, va="bottom", ha="left", fontsize=8)
    figure.set_label(text)


def canvas(width: float, height: float, text: str) -> Figure:
    """Return a figure with a caption and, above it, room of this size (inches) for panels."""
    text = re.sub(r"\s+", " ", text).strip()
    characters = int(16 * width)
    lines = len(textwrap.wrap(text.replace(" %", NO_BREAK + "%"), characters))
    below = LINE_INCHES * lines + 0.1
    figure = Figure(figsize=(width, height + below), layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    share = below / (height + below)
    engine.set(rect=(0.005, share, 0.99, 1 - share), w_pad=0.06, h_pad=0.06)  # type: ignore[call-arg]
    caption(figure, text, characters)
    return figure


def mean_and_spread(
    values: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return mean and sample standard deviation over rows; the latter zero for one row."""
    spread = values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])
    return values.mean(0), spread


def edges_between(low: float, high: float, count: int, rounding: float) -> NDArray[np.float64]:
    """Return the edges of at most `count` equal bins that hold both ends.

    Each bin holds as many multiples of the rounding as any other, and none lies on an edge:
    otherwise bins of 11 and of 12 multiples would draw a ripple on a smooth density.
    """
    first, last = np.floor(low / rounding), np.ceil(high / rounding)
    multiples = int(np.ceil((last - first + 1) / count))
    bins = int(np.ceil((last - first + 1) / multiples))
    edges: NDArray[np.float64] = (first - 0.5 + multiples * np.arange(bins + 1)) * rounding
    return edges


def printed(name: str) -> str:
    """Return an artefact's or a data set's name as printed: ``figureB4`` is Figure B.4."""
    text = re.sub(r"([A-Z])(?=\d)", r"\1.", name.replace("figure", "Figure ", 1))
    return text.replace("cifar", "CIFAR-")


def panel(axes: Any, letter: str, title: str) -> None:
    """Give a panel its letter and its title."""
    axes.set_title(f"$\\bf{{{letter}}}$  {title}", loc="left")


def tile(
    axes: Any, picture: NDArray[np.uint8], x: float, y: float, text: str = "", framed: bool = False
) -> None:
    """Draw a picture, shape (3, rows, columns), in the unit square right of x and below -y."""
    axes.imshow(picture.transpose(1, 2, 0), extent=(x, x + 1, -y - 1, -y), interpolation="nearest")
    if text:
        axes.text(x + 0.5, 0.03 - y, text, ha="center", va="bottom", fontsize=6.5)
    if framed:
        axes.add_patch(Rectangle((x, -y - 1), 1, 1, fill=False, linewidth=2.2, clip_on=False))


def album(axes: Any, columns: float, rows: float) -> None:
    """Make room for tiles in this many columns and rows of unit squares."""
    axes.set(xlim=(0, columns), ylim=(-rows, 0.25), aspect="equal")
    axes.set_axis_off()


def _settle(figure: Figure) -> None:
    """Lay a figure out and round the places of its axes.

    The layout's solver may end some 1e-16 beside where it ended before, which a PDF shows
    wherever a coordinate lies between two of its last digits. Axes of equal aspect find their
    place in the second layout only.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        if any(axes.get_aspect() != "auto" for axes in figure.axes):
            engine.execute(figure)
    figure.set_layout_engine(None)  # otherwise saving draws everything once more before it draws
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6).tolist())


def save(name: str, make: Callable[[], Figure]) -> Figure:
    """Make a figure and write it as PDF and PNG, and its caption as text, to the build folder."""
    folder = places.build() / "figures"
    with mpl.rc_context(STYLE):
        figure = make()
        _settle(figure)
        for suffix in (".pdf", ".png"):
            with files.atomic(folder / f"{name}{suffix}") as temporary:
                # The date would make every PDF a different file.
                metadata = {"CreationDate": None} if suffix == ".pdf" else None
                figure.savefig(temporary, format=suffix[1:], metadata=metadata)
    with files.atomic(folder / f"{name}.txt") as temporary:
        temporary.write_text(f"{figure.get_label()}\n", encoding="utf-8")
    return figure


def height_of_caption(figure: Figure) -> float:
    """Return which share of a saved figure's height its caption takes, at the bottom."""
    return float(figure.texts[0].get_window_extent().y1 / figure.bbox.height)


def main(
    name: str,
    make: Callable[[], Figure],
    arguments: Sequence[str] = (),
    of_files: Callable[[Sequence[str]], Figure] | None = None,
) -> int:
    """Make and save a figure and print where; or say in one line what is missing.

    Parameters
    ----------
    name : str
    make : callable
        Returns the figure of the stored networks.
    arguments : sequence of str
        Files of other networks, drawn instead under a name of their own, and ``--debug``.
    of_files : callable, optional
        Returns the figure of such files; a figure without it takes none.
    """
    parser = parser_of(f"paper.{name}", title(name))
    about = "datasets of other networks to draw" if of_files else argparse.SUPPRESS
    parser.add_argument("paths", nargs="*", metavar="FILE", help=about)
    paths: list[str] = parser.parse_args(arguments).paths

    def command() -> int:
        saved, drawn = name, make
        if paths and of_files is None:
            raise ReproError(f"takes no files, got {paths[0]}; Figures 1 to 3 do")
        if paths and of_files is not None:
            saved, drawn = f"{name}-{_stem(paths)}", functools.partial(of_files, paths)
        save(saved, drawn)
        for suffix in (".pdf", ".png", ".txt")[: 3 if paths else 2]:
            print(places.build() / "figures" / f"{saved}{suffix}")
        return 0

    return exit_code(name, command)


def _stem(paths: Sequence[str]) -> str:
    """Return a name for the figure of some files."""
    more = f"-and-{len(paths) - 1}-more" if len(paths) > 1 else ""
    return f"{Path(paths[0]).stem}{more}"
