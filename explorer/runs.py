"""Runs of the network for the page: which models there are, how long they take, and what they give, step by step."""

import gc
import logging
import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import isqrt, log
from pathlib import Path

import numpy as np
from diffusers import AutoencoderTiny
from huggingface_hub import constants

import emerdiff
from emerdiff import EmerDiffPipeline, Progress, Reading, Segmentation
from emerdiff.batches import MOST_ROWS, Results
from emerdiff.loading import AUTOMATIC, CHECKPOINTS, MINIATURE, best_device
from emerdiff.progress import part
from emerdiff.segments import cluster
from emerdiff.settings import PRESETS
from emerdiff.starting import LIGHT_SETTINGS, STABLE_DIFFUSION_LIGHT, Facts, Start, at_hand, start

from . import spaces
from .granularity import Tree
from .seen import seen
from .session import FINE, Found, MadeOf

VERSIONS = ("Stable Diffusion 1.5", "Stable Diffusion 1.4", "Stable Diffusion 2.1 base")
MODELS = {  # the only ones that a visitor can choose; `started` adds the owner's
    "Miniature": MINIATURE,
    **dict(zip(VERSIONS, CHECKPOINTS, strict=True)),
    "Stable Diffusion, light": STABLE_DIFFUSION_LIGHT,
}
KNOWS = dict.fromkeys(CHECKPOINTS, "knows photographs") | {  # by name, in a few words
    MINIATURE: "knows drawn scenes",
    STABLE_DIFFUSION_LIGHT: "knows photographs less well",
}
OWN = "chosen by this page's owner"  # of what is not among these
KEPT = 2**28  # bytes of a reading that are kept for a visitor

SIDES = (256, 384, 512, 768)  # pixels: at about such a side the network may see the picture
SLOWER = 180  # times the seconds of the miniature's row: one of Stable Diffusion's size (by benchmark, 160 to 230)
SLOWER_LIGHT = 18  # the same of the light one (by benchmark)
SMALLER = "A small autoencoder decoded the pictures, which is faster on a CPU and less exact."
GROWTH = 1.2  # seconds grow with the pixels to this power: self-attention with their square, all else with them


@dataclass(frozen=True)
class Pace:
    """Seconds that a run takes here: for a row that is read, for k-means, and for a row with a segment perturbed."""

    reading: float
    clustering: float
    perturbing: float

    def times(self, factor: float) -> "Pace":
        return Pace(self.reading * factor, self.clustering * factor, self.perturbing * factor)


@dataclass(frozen=True)
class Plan:
    """What the network is going to compute: (U-Net rows, about the seconds that they take here), part by part.

    Where a model has never run here and nothing is known to compare it with, each row counts as a second.
    """

    parts: tuple[tuple[int, float], ...]
    is_known: bool = True

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.parts)

    @property
    def seconds(self) -> float | None:
        """About those of all parts, where that is known."""
        return sum(seconds for _, seconds in self.parts) if self.is_known else None

    def due(self, done: int) -> float:
        """Seconds for the first `done` rows. A part without rows is over when the next one's first row is done."""
        due = 0.0
        for rows, seconds in self.parts:
            due += seconds * (min(done / rows, 1) if rows else done > 0)
            done -= rows
            if done <= 0:
                break
        return due


_pipelines: dict[str, EmerDiffPipeline] = {}
_defaults: dict[str, emerdiff.Settings] = {}  # of the checkpoints that have been loaded, at their native sides
_loading = threading.Lock()
_paces: dict[tuple[str, str, int], Pace] = {}  # what runs have taken here, by model, preset and pixels


def pipeline(name: str) -> EmerDiffPipeline:
    """The model, shared by all visitors; it holds no state of a run. The miniature stays, and the last checkpoint."""
    if (pipe := _pipelines.get(name)) is None:
        with _loading:  # the libraries cannot load two models at once
            if (pipe := _pipelines.get(name)) is None:
                for other in _pipelines.keys() - {MINIATURE}:  # first: there may not be memory for both
                    del _pipelines[other]
                gc.collect()
                small = None if name == MINIATURE else AUTOMATIC
                pipe = _pipelines[name] = emerdiff.load(name, autoencoder=small)
                if name != MINIATURE:
                    _defaults[name] = pipe.settings(image_area=pipe.native_side**2)
    return pipe


def facts() -> Facts:
    """What is known of this machine and its owner's wish."""
    wish = os.path.expanduser(os.environ.get("EMERDIFF_MODEL", "").strip())  # noqa: PTH111  it may be no path at all
    return Facts(best_device().type, bool(spaces), at_hand(), wish)


