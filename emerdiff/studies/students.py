"""Students: small segmenters that learn from masks alone, so that their scores say what the masks teach.

A student is transformers' SegFormer in a small size, from random weights. It learns from the truth of a dataset, or
from the folder of a run of `emerdiff segment`, whose segments get the class of the nearest concept, as in the paper's
modified protocol.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from ..dataset import folder
from ..masks import upsample_nearest
from ..picture import open_picture
from ..pipeline import EmerDiffPipeline
from ..settings import Settings
from .datasets import VOID, Dataset
from .scoring import accuracy, boundary_counts, boundary_f, miou, outcome, pooled

MASKS = {"EmerDiff": "labels", "naive": "naive_labels"}  # and the arrays of an NPZ file that hold them
DRAWN = 256  # pixels a side of drawn scenes
SIDE = 128  # pixels of the pictures that a student sees
BATCH = 16
RATE = 2e-3  # of learning, at the highest
WARM = 0.05  # share of the steps in which it rises to that; then it falls to 0
TOLERANCE = 2  # pixels, of boundary F


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


def of_truth(dataset: Dataset) -> Iterator[Lesson]:
    for name in dataset.names:
        picture, truth = dataset.load(name)
        yield _lesson(Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture, truth)


def of_masks(run: Path, masks: str, concepts: np.ndarray) -> Iterator[Lesson]:
    """The pictures in the folder of a run with the formats imagefolder and npz; `masks` is one of `MASKS`.

    A segment gets the class of the nearest of the concepts (classes, c), some of which may be NaN.
    """
    known = np.flatnonzero(np.isfinite(concepts).all(1))
    for entry in folder.entries(run):
        with np.load(run / "npz" / f"{entry.stem}.npz") as arrays:
            labels, features, count = arrays[MASKS[masks]], arrays["features"], len(arrays["names"])
        sums, pixels = pooled(labels.astype(int), features, count)
        means = sums / np.maximum(pixels, 1)[:, None]  # (k, c)
        nearest = known[np.linalg.norm(means[:, None] - concepts[known], axis=2).argmin(1)]
        classes = np.append(nearest, np.full(256 - count, VOID)).astype(np.uint8)[labels]
        yield _lesson(open_picture(run / "imagefolder" / "images" / entry.image), classes)


def _lesson(picture: Image.Image, classes: np.ndarray) -> Lesson:
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return Lesson(pixels, upsample_nearest(classes, (SIDE, SIDE)).astype(np.uint8))


def learn_concepts(pipe: EmerDiffPipeline, dataset: Dataset, settings: Settings) -> Iterator[np.ndarray]:
    """After each picture yields the mean feature of each class's pixels so far: (classes, c), NaN for unseen ones."""
    sums, pixels = 0.0, np.zeros(len(dataset.classes))
    for name in dataset.names:
        picture, truth = dataset.load(name)
        some, count = pooled(truth.astype(int), pipe.features(picture, settings), len(dataset.classes))
        sums, pixels = sums + some, pixels + count
        with np.errstate(invalid="ignore"):
            yield sums / np.where(pixels, pixels, np.nan)[:, None]


# ---------------------------------------------------------------- learning, and how it is judged


def new_student(classes: Sequence[str], seed: int) -> SegformerForSemanticSegmentation:
    """One that knows nothing: about a million weights."""
    torch.manual_seed(seed)
    config = SegformerConfig(
        hidden_sizes=[32, 48, 96, 128],
        depths=[1, 2, 2, 1],
        num_attention_heads=[1, 2, 4, 4],
        decoder_hidden_size=96,
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
    """Trains a student in place; yields the loss of each step. Half of the pictures are flipped."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)  # of the dropout
    optimizer = torch.optim.AdamW(student.parameters(), RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=WARM)
    student.train()
    order = np.concatenate([rng.permutation(len(lessons)) for _ in range(steps * BATCH // len(lessons) + 1)])
    for step in range(steps):
        some = [lessons[i] for i in order[step * BATCH : (step + 1) * BATCH]]
        flips = [slice(None, None, int(direction)) for direction in rng.choice([-1, 1], len(some))]
        pixels = np.stack([one.picture[:, flip] for one, flip in zip(some, flips, strict=True)])
        truth = np.stack([one.classes[:, flip] for one, flip in zip(some, flips, strict=True)])
        loss = student(_values(pixels, student), labels=torch.from_numpy(truth).long().to(student.device)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        rate.step()
        yield loss.item()


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


def grade(student: SegformerForSemanticSegmentation, dataset: Dataset, *, seed: int, seconds: float) -> Grades:
    """Scores on a dataset that the student has not seen."""
    student.eval()
    outcomes, edges, count = [], [], len(dataset.classes)
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
