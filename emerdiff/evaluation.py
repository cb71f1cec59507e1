"""How well segments fit the truth: each takes the class that most of its pixels have.

The majority assignment is an oracle: it judges the partition, not a labelling. mIoU and accuracy come from
one confusion matrix over the whole dataset.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment

from .drawing import boundaries


def assign_majority(segments: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """(H, W): each pixel has the class most frequent in its segment. Both inputs are (H, W) integers."""
    counts = np.zeros((segments.max() + 1, num_classes), np.int64)
    np.add.at(counts, (segments.ravel(), truth.ravel()), 1)
    return counts.argmax(1)[segments]


def confusion(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """(classes, classes) pixel counts: rows are the truth, columns the prediction."""
    pairs = truth.ravel().astype(np.int64) * num_classes + predicted.ravel()
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def agreement(labels: np.ndarray, reference: np.ndarray) -> float:
    """Share of equal pixels, 0 to 1, under the best matching of segments: k-means may number them otherwise."""
    matrix = confusion(labels, reference, 1 + max(labels.max(), reference.max()))
    return float(matrix[linear_sum_assignment(matrix, maximize=True)].sum() / labels.size)


def mean_iou(matrix: np.ndarray) -> float:
    """Intersection over union, 0 to 1, averaged over the classes that the truth has."""
    hits = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hits
    present = matrix.sum(1) > 0
    return float((hits[present] / union[present]).mean())


def boundary_counts(segments: np.ndarray, truth: np.ndarray, tolerance: int) -> np.ndarray:
    """(4,): boundary pixels of `segments` within `tolerance` pixels of the truth's, all of them; and vice versa."""
    ours, theirs = boundaries(segments), boundaries(truth)
    near_theirs, near_ours = (
        distance_transform_edt(~edges) <= tolerance if edges.any() else edges for edges in (theirs, ours)
    )
    return np.array([(ours & near_theirs).sum(), ours.sum(), (theirs & near_ours).sum(), theirs.sum()])


@dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1."""

    miou: float
    accuracy: float
    boundary_f: float


class Scorer:
    """Adds up pictures, then tells the scores of the whole set."""

    def __init__(self, num_classes: int, tolerance: int = 2) -> None:
        self.num_classes, self.tolerance = num_classes, tolerance
        self.matrix, self.edges = np.zeros((num_classes, num_classes), np.int64), np.zeros(4, np.int64)

    def add(self, segments: np.ndarray, truth: np.ndarray) -> None:
        assigned = assign_majority(segments, truth, self.num_classes)
        self.matrix += confusion(assigned, truth, self.num_classes)
        self.edges += boundary_counts(segments, truth, self.tolerance)

    @property
    def scores(self) -> Scores:
        hits_ours, ours, hits_theirs, theirs = self.edges
        precision, recall = hits_ours / max(ours, 1), hits_theirs / max(theirs, 1)
        boundary_f = 2 * precision * recall / max(precision + recall, 1e-12)
        return Scores(mean_iou(self.matrix), float(np.diag(self.matrix).sum() / self.matrix.sum()), float(boundary_f))
