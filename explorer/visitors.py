"""Keeps the sessions of the latest visitors, as many as memory allows.

gradio drops the state of the visitors with the oldest requests, even if newer requests all failed. Here only
those with a result count, each under the key that gradio gives to a visitor's page.
"""

import threading
import time
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import replace

import psutil

from .session import Gone, Session

KEPT_SECONDS = 3600
BUDGET = min(4 * 2**30, psutil.virtual_memory().total // 4)  # bytes of all results: a quarter of 16 GB
MOST_GONE = 10_000  # visitors that are remembered to have had a result

key: ContextVar[str | None] = ContextVar("key", default=None)
"""Of the visitor whose event is being worked on."""


class Visitors:
    """Sessions by their visitors' keys. One that is idle for an hour, or whose memory others need, is `Gone`."""

    def __init__(self, budget: int = BUDGET, seconds: float = KEPT_SECONDS) -> None:
        self._budget, self._seconds, self._lock = budget, seconds, threading.Lock()
        self._here: OrderedDict[str, tuple[Session, float]] = OrderedDict()  # with the time when it was last used
        self._gone: OrderedDict[str, Gone] = OrderedDict()

    def __len__(self) -> int:
        return len(self._here)

    def get(self, visitor: str | None) -> Session | Gone | None:
        with self._lock:
            for other in [other for other, (_, used) in self._here.items() if time.monotonic() - used > self._seconds]:
                self._leave(other)
            if visitor not in self._here:
                return self._gone.get(visitor)
            session, _ = self._here.pop(visitor)
            self._here[visitor] = session, time.monotonic()
            return session

    def put(self, visitor: str | None, session: Session | None) -> None:
        """What `visitor` now has; if memory is short, the sessions unused for longest are dropped first."""
        if visitor is None:
            return
        with self._lock:
            self._gone.pop(visitor, None)
            self._here.pop(visitor, None)
            if session is None:
                return
            self._here[visitor] = session, time.monotonic()
            sizes = {other: kept.nbytes for other, (kept, _) in self._here.items()}
            for other in [*self._here][:-1]:  # what only saves time first
                kept, used = self._here[other]
                if kept.found.reading and sum(sizes.values()) > self._budget:
                    self._here[other] = replace(kept, found=replace(kept.found, reading=None)), used
                    sizes[other] = self._here[other][0].nbytes
            for other in [*self._here][:-1]:
                if sum(sizes.values()) > self._budget:
                    self._leave(other)
                    del sizes[other]

    def _leave(self, visitor: str) -> None:
        session, _ = self._here.pop(visitor)
        self._gone[visitor] = session.gone()
        while len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)
