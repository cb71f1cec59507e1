"""Fewer segments without the network, by linear response.

To first order the signed change of the picture, G(I+) - G(I-), is linear in the offset map: the response of a
union of segments is the sum of their responses. This is an observation of this project, not of the paper; README
says how far it holds.
"""

from dataclasses import replace

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from .masks import label, upsample_naive
from .segmentation import Segmentation


def recut(fine: Segmentation, num_segments: int) -> Segmentation:
    """The picture in `num_segments` segments, from 2 to those of `fine`, made by merging these.

    Segments with near features merge first (Ward's method on the clusters' mean features, weighted by their
    cells), so that the results for all numbers are nested. Raises `ValueError` for another number.
    """
    k = fine.settings.num_segments
    if not 2 <= num_segments <= k:
        raise ValueError(f"num_segments must be from 2 to {k}, those of the segmentation, not {num_segments}")
    cells = fine.coarse_labels.ravel()
    means = fine.features.reshape(len(cells), -1).copy()
    for i in np.unique(cells):
        means[cells == i] = means[cells == i].mean(0)
    by_cell = AgglomerativeClustering(num_segments).fit_predict(means)  # the cells of a segment merge at no cost
    present, first_cell = np.unique(cells, return_index=True)
    groups = np.zeros(k, int)
    groups[present] = by_cell[first_cell]
    return merge(fine, groups)


def merge(fine: Segmentation, groups: np.ndarray) -> Segmentation:
    """The segmentation whose segments are unions: segment i of `fine` becomes part of `groups[i]`.

    `groups`: k whole numbers; they are made 0, 1, ... in the order of their first members.
    """
    values, first, groups = np.unique(groups, return_index=True, return_inverse=True)
    groups = first.argsort().argsort()[groups]
    if len(groups) != len(fine.responses):
        raise ValueError(f"groups must have a number for each of {len(fine.responses)} segments, not {len(groups)}")
    k, height, width = len(values), *fine.labels.shape
    responses = np.zeros((k, 3, height, width), np.float32)
    for group, response in zip(groups, fine.responses, strict=True):
        responses[group] += response
    differences = np.sqrt(np.einsum("kchw,kchw->khw", responses, responses))
    labels, confidence = label(differences)
    coarse = groups[fine.coarse_labels].astype(np.int32)
    return replace(
        fine,
        labels=labels,
        coarse_labels=coarse,
        responses=responses.astype(np.float16),
        differences=differences,
        naive_labels=upsample_naive(coarse, k, (height, width)),
        confidence=confidence,
        settings=replace(fine.settings, num_segments=k),
        notes=(*fine.notes, f"Cut from {len(groups)} segments by adding their responses."),
    )
