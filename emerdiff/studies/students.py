"""Students: small segmenters that learn from masks alone, so that their scores say what the masks teach.

A student is transformers' SegFormer in a small size, from random weights. Its classes are words. It learns from the
truth of a dataset, or from the folder of a run of `emerdiff segment`, whose segments get the word of the nearest
concept, as in the paper's modified protocol, or the word that an image–text model tells.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate, unfold
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from ..dataset import folder
from ..masks import upsample_nearest
from ..naming import SURE, ImageText, Words, names
from ..picture import Picture, open_picture
from ..pipeline import EmerDiffPipeline
from ..settings import Settings
from .datasets import VOID, Dataset
from .scoring import accuracy, boundary_counts, boundary_f, miou, outcome, pooled
from .vocabulary import Vocabulary

MASKS = {"EmerDiff": "labels", "naive": "naive_labels"}  # and the arrays of an NPZ file that hold them
DRAWN = 256  # pixels a side of drawn scenes
SIDE = 128  # pixels of the pictures that a student sees
CELL = 4  # of these pixels a side: what SegFormer classifies
BATCH = 8
RATE = 2e-3  # of learning, at the highest
WARM = 0.05  # share of the steps in which it rises to that; then it falls to 0
PATCHED, EPSILON = 200, 1e-4  # pictures whose patches are whitened; what keeps noise from being magnified
TOLERANCE = 2  # pixels, of boundary F


Tell = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""From a picture (H, W, 3), its segments (H, W), features (h, w, c) and the number of segments k, the class of each
segment: (k,) int, `VOID` for none."""


@dataclass(frozen=True)
class Worded:
    """A dataset whose classes are words."""

    dataset: Dataset
    vocabulary: Vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        return self.dataset.names

    @property
    def words(self) -> Words:
        return self.vocabulary.words

    def load(self, name: str) -> tuple[Picture, np.ndarray]:
        """The picture and the word of each pixel, (H, W) uint8."""
        picture, labels = self.dataset.load(name)
        return picture, self.vocabulary.words_at(labels)


@dataclass(frozen=True, eq=False)
class Lesson:
    """A picture to learn from."""

    picture: np.ndarray
    """(SIDE, SIDE, 3) uint8."""
    classes: np.ndarray
    """(SIDE, SIDE) uint8, 255 where nothing is known."""


@dataclass(frozen=True)
class Grades:
    """Scores of one student, from 0 to 1."""

    seed: int
    miou: float
    boundary_f: float
    """Within 2 pixels."""
    accuracy: float
    seconds: float
    """Of learning."""


# ---------------------------------------------------------------- what students learn from


def of_truth(dataset: Worded) -> Iterator[Lesson]:
    for name in dataset.names:
        picture, truth = dataset.load(name)
        yield _lesson(Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture, truth)


def of_masks(run: Path, masks: str, tell: Tell) -> Iterator[Lesson]:
    """The pictures in the folder of a run with the formats imagefolder and npz; `masks` is one of `MASKS`."""
    for entry in folder.entries(run):
        picture = open_picture(run / "imagefolder" / "images" / entry.image)
        with np.load(run / "npz" / f"{entry.stem}.npz") as arrays:
            labels, features, count = arrays[MASKS[masks]], arrays["features"], len(arrays["names"])
        told = tell(np.asarray(picture), labels.astype(int), features, count)
        yield _lesson(picture, np.append(told, np.full(256 - count, VOID)).astype(np.uint8)[labels])


