"""Keeps the sessions of the latest visitors and the results of the latest runs, as many as memory allows.

gradio drops the state of the visitors with the oldest requests, even if newer requests all failed. Here only
those with a result count, each under the key that gradio gives to a visitor's page.

A result is found again by whoever asks for the same run of the same picture: there is no list of them.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from weakref import WeakValueDictionary

import psutil

from emerdiff import Segmentation

from .asking import Asked, Finding, Recomputed
from .links import key_of
from .runs import MODELS
from .seen import seen
from .session import Found, Gone, MadeOf, Session, measure
from .sets import SetSession

KEPT_SECONDS = 3600
BUDGET = min(4 * 2**30, psutil.virtual_memory().total // 4)  # bytes of all results: a quarter of 16 GB
MOST_GONE = 10_000  # visitors that are remembered to have had a result

key: ContextVar[str | None] = ContextVar("key", default=None)
"""Of the visitor whose event is being worked on."""


class Visitors:
    """Sessions by their visitors' keys. One that is idle for an hour, or whose memory others need, is `Gone`."""

    def __init__(self, budget: int = BUDGET, seconds: float = KEPT_SECONDS) -> None:
        self._budget, self._seconds, self._lock = budget, seconds, threading.Lock()
        self._here: OrderedDict[str, tuple[Session | SetSession, float]] = OrderedDict()  # with the time of last use
        self._gone: OrderedDict[str, Gone] = OrderedDict()
        self._recent: OrderedDict[tuple, tuple[Segmentation, float]] = OrderedDict()  # by run, with the time of use
        self._results: WeakValueDictionary[tuple, Segmentation] = WeakValueDictionary()  # those, and visitors' own

    def __len__(self) -> int:
        return len(self._here)

    def get(self, visitor: str | None) -> Session | SetSession | Gone | None:
        with self._lock:
            self._expire()
            if visitor not in self._here:
                return self._gone.get(visitor)
            session, _ = self._here.pop(visitor)
            self._here[visitor] = session, time.monotonic()
            return session

    def put(self, visitor: str | None, session: Session | SetSession | None) -> None:
        """What `visitor` now has; if memory is short, the sessions unused for longest are dropped first."""
        if visitor is None:
            return
        with self._lock:
            self._gone.pop(visitor, None)
            self._here.pop(visitor, None)
            if session is not None:
                self._here[visitor] = session, time.monotonic()
                self._make_room()

    def keep(self, finding: Finding | Recomputed) -> None:
        """So that it need not be computed again; what is an example's own is kept by `examples`."""
        if isinstance(finding, Recomputed):
            run, result = _run(finding.made_of, finding.exact.settings.num_segments), finding.exact
        elif finding.found.shared or (result := finding.found.segmentation).model != MODELS[finding.asked.model]:
            return  # another model had to do: the one that was asked for may be there the next time
        else:
            run = _run(finding.asked)
        with self._lock:
            self._use(run, result)
            self._make_room()

    def again(self, asked: Asked) -> Found | None:
        """What the same run has found before, also for others and of another file of the same picture."""
        result = self._again(_run(asked))
        return result and Found(asked.source, seen(asked.source).shown, result, asked.preset, 0)

    def exact(self, session: Session) -> Segmentation | None:
        """As `again`, the full run at the k of the session."""
        return self._again(_run(session.made_of, session.k))

    def _again(self, run: tuple) -> Segmentation | None:
        with self._lock:
            self._expire()
            if result := self._results.get(run):
                self._use(run, result)
            return result

    def _use(self, run: tuple, result: Segmentation) -> None:
        self._recent.pop(run, None)
        self._recent[run] = result, time.monotonic()
        self._results[run] = result

    def _expire(self) -> None:
        long_ago = time.monotonic() - self._seconds
        for visitor in [visitor for visitor, (_, used) in self._here.items() if used < long_ago]:
            self._leave(visitor)
        for run in [run for run, (_, used) in self._recent.items() if used < long_ago]:
            del self._recent[run]

    def _make_room(self) -> None:
        """Let go until the rest is within the budget; the last visitor's session stays, however large it is."""
        going = self._dispensable()
        while self._used() > self._budget and (let_go := next(going, None)):
            let_go()

    def _dispensable(self) -> Iterator[Callable[[], object]]:
        """How to let go of one thing after another: what only saves time first, each kind from the oldest."""
        others = [*self._here][:-1]
        yield from [partial(self._recent.popitem, last=False)] * len(self._recent)
        yield from (partial(self._unread, other) for other in others if self._here[other][0].has_reading)
        yield from (partial(self._leave, other) for other in others)

    def _used(self) -> int:
        """Bytes of all that is kept; what several share counts once."""
        arrays: dict[int, int] = {}
        for session, _ in self._here.values():
            arrays |= session.arrays
        for result, _ in self._recent.values():
            measure(result, arrays)
        return sum(arrays.values())

    def _unread(self, visitor: str) -> None:
        session, used = self._here[visitor]
        self._here[visitor] = session.without_reading(), used

    def _leave(self, visitor: str) -> None:
        session, _ = self._here.pop(visitor)
        self._gone[visitor] = session.gone()
        while len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)


def _run(of: Asked | MadeOf, num_segments: int | None = None) -> tuple:
    """What the result of a run follows from: the picture's content, model, preset and settings."""
    if isinstance(of, Asked):
        settings = frozenset(of.values.items())
    else:
        settings = replace(of.settings, num_segments=num_segments)
    return key_of(of.source), of.model, of.preset, settings
