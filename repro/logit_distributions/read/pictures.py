"""Statistics of images: how similar two look, how plain a background is. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_colours(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean colour of each image.

    Parameters
    ----------
    images : ndarray of uint8, shape (..., 3, rows, columns)

    Returns
    -------
    ndarray, shape (..., 3)
        RGB in [0, 1].
    """
    means: NDArray[np.float64] = images.mean((-2, -1), dtype=np.float64) / 255
    return means


def edge_thumbnails(images: NDArray[np.uint8], cells: int = 8) -> NDArray[np.float64]:
    """Return how much edge is where: gradient magnitude of the grey image, averaged over cells.

    Colour and the sign of a contrast leave no trace in it.

    Parameters
    ----------
    images : ndarray of uint8, shape (..., 3, rows, columns)
        Rows and columns divisible by `cells`.
    cells : int
        To a side.

    Returns
    -------
    ndarray, shape (..., cells * cells)
    """
    grey = images.mean(-3, dtype=np.float64) / 255
    edges = np.hypot(*np.gradient(grey, axis=(-2, -1)))
    *lead, rows, columns = edges.shape
    blocks = edges.reshape(*lead, cells, rows // cells, cells, columns // cells)
    thumbnails: NDArray[np.float64] = blocks.mean((-3, -1)).reshape(*lead, cells * cells)
    return thumbnails


def euclidean_distance(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the Euclidean distance along the last axis.

    Parameters
    ----------
    first, second : ndarray, shape (..., n)
        Their leading dimensions broadcast.

    Returns
    -------
    ndarray, shape (...,)
        Of two mean colours, 0 to sqrt(3).
    """
    distance: NDArray[np.float64] = np.linalg.norm(first - second, axis=-1)
    return distance


def correlation_distance(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return one minus Pearson's correlation along the last axis, 1 where one is constant.

    Parameters
    ----------
    first, second : ndarray, shape (..., n)
        Their leading dimensions broadcast.

    Returns
    -------
    ndarray, shape (...,)
        Of two edge thumbnails, 0 for edges in the same places, 1 for unrelated ones or where an
        image has the same amount of edge everywhere, at most 2.
    """
    unit = []
    for values in (first, second):
        centred = values - values.mean(-1, keepdims=True, dtype=np.float64)
        norm = np.linalg.norm(centred, axis=-1, keepdims=True)
        unit.append(centred / np.where(norm > 0, norm, 1))
    distance: NDArray[np.float64] = 1 - (unit[0] * unit[1]).sum(-1)
    return distance


COMPARED = {
    "colour": (mean_colours, euclidean_distance),
    "shape": (edge_thumbnails, correlation_distance),
}
"""What is compared of images, and how far apart two are in it."""


def background_variation(images: NDArray[np.uint8], border: int = 4) -> NDArray[np.float64]:
    """Return how far from plain the border of each image is: the sd of its pixels' colours.

    Parameters
    ----------
    images : ndarray of uint8, shape (..., 3, rows, columns)
    border : int
        Width of the frame that counts as background, pixels.

    Returns
    -------
    ndarray, shape (...,)
        Root mean square over the channels, RGB in [0, 1]; 0 for a frame of one colour.
    """
    frame = np.ones(images.shape[-2:], bool)
    frame[border:-border, border:-border] = False
    variance = (images[..., frame] / 255).var(-1).mean(-1)
    variation: NDArray[np.float64] = np.sqrt(variance)
    return variation
