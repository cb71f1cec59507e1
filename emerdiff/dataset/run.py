"""Segments many pictures, one after the other; the next is read while the network works."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from .. import __version__
from ..batches import ROWS_PER_BATCH
from ..errors import in_a_line
from ..filenames import printable
from ..loading import networks_of
from ..pipeline import EmerDiffPipeline
from ..progress import Progress
from ..segmentation import Segmentation
from ..settings import Settings
from . import folder
from .folder import Entry
from .formats import FORMATS, MOST_CLASSES, MOST_SEGMENTS
from .labelled import Labelled, Loaded, label, load
from .named import CLASSES, Named, unnamed
from .pictures import Source


@dataclass(frozen=True)
class Wanted:
    """What is made of each picture. Raises `ValueError` if that cannot be."""

    settings: Settings
    formats: tuple[str, ...] = ("png",)
    min_confidence: float = 0.0
    """Segments with a mean confidence below become void."""
    classes: tuple[str, ...] = CLASSES
    """The names that segments can have."""
    name: Callable[[Segmentation], Named] = unnamed
    """Tells which of the classes each segment has."""
    names: Mapping[str, object] = field(default_factory=dict)
    """What tells them, as values for JSON."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise ValueError(f"--format must be among {', '.join(FORMATS)}, not {unknown[0]!r}")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min-confidence must be from 0 to 1, not {self.min_confidence:g}")
        if self.settings.most_segments > MOST_SEGMENTS:
            raise ValueError(f"num_segments must be at most {MOST_SEGMENTS} here, as {MOST_SEGMENTS} stands for void")
        if "cvat" in self.formats and len(self.classes) > MOST_CLASSES:
            raise ValueError(f"CVAT's masks can tell {MOST_CLASSES} classes apart, not {len(self.classes)}")
        if "cvat" in self.formats and (odd := [name for name in self.classes if ":" in name]):
            raise ValueError(f"CVAT's list of labels cannot hold a word with a colon: {odd[0]!r}")

    @property
    def copies(self) -> tuple[str, ...]:
        """The folders for copies of the pictures."""
        return tuple(FORMATS[name].images for name in self.formats if FORMATS[name].images)


@dataclass(frozen=True)
class Share:
    """Every `count`th picture, beginning with number `index`, counted from 0."""

    index: int = 0
    count: int = 1

    def of(self, sources: Sequence[Source]) -> list[Source]:
        return list(sources[self.index :: self.count])

    def split(self, index: int, count: int) -> "Share":
        """One of `count` shares of this share."""
        return Share(self.index + self.count * index, self.count * count)


ALL = Share()


@dataclass(frozen=True)
class Outcome:
    """What became of a picture."""

    source: Source
    notes: tuple[str, ...] = ()
    fault: str = ""
    """Why it failed."""


def described(pipe: EmerDiffPipeline, wanted: Wanted) -> dict:
    """What all results in a folder have in common: settings, a digest of the weights, and the version of the code."""
    return {
        "model": str(pipe.config.get("_name_or_path", "")),
        "weights": weights_digest(pipe),
        "code": f"{__version__} {_code_digest()}",
        "settings": asdict(wanted.settings),
        "formats": sorted(set(wanted.formats)),
        "min_confidence": wanted.min_confidence,
        "classes": list(wanted.classes),
        **wanted.names,
    }


def weights_digest(pipe: EmerDiffPipeline) -> str:
    """SHA-256 of all weights as they are used, and of the configuration that says how."""
    return networks_digest(networks_of(pipe), repr(sorted(pipe.scheduler.config.items(), key=str)))


def networks_digest(networks: Mapping[str, nn.Module], configuration: str = "") -> str:
    digest = hashlib.sha256()
    for part, network in networks.items():
        for name, weight in sorted(network.state_dict().items()):
            digest.update(f"{part} {name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    digest.update(configuration.encode())
    return digest.hexdigest()


def _code_digest() -> str:
    """Of the modules that results depend on: those of the method, and those of this folder."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for file in sorted((*package.glob("*.py"), *Path(__file__).parent.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def run(
    pipe: EmerDiffPipeline,
    wanted: Wanted,
    sources: Sequence[Source],
    out: Path,
    share: Share = ALL,
    progress: Callable[[Source, Progress], None] = lambda source, event: None,
) -> Iterator[Outcome]:
    """Segments those pictures of a share that the folder lacks, and yields what became of each.

    Whatever goes wrong with one is noted, and the others are still segmented. The folder must have been claimed.
    """
    missing = [one for one in share.of(sources) if not one.twin and not folder.is_done(out, one.stem)]
    for source, coming in _ahead(missing, copied=bool(wanted.copies)):
        if folder.is_done(out, source.stem):  # by another process that shares the work without a share of its own
            continue
        try:
            loaded = coming.result()
            # A fixed number of rows, so that rounding does not depend on the memory that is free.
            picture, tell = loaded.opened.picture, partial(progress, source)
            result = pipe(picture, wanted.settings, progress=tell, rows_per_batch=ROWS_PER_BATCH)
            result = replace(result, notes=(*loaded.opened.notes, *result.notes))
            one = label(source, loaded, wanted.name(result), wanted.min_confidence)
            files = itertools.chain.from_iterable(
                FORMATS[name].files(one, wanted.classes).items() for name in sorted(set(wanted.formats))
            )
            folder.put(out, _entry(source, one), dict(files), wanted.copies, loaded.file)
        except Exception as error:  # whatever it is, it only concerns this picture
            fault = printable(in_a_line(error))
            folder.fail(out, source.name, source.stem, fault)
            yield Outcome(source, fault=fault)
        else:
            yield Outcome(source, notes=result.notes)


def _entry(source: Source, one: Labelled) -> Entry:
    height, width = one.labels.shape
    return Entry(source.name, source.stem, source.digest, one.image, width, height)


def _ahead(sources: Sequence[Source], *, copied: bool) -> Iterator[tuple[Source, "Future[Loaded]"]]:
    """Each picture as it is read, or will be; while one is worked on, another thread reads the next."""

    def read(source: Source) -> Loaded:
        if source.fault:
            raise ValueError(source.fault)
        return load(source, copied=copied)

    with ThreadPoolExecutor(1) as reader:
        following = iter(sources)
        coming = [(one, reader.submit(read, one)) for one in itertools.islice(following, 1)]
        while coming:
            now = coming.pop()
            coming += [(one, reader.submit(read, one)) for one in itertools.islice(following, 1)]
            yield now


def finish(wanted: Wanted, sources: Sequence[Source], out: Path) -> int:
    """Writes the files about all pictures, once each of the sources is done or has failed; returns how many are not."""
    failed = folder.failures(out)
    open_ = [s for s in sources if not (s.twin or s.name in failed or folder.is_done(out, s.stem))]
    if not open_:
        done = folder.entries(out)
        wholes = (whole for name in wanted.formats for whole in FORMATS[name].wholes(out, done, wanted.classes))
        folder.finish(out, wholes, {source.name: source.twin for source in sources if source.twin})
    return len(open_)
