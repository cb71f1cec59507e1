"""Which segments of two segmentations of one picture go together: k-means may number the same ones differently."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def match(labels: np.ndarray, reference: np.ndarray, num_segments: int) -> np.ndarray:
    """(num_segments,) int: the segment of `reference` that goes with each of `labels`, both (H, W) in 0..k-1.

    The pairs are one to one and chosen so that as many pixels as possible are equal.
    """
    shared = np.zeros((num_segments, num_segments), np.int64)
    np.add.at(shared, (labels, reference), 1)
    return linear_sum_assignment(shared, maximize=True)[1]


def agreement(labels: np.ndarray, reference: np.ndarray) -> float:
    """Share of pixels, 0 to 1, that have the same segment in both (H, W) arrays once these are matched."""
    matched = match(labels, reference, max(labels.max(), reference.max()) + 1)
    return float((matched[labels] == reference).mean())
