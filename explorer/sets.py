"""What one visitor has of several pictures that were segmented together: a session of each, all cut and edited alike.

A segment has the same id, and so the same name and colour, in all of them. Values that do not change, as in session.py.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from emerdiff.naming import Words, names

from . import namers
from .session import Edits, Found, Gone, MadeOf, Session

PUT_AWAY = (
    "these pictures' segments were removed: this server keeps results for an hour, or until others need the memory. "
    "Press Segment together to get them back; names, merges and hidden segments come back too"
)


@dataclass(frozen=True, eq=False)
class SetSession:
    """Two sessions or more with the same k, edits and ids of segments."""

    sessions: tuple[Session, ...]

    @classmethod
    def of(
        cls, founds: Sequence[Found], k: int, previous: "SetSession | Gone | None" = None, edits: Edits | None = None
    ) -> "SetSession":
        """What a run has found, with `k` segments or as many as there are; edits as in `Session.of`."""
        new = cls(tuple(Session.of(found, k, edits=edits or Edits()) for found in founds))
        if previous is None or previous.made_of != new.made_of:
            return new
        return new._each(lambda one: replace(one, edits=previous.edits, before=previous.before))

    def _each(self, change: Callable[[Session], Session]) -> "SetSession":
        return SetSession(tuple(map(change, self.sessions)))

    @property
    def first(self) -> Session:
        """What all sessions have in common can be asked of this one."""
        return self.sessions[0]

    @property
    def founds(self) -> tuple[Found, ...]:
        return tuple(one.found for one in self.sessions)

    @property
    def made_of(self) -> tuple[MadeOf, ...]:
        return tuple(one.made_of for one in self.sessions)

    @property
    def k(self) -> int:
        return self.first.k

    @property
    def ids(self) -> tuple[int, ...]:
        return self.first.ids

    @property
    def edits(self) -> Edits:
        return self.first.edits

    @property
    def before(self) -> tuple[Edits, ...]:
        return self.first.before

    @cached_property
    def shares(self) -> np.ndarray:
        """(segments, pictures): the share of each picture's pixels that each segment has, 0 to 1."""
        counts = [np.bincount(one.segmentation.labels.ravel(), minlength=len(self.ids)) for one in self.sessions]
        return np.stack([count / count.sum() for count in counts], axis=1)

    @property
    def arrays(self) -> dict[int, int]:
        """As a session's."""
        return {key: size for one in self.sessions for key, size in one.arrays.items()}

    has_reading = False

    def gone(self) -> Gone:
        return Gone(self.made_of, self.edits, self.before, PUT_AWAY)

    # What a visitor does, with all at once

    def cut(self, k: int) -> "SetSession":
        return self._each(lambda one: one.cut(k))

    def rename(self, ids: Iterable[int], name: str) -> "SetSession":
        return self._each(lambda one: one.rename(ids, name))

    def name_by(self, words: str) -> "SetSession":
        """Segments without a name get the word that they show in all pictures, where an image–text model is sure."""
        given = Words.of(words)
        found = names([one.embedded for one in self.sessions], given, namers.model(), len(self.ids))
        new = {i: name for n, i in enumerate(self.ids) if i not in self.edits.names and (name := found.name(n))}
        if not new:
            raise ValueError("no segment without a name shows one of these words for sure: try others")
        return self._each(lambda one: one.name_all(new))

    def merge(self, ids: Iterable[int]) -> "SetSession":
        return self._each(lambda one: one.merge(ids))

    def hide(self, ids: Iterable[int]) -> "SetSession":
        return self._each(lambda one: one.hide(ids))

    def undo(self) -> "SetSession":
        return self._each(lambda one: one.undo())
