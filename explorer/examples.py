"""The pictures that the page offers, and their results: stored ones to open with, full ones to explore.

A full result is computed once, at the first use, and kept in a folder; its file's name is a digest of all that it
comes from, so that other weights, code or settings make another. In memory, all visitors share it.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakValueDictionary
from zipfile import BadZipFile

import numpy as np
from PIL import Image

import emerdiff
from emerdiff import Progress
from emerdiff.loading import MINIATURE, best_device, fast_dtype
from emerdiff.miniature import WEIGHTS

from . import gpu, runs
from .asking import values_of
from .folders import ROOT
from .pictures import Layers, rows, unnamed
from .runs import MODELS, calibrate, find, label_of
from .seen import seen
from .session import FINE, Found, Session

FOLDER = Path(__file__).parents[1] / "examples"
CACHE = ROOT / "examples"

ARRAYS = ("image", "coarse_labels", "features", "responses")  # of a result: what the others follow from

_reading = threading.Lock()
_shared: WeakValueDictionary[Path, Found] = WeakValueDictionary()  # for as long as a visitor looks at it
_begun: WeakValueDictionary[tuple[Found, int], Session] = WeakValueDictionary()
_warming: dict[str, Progress] = {}  # how far the example is that `warm` computes, by its name
_awaited: set[object] = set()  # a token for each visitor who waits for it


@dataclass(frozen=True)
class Example:
    name: str
    title: str
    picture: Path
    k: int
    summary: dict
    """Of the stored result."""
    segment: int
    """The one of which it is stored what changes with it."""
    most: float
    """The largest change with it, in levels of 255."""
    truth: Path | None = None
    """Its classes, an indexed PNG; photographs have none."""
    credit: str = ""
    """Whose photograph it is."""

    @property
    def settings(self) -> emerdiff.Settings:
        return emerdiff.Settings(**self.summary["settings"])


def examples() -> tuple[Example, ...]:
    """What examples/make.py has made: drawn scenes, and those photographs that are there."""
    drawn = [example for example in _made() if example.truth]
    photographs = [example for example in _made() if not example.truth]
    return tuple(photographs + drawn if runs.started().photographs_first else drawn + photographs)


@lru_cache(maxsize=1)
def _made() -> tuple[Example, ...]:
    found = []
    for entry in json.loads((FOLDER / "examples.json").read_text()):
        name = entry["name"]
        photograph = entry.get("photograph")
        picture = photographed(**photograph) if photograph else FOLDER / f"{name}.jpg"
        if picture and digest(picture) == entry["sha256"]:  # otherwise the stored result is of another picture
            truth = None if photograph else FOLDER / f"{name}_truth.png"
            own = {key: entry[key] for key in ("name", "title", "k", "summary", "segment", "most")}
            found.append(Example(picture=picture, truth=truth, credit=entry.get("credit", ""), **own))
    return tuple(found)


def photographed(package: str, file: str) -> Path | None:
    """A photograph that an installed package carries; None where it does not."""
    spec = find_spec(package)
    picture = Path(spec.origin).parent / file if spec and spec.origin else None
    return picture if picture and picture.is_file() else None


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def files_of_examples() -> tuple[Path, ...]:
    """The examples' pictures and truths: what the page may show, and open again when a visitor sends it back."""
    return tuple(file.resolve() for example in examples() for file in (example.picture, example.truth) if file)


def example_of(source: str) -> Example | None:
    """The example whose picture is the file `source`, if it is one's."""
    return next((example for example in examples() if str(example.picture) == source), None)


def own_values(image: str | None, model: str) -> dict[str, object]:
    """The defaults of a picture with a model of that label: an example's are those of its stored result."""
    example = example_of(image) if image and MODELS[model] == MINIATURE else None
    return values_of(example.settings if example else runs.defaults(model))


def own_run(example: Example) -> tuple[str, str, dict[str, object]]:
    """What an example's own result comes from: the label of the model that the page starts with, preset and values."""
    model = label_of(runs.started().model)
    return model, runs.own_preset(model), own_values(str(example.picture), model)


