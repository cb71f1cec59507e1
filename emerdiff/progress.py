"""How far a run is: its U-Net rows counted, and sketches of what it has found so far."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .batches import Results, in_batches
from .segmentation import Segmentation

INVERTING = "inverting the picture"
READING = "reading features"
MODULATING = "modulating segments"
PAINTING = "painting the picture again"


@dataclass(frozen=True)
class Progress:
    """How far a run is: U-Net rows done, of all."""

    stage: str
    done: int
    total: int
    sketch: Segmentation | None = None
    """Once the segments are known, and again when some of their responses are: the result so far."""


@dataclass(frozen=True)
class Rows:
    """Rows that a stage has just done; below 0 where they have to be done again."""

    stage: str
    count: int
    sketch: Segmentation | None = None


def of_stage(stage: str, run: Generator[int, None, object]) -> Generator[Rows, None, object]:
    """The rows that `run` yields, told as the stage's; its result."""
    for count in (results := Results(run)):
        yield Rows(stage, count)
    return results.value


def counted(run: Generator[Rows, None, object], total: int, done: int = 0) -> Generator[Progress, None, object]:
    """The progress that the rows of `run` make from `done` towards `total`; its result."""
    for rows in (results := Results(run)):
        done += rows.count
        yield Progress(rows.stage, done, total, rows.sketch)
    return results.value


def filled(
    blank: Segmentation, respond: Callable[[Tensor], Generator[int, None, Tensor]], size: int
) -> Generator[Rows, None, Segmentation]:
    """The segmentation with all responses, found for `size` segments at a time; sketches of it on the way.

    `blank` has none yet. `respond` finds those of the segments with the numbers (b,): (b, 3, H, W).
    """
    yield Rows(MODULATING, 0, blank)
    responses, known, told = blank.responses.copy(), blank.known.copy(), 0

    def found(segments: Tensor) -> Generator[int, None, Tensor]:
        responses[segments] = (yield from respond(segments)).numpy()
        known[segments] = True
        return segments

    for count in in_batches(torch.arange(len(known)), size, found):
        news, told = known.sum() > told, known.sum()
        yield Rows(MODULATING, count, replace(blank, responses=responses.copy(), known=known.copy()) if news else None)
    return replace(blank, responses=responses, known=None)
