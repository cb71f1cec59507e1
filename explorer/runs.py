"""Runs of the network for the page: which models there are, how long they take, and what they give, step by step."""

import gc
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import emerdiff
from emerdiff import EmerDiffPipeline, Progress, Reading, Segmentation
from emerdiff.loading import CHECKPOINTS, MINIATURE
from emerdiff.picture import open_picture
from emerdiff.settings import PRESETS

from .session import FINE, Found, MadeOf

MODELS = {"Miniature (built in, trained on drawn scenes)": MINIATURE} | dict(  # the only ones that a visitor can choose
    zip(("Stable Diffusion 1.5", "Stable Diffusion 1.4", "Stable Diffusion 2.1 base"), CHECKPOINTS, strict=True)
)
KEPT = 2**28  # bytes of a reading that are kept for a visitor
SHOWN_SIDES = (512, 1024)  # pixels: pictures are shown with a longer side between these

SLOWER = 180  # times the seconds of the miniature's row: one of Stable Diffusion's size (by benchmark, 160 to 230)

_pipelines: dict[str, EmerDiffPipeline] = {}
_loading = threading.Lock()
_row_seconds: dict[tuple[str, str], float] = {}  # what a row has taken here, by model and preset


def pipeline(name: str) -> EmerDiffPipeline:
    """The model, shared by all visitors; it holds no state of a run. The miniature stays, and the last checkpoint."""
    if (pipe := _pipelines.get(name)) is None:
        with _loading:  # the libraries cannot load two models at once
            if (pipe := _pipelines.get(name)) is None:
                for other in _pipelines.keys() - {MINIATURE}:  # first: there may not be memory for both
                    del _pipelines[other]
                gc.collect()
                pipe = _pipelines[name] = emerdiff.load(name)
    return pipe


def pipeline_of(model: str) -> EmerDiffPipeline:
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


def loaded(model: str, *, or_another: bool = True) -> Generator[Progress, None, EmerDiffPipeline]:
    """`pipeline_of` a label, or that model and no other; yields while it is loaded, which may be for minutes."""
    outcome: Future[EmerDiffPipeline] = Future()

    def load() -> None:
        try:
            outcome.set_result(pipeline_of(model) if or_another else pipeline(MODELS[model]))
        except Exception as error:
            outcome.set_exception(error)

    if MODELS.get(model) in _pipelines:
        return pipeline(MODELS[model])
    threading.Thread(target=load, daemon=True).start()  # goes on when this is closed, for whoever asks next
    while not outcome.done():
        yield Progress(f"loading {model}", 0, 1)
        wait([outcome], timeout=0.5)
    return outcome.result()


def label_of(name: str) -> str:
    """The label on the page of a model's name."""
    return next(label for label, value in MODELS.items() if value == name)


def defaults(model: str) -> emerdiff.Settings:
    """A model's default settings; the paper's unless the model is ours. Loads nothing but the miniature."""
    return pipeline(MINIATURE).settings() if MODELS.get(model) == MINIATURE else emerdiff.Settings()


def find(
    source: str | Path,
    model: str,
    preset: str,
    values: Mapping[str, object],
    *,
    name: str,
    previous: Reading | None = None,
) -> Generator[Progress, None, Found]:
    """A run in `FINE` segments, or as `values` say; yields its progress.

    `name` is that of the pipeline that is there for `model`: where it is another, the result says so. What still holds
    of a `previous` reading is not computed again.
    """
    begin = time.monotonic()
    pipe = pipeline(name)
    settings = pipe.settings(preset=preset, **{"num_segments": FINE} | values)
    reading = yield from pipe.read(source, settings, previous=previous)
    segmentation = yield from pipe.segment(reading)
    seconds = time.monotonic() - begin
    if previous is None:  # otherwise part of the work was reused
        _row_seconds[name, preset] = seconds / pipe.rows(settings)
    if name != MODELS[model]:
        note = f"{model} could not be loaded; {label_of(name)} was used instead."
        segmentation = replace(segmentation, notes=(*segmentation.notes, note))
    kept = reading if reading.nbytes <= KEPT and reading.x_0.device.type != "cuda" else None
    return Found(str(source), shown(open_picture(source)), segmentation, preset, seconds, kept)


def recompute(made_of: MadeOf, reading: Reading | None, num_segments: int) -> Generator[Progress, None, Segmentation]:
    """The run that is `made_of` this, in another number of segments, not merged from more."""
    pipe, settings = pipeline(made_of.model), replace(made_of.settings, num_segments=num_segments)
    reading = yield from pipe.read(made_of.source, settings, previous=reading)
    return (yield from pipe.segment(reading))


def paint(made_of: MadeOf, reading: Reading | None, offsets: np.ndarray) -> Generator[Progress, None, np.ndarray]:
    """The picture painted again with the network perturbed by `offsets`, as `EmerDiffPipeline.probe`."""
    pipe = pipeline(made_of.model)
    reading = reading or (yield from pipe.read(made_of.source, made_of.settings))
    return (yield from pipe.probe(reading, offsets))


def estimate(model: str, preset: str, values: Mapping[str, object]) -> tuple[int, float | None]:
    """U-Net rows of a run as in `find`, and about the seconds that they take here.

    A model that has not run yet is taken to be as much slower than the miniature as Stable Diffusion is; None where
    that has not run either.
    """
    settings = defaults(model)
    pipe = pipeline(MINIATURE)  # the number of rows is the same for all
    rows = pipe.rows(replace(settings, **PRESETS[preset], **{"num_segments": FINE} | values))
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
        for _ in find(source, label_of(MINIATURE), preset, {"num_segments": 4}, name=MINIATURE):
            pass


def shown(picture: Image.Image) -> Image.Image:
    """The picture at a size that shows well."""
    side = max(picture.size)
    scale = min(max(side, SHOWN_SIDES[0]), SHOWN_SIDES[1]) / side
    return picture.resize([max(1, round(s * scale)) for s in picture.size], Image.Resampling.LANCZOS)
