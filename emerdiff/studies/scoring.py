"""Scores of segmentations: how segments, which have no names, are given classes, and how these are scored.

A protocol turns the tables of a dataset's pictures into outcomes (n, 3, classes): for each picture and class, the
number of pixels that are correctly given it, that truly have it, and that are given it. mIoU is computed from their
sum over the dataset and averaged over the classes in the ground truth. Void pixels are in no table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment
from scipy.stats import bootstrap
from sklearn.cluster import KMeans

from ..drawing import boundaries
from ..masks import pooled
from .datasets import VOID

TOLERANCES = (1, 2, 4)  # pixels, of boundary F


@dataclass(frozen=True, eq=False)
class Table:
    """What the scores need to know about one segmented picture."""

    counts: np.ndarray
    """(segments, classes) int64: pixels of each segment by class, without void."""
    embeddings: np.ndarray
    """(segments, c) float32: mean low-resolution feature inside each segment, as in the paper."""
    edges: np.ndarray
    """(tolerances, 4) int64: what `boundary_counts` counts, at each of `TOLERANCES`."""


def tabulate(labels: np.ndarray, truth: np.ndarray, features: np.ndarray, num_classes: int) -> Table:
    """The table of a picture with segments `labels` (H, W), classes `truth` (H, W) and `features` (h, w, c)."""
    _, segments = np.unique(labels, return_inverse=True)
    segments = segments.reshape(labels.shape)
    judged = truth != VOID
    counts = np.zeros((segments.max() + 1, num_classes), np.int64)
    np.add.at(counts, (segments[judged], truth[judged]), 1)
    sums, pixels = pooled(segments, features, len(counts))
    embeddings = (sums / pixels[:, None]).astype(np.float32)
    edges = np.stack([boundary_counts(segments, truth, tolerance) for tolerance in TOLERANCES])
    return Table(counts, embeddings, edges)


def boundary_counts(segments: np.ndarray, truth: np.ndarray, tolerance: int) -> np.ndarray:
    """(4,): boundary pixels of `segments` within `tolerance` pixels of the truth's, all of them; and vice versa.

    Boundaries within `tolerance` pixels of void are left out on both sides.
    """
    ours, theirs = boundaries(segments), boundaries(truth)
    if (truth == VOID).any():
        scored = distance_transform_edt(truth != VOID) > tolerance + 1  # a boundary lies before the change
        ours, theirs = ours & scored, theirs & scored
    near_theirs, near_ours = (
        distance_transform_edt(~edges) <= tolerance if edges.any() else edges for edges in (theirs, ours)
    )
    return np.array([(ours & near_theirs).sum(), ours.sum(), (theirs & near_ours).sum(), theirs.sum()])


def outcome(counts: np.ndarray, assigned: np.ndarray) -> np.ndarray:
    """(3, classes): pixels correctly given each class, truly of it, and given it, in one picture.

    `counts` (segments, classes) are the picture's; `assigned` (segments,) is the class that each segment is given, or
    -1 for none, which makes all its pixels wrong.
    """
    hits, predicted = np.zeros((2, counts.shape[1]), np.int64)
    named = assigned >= 0
    np.add.at(hits, assigned[named], counts[named, assigned[named]])
    np.add.at(predicted, assigned[named], counts[named].sum(1))
    return np.stack([hits, counts.sum(0), predicted])


# ---------------------------------------------------------------- protocols


def majority(tables: Sequence[Table]) -> np.ndarray:
    """Oracle: each segment gets the class of most of its pixels, which is the best that a partition can do."""
    return np.stack([outcome(table.counts, table.counts.argmax(1)) for table in tables])


def hungarian(tables: Sequence[Table]) -> np.ndarray:
    """One to one in each picture, as DiffSeg (arXiv 2308.12469) and DiffCut (arXiv 2406.02842), at full resolution.

    Segments are matched with classes so that as many pixels as possible agree; segments left over get no class.
    """
    results = []
    for table in tables:
        segments, classes = linear_sum_assignment(table.counts, maximize=True)
        assigned = np.full(len(table.counts), -1)
        assigned[segments] = np.where(table.counts.sum(0)[classes] > 0, classes, -1)
        results.append(outcome(table.counts, assigned))
    return np.stack(results)


def traditional(tables: Sequence[Table]) -> np.ndarray:
    """The paper's traditional protocol (as in STEGO, arXiv 2203.08414).

    k-means groups the embeddings of all segments of the dataset into as many clusters as the truth has classes. The
    clusters are matched one to one with the classes so that as many pixels as possible agree.
    """
    counts = np.concatenate([table.counts for table in tables])
    classes = np.flatnonzero(counts.sum(0))
    kmeans = KMeans(min(len(classes), len(counts)), n_init=10, random_state=0)
    clusters = kmeans.fit_predict(np.concatenate([table.embeddings for table in tables]))
    overlap = np.zeros((kmeans.n_clusters, len(classes)), np.int64)
    np.add.at(overlap, clusters, counts[:, classes])
    matched, to = linear_sum_assignment(overlap, maximize=True)
    class_of = np.full(kmeans.n_clusters, -1)
    class_of[matched] = classes[to]
    ends = np.cumsum([len(table.counts) for table in tables])[:-1]
    parts = zip(tables, np.split(class_of[clusters], ends), strict=True)
    return np.stack([outcome(table.counts, assigned) for table, assigned in parts])


def modified(tables: Sequence[Table], concepts: np.ndarray) -> np.ndarray:
    """The paper's modified protocol (its Table 2): each segment gets the class of the nearest concept.

    `concepts` (classes, c): mean feature of the pixels of each class on pictures set apart for this; NaN for classes
    that do not occur there, which no segment is given.
    """
    known = np.flatnonzero(np.isfinite(concepts).all(1))
    results = []
    for table in tables:
        distances = np.linalg.norm(table.embeddings[:, None] - concepts[known][None], axis=2)
        results.append(outcome(table.counts, known[distances.argmin(1)]))
    return np.stack(results)


# ---------------------------------------------------------------- scores and their intervals


def miou(outcomes: np.ndarray) -> float:
    """Mean intersection over union, 0 to 1, of the sum of outcomes (n, 3, classes), over the classes in the truth."""
    hits, true, predicted = outcomes.sum(0)
    present = true > 0
    return float((hits / np.maximum(true + predicted - hits, 1))[present].mean())


def accuracy(outcomes: np.ndarray) -> float:
    """Share of pixels whose class is right, 0 to 1, void excluded."""
    hits, true, _ = outcomes.sum(0)
    return float(hits.sum() / max(true.sum(), 1))


def boundary_f(edges: np.ndarray) -> float:
    """F score of boundary pixels, 0 to 1, from the sum of counts (n, 4)."""
    hits_ours, ours, hits_theirs, theirs = edges.sum(0)
    precision, recall = hits_ours / max(ours, 1), hits_theirs / max(theirs, 1)
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def oracle(tables: Sequence[Table]) -> dict[str, float]:
    """mIoU under `majority` and boundary F at 2 pixels: the quality of a partition in two numbers."""
    edges = np.stack([table.edges for table in tables])
    return {"miou": miou(majority(tables)), "boundary_f": boundary_f(edges[:, TOLERANCES.index(2)])}


def interval(score: Callable[[np.ndarray], float], ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of score(ours) - score(theirs), both (n, ...), over the same pictures.

    Segments keep the classes that they were given on the whole dataset.
    """

    def gain(drawn: np.ndarray) -> float:
        return score(ours[drawn]) - score(theirs[drawn])

    pictures = np.arange(len(ours))
    if len(pictures) < 2:  # nothing to resample
        return gain(pictures), gain(pictures)
    found = bootstrap([pictures], gain, vectorized=False, method="percentile", n_resamples=1000, rng=0)
    low, high = found.confidence_interval
    return float(low), float(high)
