"""Fewer segments without the network, by linear response.

To first order the signed change of the picture, G(I+) - G(I-), is linear in the offset map: the response of a
union of segments is the sum of their responses. This is an observation of this project, not of the paper;
docs/results.md shows how far it holds.
"""

from dataclasses import replace

import numpy as np
from scipy.cluster.hierarchy import cut_tree, ward

from .segmentation import Segmentation
from .segments import centred

CUT_FROM = "Cut from "  # so begins the note on segments that have been merged from more
TIE = 1e-9  # of the largest feature
SHARE = 0.114  # of the picture's variation, for models without a `merge_height`; docs/results.md says how it was chosen


def recut(fine: Segmentation, num_segments: int) -> Segmentation:
    """The picture in `num_segments` segments, from 2 to as many as `fine` has, merged from these as `cuts` describes.

    Raises `ValueError` for any other number.
    """
    groups = cuts(fine)
    if not 2 <= num_segments < len(groups):
        raise ValueError(
            f"num_segments must be from 2 to {len(groups) - 1}, the number of segments there are, not {num_segments}"
        )
    return merge(fine, groups[num_segments])


def cuts(*fine: Segmentation) -> np.ndarray:
    """(k + 1, k) int: row n holds the number, 0 to n - 1, of each segment of `fine` when they are merged into n.

    Of several pictures that were segmented together, it cuts all alike: `merge` each of them by the same row.

    Segments with near features merge first (Ward's method on the clusters' mean features, weighted by their cells).
    The cuts are nested, and a segment keeps its number in all of them: one more segment splits off a number, and the
    part with fewer cells is n. k is here the number of segments that have cells; others have the number 0.
    """
    tree, cells = _tree(*fine)
    present, first_cell, weights = np.unique(cells, return_index=True, return_counts=True)
    parts = cut_tree(tree, range(1, len(present) + 1))[first_cell]
    numbers = np.zeros((len(present) + 1, len(present)), int)
    for n, part in enumerate(parts.T[1:], 2):
        taken = set()
        for of_part in sorted((part == p for p in range(n)), key=lambda members: -weights[members].sum()):
            parent = numbers[n - 1, of_part][0]
            numbers[n, of_part] = n - 1 if parent in taken else parent
            taken.add(parent)
    groups = np.zeros((len(present) + 1, fine[0].settings.num_segments), int)
    groups[:, present] = numbers
    return groups


def heights(*fine: Segmentation) -> np.ndarray:
    """(k + 1,) float: entry n tells how different the two segments are that merge as n become n - 1, as `cuts` has it.

    This is the Ward height over the root of the number of cells, in units of the features: the distance of their
    means, less where a segment has few cells. It falls with n. Entries 0 and 1 are infinite.
    """
    tree, cells = _tree(*fine)
    segments = len(np.unique(cells))
    return np.r_[np.inf, np.inf, tree[::-1, 2][: segments - 1] / np.sqrt(len(cells))]


def granular(*fine: Segmentation, granularity: float = 1.0) -> int:
    """The number of segments, 2 or more, that are left if all merge that differ less than the model's `merge_height`.

    A `granularity` of 2 halves that height. It means the same in every picture: a plain one has few segments then, and
    a rich one many. docs/results.md compares it with the best fixed number.
    """
    return max(2, int((heights(*fine)[1:] >= merge_height(*fine) / granularity).sum()))


def merge_height(*fine: Segmentation) -> float:
    """How different segments must be to be kept apart at a granularity of 1.

    It is the model's own or, if it has none, a share of the variation of these pictures' features.
    """
    height = fine[0].settings.merge_height
    return float(SHARE * np.sqrt(_features(*fine).var(0).sum())) if height is None else height


def merge(fine: Segmentation, groups: np.ndarray) -> Segmentation:
    """The segmentation whose segments are unions: segment i of `fine` becomes part of `groups[i]`.

    `groups` are k whole numbers; they are renumbered 0, 1, and so on, in ascending order.
    """
    values, groups = np.unique(groups, return_inverse=True)
    if len(groups) != len(fine.responses):
        raise ValueError(f"groups must have a number for each of {len(fine.responses)} segments, not {len(groups)}")
    k = len(values)
    responses, known = np.empty((k, *fine.responses.shape[1:]), fine.responses.dtype), np.ones(k, bool)
    for group in range(k):
        responses[group] = fine.responses[groups == group].sum(0, dtype=np.float32)
        known[group] = fine.known is None or fine.known[groups == group].all()
    notes = fine.notes
    if k < len(groups) and not any(note.startswith(CUT_FROM) for note in notes):  # else it is a cut of a cut
        notes = (*notes, f"{CUT_FROM}{len(groups)} segments by adding their responses.")
    return replace(
        fine,
        coarse_labels=groups[fine.coarse_labels].astype(np.int32),
        responses=responses,
        settings=replace(fine.settings, num_segments=k),
        notes=notes,
        known=None if known.all() else known,
    )


def _features(*fine: Segmentation) -> np.ndarray:
    """(cells, c) float64, of all pictures, as they are comparable."""
    return np.concatenate([one.reshape(-1, one.shape[-1]) for one in centred([one.features for one in fine])])


def _tree(*fine: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """Ward's tree of all cells, in which those of one segment merge at no cost, and the segment of each cell."""
    cells = np.concatenate([one.coarse_labels.ravel() for one in fine])
    means = _features(*fine)
    for i in np.unique(cells):
        means[cells == i] = means[cells == i].mean(0)
    apart = TIE * (np.abs(means).max() or 1.0) * cells  # segments of the same mean, too, merge after their cells
    return ward(np.c_[means, apart]), cells
