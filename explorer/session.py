"""What one visitor has: the network's result in many segments, and how these are cut, merged, named and hidden.

Values that do not change: each action gives a new session. A segment is known by its id, the number that it has in
every cut (see `emerdiff.cuts`), so that names and colours stay when k moves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

import emerdiff
from emerdiff.drawing import palette
from emerdiff.exporting import Legend
from emerdiff.filenames import readable, safe_stem
from emerdiff.matching import match
from emerdiff.naming import SYNONYMS, Names, Words, names

from . import namers
from .granularity import Tree

S = TypeVar("S")

FINE = 30  # segments of a run, from which all k up to this are cut
NOTHING_YET = "nothing is segmented yet: press Run, or choose an example"
PUT_AWAY = (
    "your result was removed: this server keeps results for an hour, or until others need the memory. Press Run to get "
    "it back; with the same picture and settings, your names, merges and hidden segments come back too"
)


@dataclass(frozen=True)
class MadeOf:
    """What a result follows from: two runs of the same found the same segments."""

    source: str
    """The picture's file."""
    model: str
    """Its name or folder."""
    preset: str
    settings: emerdiff.Settings
    """As used."""


@dataclass(frozen=True, eq=False)
class Found:
    """A finished run."""

    source: str
    """The picture's file."""
    shown: Image.Image
    """The picture at the size at which it is shown."""
    segmentation: emerdiff.Segmentation
    """In `FINE` segments, or those that were asked for."""
    preset: str
    seconds: float
    """What the run took; 0 for one that was kept."""
    reading: emerdiff.Reading | None = None
    """Kept where memory allows, so that what the next run needs of it is not computed again."""
    shared: bool = False
    """Whether all visitors have the same one: an example's."""
    set_tree: Tree | None = None
    """Of a picture that was segmented with others: how all of them are cut."""

    @cached_property
    def tree(self) -> Tree:
        return self.set_tree or Tree.of(self.segmentation)

    @cached_property
    def labels(self) -> np.ndarray:
        """(H, W) uint8 of the picture as it is shown, in all segments that there are."""
        return self.segmentation.labels_at(self.shown.size).astype(np.uint8)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(h, w, d) float32: the image–text model's, of the picture as the network saw it."""
        return namers.model().embed(self.segmentation.image)

    @property
    def name(self) -> str:
        """The name that its files get."""
        return safe_stem(Path(self.source).name)

    @property
    def made_of(self) -> MadeOf:
        return MadeOf(self.source, self.segmentation.model, self.preset, self.segmentation.settings)


