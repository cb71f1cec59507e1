"""Masks as polygons, for tools that read no run lengths; a polygon of theirs has one ring and cannot have holes."""

import numpy as np
from contourpy import FillType, contour_generator
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

EDGES, CENTRES = 0.5, 0.999  # the level at which a mask's contour runs between its pixels, or through their centres


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Rings (n, 2) of x, y around each connected part of a mask (H, W) bool, in pixels from the picture's corner.

    They run along the edges of the pixels, as COCO's own reader expects; corners are cut by half a pixel.
    """
    return [ring + 0.5 for ring in _rings(mask, EDGES)]


def traces(mask: np.ndarray) -> list[np.ndarray]:
    """Rings (n, 2) of x, y, whole numbers: the outermost pixels of each connected part of a mask (H, W) bool.

    This is what readers expect that fill polygons with OpenCV, which draws the outline, too.
    """
    return [ring for ring in map(_straightened, map(np.rint, _rings(mask, CENTRES))) if len(ring)]


def _rings(mask: np.ndarray, level: float) -> list[np.ndarray]:
    """Contours (n, 2) of x, y, where whole numbers are the centres of pixels; holes are joined to what is around."""
    if (window := find_objects(mask, 1)[0]) is None:
        return []
    padded = np.pad(mask[window].astype(np.float32), 1)
    contours = contour_generator(z=padded, name="serial", fill_type=FillType.OuterOffset).filled(level, np.inf)
    corner = np.array([window[1].start, window[0].start]) - 1
    rings = [_joined(np.split(points, ends[1:-1])) for points, ends in zip(*contours, strict=True)]
    return [_straightened(ring) + corner for ring in rings]


def _joined(rings: list[np.ndarray]) -> np.ndarray:
    """One ring of an outer ring and its holes, all closed: a hole is reached, and left, by the shortest way.

    Such a way is passed twice, so that it encloses nothing.
    """
    whole = rings[0]
    for hole in rings[1:]:
        distances, nearest = KDTree(whole).query(hole)
        at = distances.argmin()
        leave = nearest[at]
        around = np.concatenate([hole[at:-1], hole[: at + 1]])
        whole = np.concatenate([whole[: leave + 1], around, whole[leave:]])
    return whole[:-1]


def _straightened(ring: np.ndarray) -> np.ndarray:
    """Without points that repeat the one before or lie on the straight line between their neighbours."""
    ring = ring[(ring != np.roll(ring, 1, 0)).any(1)] if len(ring) > 1 else ring
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    bends = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    turns_back = (before * after).sum(1) < 0
    return ring[bends | turns_back]
