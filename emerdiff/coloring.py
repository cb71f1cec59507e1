"""Fewer rows than segments: regions that do not touch are perturbed together (an approximation of this project's).

What a perturbation changes lies mostly around it. So as few rows serve any number of segments as a map of them has
colours, and what a row changes close to one of its regions is put down to that.
"""

import networkx
import numpy as np
from scipy import ndimage

from .masks import upsample_nearest

REACH = 1  # cell from a region, to which what its row changes is put down to it; found best on drawn scenes
FINER = 4  # parts of a cell's side in which that distance is measured


def color(coarse_labels: np.ndarray) -> np.ndarray:
    """The row, 0, 1, ..., in which each cell of `coarse_labels` (h, w) is perturbed: (h, w) int32.

    The regions of a segment, its connected parts, have rows of their own; none touches another of its row, not
    even at a corner.
    """
    regions = np.zeros(coarse_labels.shape, int)
    for segment in np.unique(coarse_labels):
        parts, _ = ndimage.label(coarse_labels == segment, np.ones((3, 3)))
        regions[parts > 0] = parts[parts > 0] + regions.max()
    touching = networkx.Graph()
    touching.add_nodes_from(np.unique(regions))
    neighbours = (np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:, 1:], np.s_[:-1, :-1])
    for one, other in (*neighbours, (np.s_[1:, :-1], np.s_[:-1, 1:])):
        pairs = zip(regions[one].flat, regions[other].flat, strict=True)
        touching.add_edges_from((a, b) for a, b in pairs if a != b)
    colors = networkx.greedy_color(touching, "DSATUR")
    return np.vectorize(colors.get, otypes=[np.int32])(regions)


def by_segment(responses: np.ndarray, rows: np.ndarray, coarse_labels: np.ndarray, num_segments: int) -> np.ndarray:
    """Responses of rows (r, 3, H, W), with `rows` as from `color`, as those of the segments: (k, 3, H, W) float32.

    Each is that of the nearest region of its row, if this is within `REACH`, else of none. Where two regions of a
    segment in different rows respond, their responses add up, as for `merge`.
    """
    size = responses.shape[-2:]
    finer = tuple(FINER * cells for cells in rows.shape)
    rows, coarse_labels = (upsample_nearest(cells, finer) for cells in (rows, coarse_labels))
    total = np.zeros((num_segments, 3, *size), np.float32)
    for row, response in enumerate(responses):
        distance, nearest = ndimage.distance_transform_edt(rows != row, return_indices=True)
        owner = upsample_nearest(np.where(distance <= REACH * FINER, coarse_labels[tuple(nearest)], -1), size)
        for segment in np.unique(owner[owner >= 0]):
            total[segment] += np.where(owner == segment, response, 0)
    return total
