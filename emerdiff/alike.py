"""What is alike: how near every place of some pictures is to one place, in the network's features."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from .segmentation import Segmentation


def alike(results: Sequence[Segmentation], cell: tuple[int, int], picture: int = 0) -> list[np.ndarray]:
    """How alike every cell of pictures is to one `cell` (row, column) of a `picture`: (h, w) float32, -1 to 1, of each.

    It is the cosine of the cells' features after the mean of their picture has been subtracted. All cells have that
    mean in common, so with it hardly anything would be unlike anything. A cell at the mean itself is like nothing: 0.
    Raises `ValueError` for a cell that is not there.
    """
    if not 0 <= picture < len(results):
        raise ValueError(f"picture must be from 0 to {len(results) - 1}, not {picture}")
    h, w = results[picture].coarse_labels.shape
    if not (0 <= cell[0] < h and 0 <= cell[1] < w):
        raise ValueError(f"a cell must have a row from 0 to {h - 1} and a column from 0 to {w - 1}, not {cell}")
    directions = [_directions(one.features) for one in results]
    sought = directions[picture][cell]
    return [(own @ sought).clip(-1, 1) for own in directions]


def cell_at(labels: np.ndarray, coarse_labels: np.ndarray, y: int, x: int) -> tuple[int, int]:
    """The cell (row, column) that stands for the pixel at y, x: of its segment's cells the nearest to where it lies.

    `labels` (H, W) are the segments of the pixels, `coarse_labels` (h, w) those of the cells. A pixel near an edge may
    lie in a cell of the segment beyond. Of a segment without cells it is the cell at that place.
    """
    (height, width), (h, w) = labels.shape, coarse_labels.shape
    at = y * h // height, x * w // width
    row, column = _nearest_of(coarse_labels == labels[y, x])[:, *at]
    return int(row), int(column)


def sharpened(values: np.ndarray, coarse_labels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Values (h, w) of cells at the pixels (H, W) of `labels`, with the edges of these; float32.

    `coarse_labels` (h, w) are the segments of the cells, `labels` those of the pixels. Between the middles of cells
    values change bilinearly, as in any enlargement, but each pixel takes only cells of its own segment: in place of
    another one it takes the nearest of its own. So values change gradually within a segment, and all at once at its
    edge, which the network has found to the pixel. A segment without cells takes all.
    """
    columns, right, left_share = _between(labels.shape[1], values.shape[1])
    rows, below, upper_share = _between(labels.shape[0], values.shape[0])
    segments = range(labels.max() + 1)
    whole = np.stack([values[*_nearest_of(coarse_labels == i)] for i in segments]).astype(np.float32)  # (k, h, w)
    wide = whole[..., columns] * left_share + whole[..., right] * (1 - left_share)  # (k, h, W)
    across = np.arange(labels.shape[1])
    upper, lower = (wide[labels, of[:, None], across] for of in (rows, below))  # (H, W)
    return lower + (upper - lower) * upper_share[:, None]


def _directions(features: np.ndarray) -> np.ndarray:
    """Features (h, w, c) less their mean, of length 1 or, where nothing is left, 0; float32."""
    centred = features - features.mean((0, 1), dtype=np.float64)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    least = 1e-6 * np.linalg.norm(features, axis=-1, keepdims=True)  # what rounding leaves
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > least).astype(np.float32)


def _nearest_of(cells: np.ndarray) -> np.ndarray:
    """(2, h, w): row and column of the one of `cells` (h, w) bool nearest to each cell; its own if there are none."""
    if not cells.any():
        return np.indices(cells.shape)
    return distance_transform_edt(~cells, return_distances=False, return_indices=True)


def _between(pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel along an axis the cells before and after it, by their middles, and the share of the first."""
    place = ((np.arange(pixels) + 0.5) * cells / pixels - 0.5).clip(0, cells - 1)
    before = place.astype(int)
    return before, np.minimum(before + 1, cells - 1), (1 - (place - before)).astype(np.float32)
