"""How far a run has come: a count of its U-Net rows, and sketches of what it has found so far."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .batches import Results, in_batches
from .segmentation import Segmentation

INVERTING = "inverting the picture"
READING = "reading features"
PERTURBING = "perturbing segments"
PAINTING = "painting the picture again"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: how many of its U-Net rows are done."""

    stage: str
    done: int
    total: int
    sketch: Segmentation | None = None
    """The result so far: first when the segments are known, then each time that more of their responses are."""
    picture: int = 0
    """Which picture is at work, counted from 0, where several are segmented together."""


@dataclass(frozen=True)
class Done:
    """The rows of a U-Net call that a stage has just made; negative if they have to be computed again."""

    stage: str
    rows: int
    sketch: Segmentation | None = None


def of_stage(stage: str, run: Generator[int, None, object]) -> Generator[Done, None, object]:
    """Yields the rows that `run` yields as those of the stage; returns its result."""
    for rows in (results := Results(run)):
        yield Done(stage, rows)
    return results.value


def part(
    run: Generator[Progress, None, object], total: int, done: int = 0, *, picture: int = 0
) -> Generator[Progress, None, object]:
    """Yields the progress of `run`, on one picture, as that of a whole of `total` rows; `done` came before it."""
    for progress in (results := Results(run)):
        yield replace(progress, done=done + progress.done, total=total, picture=picture)
    return results.value


def counted(run: Generator[Done, None, object], total: int) -> Generator[Progress, None, object]:
    """Yields the progress of `run`, which computes `total` rows; returns its result."""
    done = 0
    for just in (results := Results(run)):
        done += just.rows
        yield Progress(just.stage, done, total, just.sketch)
    return results.value


def filled(
    blank: Segmentation, respond: Callable[[Tensor], Generator[int, None, Tensor]], size: int
) -> Generator[Done, None, Segmentation]:
    """The `blank` segmentation with all its responses, found for `size` segments at a time; yields sketches on the way.

    `respond` finds the responses (b, 3, H, W) of the segments with the numbers (b,), those that are not `known` yet.
    """
    yield Done(PERTURBING, 0, blank)
    responses, known, told = blank.responses.copy(), blank.known.copy(), blank.known.sum()

    def found(segments: Tensor) -> Generator[int, None, Tensor]:
        responses[segments] = (yield from respond(segments)).numpy()
        known[segments] = True
        return segments

    for rows in in_batches(torch.from_numpy(np.flatnonzero(~known)), size, found):
        news, told = known.sum() > told, known.sum()
        yield Done(PERTURBING, rows, replace(blank, responses=responses.copy(), known=known.copy()) if news else None)
    return replace(blank, responses=responses, known=None)
