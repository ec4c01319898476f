"""Figure B.5: Figure 2 for CIFAR-100."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from paper import figure2, style


def make() -> Figure:
    """Return the figure."""
    return figure2.make("figureB5", "cifar100", one_epoch=True)


if __name__ == "__main__":
    sys.exit(style.main("figureB5", make, sys.argv[1:]))
