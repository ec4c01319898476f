"""Figure A.7: accuracies of students against the loss that held them to their teacher."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from paper import figureA6, style


def make() -> Figure:
    """Return the figure."""
    return figureA6.make("figureA7", ("logits", "softmax"))


if __name__ == "__main__":
    sys.exit(style.main("figureA7", make, sys.argv[1:]))
