"""Figure B.4: Figure 1 for CIFAR-100."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from paper import figure1, style


def make() -> Figure:
    """Return the figure."""
    return figure1.make("figureB4", "cifar100")


if __name__ == "__main__":
    sys.exit(style.main("figureB4", make, sys.argv[1:]))
