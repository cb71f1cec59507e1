"""Fewer segments without the network, by linear response.

To first order the signed change of the picture, G(I+) - G(I-), is linear in the offset map: the response of a
union of segments is the sum of their responses. This is an observation of this project, not of the paper;
docs/results.md shows how far it holds.
"""

from dataclasses import replace

import numpy as np
from scipy.cluster.hierarchy import cut_tree, ward

from .segmentation import Segmentation

CUT_FROM = "Cut from "  # so begins the note on segments that have been merged from more


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
    cells = np.concatenate([one.coarse_labels.ravel() for one in fine])
    means = np.concatenate([one.features.reshape(-1, one.features.shape[-1]) for one in fine]).astype(float)
    for i in np.unique(cells):
        means[cells == i] = means[cells == i].mean(0)
    present, first_cell, weights = np.unique(cells, return_index=True, return_counts=True)
    parts = cut_tree(ward(means), range(1, len(present) + 1))[first_cell]  # the cells of a segment merge at no cost
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
