"""The network at work for a visitor: on ZeroGPU in a process of its own, followed step by step, within a time limit.

Its work is done by generators, so that it stops when its event is cancelled. What goes to another process are values:
what was asked for and what has been read; what comes back are `Progress` and a finding.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import wraps
from math import inf
from typing import TypeVar

import gradio as gr
import numpy as np
import torch

from emerdiff import Progress, Reading, Segmentation
from emerdiff.batches import Results

from . import runs, spaces
from .asking import Asked, AskedTogether
from .pictures import duration
from .runs import Plan
from .session import Found, Gone, MadeOf, Session
from .waiting import said

LONGEST_RUN = 900 if os.environ.get("SPACE_ID") else None  # seconds, on a Space; no limit elsewhere
ALIVE = 10  # seconds since it last said something: a run that a closed page has left may never end
WAITS = 90  # the same of a page whose run has not begun: in a tab that is hidden, browsers let it speak once a minute
CAUTION = 0.15  # share of a run for which what is known beforehand counts as much as what is seen of it
SEEN = 3  # seconds of a run of which nothing was known beforehand, until it tells how much is left

T = TypeVar("T")

_heard: dict[object, float] = {}  # when each run was last heard of
_waiting: dict[Asked, float] = {}  # when each that was asked for and has not begun was last heard of, in their order


@contextmanager
def told() -> Iterator[None]:
    """Shows a `ValueError` as a sentence on the page."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        if text.partition(" ")[0].isalpha():  # not where it begins with the name of a file
            text = text[:1].upper() + text[1:]
        raise gr.Error(text, print_exception=False) from error
    except torch.OutOfMemoryError as error:
        raise gr.Error(
            "There is not enough memory for this picture. Try the miniature, or a smaller picture.",
            print_exception=False,
        ) from error


def on_gpu(seconds: Callable[..., int]) -> Callable:
    """Work for the network, which on ZeroGPU may take `seconds` of its arguments at most.

    Check before what can be refused, and load the model: a GPU's time is asked for at once.
    """

    def decorate(work: Callable[..., Generator[Progress, None, object]]) -> Callable:
        @wraps(work)
        def there(*args):  # what a generator returns does not come back from another process: it is yielded last
            began, last = time.monotonic(), -inf
            with told(), closing(work(*args)) as run:
                for progress in (results := Results(run)):
                    now = time.monotonic()
                    if LONGEST_RUN and now - began > LONGEST_RUN:
                        longest = duration(LONGEST_RUN)
                        raise ValueError(
                            f"a run may take at most {longest} here: choose Fast or Preview, or the miniature"
                        )
                    if progress.sketch or now - last > 0.5:
                        last = now
                        yield progress
            yield results.value

        placed = spaces.GPU(duration=seconds)(there) if spaces else there

        @wraps(work)
        def here(*args):
            found = None
            with closing(placed(*args)) as run:
                for said in run:
                    if isinstance(said, Progress):
                        yield said
                    else:
                        found = said
            return found

        return here

    return decorate


def watched(
    work: Generator[Progress | Plan, None, T], tell: Callable[[dict, Progress], dict]
) -> Generator[dict, None, T]:
    """What `tell(said, progress)` makes of the progress of `work`; returns what that found.

    `said` is for the status line. How much is left goes by the `Plan` that the work may yield, and by what is seen.
    """
    run, plan, began = object(), None, time.monotonic()
    try:
        with closing(work):
            for progress in (results := Results(work)):
                now = _heard[run] = time.monotonic()
                if isinstance(progress, Plan):
                    plan, began = progress, now
                else:
                    yield tell(status(progress, plan, now - began), progress)
    finally:
        _heard.pop(run, None)
    return results.value


def busy() -> bool:
    """Whether the network works for anyone."""
    return bool(_still(_heard, ALIVE))


def ahead(asked: Asked) -> int:
    """How many runs come before this one, which waits and is heard of with this call."""
    _waiting[asked] = time.monotonic()
    waiting = [other for other in _still(_waiting, WAITS) if other.waits]
    for other in _waiting.keys() - set(waiting):
        _waiting.pop(other, None)
    return busy() + (waiting.index(asked) if asked in waiting else 0)


def _still(heard: Mapping[T, float], seconds: float) -> list[T]:
    return [one for one, last in [*heard.items()] if time.monotonic() - last < seconds]