@dataclass(frozen=True)
class Edits:
    """What a visitor did to the segments, by their ids."""

    merged: tuple[frozenset[int], ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    hidden: frozenset[int] = frozenset()
    words: str = ""
    """By which of these an image–text model names segments that the visitor has not named; empty for none."""


@dataclass(frozen=True, eq=False)
class Gone:
    """What is left of a session that had to make room: its edits, for when the same run is made again."""

    made_of: MadeOf | tuple[MadeOf, ...]
    """Several of a set."""
    edits: Edits
    before: tuple[Edits, ...] = ()
    said: str = PUT_AWAY
    """What its visitor is told."""


@dataclass(frozen=True, eq=False)
class Session:
    """What is shown: the result cut to `k` segments, with the edits."""

    found: Found
    k: int
    edits: Edits = Edits()
    before: tuple[Edits, ...] = ()
    """Earlier edits, the last one last."""
    exact: emerdiff.Segmentation | None = None
    """The last full run at one k, shown in place of the cut wherever k is that."""
    exact_ids: tuple[int, ...] = ()
    """By the run's own numbers: the ids that its segments have here."""

    @classmethod
    def of(
        cls, found: Found, k: int, previous: "Session | Gone | None" = None, edits: Edits = Edits()
    ) -> "Session":
        """A session that begins with `k` segments, or with as many as there are, and with `edits`.

        Those of a `previous` session stay instead where the same run has found the same again.
        """
        session = cls(found, min(k, found.tree.most), edits)
        if previous is None or previous.made_of != found.made_of:
            return session
        return replace(session, edits=previous.edits, before=previous.before)

    @property
    def made_of(self) -> MadeOf:
        return self.found.made_of

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the low-resolution grid."""
        return self.found.segmentation.coarse_labels.shape

    @property
    def arrays(self) -> dict[int, int]:
        """Bytes of each array and picture that is not shared by all, with what has been computed so far, by `id`."""
        arrays: dict[int, int] = {}
        for value in [*vars(self).values()]:  # a copy: others may be computed meanwhile
            if not (value is self.found and value.shared):
                measure(value, arrays)
        return arrays

    @property
    def nbytes(self) -> int:
        """Memory that it takes for itself."""
        return sum(self.arrays.values())

    @property
    def has_reading(self) -> bool:
        """Whether it keeps what only saves time."""
        return self.found.reading is not None

    def without_reading(self) -> "Session":
        return replace(self, found=replace(self.found, reading=None))

    def gone(self) -> Gone:
        return Gone(self.made_of, self.edits, self.before)

    @property
    def is_exact(self) -> bool:
        """Whether a full run at this k is shown, rather than a cut."""
        return self.exact is not None and self.exact.settings.num_segments == self.k

    @cached_property
    def _base(self) -> emerdiff.Segmentation:
        return self.exact if self.is_exact else self._cut(self.k)

    def _cut(self, k: int) -> emerdiff.Segmentation:
        return emerdiff.merge(self.found.segmentation, self.found.tree.cuts[k])

    @cached_property
    def _groups(self) -> np.ndarray:
        groups = np.arange(self.k)
        for ids in self.edits.merged:
            together = np.isin(groups, list(ids))
            if together.all():  # at this k they would be the only segment
                continue
            groups[together] = groups[together].min(initial=self.k)
        return groups

    @property
    def groups(self) -> tuple[int, ...]:
        """What the merges make of the segments of the run or of its cut: the number that each has in `segmentation`."""
        numbers = np.unique(self._groups, return_inverse=True)[1]
        return tuple((numbers[list(self.exact_ids)] if self.is_exact else numbers).tolist())

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The id of each segment of `segmentation`."""
        return tuple(np.unique(self._groups).tolist())

    @cached_property
    def segmentation(self) -> emerdiff.Segmentation:
        """What is shown, numbered 0, 1, ... without gaps."""
        if len(self.ids) == self.k:
            return self._base
        return replace(emerdiff.merge(self._base, self._groups), notes=self._base.notes)

    @cached_property
    def legend(self) -> Legend:
        hidden = frozenset(n for n, i in enumerate(self.ids) if i in self.edits.hidden)
        return Legend(tuple(map(self.name, self.ids)), palette(max(self.ids) + 1)[list(self.ids)], hidden)

    @cached_property
    def labels(self) -> np.ndarray:
        """(H, W) of the picture as it is shown."""
        return self.segmentation.labels_at(self.found.shown.size)

    @cached_property
    def naive_labels(self) -> np.ndarray:
        """(H, W) of the picture as it is shown."""
        return self.segmentation.naive_labels_at(self.found.shown.size)

    @cached_property
    def named(self) -> Names | None:
        """What the segments show, of the visitor's words; None without any."""
        if not self.edits.words:
            return None
        return self._named(Words.of(self.edits.words))

    def _named(self, words: Words) -> Names:
        return names([self.embedded], words, namers.model(), len(self.ids))

    @property
    def embedded(self) -> tuple[np.ndarray, np.ndarray]:
        """What an image–text model names segments by: labels (H, W), and embeddings (h, w, d) of the picture."""
        return self.segmentation.labels, self.found.embeddings

    def name(self, i: int) -> str:
        """The visitor's own, or that of the image–text model where it is sure, or a number."""
        return self._known_name(i) or f"Segment {i}"

    def _known_name(self, i: int) -> str | None:
        own = self.edits.names.get(i)
        return own or (self.named.name(self.ids.index(i)) if self.named else None)

    @cached_property
    def namesakes(self) -> tuple[frozenset[int], ...]:
        """The ids of segments with one name, name by name."""
        by_name: dict[str, set[int]] = {}
        for i in self.ids:
            if name := self._known_name(i):
                by_name.setdefault(readable(name).casefold(), set()).add(i)
        return tuple(frozenset(ids) for ids in by_name.values() if len(ids) > 1)

    def fits(self, word: str, words: str) -> np.ndarray:
        """(segments,) 0 to 1: how probably each segment shows a word rather than one of the `words` or the usual ones.

        Segments without pixels have 0. Raises `ValueError` for a word that is not allowed.
        """
        sought = {readable(one).casefold() for one in word.split(SYNONYMS)}
        try:
            given = Words.of(words).groups
        except ValueError:  # half typed
            given = ()
        for groups in (given, namers.words().groups):
            if rest := [SYNONYMS.join(group) for group in groups if not sought & {one.casefold() for one in group}]:
                break
        return np.nan_to_num(self._named(Words.of([word, *rest])).probabilities[:, 0])

    def summary(self) -> dict:
        """As the segmentation's, for JSON, with names where there are any."""
        summary = self.segmentation.summary()
        if self.named:
            for n, part in enumerate(summary["segments"]):
                part |= self.named.summary(n) | {"name": self._known_name(self.ids[n])}
        return summary

    def cells_of(self, ids: Iterable[int]) -> np.ndarray:
        """(h, w) bool: the cells of the low-resolution grid that the segments are made of."""
        return np.isin(self.ids, list(ids))[self.segmentation.coarse_labels]

    # What a visitor does

    def cut(self, k: int) -> "Session":
        """Another number of segments, without the network."""
        most = self.found.tree.most
        if not 2 <= k <= most:
            raise ValueError(f"this result can have 2 to {most} segments, not {k}")
        return replace(self, k=k)

    def cut_at(self, position: float) -> "Session":
        """As many segments as there are at a position of the slider Granularity."""
        return self.cut(self.found.tree.number(position))

    def recomputed(self, exact: emerdiff.Segmentation) -> "Session":
        """With a full run at one k, this one or another, in place of the cut there.

        Its segments take the numbers of those of the cut that they overlap most.
        """
        k = exact.settings.num_segments
        ids = match(exact.labels, self._cut(k).labels, k)
        return replace(self, exact=emerdiff.merge(exact, ids), exact_ids=tuple(ids.tolist()))

    def merge(self, ids: Iterable[int]) -> "Session":
        ids = self._known(ids)
        if len(ids) < 2:
            raise ValueError("choose at least two segments to merge")
        if len(self.ids) - len(ids) < 1:
            raise ValueError("at least two segments must be left")
        return self._merged(ids)

    def rename(self, ids: Iterable[int], name: str) -> "Session":
        ids, name = self._known(ids), name.strip()
        if len(ids) != 1 or not name:
            raise ValueError("choose one segment and type a name for it")
        edited = self.name_all(dict.fromkeys(ids, name))
        edited.legend  # noqa: B018  refuses names that are not allowed
        return edited

    def name_all(self, names: Mapping[int, str]) -> "Session":
        """With these names, by id, as if the visitor had given them."""
        return self._edited(names={**self.edits.names, **names})

    def ask(self, words: str) -> "Session":
        """Named by an image–text model, of some words; without names of such a model if there are none."""
        return self._edited(words=str(Words.of(words)) if words.strip() else "")

    def merge_namesakes(self) -> "Session":
        """Segments of one name become one, under all names at once."""
        if not self.namesakes:
            raise ValueError("no two segments have the same name: name the segments first, or use other words")
        if len(self.ids) - sum(len(ids) - 1 for ids in self.namesakes) < 2:
            raise ValueError("at least two segments must be left, but all of them have the same name")
        return self._merged(*self.namesakes)

    def hide(self, ids: Iterable[int]) -> "Session":
        """Hide the segments, or show them again if all of them are hidden."""
        ids = self._known(ids)
        if not ids:
            raise ValueError("choose segments to hide or show")
        return self._edited(hidden=self.edits.hidden - ids if ids <= self.edits.hidden else self.edits.hidden | ids)

    def undo(self) -> "Session":
        if not self.before:
            raise ValueError("there is nothing to undo")
        return replace(self, edits=self.before[-1], before=self.before[:-1])

    def _merged(self, *groups: frozenset[int]) -> "Session":
        """With each of the groups as one segment, under the first name that the visitor gave to one of its segments."""
        names = self.edits.names
        kept = {min(ids): names[min(ids & names.keys())] for ids in groups if ids & names.keys()}
        return self._edited(merged=(*self.edits.merged, *groups), names={**names, **kept})

    def _known(self, ids: Iterable[int]) -> frozenset[int]:
        return frozenset(ids) & frozenset(self.ids)

    def _edited(self, **changes) -> "Session":
        return replace(self, edits=replace(self.edits, **changes), before=(*self.before, self.edits))


def measure(value: object, sizes: dict[int, int]) -> None:
    """Note the bytes of each array and picture in a value of the classes above, once each."""
    if isinstance(value, Image.Image):
        sizes[id(value)] = value.width * value.height * len(value.getbands())
    elif isinstance(value, np.ndarray | emerdiff.Reading):
        sizes[id(value)] = value.nbytes
    elif isinstance(value, Found | emerdiff.Segmentation):
        for part in [*vars(value).values()]:
            measure(part, sizes)


def needed(session: S | Gone | None, missing: str = NOTHING_YET, gone: str | None = None) -> S:
    """The session; `ValueError`, which says what to do, where there is none, or no longer."""
    if session is None:
        raise ValueError(missing)
    if isinstance(session, Gone):
        raise ValueError(gone or session.said)
    return session


def has_result(session: Session | Gone | None) -> bool:
    """Whether there is anything to show; `ValueError` where there no longer is."""
    return session is not None and bool(needed(session))
