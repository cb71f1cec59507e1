"""Runs of the network for the page: which models there are, how long they take, and what they give, step by step."""

import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

import emerdiff
from emerdiff.loading import CHECKPOINTS, MINIATURE
from emerdiff.picture import open_picture
from emerdiff.settings import PRESETS

from .session import Found

MODELS = {"Miniature (built in, trained on drawn scenes)": MINIATURE} | dict(  # the only ones that a visitor can choose
    zip(("Stable Diffusion 1.5", "Stable Diffusion 1.4", "Stable Diffusion 2.1 base"), CHECKPOINTS, strict=True)
)
KEPT = 2**28  # bytes of a reading that are kept for a visitor
SHOWN_SIDES = (512, 1024)  # pixels: pictures are shown with a longer side between these

_row_seconds: dict[tuple[str, str], float] = {}  # what a row has taken here, by model and preset


@lru_cache(maxsize=2)
def pipeline(name: str) -> emerdiff.EmerDiffPipeline:
    """The model, shared by all visitors; it keeps nothing of a run."""
    return emerdiff.load(name)


def pipeline_of(model: str) -> emerdiff.EmerDiffPipeline:
    """The model of a label on the page; `ValueError` for what is not offered, or cannot be had."""
    if model not in MODELS:
        raise ValueError(f"choose one of these models: {', '.join(MODELS)}")
    return pipeline(MODELS[model])


def label_of(name: str) -> str:
    """The label on the page of a model's name."""
    return next(label for label, value in MODELS.items() if value == name)


def defaults(model: str) -> emerdiff.Settings:
    """What suits a model; the paper's settings where it is not ours. Loads nothing but the miniature."""
    return pipeline(MINIATURE).settings() if MODELS.get(model) == MINIATURE else emerdiff.Settings()


def find(
    source: str | Path,
    model: str,
    preset: str,
    values: Mapping[str, object],
    previous: emerdiff.Reading | None = None,
) -> Generator[emerdiff.Progress, None, Found]:
    """A run, as `EmerDiffPipeline.stream`; returns what was found."""
    begin = time.monotonic()
    pipe = pipeline_of(model)
    settings = pipe.settings(preset=preset, **values)
    reading = yield from pipe.read(source, settings, previous=previous)
    segmentation = yield from pipe.segment(reading)
    seconds = time.monotonic() - begin
    if previous is None:  # or else some rows were there
        _row_seconds[MODELS[model], preset] = seconds / pipe.rows(settings)
    kept = reading if reading.nbytes <= KEPT and reading.x_0.device.type != "cuda" else None
    return Found(str(source), shown(open_picture(source)), segmentation, preset, seconds, kept)


def paint(found: Found, offsets: np.ndarray) -> Generator[emerdiff.Progress, None, np.ndarray]:
    """The picture painted again with the network perturbed by `offsets`, as `EmerDiffPipeline.probe`."""
    pipe = pipeline(found.segmentation.model)
    reading = found.reading or (yield from pipe.read(found.source, found.segmentation.settings))
    return (yield from pipe.probe(reading, offsets))


def estimate(model: str, preset: str, values: Mapping[str, object]) -> tuple[int, float | None]:
    """U-Net rows of a run, and the seconds that they take here: None where the model has not run yet."""
    settings = defaults(model)
    pipe = pipeline(MINIATURE)  # the number of rows is the same for all
    rows = pipe.rows(replace(settings, **PRESETS[preset], **values))
    known = [seconds for (name, _), seconds in _row_seconds.items() if name == MODELS[model]]
    seconds = _row_seconds.get((MODELS[model], preset), max(known, default=None))
    return rows, seconds and rows * seconds


def shown(picture: Image.Image) -> Image.Image:
    """The picture at a size that shows well."""
    side = max(picture.size)
    scale = min(max(side, SHOWN_SIDES[0]), SHOWN_SIDES[1]) / side
    return picture.resize([max(1, round(s * scale)) for s in picture.size], Image.Resampling.LANCZOS)
