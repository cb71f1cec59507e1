"""Finds the pictures that a run is about, in files, folders and lists, and knows each by what is in it."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..filenames import distinct_stems, printable
from .folder import Entry

ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"),
}


@dataclass(frozen=True)
class Source:
    """A picture that was asked for."""

    path: Path
    name: str
    """Its path below the folder that was given, with "/", or the name of its file; in one printable line."""
    stem: str
    """What the names of its results begin with."""
    digest: str = ""
    """SHA-256 of its file."""
    twin: str = ""
    """The name of an earlier picture with the same content, whose results stand for both."""
    fault: str = ""
    """Why it cannot be read, if that is known before it is decoded."""


@dataclass(frozen=True)
class Found:
    """A file, before it is opened; or a folder without pictures, and what else there is no picture in."""

    path: Path
    name: str
    fault: str = ""


def find(words: Iterable[str], out: Path) -> list[Found]:
    """The pictures that `words` ask for, in order: files, folders with all below them, and `@LIST` of such, one a line.

    In folders, files count whose names end like a picture's, without hidden ones and without the folder `out`. Raises
    `ValueError` for pictures in `out` and for a list that cannot be read.
    """
    place = os.path.realpath(out)
    found: dict[tuple[str, str], Found] = {}
    for word in _listed(words):
        for one in _below(word, place):
            found.setdefault((os.path.realpath(one.path.parent), one.path.name), one)
    for folder, name in found:
        if Path(folder).is_relative_to(place):
            raise ValueError(f"{Path(folder, name)} lies in the folder for the results, {out}: choose another --out")
    return list(found.values())


def _listed(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if not word.startswith("@"):
            yield word
            continue
        try:
            lines = Path(word[1:]).read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
        except OSError as error:
            raise ValueError(f"the list {word[1:]} cannot be read: {error.strerror}") from error
        if not any(line.strip() for line in lines):
            raise ValueError(f"the list {word[1:]} is empty: it should name a picture or a folder on each line")
        yield from (line for line in lines if line.strip())


def _below(word: str, place: str) -> Iterator[Found]:
    path = Path(word)
    if not word:
        yield Found(path, "", "this name is empty")
    elif os.path.isdir(path):
        empty, closed = True, []
        for folder, folders, names in os.walk(path, onerror=closed.append):
            kept = [name for name in folders if name[:1] != "." and os.path.realpath(Path(folder, name)) != place]
            folders[:] = sorted(kept)
            for name in sorted(names):
                if name[:1] != "." and os.path.splitext(name)[1].lower() in ENDINGS:
                    empty = False
                    file = Path(folder, name)
                    yield Found(file, file.relative_to(path).as_posix())
        for error in closed:
            yield Found(Path(error.filename), Path(error.filename).name, f"it cannot be read: {error.strerror}")
        if empty and not closed:
            yield Found(path, path.name, "there is no picture in this folder")
    else:
        yield Found(path, path.name)


def identify(found: Sequence[Found], entries: Iterable[Entry] = ()) -> list[Source]:
    """The pictures with digests of what is in them. Those that are among `entries` keep their stems there."""
    done = {entry.digest: entry for entry in entries}
    stems = distinct_stems([one.name.replace("/", "_") for one in found])
    taken = {entry.stem.casefold() for entry in done.values()}
    first: dict[str, str] = {}
    sources = []
    for i, (one, stem) in enumerate(zip(found, stems, strict=True)):
        name = printable(one.name)
        digest, fault = ("", one.fault) if one.fault else _digest(one.path)
        twin = ""
        if digest in done:
            stem = done[digest].stem
            twin = done[digest].name if done[digest].name != name else ""
        elif stem.casefold() in taken:  # by a picture of an earlier run
            stem = next(new for n in range(i, i + len(taken) + 1) if (new := f"{n:03}_{stem}").casefold() not in taken)
        if digest:
            twin = twin or first.get(digest, "")
            first.setdefault(digest, name)
        taken.add(stem.casefold())
        sources.append(Source(one.path, name, stem, digest, twin, fault))
    return sources


def _digest(path: Path) -> tuple[str, str]:
    """The digest of a file, or why it cannot be read."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading from one could wait for ever
        return "", "this is a device, not a picture"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except (OSError, ValueError) as error:  # the latter for a name with NUL
        return "", f"it cannot be read: {getattr(error, 'strerror', None) or error}"
