"""What a visitor asks the network for, and what comes back, until it is applied to the visitor's current session.

A run takes a while, and the visitor goes on meanwhile: moves k, renames and merges segments, or chooses another
picture. So a run returns a finding, and a short event applies that to the present.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from threading import Event
from typing import Self

import emerdiff

from .pictures import Layers, sketched
from .session import Edits, Found, Gone, MadeOf, Session, needed

VALUES = ("modulation_timestep", "strength", "feature_timestep", "smoothing", "seed", "side")
"""Settings that the page has; `side` is that of the picture as the network sees it, about, in pixels."""


def values_of(settings: emerdiff.Settings) -> dict[str, object]:
    """The `VALUES` of settings whose `image_area` is known."""
    return {name: getattr(settings, name) for name in VALUES[:-1]} | {"side": round(sqrt(settings.image_area))}


@dataclass(eq=False)
class SoFar:
    """What a run that goes on has found so far, and the number of segments that its visitor wants to see."""

    k: int = 2
    plain: Layers | None = None
    """The picture alone."""
    sketch: emerdiff.Segmentation | None = None

    def layers(self) -> Layers | None:
        return self.sketch and sketched(self.sketch, self.plain, self.k)


@dataclass(frozen=True, eq=False)
class Asking:
    """A run that was asked for. No two are equal: to ask again is to ask anew."""

    dropped: Event = field(default_factory=Event, kw_only=True)
    """Set when its visitor asks for something else: a run that goes on then ends without a word."""

    def instead_of(self, last: Self | None) -> Self:
        """This one, and nobody waits for the `last` any longer."""
        if last:
            last.dropped.set()
        return self


@dataclass(frozen=True, eq=False)
class Asked(Asking):
    """A run of one picture."""

    source: str
    """The picture's file."""
    model: str
    """Its label on the page."""
    preset: str
    values: Mapping[str, object]
    """Of `VALUES`."""
    example: int | None = None
    """Its index, where an example's own result is asked for."""
    first_in: int | None = None
    """Whether a rough pass comes first, and in how many segments."""
    then_exactly: bool = False
    """Whether k, too, is to be a run of its own afterwards."""
    edits: Edits = Edits()
    """What the visitor's link says that was done to the segments."""
    begun: Event = field(default_factory=Event)
    """Set when its run begins."""
    ended: Event = field(default_factory=Event)
    """Set when its run has ended, in whatever way."""
    stopped: Event = field(default_factory=Event)
    """Set when its visitor has seen enough: a run that goes on then ends with what it has found so far."""
    so_far: SoFar = field(default_factory=SoFar)

    @property
    def waits(self) -> bool:
        """Whether its run has not begun, and is to begin."""
        return not any(event.is_set() for event in (self.begun, self.stopped, self.dropped))


@dataclass(frozen=True, eq=False)
class AskedTogether(Asking):
    """A run of several pictures with one set of segments."""

    sources: tuple[str, ...]
    model: str
    preset: str
    values: Mapping[str, object]
    k: int
    """Of segments that the visitor wants to see."""
    edits: Edits | None = None
    """What the visitor's link says."""

    @property
    def run(self) -> tuple:
        """What the result follows from."""
        return self.sources, self.model, self.preset, self.values


@dataclass(frozen=True, eq=False)
class Finding:
    """The answer to `asked`."""

    asked: Asked
    found: Found
    is_whole: bool = True
    """Rather than what there was when the run was stopped."""


@dataclass(frozen=True, eq=False)
class Recomputed:
    """A full run at one k, otherwise as the run that is `made_of` this."""

    made_of: MadeOf
    exact: emerdiff.Segmentation


@dataclass(frozen=True, eq=False)
class FindingTogether:
    """The answer to `asked`."""

    asked: AskedTogether
    founds: tuple[Found, ...]


def applied(
    finding: Finding | Recomputed, session: Session | Gone | None, asked: Asked | None, k: int
) -> Session | None:
    """The session that follows from `finding` for a visitor who has `session`, and has `asked` for something last.

    None where the visitor has asked for something else since. `ValueError` where what was recomputed is gone.
    """
    if isinstance(finding, Finding):
        return Session.of(finding.found, k, session, finding.asked.edits) if finding.asked is asked else None
    if session is None or session.made_of != finding.made_of:
        return None
    return needed(session).recomputed(finding.exact)
