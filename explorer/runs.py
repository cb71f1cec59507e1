"""Runs of the network for the page: which models there are, how long they take, and what they give, step by step."""

import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
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

SLOWER = 180  # times the seconds of the miniature's row: one of Stable Diffusion's size (by benchmark, 160 to 230)

_pipelines: dict[str, emerdiff.EmerDiffPipeline] = {}
_loading = threading.Lock()
_row_seconds: dict[tuple[str, str], float] = {}  # what a row has taken here, by model and preset


def pipeline(name: str) -> emerdiff.EmerDiffPipeline:
    """The model, shared by all visitors; it keeps nothing of a run. The miniature stays, and the last checkpoint."""
    if (pipe := _pipelines.get(name)) is None:
        with _loading:  # the libraries cannot load two models at once
            if (pipe := _pipelines.get(name)) is None:
                pipe = emerdiff.load(name)
                for other in _pipelines.keys() - {MINIATURE}:
                    del _pipelines[other]
                _pipelines[name] = pipe
    return pipe


def pipeline_of(model: str) -> emerdiff.EmerDiffPipeline:
    """The model of a label on the page or, where that is a checkpoint that cannot be had, the next one that can.

    `ValueError` for what is not offered, and where no checkpoint can be had.
    """
    if model not in MODELS:
        raise ValueError(f"choose one of these models: {', '.join(MODELS)}")
    chosen, failures = MODELS[model], []
    others = [] if chosen == MINIATURE else [name for name in MODELS.values() if name not in (chosen, MINIATURE)]
    for name in (chosen, *others):
        try:
            return pipeline(name)
        except ValueError as error:
            failures.append(error)
    raise failures[0]


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
    previous: Found | None = None,
) -> Generator[emerdiff.Progress, None, Found]:
    """A run, as `EmerDiffPipeline.stream`; returns what was found, which says so where another model stood in.

    What the same model kept of a `previous` run, and still holds, is not computed again.
    """
    begin = time.monotonic()
    pipe = pipeline_of(model)
    settings = pipe.settings(preset=preset, **values)
    known = previous.reading if previous and previous.segmentation.model == pipe.name_or_path else None
    reading = yield from pipe.read(source, settings, previous=known)
    segmentation = yield from pipe.segment(reading)
    seconds = time.monotonic() - begin
    if known is None:  # or else some rows were there
        _row_seconds[pipe.name_or_path, preset] = seconds / pipe.rows(settings)
    if pipe.name_or_path != MODELS[model]:
        note = f"{model} could not be loaded; {label_of(pipe.name_or_path)} took its place."
        segmentation = replace(segmentation, notes=(*segmentation.notes, note))
    kept = reading if reading.nbytes <= KEPT and reading.x_0.device.type != "cuda" else None
    return Found(str(source), shown(open_picture(source)), segmentation, preset, seconds, kept)


def paint(found: Found, offsets: np.ndarray) -> Generator[emerdiff.Progress, None, np.ndarray]:
    """The picture painted again with the network perturbed by `offsets`, as `EmerDiffPipeline.probe`."""
    pipe = pipeline(found.segmentation.model)
    reading = found.reading or (yield from pipe.read(found.source, found.segmentation.settings))
    return (yield from pipe.probe(reading, offsets))


def estimate(model: str, preset: str, values: Mapping[str, object]) -> tuple[int, float | None]:
    """U-Net rows of a run, and about the seconds that they take here.

    A model that has not run yet is taken to be as much slower than the miniature as Stable Diffusion is; None where
    that has not run either.
    """
    settings = defaults(model)
    pipe = pipeline(MINIATURE)  # the number of rows is the same for all
    rows = pipe.rows(replace(settings, **PRESETS[preset], **values))
    seconds = _seconds_of_row(MODELS[model], preset)
    if seconds is None and (miniatures := _seconds_of_row(MINIATURE, preset)):
        seconds = SLOWER * miniatures
    return rows, seconds and rows * seconds


def _seconds_of_row(name: str, preset: str) -> float | None:
    known = [seconds for (other, _), seconds in _row_seconds.items() if other == name]
    return _row_seconds.get((name, preset), max(known, default=None))


def calibrate(source: str | Path) -> None:
    """Time the miniature on a picture, in all presets, so that runs can be estimated."""
    for preset in PRESETS:
        for _ in find(source, label_of(MINIATURE), preset, {"num_segments": 4}):
            pass


def shown(picture: Image.Image) -> Image.Image:
    """The picture at a size that shows well."""
    side = max(picture.size)
    scale = min(max(side, SHOWN_SIDES[0]), SHOWN_SIDES[1]) / side
    return picture.resize([max(1, round(s * scale)) for s in picture.size], Image.Resampling.LANCZOS)