@lru_cache(maxsize=1)
def started() -> Start:
    """What the page starts with, decided once. A checkpoint is loaded; where that fails, a note says what is taken."""
    here, failed = facts(), ""
    begun = start(here)
    while begun.model != MINIATURE:
        try:
            pipeline(begun.model)
            break
        except ValueError as error:
            logging.getLogger(__name__).warning("%s", error)
            wished = bool(here.wish.strip())
            failed = "The model that this page's owner chose" if wished else "Stable Diffusion"
            here = replace(here, wish="", at_hand=here.at_hand and wished)
            begun = start(here)
    if begun.model not in MODELS.values():
        MODELS[_new_label(begun.model)] = begun.model
    instead = "the miniature" if begun.model == MINIATURE else label_of(begun.model)
    note = f"{failed} cannot be loaded here, so the page starts with {instead}."
    return replace(begun, note=note) if failed else begun


def _new_label(name: str) -> str:
    """For the owner's own model."""
    label = Path(name).stem if Path(name).is_file() else Path(name).name
    return f"{label} (own)" if label in MODELS else label


def pipeline_of(model: str) -> EmerDiffPipeline:
    """The model of a label on the page or, where that is a checkpoint that cannot be had, the next one that can.

    `ValueError` for what is not offered, and where no checkpoint can be had.
    """
    if model not in MODELS:
        raise ValueError(f"choose one of these models: {', '.join(MODELS)}")
    chosen, failures = MODELS[model], []
    alone = chosen in (MINIATURE, STABLE_DIFFUSION_LIGHT)  # others take many times longer
    others = [] if alone else [name for name in MODELS.values() if name not in (chosen, MINIATURE)]
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


def own_settings(model: str) -> emerdiff.Settings:
    """A model's own defaults at its native side: the paper's until it has been loaded. Loads only the miniature."""
    name = MODELS.get(model)
    if name == MINIATURE:
        pipe = pipeline(MINIATURE)
        return pipe.settings(image_area=pipe.native_side**2)
    return _defaults.get(name, emerdiff.Settings(image_area=512**2))


def defaults(model: str) -> emerdiff.Settings:
    """The settings that the page begins with; the light model sees smaller pictures than it was trained on."""
    light = MODELS.get(model) == STABLE_DIFFUSION_LIGHT
    return replace(own_settings(model), **{"image_area": LIGHT_SETTINGS["image_area"]} if light else {})


def own_preset(model: str) -> str:
    """The quality that the page begins with."""
    return LIGHT_SETTINGS["preset"] if MODELS.get(model) == STABLE_DIFFUSION_LIGHT else "exact"


def native_side(model: str) -> int:
    """Of the pictures that a model was trained on: 512 until it has been loaded. Loads only the miniature."""
    return isqrt(own_settings(model).image_area)


def own_side(model: str) -> int:
    """The smallest side that the page offers for a model."""
    return isqrt(defaults(model).image_area)


def sides(model: str) -> tuple[int, ...]:
    """Those that the page offers for a model."""
    own = own_side(model)
    return own, *(side for side in SIDES if side > own)


def all_sides() -> list[int]:
    """Those that the page offers for any model."""
    return sorted({*SIDES, *map(own_side, MODELS)})


def settings_of(model: str, preset: str, values: Mapping[str, object]) -> emerdiff.Settings:
    """The settings of a run; `ValueError` for `values` that are not allowed. `side` is at least the model's own."""
    values = dict(values)
    if "side" in values:
        if (side := values.pop("side")) not in (allowed := all_sides()):
            raise ValueError(f"side must be one of {', '.join(map(str, allowed))}, not {side!r}")
        values["image_area"] = max(side, own_side(model)) ** 2
    return replace(defaults(model), **PRESETS[preset] | values)


