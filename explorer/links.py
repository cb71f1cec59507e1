"""Links that restore a view: what is on the page, as a URL's query, and pictures kept for a while to be linked to.

Everything in a query is checked, and none of it is used as a path.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import get_type_hints
from urllib.parse import urlencode

from PIL import Image

import emerdiff
from emerdiff.settings import PRESETS

from .examples import examples
from .folders import KEPT_HOURS, ROOT
from .pictures import VIEWS
from .runs import MODELS
from .session import FINE

MOST_KEPT = 200  # pictures
FOLDER = ROOT / "linked"
LONGEST_VALUE = 100  # characters

_keeping = threading.Lock()


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
    preset: str = "exact"
    view: str = VIEWS[0]
    full: bool = False
    """Whether k is a run of its own rather than a cut."""
    example: str | None = None
    picture: str | None = None
    """The key of a kept picture."""
    name: str | None = None
    """The name of its file, without ending."""

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
        allowed = {
            "model": MODELS.values(),
            "preset": PRESETS,
            "view": VIEWS,
            "example": [None, *(e.name for e in examples())],
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"there is no {name} {getattr(self, name)!r:.60}")
        if (self.example is None) == (self.picture is None):
            raise ValueError("a link must name either an example or a picture")
        if self.picture is not None and not re.fullmatch(r"[0-9a-f]{32}", self.picture):
            raise ValueError("the link's picture key must be 32 hexadecimal digits")

    @property
    def query(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return urlencode({name: value for name, value in values.items() if value is not None and value is not False})

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Link | None":
        """The link of a query; None where it has none of the names, `ValueError` where it is not one."""
        known = {name: kind for name, kind in get_type_hints(cls).items() if name in query}
        if not known:
            return None
        values = {}
        for name, kind in known.items():
            if len(query[name]) > LONGEST_VALUE:
                raise ValueError(f"{name} must have at most {LONGEST_VALUE} characters")
            try:
                values[name] = kind(query[name]) if kind in (int, float) else query[name]
            except ValueError:
                raise ValueError(f"{name} must be a number, not {query[name]!r:.60}") from None
        if "full" in values:
            values["full"] = values["full"] == "True"
        if missing := [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]:
            raise ValueError(f"{missing[0]} is missing")
        return cls(**values)


def keep(picture: Image.Image) -> str:
    """Keep a picture to be linked to, for `KEPT_HOURS` on this server; returns its key.

    `ValueError` where it cannot be written.
    """
    key = hashlib.sha256(str(picture.size).encode() + picture.tobytes()).hexdigest()[:32]
    with _keeping, _explained():
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = FOLDER / f"{key}.png"
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
    """The file of a kept picture; `ValueError` where it is no longer there."""
    file = FOLDER / f"{key}.png"
    with _keeping:
        if not file.exists() or _expired(file):
            raise ValueError(f"the picture of this link is gone: pictures are kept for {KEPT_HOURS} hours")
    return file


def _expired(file: Path) -> bool:
    return time.time() - file.stat().st_mtime > KEPT_HOURS * 3600
