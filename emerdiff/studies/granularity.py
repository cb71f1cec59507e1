"""Whether the number of segments should follow from the picture: rules for it against the best fixed number.

Each picture is segmented finely once and cut to every number of segments. A picture's score is its mIoU, one to one
(`scoring.hungarian`). A rule has one parameter, as a fixed number has. It is chosen on half of the pictures and scored
on the other half, and the other way round; so each picture is scored by a choice that was made without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from sklearn.metrics import silhouette_score

from ..pipeline import EmerDiffPipeline
from ..recut import cuts, heights, merge
from ..settings import FINE, Settings
from . import scoring
from .datasets import VOID, Dataset

FIXED = "fixed number"
PEAKS = "largest fall of heights", "silhouette"
LEAST = (2, 3, 4, 5, 6, 8, 10)  # numbers from which the peaks are sought
GAINS = "gain", "gain over the set's own"
FACTORS = np.geomspace(0.01, 3, 120)


@dataclass(frozen=True, eq=False)
class Cut:
    """What is known of one picture. Entry n of each array is for n segments; entries 0 and 1 are not used."""

    scores: np.ndarray
    """(k + 1,) mIoU, 0 to 1."""
    heights: np.ndarray
    """(k + 1,) as `emerdiff.heights` has them."""
    silhouettes: np.ndarray
    """(k + 1,) of the cells."""
    variation: float
    """Root of the features' variance."""


def read(pipe: EmerDiffPipeline, dataset: Dataset, settings: Settings) -> Iterator[Cut]:
    """Yields what is known of each picture, in the order of their names."""
    for name in dataset.names:
        image, truth = dataset.load(name)
        fine = pipe(image, replace(settings, num_segments=FINE))
        truth = np.asarray(Image.fromarray(truth).resize(fine.image.shape[1::-1], Image.Resampling.NEAREST))
        features, groups = fine.features.reshape(-1, fine.features.shape[-1]), cuts(fine)
        scores, silhouettes = np.full((2, FINE + 1), -1.0)
        for n in range(2, len(groups)):
            cut = merge(fine, groups[n])
            scores[n] = _miou(cut.labels[truth != VOID], truth[truth != VOID])
            silhouettes[n] = silhouette_score(features, cut.coarse_labels.ravel())
        scores[len(groups) :] = scores[len(groups) - 1]
        found = np.r_[heights(fine), np.zeros(FINE + 1 - len(groups))]
        yield Cut(scores, found, silhouettes, float(np.sqrt(features.var(0).sum())))


def _miou(labels: np.ndarray, truth: np.ndarray) -> float:
    counts = np.zeros((FINE, VOID), np.int64)
    np.add.at(counts, (labels, truth), 1)
    return scoring.miou(scoring.hungarian([scoring.Table(counts, np.empty((0, 0)), np.empty((0, 0)))]))


def numbers(cut: Cut) -> dict[str, np.ndarray]:
    """By rule, the number of segments for each value of its parameter, from 2 to `FINE`."""
    falls = cut.heights[2:-1] / np.maximum(cut.heights[3:], 1e-9)  # from n to n + 1, for n from 2 on

    def above(unit: float) -> np.ndarray:
        return np.maximum(2, (cut.heights[1:] >= unit * FACTORS[:, None]).sum(1))

    return {
        FIXED: np.arange(2, FINE + 1),
        "height": above(1),
        "height by the picture's variation": above(cut.variation),
        "height by the largest": above(cut.heights[2]),
        PEAKS[0]: np.array([n + falls[n - 2 :].argmax() for n in LEAST]),
        PEAKS[1]: np.array([n + cut.silhouettes[n:].argmax() for n in LEAST]),
    }


def parameters(rule: str) -> np.ndarray:
    """Those of the rule for which `numbers` has the numbers of segments."""
    return {FIXED: np.arange(2, FINE + 1)}.get(rule, np.array(LEAST) if rule in PEAKS else FACTORS)


def held_out(sets: Sequence[Sequence[Cut]], rule: str) -> list[np.ndarray]:
    """For each set of pictures, the scores (n,) by the rule, its parameter chosen on the other half of all sets."""
    by_value = _by_value(sets, rule)
    chosen = [sum(of[half::2].mean(0) for of in by_value).argmax() for half in range(2)]
    return [np.array([of[i, chosen[1 - i % 2]] for i in range(len(of))]) for of in by_value]


def best(sets: Sequence[Sequence[Cut]], rule: str) -> float:
    """The parameter of the rule that is best for all pictures; that of "height" is a model's `merge_height`."""
    return float(parameters(rule)[sum(of.mean(0) for of in _by_value(sets, rule)).argmax()])


def _by_value(sets: Sequence[Sequence[Cut]], rule: str) -> list[np.ndarray]:
    """For each set of pictures, the scores (n, values) with each value of the rule's parameter."""
    return [np.stack([cut.scores[numbers(cut)[rule]] for cut in one]) for one in sets]


def compare(sets: Sequence[Sequence[Cut]]) -> dict[str, list[dict[str, object]]]:
    """By rule, a row for each set: its score and its gain over one fixed number for all sets, with a 95 % interval.

    Each row also has the gain over the best fixed number for this set alone, the ceiling, which is each picture's best,
    and the parameter that is `best` for all sets.
    """
    fixed, alone = held_out(sets, FIXED), [held_out([one], FIXED)[0] for one in sets]
    rows = {}
    for rule in numbers(sets[0][0]):
        rows[rule] = []
        for ours, one, own, cut in zip(held_out(sets, rule), fixed, alone, sets, strict=True):
            gains = dict(zip(GAINS, (one, own), strict=True))
            rows[rule].append(
                {"score": float(ours.mean()), "ceiling": float(np.mean([of.scores.max() for of in cut]))}
                | {"parameter": best(sets, rule)}
                | {
                    name: [float((ours - of).mean()), *scoring.interval(np.mean, ours, of)]
                    for name, of in gains.items()
                }
            )
    return rows
