"""Links that restore a view: what is on the page, as a URL's query, and pictures kept for a while to be linked to.

Everything in a query is checked, and none of it is used as a path.
"""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import get_type_hints
from urllib.parse import urlencode

from PIL import Image

import emerdiff
from emerdiff.drawing import palette
from emerdiff.exporting import OPACITY, Legend
from emerdiff.naming import Words
from emerdiff.picture import open_picture
from emerdiff.pipeline import MOST_TOGETHER
from emerdiff.settings import PRESETS

from .examples import examples
from .folders import KEPT_HOURS, ROOT
from .pictures import VIEWS
from .runs import MODELS, SIDES, all_sides
from .seen import key_of_pixels, seen
from .session import FINE, Edits

MOST_KEPT = 200  # pictures
MOST_KNOWN = 1000  # files of pictures
FOLDER = ROOT / "linked"
LONGEST = 2000  # characters of a query: mail, chats and servers take addresses of that length
LONGEST_VALUE = 100  # characters, of all but edits
LOOK = ("view", "opacity", "outlines")  # what of a link follows from the page alone, without a session

_keeping, _knowing = threading.Lock(), threading.Lock()
_known: dict[str, str] = {}  # keys of the pictures in files, the file that was used last at the end


@dataclass(frozen=True)
class Link:
    """What a link carries. Raises `ValueError` for what the page does not have."""

    model: str
    """Its name, as in `MODELS`' values."""
    k: int
    modulation_timestep: int
    strength: float
    feature_timestep: int
    smoothing: float
    seed: int
    side: int = SIDES[0]
    """At least the model's own is used, as by older links, which have none."""
    preset: str = "exact"
    view: str = VIEWS[0]
    opacity: float = OPACITY
    outlines: bool = True
    full: bool = False
    """Whether k is a run of its own rather than a cut."""
    example: str | None = None
    picture: str | None = None
    """The key of a picture."""
    name: str | None = None
    """The name of its file, without ending."""
    edits: Edits = Edits()
    together: str | None = None
    """Names of examples with commas between them: a set, which has the link's k and edits. `example` is its first."""

    def __post_init__(self) -> None:
        emerdiff.Settings(
            modulation_timestep=self.modulation_timestep,
            strength=self.strength,
            feature_timestep=self.feature_timestep,
            smoothing=self.smoothing,
            seed=self.seed,
        )
        if not 2 <= self.k <= FINE:
            raise ValueError(f"k must be from 2 to {FINE}, not {self.k}")
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity must be from 0 to 1, not {self.opacity}")
        allowed = {
            "model": MODELS.values(),
            "preset": PRESETS,
            "side": all_sides(),
            "view": VIEWS,
            "example": [None, *(e.name for e in examples())],
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"there is no {name} {getattr(self, name)!r:.60}")
        if names := self.set_of_examples:
            if unknown := [name for name in names if name not in allowed["example"]]:
                raise ValueError(f"there is no example {unknown[0]!r:.60}")
            if not 2 <= len(names) == len(set(names)) <= MOST_TOGETHER or names[0] != self.example:
                raise ValueError(f"a set must have 2 to {MOST_TOGETHER} different examples, first the link's own one")
        if (self.example is None) == (self.picture is None):
            raise ValueError("a link must name either an example or a picture")
        if self.picture is not None and not re.fullmatch(r"[0-9a-f]{32}", self.picture):
            raise ValueError("the link's picture key must be 32 hexadecimal digits")

    @property
    def set_of_examples(self) -> list[str]:
        return self.together.split(",") if self.together is not None else []

    @property
    def query(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return urlencode({name: _written(value) for name, value in values.items()}, safe="/:,")

    def fitting(self) -> "Link":
        """This link or, where it is too long for an address, without the names of segments and words for them."""
        return self if len(self.query) <= LONGEST else replace(self, edits=replace(self.edits, names={}, words=""))

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Link | None":
        """The link of a query; None where it has none of the names, `ValueError` where it is not one."""
        known = {name: kind for name, kind in get_type_hints(cls).items() if name in query}
        if not known:
            return None
        values = {name: _read(name, kind, query[name]) for name, kind in known.items()}
        if missing := [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]:
            raise ValueError(f"{missing[0]} is missing")
        return cls(**values)


def _written(value: object) -> object:
    """A value as text of a query; of numbers and text, itself."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, Edits):
        return value
    parts = {
        "names": {str(i): name for i, name in sorted(value.names.items())},
        "merged": [sorted(ids) for ids in value.merged],
        "hidden": sorted(value.hidden),
        "words": value.words,
    }
    return json.dumps({name: part for name, part in parts.items() if part}, ensure_ascii=False, separators=(",", ":"))


def _read(name: str, kind: object, text: str) -> object:
    """The value of the field `name`, which is of a `kind`; `ValueError` where the text is not one."""
    longest = LONGEST if kind is Edits else LONGEST_VALUE
    if len(text) > longest:
        raise ValueError(f"{name} must have at most {longest} characters")
    if kind is Edits:
        return _edits(text)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, not {text!r:.60}")
        return text.lower() == "true"
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r:.60}") from None


def _edits(text: str) -> Edits:
    """What a visitor did to the segments, from JSON."""
    try:
        parts = {"names": {}, "merged": [], "hidden": [], "words": ""} | json.loads(text)
        names, merged, hidden, words = (parts.pop(name) for name in ("names", "merged", "hidden", "words"))
        names = {int(i): name for i, name in names.items()}
        edits = Edits(tuple(map(frozenset, merged)), names, frozenset(hidden), words)
        ids = {*edits.names, *edits.hidden}.union(*edits.merged)
        if parts or type(words) is not str or not all(type(i) is int and 0 <= i < FINE for i in ids):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        example = '{"names":{"1":"Sky"},"merged":[[2,3]],"hidden":[0]}'
        raise ValueError(f"edits must be like {example}, with segments from 0 to {FINE - 1}") from None
    Legend(tuple(edits.names.values()), palette(len(edits.names)))  # refuses names that are not allowed
    if edits.words:
        Words.of(edits.words)  # likewise
    return edits


def key_of(source: str) -> str:
    """The key of the picture in a file, which it is known by from now on, for as long as the file is there."""
    key = _known.get(source) or seen(source).key
    with _knowing:
        _known.pop(source, None)
        _known[source] = key
        while len(_known) > MOST_KNOWN:
            del _known[next(iter(_known))]
    return key


def keep(picture: Image.Image) -> str:
    """Keep a picture to be linked to, for `KEPT_HOURS` on this server; returns its key.

    `ValueError` where it cannot be written.
    """
    key = key_of_pixels(picture)
    with _keeping, _explained():
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _file(key)
        if not file.exists():
            part = file.with_suffix(".part")
            picture.save(part, "PNG", compress_level=1)
            part.replace(file)
        file.touch()
        by_age = sorted(FOLDER.glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True)
        for n, other in enumerate(by_age):
            if n >= MOST_KEPT or _expired(other):
                other.unlink()
    return key


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            "this server cannot keep pictures at the moment, so a link to yours cannot be made; links to examples "
            "still work"
        ) from error


def kept(key: str) -> Path:
    """The file of a picture that is kept or still among the uploads; `ValueError` where there is none any longer."""
    with _keeping:
        if _is_kept(key):
            return _file(key)
    with _knowing:
        files = [source for source, known in _known.items() if known == key and Path(source).exists()]
    if files:
        keep(open_picture(files[-1]))  # without what else a visitor's file tells, such as where a photo was taken
        return _file(key)
    raise ValueError(f"the picture of this link is gone: pictures are kept for {KEPT_HOURS} hours")


def _file(key: str) -> Path:
    return FOLDER / f"{key}.png"


def _is_kept(key: str) -> bool:
    return _file(key).exists() and not _expired(_file(key))


def _expired(file: Path) -> bool:
    return time.time() - file.stat().st_mtime > KEPT_HOURS * 3600