def found(example: Example) -> Found | None:
    """The example's own result in `FINE` segments, one object for all visitors; None while it is to be computed."""
    file = _file(example)
    with _reading:
        if (shared := _shared.get(file)) is None and (kept := _read(file)) is not None:
            _, preset, _ = own_run(example)
            shared = Found(str(example.picture), seen(str(example.picture)).shown, kept, preset, 0, shared=True)
            _shared[file] = shared
    return shared


def begun(example: Example, k: int) -> Session | None:
    """A session that begins with `k` segments of the example, the same object for all visitors; None as `found`."""
    if (result := found(example)) is None:
        return None
    with _reading:
        return _begun.get((result, k)) or _begun.setdefault((result, k), Session.of(result, k))


def keep(example: Example, result: Found) -> Found:
    """The `result` of a run on the example, kept in the folder and shared from now on."""
    if result.segmentation.model != runs.started().model:  # it stood in for the one that should be used
        return result
    with suppress(OSError):  # a disk that is full, or not ours: computed again next time
        _write(result.segmentation, _file(example))
    return found(example) or result


def compute(example: Example) -> Generator[Progress, None, Found]:
    """The example's result by a run; yields its progress."""
    model, *run = own_run(example)
    return keep(example, (yield from find(str(example.picture), model, *run, name=MODELS[model])))


@lru_cache(maxsize=1)
def _code() -> bytes:
    package = Path(emerdiff.__file__).parent
    digest = hashlib.sha256(str(fast_dtype(best_device())).encode())
    for path in sorted([*package.glob("*.py"), *(p for p in WEIGHTS.rglob("*") if p.is_file())]):
        digest.update(path.read_bytes())
    return digest.digest()


def _file(example: Example) -> Path:
    run = str((FINE, *own_run(example))).encode()
    digest = hashlib.sha256(_code() + example.picture.read_bytes() + run).hexdigest()[:16]
    return CACHE / f"{example.name}-{digest}.npz"


def _write(result: emerdiff.Segmentation, file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in file.parent.glob(f"{file.name.rsplit('-', 1)[0]}-*"):
        old.unlink(missing_ok=True)
    facts = {
        "original_size": result.original_size,
        "settings": asdict(result.settings),
        "model": result.model,
        "notes": result.notes,
    }
    arrays = {name: getattr(result, name) for name in ARRAYS}
    arrays["responses"] = arrays["responses"].astype(np.float16)  # half the space; labels differ only in near ties
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, facts=json.dumps(facts), **arrays)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _read(file: Path) -> emerdiff.Segmentation | None:
    """What `_write` wrote; None where it is not there or damaged."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ARRAYS}
            facts = json.loads(str(kept["facts"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return emerdiff.Segmentation(
        **arrays,
        original_size=tuple(facts["original_size"]),
        settings=emerdiff.Settings(**facts["settings"]),
        model=facts["model"],
        notes=tuple(facts["notes"]),
    )


def stored(example: Example) -> Layers:
    """What the page opens with: the result that lies beside the example's picture, at the size that is shown."""
    parts = (_lying(example, what) for what in ("labels", "naive", "coarse"))
    return Layers(example.name, seen(str(example.picture)).shown, *parts, unnamed(example.k))


def table(example: Example) -> list[list]:
    """The rows of the stored result."""
    return rows(example.summary, unnamed(example.k), range(example.k))


def change(example: Example) -> np.ndarray:
    """(H, W) >= 0, levels of 255, of the picture as the network saw it: what changes with `example.segment`."""
    return _lying(example, "change") * np.float32(example.most / 255)


def _lying(example: Example, what: str) -> np.ndarray:
    return np.asarray(Image.open(FOLDER / f"{example.name}_{what}.png"))


def warm() -> None:
    """Time the miniature on this machine, then compute all results that are not there yet, unless that takes hours."""
    calibrate(examples()[0].picture)
    for example in examples():
        if runs.started().quick and not found(example):
            for progress in compute(example):
                _warming[example.name] = progress
                while gpu.busy() and not _awaited:  # visitors come first
                    time.sleep(0.5)
            _warming.clear()


def awaited(example: Example) -> Generator[Progress, None, None]:
    """The progress of `warm` on this example, until it is done with it."""
    visitor = object()
    _awaited.add(visitor)
    try:
        while progress := _warming.get(example.name):
            yield progress
            time.sleep(0.5)
    finally:
        _awaited.discard(visitor)
