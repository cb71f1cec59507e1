"""What classes a model's features can tell apart, in a minute: `python -m emerdiff.miniature.probe --model DIR`.

A score to steer training by: no picture is painted, only the features of the 16 x 16 cells are read. They are judged in
two ways, over the pixels of pictures with truth:

- how well k-means groups the cells of each picture, which is EmerDiff's first step: each segment of whole cells takes
  its commonest class (majority), or segments and classes are matched one to one (Hungarian);
- how well linear discriminant analysis tells the class of each cell. It is trained on the cells of four fifths of the
  dataset's pictures, with their commonest classes, and judged on the other fifth; each fifth is used once.

No map of whole cells can be better than one in which each cell has its commonest class (ceiling).
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from .. import load
from ..loading import MINIATURE
from ..masks import upsample_nearest
from ..pipeline import EmerDiffPipeline
from ..segments import cluster
from ..settings import Settings
from ..studies import scoring
from ..studies.datasets import VOID, Dataset, open_dataset
from ..studies.scoring import Table

SCENES = "scenes:700000..700039"
FOLDS = 5


@dataclass(frozen=True)
class Scores:
    """mIoU, and for the linear classifier also the share of pixels whose class is right; 0 to 1."""

    majority: float
    hungarian: float
    linear: float
    linear_accuracy: float
    ceiling: float


def probe(pipe: EmerDiffPipeline, dataset: Dataset, settings: Settings) -> Scores:
    """Scores of the features that `settings` name.

    Raises `ValueError` for fewer than `FOLDS` pictures, or for one that does not fit its labels.
    """
    if len(dataset.names) < FOLDS:
        raise ValueError(f"a linear probe needs at least {FOLDS} pictures, not {len(dataset.names)}")
    cells = list(read(pipe, dataset, settings))
    segments = [segment(picture, settings.num_segments) for picture in cells]
    classified = classify(cells)
    return Scores(
        majority=scoring.miou(scoring.majority(segments)),
        hungarian=scoring.miou(scoring.hungarian(segments)),
        linear=scoring.miou(classified),
        linear_accuracy=scoring.accuracy(classified),
        ceiling=scoring.miou(scoring.majority(cells)),
    )


def read(pipe: EmerDiffPipeline, dataset: Dataset, settings: Settings) -> Iterator[Table]:
    """The table of each picture as if each cell were a segment; without edges, which no score here needs."""
    for name in dataset.names:
        image, truth = dataset.load(name)
        features = pipe.features(image, settings)
        h, w, c = features.shape
        cells, judged = upsample_nearest(np.arange(h * w).reshape(h, w), truth.shape), truth != VOID
        counts = np.zeros((h * w, len(dataset.classes)), np.int64)
        np.add.at(counts, (cells[judged], truth[judged]), 1)
        yield Table(counts, features.reshape(h * w, c), np.empty((0, 4), np.int64))


def segment(cells: Table, num_segments: int) -> Table:
    """The table of the segments that k-means makes of the cells, as in EmerDiff, but with fewer restarts."""
    labels = cluster(cells.embeddings, num_segments, n_init=10)
    within = np.eye(num_segments, dtype=np.int64)[:, labels]  # (k, cells)
    means = within @ cells.embeddings / within.sum(1, keepdims=True)
    return Table(within @ cells.counts, means.astype(np.float32), cells.edges)


def classify(pictures: Sequence[Table]) -> np.ndarray:
    """Outcomes (n, 3, classes) of the pictures' cells, each given a class by what other pictures' cells show."""
    outcomes = [None] * len(pictures)
    for fold in range(FOLDS):
        known = [picture for i, picture in enumerate(pictures) if i % FOLDS != fold]
        features, counts = (np.concatenate([getattr(p, of) for p in known]) for of in ("embeddings", "counts"))
        judged = counts.any(1)
        classifier = LinearDiscriminantAnalysis().fit(features[judged], counts[judged].argmax(1))
        for i in range(fold, len(pictures), FOLDS):
            outcomes[i] = scoring.outcome(pictures[i].counts, classifier.predict(pictures[i].embeddings))
    return np.stack(outcomes)


def table(pipe: EmerDiffPipeline, sources: Sequence[str], settings: Settings) -> Iterator[str]:
    """Lines of text: a heading, then the scores of each dataset, in per cent."""
    datasets = {source: open_dataset(source, pipe.native_side) for source in sources}
    width, names = max(map(len, sources)), [field.name.replace("_", " ") for field in fields(Scores)]
    yield "  ".join([f"{'per cent':{width}}", "pictures", *names])
    for source, dataset in datasets.items():
        scores = vars(probe(pipe, dataset, settings)).values()
        cells = [f"{100 * score:{len(name)}.1f}" for name, score in zip(names, scores, strict=True)]
        yield "  ".join([f"{source:{width}}", f"{len(dataset.names):8}", *cells])


def main() -> None:
    parser = argparse.ArgumentParser("python -m emerdiff.miniature.probe", description=__doc__.split(":")[0])
    parser.add_argument(
        "datasets",
        nargs="*",
        default=[SCENES],
        metavar="DATASET",
        help=f"as for `emerdiff evaluate`: scenes, or the folder of a dataset (default: {SCENES})",
    )
    parser.add_argument("--model", default=MINIATURE, help='"miniature" (default), a Hub id or a folder')
    parser.add_argument("--num-segments", type=int, default=12, help="segments of k-means (default: %(default)s)")
    for name in ("feature_timestep", "feature_layer", "feature_draws"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=argparse.SUPPRESS, help="default: the model's own")
    options = vars(parser.parse_args())
    sources, model = options.pop("datasets"), options.pop("model")
    try:
        pipe = load(model)
        for line in table(pipe, sources, pipe.settings(**options)):
            print(line, flush=True)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