def status(progress: Progress, plan: Plan | None = None, seconds: float = 0) -> dict:
    """For the status line: how far a run is that has taken `seconds` so far."""
    stage = progress.stage[:1].upper() + progress.stage[1:]
    done, rest = None, ""
    if progress.total > 1 and plan is None:
        done = progress.done / progress.total
    elif progress.total > 1 and (left := left_of(plan, progress.done, seconds)) is not None:
        done, rest = plan.due(progress.done) / max(plan.due(plan.rows), 1e-9), f", about {duration(left)} left"
    if done is None:
        return said(f"{stage} …")
    quarters = int(4 * done) * 25
    return said(f"{stage}: {done:.0%}{rest}", done, told=f"{stage}: {quarters}%")


def left_of(plan: Plan, done: int, seconds: float) -> float | None:
    """About the seconds that are left of a run whose first `done` rows took `seconds`; None where nobody can know."""
    due, whole = plan.due(done), plan.due(plan.rows)
    if plan.is_known:
        caution = CAUTION * whole
        return (whole - due) * (seconds + caution) / max(due + caution, 1e-9)
    return (whole - due) * seconds / due if due and seconds >= SEEN else None


def seconds_of(model: str, preset: str, values: Mapping[str, object]) -> int:
    """Of a GPU for a run, as a generous guess: it does about 30 rows a second at Stable Diffusion's size."""
    settings = runs.settings_of(model, preset, values)
    larger = (settings.image_area / runs.native_side(model) ** 2) ** runs.GROWTH
    return int(min(300, 20 + larger * runs.plan(model, preset, values).rows / 30))


def find(asked: Asked, session: Session | Gone | None) -> Generator[Progress | Plan, None, Found]:
    """`runs.find` of what was `asked` for; what the `session` has read of the same picture is not read again."""
    pipe = yield from runs.loaded(asked.model)
    reading = read_before(session, asked.source, pipe.name_or_path)
    run, first_in = (asked.preset, asked.values), asked.first_in
    yield runs.plan(runs.label_of(pipe.name_or_path), *run, previous=reading, first_in=first_in)
    return (yield from _find(asked.source, asked.model, *run, pipe.name_or_path, reading, first_in))


def find_together(asked: AskedTogether) -> Generator[Progress | Plan, None, tuple[Found, ...]]:
    """`runs.find_together` of what was `asked` for."""
    pipe = yield from runs.loaded(asked.model)
    run = asked.preset, asked.values
    yield runs.plan_together(len(asked.sources), runs.label_of(pipe.name_or_path), *run)
    return (yield from _find_together(asked.sources, asked.model, *run, pipe.name_or_path))


def read_before(session: Session | Gone | None, source: str, name: str) -> Reading | None:
    """What is kept of a picture's reading by the model of that name."""
    if not isinstance(session, Session) or (session.made_of.source, session.made_of.model) != (source, name):
        return None
    return session.found.reading


def recompute(session: Session) -> Generator[Progress | Plan, None, Segmentation]:
    """`runs.recompute` of the session at its k."""
    yield from runs.loaded(runs.label_of(session.made_of.model), or_another=False)
    reading = session.found.reading
    yield runs.plan_again(session.made_of, reading, num_segments=session.k)
    return (yield from _recompute(session.made_of, reading, session.k))


def paint(session: Session, offsets: np.ndarray) -> Generator[Progress | Plan, None, np.ndarray]:
    """`runs.paint` of the session's picture."""
    yield from runs.loaded(runs.label_of(session.made_of.model), or_another=False)
    reading = session.found.reading
    yield runs.plan_again(session.made_of, reading, painted=len(offsets))
    return (yield from _paint(session.made_of, reading, offsets))


def _seconds_again(made_of: MadeOf, num_segments: int) -> int:
    again = {name: getattr(made_of.settings, name) for name in ("modulation_timestep", "image_area")}
    return seconds_of(runs.label_of(made_of.model), made_of.preset, again | {"num_segments": num_segments})


@on_gpu(lambda source, model, preset, values, *_: seconds_of(model, preset, values))
def _find(source, model, preset, values, name: str, previous: Reading | None, first_in: int | None):
    return runs.find(source, model, preset, values, name=name, previous=previous, first_in=first_in)


@on_gpu(lambda sources, model, preset, values, _: len(sources) * seconds_of(model, preset, values))
def _find_together(sources, model, preset, values, name: str):
    return runs.find_together(sources, model, preset, values, name=name)


@on_gpu(lambda made_of, _, num_segments: _seconds_again(made_of, num_segments))
def _recompute(made_of: MadeOf, reading: Reading | None, num_segments: int):
    return runs.recompute(made_of, reading, num_segments)


@on_gpu(lambda made_of, *_: _seconds_again(made_of, 2))
def _paint(made_of: MadeOf, reading: Reading | None, offsets: np.ndarray):
    return runs.paint(made_of, reading, offsets)