def by_concepts(concepts: np.ndarray) -> Tell:
    """Each segment gets the class of the nearest of the concepts (classes, c), some of which may be NaN."""
    known = np.flatnonzero(np.isfinite(concepts).all(1))

    def tell(_: np.ndarray, labels: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
        sums, pixels = pooled(labels, features, count)
        means = sums / np.maximum(pixels, 1)[:, None]  # (k, c)
        return known[np.linalg.norm(means[:, None] - concepts[known], axis=2).argmin(1)]

    return tell


def by_words(words: Words, model: ImageText) -> Tell:
    """Each segment gets its most probable word; none if that is not sure."""

    def tell(picture: np.ndarray, labels: np.ndarray, _: np.ndarray, count: int) -> np.ndarray:
        found = names([(labels, model.embed(picture))], words, model, count)
        return np.where(np.nan_to_num(found.probabilities).max(1) >= SURE, found.best(), VOID)

    return tell


def _lesson(picture: Image.Image, classes: np.ndarray) -> Lesson:
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return Lesson(pixels, upsample_nearest(classes, (SIDE, SIDE)).astype(np.uint8))


def learn_concepts(pipe: EmerDiffPipeline, dataset: Worded, settings: Settings) -> Iterator[np.ndarray]:
    """After each picture yields the mean feature of each word's pixels so far: (words, c), NaN for unseen ones."""
    sums, pixels = 0.0, np.zeros(len(dataset.words.groups))
    for name in dataset.names:
        picture, truth = dataset.load(name)
        some, count = pooled(truth.astype(int), pipe.features(picture, settings), len(pixels))
        sums, pixels = sums + some, pixels + count
        with np.errstate(invalid="ignore"):
            yield sums / np.where(pixels, pixels, np.nan)[:, None]


# ---------------------------------------------------------------- learning, and how it is judged


def new_student(classes: Sequence[str], seed: int) -> SegformerForSemanticSegmentation:
    """One that knows nothing: 0.8 million weights."""
    torch.manual_seed(seed)
    config = SegformerConfig(
        hidden_sizes=[32, 48, 96, 128],
        depths=[1, 2, 2, 1],
        num_attention_heads=[1, 2, 4, 4],
        decoder_hidden_size=64,
        classifier_dropout_prob=0.0,
        initializer_range=0.1,  # the usual 0.02 suits wider layers
        mlp_ratios=[2, 2, 2, 2],
        drop_path_rate=0.0,
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
        semantic_loss_ignore_index=VOID,
    )
    return SegformerForSemanticSegmentation(config)


def teach(
    student: SegformerForSemanticSegmentation, lessons: Sequence[Lesson], steps: int, seed: int
) -> Iterator[float]:
    """Trains a student in place; yields the loss of each step. Half of the pictures are flipped.

    The loss is that of the middle of each cell that SegFormer classifies.
    """
    rng = np.random.default_rng(seed)
    _whiten(student, lessons)
    optimizer = torch.optim.AdamW(student.parameters(), RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=WARM)
    student.train()
    order = np.concatenate([rng.permutation(len(lessons)) for _ in range(steps * BATCH // len(lessons) + 1)])
    for step in range(steps):
        some = [lessons[i] for i in order[step * BATCH : (step + 1) * BATCH]]
        flips = [slice(None, None, int(direction)) for direction in rng.choice([-1, 1], len(some))]
        pixels = np.stack([one.picture[:, flip] for one, flip in zip(some, flips, strict=True)])
        truth = np.stack([one.classes[:, flip] for one, flip in zip(some, flips, strict=True)])
        middles = torch.from_numpy(truth[:, CELL // 2 :: CELL, CELL // 2 :: CELL]).long()
        loss = student(_values(pixels, student), labels=middles.to(student.device)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        rate.step()
        yield loss.item()


@torch.no_grad()
def _whiten(student: SegformerForSemanticSegmentation, lessons: Sequence[Lesson]) -> None:
    """Makes the filters of the first layer the principal components of patches of the pictures, each of variance 1.

    Random filters see little but the mean colour of a patch, and it takes thousands of steps until they see textures.
    """
    first = next(part for part in student.modules() if isinstance(part, nn.Conv2d))
    pictures = _values(np.stack([one.picture for one in lessons[:PATCHED]]), student)
    patches = unfold(pictures, first.kernel_size, stride=8).cpu().transpose(0, 1).flatten(1)  # (3 · 7 · 7, patches)
    variances, components = torch.linalg.eigh(torch.cov(patches))  # the smallest first
    scaled = components * (variances + EPSILON).rsqrt()
    filters = scaled.flip(1)[:, : first.out_channels].T  # (filters, 3 · 7 · 7)
    first.weight.copy_(filters.reshape(first.weight.shape))
    first.bias.copy_(-filters @ patches.mean(1))


def _values(pixels: np.ndarray, student: SegformerForSemanticSegmentation) -> torch.Tensor:
    """Pictures (b, SIDE, SIDE, 3) uint8 as (b, 3, SIDE, SIDE) float32 in [-1, 1]."""
    values = torch.from_numpy(pixels).to(student.device).permute(0, 3, 1, 2)
    return values.float() / 127.5 - 1


@torch.inference_mode()
def classify(student: SegformerForSemanticSegmentation, picture: Image.Image) -> np.ndarray:
    """The class of each pixel of a picture: (height, width) int64."""
    small = np.array(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    logits = student(_values(small[None], student)).logits  # (1, classes, SIDE / 4, SIDE / 4)
    return interpolate(logits, picture.size[::-1], mode="bilinear")[0].argmax(0).cpu().numpy()


def grade(student: SegformerForSemanticSegmentation, dataset: Worded, *, seed: int, seconds: float) -> Grades:
    """Scores on a dataset that the student has not seen."""
    student.eval()
    outcomes, edges, count = [], [], len(dataset.words.groups)
    for name in dataset.names:
        picture, truth = dataset.load(name)
        found = classify(student, Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture)
        counts, judged = np.zeros((count, count), np.int64), truth != VOID
        np.add.at(counts, (found[judged], truth[judged]), 1)
        outcomes.append(outcome(counts, np.arange(count)))
        edges.append(boundary_counts(found, truth, TOLERANCE))
    outcomes = np.stack(outcomes)
    return Grades(seed, miou(outcomes), boundary_f(np.stack(edges)), accuracy(outcomes), seconds)


def summary(grades: Sequence[Grades]) -> dict:
    """The grades of all students, with the mean of each score and the standard deviation between seeds."""
    names = ("miou", "boundary_f", "accuracy", "seconds")
    values = {name: [getattr(one, name) for one in grades] for name in names}
    spread = {name: float(np.std(of, ddof=1)) if len(of) > 1 else 0.0 for name, of in values.items()}
    return {
        "students": [asdict(one) for one in grades],
        "mean": {name: float(np.mean(of)) for name, of in values.items()},
        "spread": spread,
    }
