"""The network at work for a visitor: on ZeroGPU in a process of its own, followed step by step, within a time limit.

Its work is done by generators, so that it stops when its event is cancelled. What goes to another process are values:
what was asked for and what has been read; what comes back are `Progress` and a finding.
"""

import html
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import wraps
from typing import TypeVar

import gradio as gr
import numpy as np
import torch

from emerdiff import Progress, Reading, Segmentation
from emerdiff.batches import Results

from . import runs, spaces
from .asking import Asked
from .pictures import duration
from .session import Found, Gone, MadeOf, Session

LONGEST_RUN = 900 if os.environ.get("SPACE_ID") else None  # seconds, on a Space; no limit elsewhere
ALIVE = 10  # seconds since it last said something: a run that a closed page has left may never end

T = TypeVar("T")

_heard: dict[object, float] = {}  # when each run was last heard of


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
            began = last = time.monotonic()
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
    work: Generator[Progress, None, T], tell: Callable[[str, Progress], dict]
) -> Generator[dict, None, T]:
    """What `tell(status, progress)` makes of the progress of `work`; returns what that found."""
    run, first, began = object(), None, 0.0
    try:
        with closing(work):
            for progress in (results := Results(work)):
                now = _heard[run] = time.monotonic()
                first, began = (first, began) if first else (progress, now)
                yield tell(status(progress, first.done, now - began), progress)
    finally:
        _heard.pop(run, None)
    return results.value


def busy() -> bool:
    """Whether the network works for anyone."""
    return any(time.monotonic() - heard < ALIVE for heard in [*_heard.values()])


def status(progress: Progress, first: int = 0, seconds: float = 0) -> str:
    """How far a run is, as HTML; `seconds` ago it had done the `first` rows."""
    stage = html.escape(progress.stage[:1].upper() + progress.stage[1:])
    if progress.done - first < 3:
        return f"<span role='status'>{stage} …</span><progress></progress>"
    left = seconds * (progress.total - progress.done) / (progress.done - first)
    text = f"{stage}: {progress.done / progress.total:.0%}, about {duration(left)} left"
    return f"<span role='status'>{text}</span><progress value='{progress.done}' max='{progress.total}'></progress>"


def seconds_of(model: str, preset: str, values: Mapping[str, object]) -> int:
    """Of a GPU for a run, as a generous guess: it does about 30 rows a second at Stable Diffusion's size."""
    rows, _ = runs.estimate(model, preset, values)
    return int(min(300, 20 + rows / 30))


def find(asked: Asked, session: Session | Gone | None) -> Generator[Progress, None, Found]:
    """`runs.find` of what was `asked` for; what the `session` has read of the same picture is not read again."""
    pipe = yield from runs.loaded(asked.model)
    known = isinstance(session, Session) and session.made_of.model == pipe.name_or_path
    reading = session.found.reading if known else None
    return (yield from _find(asked.source, asked.model, asked.preset, asked.values, pipe.name_or_path, reading))


def recompute(session: Session) -> Generator[Progress, None, Segmentation]:
    """`runs.recompute` of the session at its k."""
    yield from runs.loaded(runs.label_of(session.made_of.model), or_another=False)
    return (yield from _recompute(session.made_of, session.found.reading, session.k))


def paint(session: Session, offsets: np.ndarray) -> Generator[Progress, None, np.ndarray]:
    """`runs.paint` of the session's picture."""
    yield from runs.loaded(runs.label_of(session.made_of.model), or_another=False)
    return (yield from _paint(session.made_of, session.found.reading, offsets))


def _seconds_again(made_of: MadeOf, num_segments: int) -> int:
    values = {"num_segments": num_segments, "modulation_timestep": made_of.settings.modulation_timestep}
    return seconds_of(runs.label_of(made_of.model), made_of.preset, values)


@on_gpu(lambda _, model, preset, values, *__: seconds_of(model, preset, values))
def _find(source: str, model: str, preset: str, values: Mapping, name: str, previous: Reading | None):
    return runs.find(source, model, preset, values, name=name, previous=previous)


@on_gpu(lambda made_of, _, num_segments: _seconds_again(made_of, num_segments))
def _recompute(made_of: MadeOf, reading: Reading | None, num_segments: int):
    return runs.recompute(made_of, reading, num_segments)


@on_gpu(lambda made_of, *_: _seconds_again(made_of, 2))
def _paint(made_of: MadeOf, reading: Reading | None, offsets: np.ndarray):
    return runs.paint(made_of, reading, offsets)
