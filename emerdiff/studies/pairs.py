"""Whether one set of segments finds the same things in two pictures better than two runs that are matched afterwards.

Two drawn scenes of one kind have classes in common. Two scores, each from 0 to 1 and the mean over the pairs, compare
the segments with these. Both are of pixels whose class occurs in both pictures:

- `pairs`: of all pairs of a pixel in one picture and a pixel in the other, those of one class should be those of one
  segment; the F score of that, the harmonic mean of precision and recall.
- `carried`: each segment is named in one picture, by the class of most of its pixels there; how many pixels of the
  other picture then have the right name. Both ways, averaged. A segment that the first picture lacks has no name.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ..miniature.scenes import CLASSES, KINDS, draw_scene
from ..pipeline import EmerDiffPipeline
from ..segmentation import Segmentation
from ..segments import centred
from ..settings import Settings
from . import scoring

TOGETHER, ONE_TO_ONE, NEAREST = "together", "apart, matched one to one", "apart, matched with the nearest"
NAIVE = "together, naive upsampling"


def compare(pipe: EmerDiffPipeline, seeds: Sequence[int], settings: Settings) -> Iterator[dict[str, dict[str, object]]]:
    """After each pair of scenes yields rows by name: both scores, and their gains of `TOGETHER` with 95 % intervals.

    A pair has a scene of each of two seeds that follow each other; both are of one kind. Segments of separate runs are
    matched as `cluster_together` does it, by their mean features less those of their pictures.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for i, pair in enumerate(zip(seeds[::2], seeds[1::2], strict=True)):
        scenes = [draw_scene(seed, pipe.native_side, KINDS[i % len(KINDS)]) for seed in pair]
        truths = [scene.labels for scene in scenes]
        both = pipe.segment_together([scene.image for scene in scenes], settings)
        apart = [pipe(scene.image, settings) for scene in scenes]
        labels = {TOGETHER: [one.labels for one in both], NAIVE: [one.naive_labels for one in both]}
        for name, partner in matched(*apart).items():  # segments of the second picture by those of the first
            labels[name] = [apart[0].labels, partner[apart[1].labels]]
        for name, of in labels.items():
            found.setdefault(name, []).append(scores(*map(counts, of, truths)))
        yield {name: row(np.array(values), np.array(found[TOGETHER])) for name, values in found.items()}


def matched(first: Segmentation, second: Segmentation) -> dict[str, np.ndarray]:
    """By way of matching, the number (k,) in the `first` picture of each segment of the `second`."""
    features = centred([first.features, second.features])
    ours, theirs = (
        np.stack([of[one.coarse_labels == i].mean(0) for i in range(one.settings.num_segments)])
        for of, one in zip(features, (first, second), strict=True)
    )
    distances = cdist(theirs, ours, "sqeuclidean")
    return {ONE_TO_ONE: linear_sum_assignment(distances)[1], NEAREST: distances.argmin(1)}


def counts(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(segments, classes): pixels of each segment by class; segments are counted up to the most there can be."""
    table = np.zeros((Settings.range_of("num_segments")[1], len(CLASSES)), np.int64)
    np.add.at(table, (labels, truth), 1)
    return table


def scores(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """`pairs` and `carried` of two pictures' counts (segments, classes)."""
    common = (first.sum(0) > 0) & (second.sum(0) > 0)
    a, b = (table[:, common] / table[:, common].sum() for table in (first, second))
    hits, of_a_class, of_a_segment = (a * b).sum(), a.sum(0) @ b.sum(0), a.sum(1) @ b.sum(1)
    carried = [(there * (here.argmax(1)[:, None] == np.arange(here.shape[1])) * here.any(1)[:, None]).sum()
               for here, there in ((a, b), (b, a))]  # fmt: skip
    return float(2 * hits / (of_a_class + of_a_segment)), float(np.mean(carried))


def row(values: np.ndarray, ours: np.ndarray) -> dict[str, object]:
    """The mean scores, and how far `ours` are above them, with intervals; both (pairs, 2)."""
    result: dict[str, object] = {}
    for i, name in enumerate(("pairs", "carried")):
        gain, between = (ours - values)[:, i].mean(), scoring.interval(np.mean, ours[:, i], values[:, i])
        result |= {name: float(values[:, i].mean()), f"gain in {name}": [float(gain), *between]}
    return result