def find(
    source: str | Path,
    model: str,
    preset: str,
    values: Mapping[str, object],
    *,
    name: str,
    previous: Reading | None = None,
    first_in: int | None = None,
) -> Generator[Progress, None, Found]:
    """A run in `FINE` segments, or as `values` say; yields its progress.

    `name` is that of the pipeline that is there for `model`: where it is another, the result says so. What still holds
    of a `previous` reading of the same picture is not computed again. With `first_in`, a rough pass over the same
    reading and coarse map comes first, in that many segments; what it finds is the last sketch.
    """
    begin = time.monotonic()
    pipe, settings = pipeline(name), settings_of(label_of(name), preset, {"num_segments": FINE} | values)
    rows, extra = pipe.rows(settings, previous=previous), _rows_of_rough_pass(pipe, settings, first_in)
    total = sum(rows) + extra
    reading = yield from part(pipe.read(source, settings, previous=previous), total)
    read = time.monotonic()
    coarse = cluster(reading.features, settings.num_segments, settings.kmeans_n_init)
    clustered = time.monotonic()
    if first_in:
        yield from part(_rough_pass(pipe, reading, coarse, first_in), total, rows[0])
    perturb = time.monotonic()
    segmenting = part(pipe.segment(reading, coarse_labels=coarse), total, rows[0] + extra)
    for progress in (run := Results(segmenting)):
        yield replace(progress, sketch=None) if first_in else progress
    end = time.monotonic()
    if rows[0]:
        pace = Pace((read - begin) / rows[0], clustered - read, (end - perturb) / rows[1])
        _learn((name, preset, reading.settings.image_area), pace)
    segmentation = _noted(run.value, model, name)
    kept = reading if reading.nbytes <= KEPT and reading.x_0.device.type != "cuda" else None
    return Found(str(source), seen(str(source)).shown, segmentation, preset, end - begin, kept)


def find_together(
    sources: Sequence[str], model: str, preset: str, values: Mapping[str, object], *, name: str
) -> Generator[Progress, None, tuple[Found, ...]]:
    """Like `find`, of several pictures with one set of segments."""
    begin, pipe = time.monotonic(), pipeline(name)
    settings = settings_of(label_of(name), preset, {"num_segments": FINE} | values)
    results = yield from pipe.stream_together(sources, settings)
    tree, seconds = Tree.of(*results), time.monotonic() - begin
    return tuple(
        Found(source, seen(str(source)).shown, _noted(result, model, name), preset, seconds, set_tree=tree)
        for source, result in zip(sources, results, strict=True)
    )


def _noted(segmentation: Segmentation, model: str, name: str) -> Segmentation:
    """With what has to be said where a model of that name stood in for `model`, or decoded with less."""
    notes, vae = segmentation.notes, pipeline(name).vae
    if name != MODELS[model]:
        notes = (*notes, f"{model} could not be loaded; {label_of(name)} was used instead.")
    if name != MINIATURE and isinstance(vae, AutoencoderTiny) and vae.device.type == "cpu":
        notes = (*notes, SMALLER)
    return replace(segmentation, notes=notes)


def _rows_of_rough_pass(pipe: EmerDiffPipeline, settings: emerdiff.Settings, num_segments: int | None) -> int:
    rough = replace(settings, **PRESETS["preview"], num_segments=num_segments or settings.num_segments)
    return pipe.rows(rough)[1] if num_segments else 0


def _rough_pass(
    pipe: EmerDiffPipeline, reading: Reading, coarse_labels: np.ndarray, num_segments: int
) -> Generator[Progress, None, None]:
    """The coarse map (h, w) cut to `num_segments`, and as `preview` sharpens it: the last progress has that."""
    cuts = emerdiff.cuts(reading.blank(coarse_labels, pipe.name_or_path))
    groups = cuts[min(num_segments, len(cuts) - 1)]
    steps = min(PRESETS["preview"]["replay_steps"], len(reading.steps))
    rough = reading.changed(**PRESETS["preview"] | {"replay_steps": steps, "num_segments": int(groups.max()) + 1})
    segmenting = pipe.segment(rough, coarse_labels=groups[coarse_labels])
    for progress in (run := Results(segmenting)):
        yield progress
    yield replace(progress, sketch=run.value)


def recompute(made_of: MadeOf, reading: Reading | None, num_segments: int) -> Generator[Progress, None, Segmentation]:
    """The run that is `made_of` this, in another number of segments, not merged from more."""
    pipe, settings = pipeline(made_of.model), replace(made_of.settings, num_segments=num_segments)
    total = sum(rows := pipe.rows(settings, previous=reading))
    reading = yield from part(pipe.read(made_of.source, settings, previous=reading), total)
    return (yield from part(pipe.segment(reading), total, rows[0]))


def paint(made_of: MadeOf, reading: Reading | None, offsets: np.ndarray) -> Generator[Progress, None, np.ndarray]:
    """The picture painted again with the network perturbed by `offsets`, as `EmerDiffPipeline.probe`."""
    pipe = pipeline(made_of.model)
    rows, _ = pipe.rows(made_of.settings, previous=reading)
    total = rows + len(offsets) * _steps(pipe, made_of.settings)
    reading = yield from part(pipe.read(made_of.source, made_of.settings, previous=reading), total)
    return (yield from part(pipe.probe(reading, offsets), total, rows))


def _steps(pipe: EmerDiffPipeline, settings: emerdiff.Settings) -> int:
    """Of the replay."""
    return pipe.rows(replace(settings, num_segments=2, two_sided=False))[1] // 2


