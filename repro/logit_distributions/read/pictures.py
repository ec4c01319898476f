"""Statistics of images: how similar two look, how plain a background is. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def colour_distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the Euclidean distance of the mean colours of images.

    Parameters
    ----------
    first, second : ndarray of uint8, shape (..., 3, rows, columns)
        Their leading dimensions broadcast.

    Returns
    -------
    ndarray, shape (...,)
        0 to sqrt(3): RGB in [0, 1].
    """
    means = [images.mean((-2, -1), dtype=np.float64) / 255 for images in (first, second)]
    distance: NDArray[np.float64] = np.linalg.norm(means[0] - means[1], axis=-1)
    return distance


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


def shape_distance(
    first: NDArray[np.uint8], second: NDArray[np.uint8], cells: int = 8
) -> NDArray[np.float64]:
    """Return one minus the correlation of the edge thumbnails of images.

    Parameters
    ----------
    first, second : ndarray of uint8, shape (..., 3, rows, columns)
        Their leading dimensions broadcast.
    cells : int
        As in `edge_thumbnails`.

    Returns
    -------
    ndarray, shape (...,)
        0 for edges in the same places, 1 for unrelated ones, at most 2; 1 where an image has
        the same amount of edge everywhere.
    """
    return correlation_distance(edge_thumbnails(first, cells), edge_thumbnails(second, cells))


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
    """
    unit = []
    for values in (first, second):
        centred = values - values.mean(-1, keepdims=True, dtype=np.float64)
        norm = np.linalg.norm(centred, axis=-1, keepdims=True)
        unit.append(centred / np.where(norm > 0, norm, 1))
    distance: NDArray[np.float64] = 1 - (unit[0] * unit[1]).sum(-1)
    return distance


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