# --- How long a run takes


def plan(
    model: str,
    preset: str,
    values: Mapping[str, object],
    *,
    previous: Reading | None = None,
    first_in: int | None = None,
) -> Plan:
    """Of a run as in `find`. `ValueError` for values that are not allowed."""
    pipe = _for_counting(MODELS[model])
    settings = settings_of(model, preset, {"num_segments": FINE} | values)
    rows = pipe.rows(settings, previous=previous)
    if (pace := _pace(MODELS[model], preset, settings.image_area)) is None:
        return Plan(((sum(rows), sum(rows)),), is_known=False)
    extra = _rows_of_rough_pass(pipe, settings, first_in)
    before = (extra, extra * _pace(MODELS[model], "preview", settings.image_area).perturbing)
    parts = (rows[0], rows[0] * pace.reading), (0, pace.clustering), before, (rows[1], rows[1] * pace.perturbing)
    return Plan(parts)


def plan_together(count: int, model: str, preset: str, values: Mapping[str, object]) -> Plan:
    """Of `find_together` with `count` pictures; the most it can be, as few segments have cells in all of them."""
    alone = plan(model, preset, values)
    return replace(alone, parts=tuple((rows * count, seconds * count) for rows, seconds in alone.parts))


def plan_again(made_of: MadeOf, reading: Reading | None, *, num_segments: int | None = None, painted: int = 0) -> Plan:
    """Of `recompute` in `num_segments`, or of `paint` with so many offsets."""
    pipe, settings = _for_counting(made_of.model), made_of.settings
    if num_segments:
        settings = replace(settings, num_segments=num_segments)
    read, perturbed = pipe.rows(settings, previous=reading)
    if not num_segments:
        perturbed = painted * _steps(pipe, settings)
    if (pace := _pace(made_of.model, made_of.preset, settings.image_area)) is None:
        return Plan(((read + perturbed, read + perturbed),), is_known=False)
    clustering = pace.clustering if num_segments else 0
    return Plan(((read, read * pace.reading), (0, clustering), (perturbed, perturbed * pace.perturbing)))


def is_installed(model: str) -> bool:
    """Whether the model can be loaded without a download."""
    name, half = MODELS[model], best_device().type == "cuda" or not can_download()
    return name in _pipelines or name == MINIATURE or Path(name).exists() or at_hand(name, half)


def can_download() -> bool:
    return not constants.HF_HUB_OFFLINE


def _for_counting(name: str) -> EmerDiffPipeline:
    """A pipeline that makes as many rows as the model of that name, which need not be loaded."""
    return _pipelines.get(name) or pipeline(MINIATURE)


def _learn(key: tuple[str, str, int], pace: Pace) -> None:
    """Of what has run before, a third still counts: one run may have been disturbed."""
    before = _paces.get(key, pace)
    _paces[key] = Pace(*((getattr(before, f.name) + 2 * getattr(pace, f.name)) / 3 for f in fields(Pace)))


def _pace(name: str, preset: str, area: int) -> Pace | None:
    """About what such runs take here: as those of the nearest size have taken, if not in this quality in the slowest.

    On a CPU, a model that has not run yet is taken to be as much slower than the miniature as Stable Diffusion is; None
    where that has not run either.
    """
    own, slower = [key for key in _paces if key[0] == name], 1.0
    if not own and best_device().type != "cpu":  # how much slower has been measured on CPUs only
        return None
    if not own:
        own = [key for key in _paces if key[0] == MINIATURE]
        slower = SLOWER_LIGHT if name == STABLE_DIFFUSION_LIGHT else SLOWER
        area *= (native_side(label_of(MINIATURE)) / native_side(label_of(name))) ** 2
    known = [key for key in own if key[1] == preset] or own
    nearest = min((abs(log(size / area)) for *_, size in known), default=None)
    paces = [
        _paces[key].times(slower * (area / key[2]) ** GROWTH) for key in known if abs(log(key[2] / area)) == nearest
    ]
    return max(paces, key=lambda pace: pace.perturbing, default=None)


def calibrate(source: str | Path) -> None:
    """Time the miniature on a picture, in all presets and in whole batches, so that runs can be estimated."""
    for preset in reversed(PRESETS):
        for _ in range(1 + (preset == "preview")):  # what comes first is slower
            _paces.pop((MINIATURE, preset, native_side(label_of(MINIATURE)) ** 2), None)
            segments = MOST_ROWS["cpu"] // (2 if settings_of(label_of(MINIATURE), preset, {}).two_sided else 1)
            for _ in find(source, label_of(MINIATURE), preset, {"num_segments": segments}, name=MINIATURE):
                pass
