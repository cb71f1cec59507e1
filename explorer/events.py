"""What the page's events do: runs, cuts, edits, probes, scores, files and links; `app.py` says where they belong.

Every event that needs the network is a generator, so that it stops when it is cancelled or its tab is closed.
"""

import html
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from PIL import Image

import emerdiff
from emerdiff.batches import Results
from emerdiff.drawing import indexed_png, palette
from emerdiff.exporting import OPACITY, export
from emerdiff.filenames import safe_stem
from emerdiff.loading import MINIATURE
from emerdiff.picture import Opened, open_picture, read_picture
from emerdiff.settings import PRESETS

from . import links, pictures, runs, spaces, uploads
from .examples import Example, at_hand, examples, full, stored
from .folders import new_folder
from .pictures import VIEWS, duration
from .session import FINE, Gone, Session

VALUES = ("modulation_timestep", "strength", "feature_timestep", "smoothing", "seed")
SOON = 60  # seconds: a run that takes no longer begins as soon as a picture is dropped
LONGEST_RUN = 900 if os.environ.get("SPACE_ID") else None  # seconds; whom the machine belongs to may run for longer
NOTHING_YET = "nothing is segmented yet: press Run, or take an example and wait a moment"
PUT_AWAY = (
    "your result had to make room: this server keeps results for an hour, or until others need the memory. Press Run "
    "to make it again; with the same picture and settings, your names, merges and hidden segments come back too"
)
CELL = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")

_under_way: list[None] = []  # one for each run that the network works on


@contextmanager
def told() -> Iterator[None]:
    """What cannot be done becomes a sentence on the page."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        if text.partition(" ")[0].isalpha():  # not where it begins with the name of a file
            text = text[:1].upper() + text[1:]
        raise gr.Error(text, print_exception=False) from error
    except torch.OutOfMemoryError as error:
        raise gr.Error(
            "There was not enough memory for this picture. Try the miniature.", print_exception=False
        ) from error


def plainly(function: Callable) -> Callable:
    """An event whose `ValueError`s the page tells."""

    @wraps(function)
    def event(*args):
        with told():
            return function(*args)

    return event


def _values(values) -> dict:
    return dict(zip(VALUES, values, strict=True))


def _needed(session: Session | Gone | None, missing: str = NOTHING_YET, gone: str = PUT_AWAY) -> Session:
    if session is None:
        raise ValueError(missing)
    if isinstance(session, Gone):
        raise ValueError(gone)
    return session


def _has_result(session: Session | Gone | None) -> bool:
    """Whether there is anything to show; `ValueError` where there no longer is."""
    return session is not None and bool(_needed(session))


def _checked(image: str | None, model: str, preset: str, values: dict) -> Opened:
    """The picture of a run; `ValueError` for what a run would refuse."""
    if not image:
        raise ValueError("choose a picture first: drop one in, paste one, or take an example")
    if preset not in PRESETS:
        raise ValueError(f"quality must be one of {', '.join(PRESETS)}")
    opened = read_picture(image)
    runs.pipeline_of(model).settings(preset=preset, **values)
    return opened


# ---------------------------------------------------------------- runs


def on_gpu(seconds: Callable[..., int], *, check: Callable) -> Callable:
    """An event that needs the network: on ZeroGPU for `seconds` of its inputs at most, in a process of its own.

    What `check` of its inputs refuses with a `ValueError` is told before that.
    """

    def decorate(function: Callable[..., Generator]) -> Callable[..., Generator]:
        work = spaces.GPU(duration=seconds)(function) if spaces else function

        @wraps(function)
        def event(*args, **kwargs):
            with told():
                check(*args, **kwargs)
            yield from work(*args, **kwargs)

        return event

    return decorate


def _gpu_seconds(model: str, preset: str, num_segments: int, timestep: int) -> int:
    """A generous guess: about 30 rows a second at Stable Diffusion's size."""
    rows, _ = runs.estimate(model, preset, {"num_segments": num_segments, "modulation_timestep": timestep})
    return int(min(300, 20 + rows / 30))


def _seconds_of(session: Session, k: int) -> int:
    found = session.found
    model = runs.label_of(found.segmentation.model)
    return _gpu_seconds(model, found.preset, k, found.segmentation.settings.modulation_timestep)


@contextmanager
def _counted() -> Iterator[None]:
    """Lets others know that the network is at work."""
    _under_way.append(None)
    try:
        yield
    finally:
        _under_way.pop()


def followed(run: Generator, tell: Callable) -> Generator:
    """What `tell(progress, seconds)` says of a run, at most twice a second and at each sketch; returns its result."""
    began = last = time.monotonic()
    with _counted(), closing(run), told():
        for progress in (results := Results(run)):
            now = time.monotonic()
            if LONGEST_RUN and now - began > LONGEST_RUN:
                raise ValueError(f"a run may take {duration(LONGEST_RUN)} here: try another quality, or the miniature")
            if progress.sketch or now - last > 0.5:
                last = now
                yield tell(progress, now - began)
    return results.value


def _status(progress: emerdiff.Progress, seconds: float) -> str:
    stage = html.escape(progress.stage.capitalize())
    if progress.done < 3:
        return f"<span role='status'>{stage} …</span><progress></progress>"
    left = seconds * (progress.total / progress.done - 1)
    text = f"{stage}: {progress.done} of {progress.total} U-Net rows, about {duration(left)} left"
    return f"<span role='status'>{text}</span><progress value='{progress.done}' max='{progress.total}'></progress>"


def estimated(model: str, preset: str, *values) -> str:
    """How long a run would take here, in words."""
    try:
        rows, seconds = runs.estimate(model, preset, {"num_segments": FINE} | _values(values))
    except (ValueError, KeyError):
        return ""
    if seconds:
        took = f"about {duration(seconds)} on this machine"
    elif spaces:
        took = f"at most {duration(_gpu_seconds(model, preset, FINE, values[0]))} of a GPU's time"
    else:
        took = "this model has not run here yet"
    return f"<span role='status'>A run: {rows} U-Net rows, {took}.</span>"


def compared(of: pictures.Layers, view: str, opacity: float, outlines: bool) -> tuple:
    """Slider, left and right picture."""
    drawn = pictures.views(of, view, opacity, outlines)
    whats = ("naive", "emerdiff") if len(drawn) > 1 else (view.replace(" ", "_"),)
    drawn = [_png(picture, f"{of.name}_{what}") for picture, what in zip(drawn, whats, strict=True)]
    if view == "slider":
        return gr.update(value=tuple(drawn), visible=True), gr.update(visible=False), gr.update(visible=False)
    left, right = (*drawn, None)[:2]
    label, other = {"side by side": ("Naive upsampling", "EmerDiff"), "masks": ("EmerDiff", None)}.get(
        view, (view.capitalize(), None)
    )
    return (
        gr.update(visible=False),
        gr.update(value=left, visible=True, label=label),
        gr.update(value=right, visible=right is not None, label=other),
    )


def refreshed(session: Session, view: str, opacity: float, outlines: bool, chosen: list[int] | None = None) -> tuple:
    """Everything that shows a session: `shows` in `create_demo`."""
    summary = session.segmentation.summary()
    kept = [i for i in chosen or [] if i in session.ids]
    seconds = None if session.exact else session.found.seconds
    words = pictures.words(summary, seconds)
    choices = [(session.name(i), i) for i in session.ids]
    return (
        session,
        words,
        *compared(pictures.layers(session), view, opacity, outlines),
        pictures.table(session),
        gr.update(choices=choices, value=kept),
        gr.update(interactive=bool(session.before)),
    )


SHOWS = 8  # components that `refreshed` fills
_NOTHING = ([], gr.skip(), gr.skip())  # of the last three of them


def _waiting(words: str, *pair) -> tuple:
    """Of what shows a session, words and maybe its pictures, while there is no session yet."""
    return gr.skip(), words, *(pair or [gr.skip()] * 3), *[gr.skip()] * (SHOWS - 5)


def _unsegmented(image: str | Path, opacity: float, outlines: bool) -> tuple:
    """Slider, left and right picture of what is not segmented yet."""
    return compared(_alone(image), "picture", opacity, outlines)


def _alone(image: str | Path) -> pictures.Layers:
    return pictures.alone(safe_stem(Path(image).name), runs.shown(open_picture(image)))


def _only_status(progress: emerdiff.Progress, seconds: float) -> tuple:
    """Status, and what shows a session as it is."""
    return _status(progress, seconds), *[gr.skip()] * SHOWS


def _sketching(image: str, k: int, *look) -> Callable:
    """Tells status and sketches of a run that will be cut to k."""
    alone = _alone(image)

    def tell(progress, seconds):
        pair = compared(pictures.sketched(progress.sketch, alone, k), *look) if progress.sketch else ()
        return _status(progress, seconds), *_waiting(gr.skip(), *pair)

    return tell


@plainly
def dropped(image, model, preset, *values) -> tuple:
    """A picture was dropped: as `check`, and the picture as the network will see it where a browser cannot show it."""
    opened = _checked(image, model, preset, _values(values))
    return _about_to_run(), uploads.presentable(image, opened) or gr.skip()


@plainly
def check(image, model, preset, *values) -> str:
    """Everything that can be refused is refused here, before a GPU is asked for."""
    _checked(image, model, preset, _values(values))
    return _about_to_run()


def _about_to_run() -> str:
    busy = "waiting for another run to end" if _under_way else "starting"
    return _status(emerdiff.Progress(busy, 0, 1), 0)


@on_gpu(
    lambda *inputs: _gpu_seconds(*inputs[6:8], FINE, inputs[8]),
    check=lambda *inputs: _checked(*inputs[5:8], _values(inputs[8:])),
)
def run(session, k, view, opacity, outlines, image, model, preset, *values):
    """The Run button: status and sketches while the network works, then everything."""
    values = _values(values)
    previous = session.found if isinstance(session, Session) else None
    yield gr.skip(), *_waiting("Segmenting …")
    tell = _sketching(image, k, view, opacity, outlines)
    found = yield from followed(runs.find(image, model, preset, {"num_segments": FINE} | values, previous), tell)
    new = session.back(found, k) if isinstance(session, Gone) else Session.of(found, k)
    yield "", *refreshed(new, view, opacity, outlines)


def run_soon(session, k, view, opacity, outlines, image, model, preset, *values):
    """A picture was dropped: run, if that does not take long."""
    with told():
        _, seconds = runs.estimate(model, preset, {"num_segments": FINE} | _values(values))
    if seconds and seconds > SOON:
        pair = _unsegmented(image, opacity, outlines)
        yield estimated(model, preset, *values), None, "Press **Run** to segment this picture.", *pair, *_NOTHING
    else:
        yield from run(session, k, view, opacity, outlines, image, model, preset, *values)


@on_gpu(lambda session, *_: _seconds_of(session, session.k), check=lambda session, *_: _needed(session))
def recompute(session, view, opacity, outlines, chosen):
    """A full run at the k that is shown."""
    exact = yield from followed(_exact(session.found, session.k), _only_status)
    yield "", *refreshed(session.recomputed(exact), view, opacity, outlines, chosen)


def _exact(found, k: int) -> Generator:
    pipe, settings = runs.pipeline(found.segmentation.model), replace(found.segmentation.settings, num_segments=k)
    reading = yield from pipe.read(found.source, settings, previous=found.reading)
    return (yield from pipe.segment(reading))


@plainly
def cut(session, k, view, opacity, outlines, chosen):
    """k has moved."""
    if not _has_result(session):
        return [gr.skip()] * SHOWS
    return refreshed(session.cut(k), view, opacity, outlines, chosen)


@plainly
def redraw(session, view, opacity, outlines):
    if not _has_result(session):
        return [gr.skip()] * 3
    return compared(pictures.layers(session), view, opacity, outlines)


# ---------------------------------------------------------------- segments


@plainly
def pick(session, chosen, event: gr.SelectData):
    """A click on a picture puts a segment among the chosen ones, or takes it out."""
    if not _has_result(session):
        return gr.skip()
    return _toggled(chosen, session.at(*event.index))


@plainly
def pick_row(session, chosen, event: gr.SelectData):
    """A click on a row of the table, in whatever order it has been sorted."""
    if not _has_result(session):
        return gr.skip()
    clicked = pictures.segment_of_row(event.row_value)
    return _toggled(chosen, clicked) if clicked in session.ids else gr.skip()


def _toggled(chosen: list[int], clicked: int) -> list[int]:
    return [i for i in chosen if i != clicked] if clicked in chosen else [*chosen, clicked]


@plainly
def evidence(session, chosen):
    """What is known of the chosen segments without the network: words, cells and difference map."""
    if not _has_result(session) or not chosen:
        return (pictures.facts(session, chosen) if session else "", *[gr.update(visible=False)] * 4)
    response = session.segmentation.responses[np.isin(session.ids, chosen)].astype(np.float32).sum(0)
    difference = pictures.heat(np.linalg.norm(response, axis=0), session.found.shown.size)
    files = (
        _png(pictures.cells(session, session.cells_of(chosen)), f"{session.found.name}_cells"),
        _png(difference, f"{session.found.name}_difference"),
    )
    shown = (gr.update(value=file, visible=True) for file in files)
    return pictures.facts(session, chosen), *shown, *[gr.update(visible=False)] * 2


def _chosen(session: Session | None, chosen: list[int]) -> None:
    _needed(session)
    if not chosen:
        raise ValueError("choose a segment first")


@on_gpu(lambda session, _: _seconds_of(session, 2), check=_chosen)
def perturbed(session, chosen):
    """The two perturbed pictures of the chosen segments."""
    strength = session.found.segmentation.settings.strength * session.cells_of(chosen)
    work = runs.paint(session.found, np.stack([-strength, strength]))
    painted = yield from followed(work, lambda *progress: (_status(*progress), gr.skip(), gr.skip()))
    files = _painted(session, painted, ("minus", "plus"))
    yield "", *(gr.update(value=file, visible=True) for file in files)


def _painted(session: Session, painted: np.ndarray, whats: tuple[str, ...]) -> list[str]:
    """Files of what the network painted."""
    size, name = session.found.shown.size, session.found.name
    return [
        _png(pictures.painted(picture, size), f"{name}_{what}") for picture, what in zip(painted, whats, strict=True)
    ]


def edit(change: Callable) -> Callable:
    """An event that edits the session: `change(session, chosen, name)` gives the edited one."""

    @plainly
    def event(session, view, opacity, outlines, chosen, name):
        return refreshed(change(_needed(session), chosen, name), view, opacity, outlines, chosen)

    return event


# ---------------------------------------------------------------- probe


def _cells(text: str, grid: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of "row,column row,column ...", counted from 0."""
    chosen = np.zeros(grid, bool)
    for pair in (text or "").replace(";", " ").split():
        if not (found := CELL.fullmatch(pair)) or not all(
            int(n) < most for n, most in zip(found.groups(), grid, strict=True)
        ):
            raise ValueError(
                f"cells are written as row,column with a space between them, rows from 0 to {grid[0] - 1} and columns "
                f"from 0 to {grid[1] - 1}: {pair!r:.20} is not one"
            )
        chosen[int(found[1]), int(found[2])] = True
    return chosen


def _written(cells: np.ndarray) -> str:
    return " ".join(f"{row},{column}" for row, column in np.argwhere(cells))


@plainly
def brush(session, text, width, event: gr.SelectData):
    """A click on the grid: its cells are chosen, or no longer if the one under the pointer was."""
    if not _has_result(session):
        return gr.skip()
    grid = session.segmentation.coarse_labels.shape
    cells = _cells(text, grid)
    size = session.found.shown.size[::-1]
    row, column = (at * count // pixels for at, count, pixels in zip(event.index[::-1], grid, size, strict=True))
    reach = width // 2
    window = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
    cells[window] = not cells[row, column]
    return _written(cells)


@plainly
def grid_shown(session, text, strength):
    if not _has_result(session):
        return gr.skip()
    cells = _cells(text, session.segmentation.coarse_labels.shape)
    return _png(pictures.cells(session, cells, -1 if strength < 0 else 1), f"{session.found.name}_grid")


@plainly
def cells_of_chosen(session, chosen):
    session = _needed(session)
    if not chosen:
        raise ValueError("choose a segment first, in the tab Segments")
    return _written(session.cells_of(chosen))


def _chosen_cells(session: Session, text: str) -> np.ndarray:
    """As `_cells`, but at least one."""
    if not (cells := _cells(text, session.segmentation.coarse_labels.shape)).any():
        raise ValueError("choose cells first: click on the grid, or write them as row,column")
    return cells


@on_gpu(
    lambda session, *_: _seconds_of(session, 2), check=lambda session, text, _: _chosen_cells(_needed(session), text)
)
def probed(session, text, strength):
    """The picture with the chosen cells pushed, and where it changed."""
    cells = _chosen_cells(session, text)
    work = runs.paint(session.found, np.stack([0 * cells, strength * cells]))
    painted = yield from followed(work, lambda *progress: (_status(*progress), *[gr.skip()] * 3))
    change = pictures.heat(np.linalg.norm(painted[1] - painted[0], axis=-1), session.found.shown.size)
    yield "", *_painted(session, painted, ("as_it_is", "pushed")), _png(change, f"{session.found.name}_change")


# ---------------------------------------------------------------- taking away, scoring, sharing


def _png(picture: np.ndarray, name: str) -> str:
    """A file of the picture: gradio's own compression takes five times as long, for files a tenth smaller."""
    path = new_folder() / f"{name}.png"
    Image.fromarray(picture).save(path, compress_level=1)
    return str(path)


@plainly
def draw_figure(session):
    plot, folder = pictures.figure(session := _needed(session)), new_folder()
    files = [folder / f"{session.found.name}_over_k.{kind}" for kind in ("png", "pdf")]
    for file in files:
        plot.savefig(file, dpi=150)
    return str(files[0]), [str(file) for file in files]


@plainly
def score(session, truth):
    session = _needed(session)
    if not truth:
        raise ValueError("choose a label picture first: classes as numbers or colours, of the picture's size")
    return pictures.scores(session, pictures.truth_of(truth, session.segmentation.original_size))


@plainly
def take_away(session):
    found, file = _needed(session).found, new_folder() / f"{session.found.name}_emerdiff.zip"
    run = {"preset": found.preset, "cut_from": found.segmentation.settings.num_segments}
    picture = open_picture(found.source)
    export(session.segmentation, session.legend, picture, file, run=run, name=Path(found.source).name)
    return str(file)


def _link(session: Session, view: str) -> links.Link:
    found, settings = session.found, session.found.segmentation.settings
    example = next((e.name for e in examples() if str(e.picture) == found.source), None)
    return links.Link(
        model=found.segmentation.model,
        k=session.k,
        preset=found.preset,
        view=view,
        full=session.exact is not None,
        example=example,
        picture=None if example else links.keep(open_picture(found.source)),
        name=None if example else found.name,
        **{name: getattr(settings, name) for name in VALUES},
    )


@plainly
def share(session, view, request: gr.Request):
    link = _link(_needed(session), view)
    space = os.environ.get("SPACE_ID")
    base = f"https://huggingface.co/spaces/{space}" if space else str(request.request.base_url).rstrip("/") + "/"
    note = (
        f"The picture is kept on this server for {links.KEPT_HOURS} hours, or until it restarts."
        if link.picture
        else ""
    )
    return f"{base}?{link.query}", note or "This link does not expire."


def code(session) -> str:
    """The settings that are shown, as Python."""
    if not isinstance(session, Session):
        return ""
    found, settings = session.found, session.found.segmentation.settings
    name = found.segmentation.model
    own = runs.defaults(runs.label_of(name))
    changed = {n: getattr(settings, n) for n in VALUES if getattr(settings, n) != getattr(own, n)}
    words = "".join(f", {n}={value!r}" for n, value in changed.items())
    preset = "" if found.preset == "exact" else f", preset={found.preset!r}"
    segments = session.k if session.exact else settings.num_segments
    lines = [
        "import emerdiff",
        "",
        f"pipe = emerdiff.load({name!r})",
        f"segmentation = pipe('picture.jpg', pipe.settings(num_segments={segments}{preset}{words}))",
    ]
    if not session.exact:
        lines.append(f"segmentation = emerdiff.recut(segmentation, {session.k})")
    return "\n".join([*lines, "print(segmentation.labels_at_original_size)"])


# ---------------------------------------------------------------- examples


def example_inputs(example: Example) -> tuple:
    """Picture, model, preset and values, in the order of the page's inputs, and k."""
    values = (getattr(example.settings, name) for name in VALUES)
    return str(example.picture), runs.label_of(MINIATURE), "exact", *values, example.k


def opened(example: Example, view: str, opacity: float, outlines: bool) -> tuple:
    """Words and pictures of a stored result; of an example that has none, the picture."""
    if not example.summary:
        return "", *_unsegmented(example.picture, opacity, outlines)
    shown, labels, naive, coarse = stored(example)
    of = pictures.Layers(example.name, shown, labels, naive, coarse, pictures.unnamed(example.k))
    return pictures.words(example.summary), *compared(of, view, opacity, outlines)


def choose_example(view, opacity, outlines, event: gr.SelectData):
    example = examples()[event.index]
    truth = str(example.truth) if example.truth else None
    return event.index, None, truth, *example_inputs(example), *opened(example, view, opacity, outlines)


@on_gpu(
    lambda index: _gpu_seconds(runs.label_of(MINIATURE), "exact", FINE, examples()[index].settings.modulation_timestep),
    check=lambda index: examples()[index],
)
def _computed(index):
    """An example's full result, put where `full` finds it: what a run says on the way."""
    yield from followed(full(examples()[index]), _status)


def explore(index, k, view, opacity, outlines):
    """The full result of an example, so that it can be explored."""
    if not at_hand(examples()[index]):
        for status in _computed(index):
            yield status, *[gr.skip()] * SHOWS
    found = yield from followed(full(examples()[index]), _only_status)
    yield "", *refreshed(Session.of(found, k), view, opacity, outlines)


def restore(request: gr.Request):
    """What a link says, or the first example: inputs, then the result."""
    try:
        link = links.Link.parse(dict(request.query_params))
        source = uploads.from_link(links.kept(link.picture), link.name) if link and link.picture else None
    except ValueError as error:
        gr.Warning(f"This link cannot be restored: {error}. Here is an example instead.")
        link = source = None
    index = next((i for i, e in enumerate(examples()) if link and e.name == link.example), 0)
    example = examples()[index]
    *inputs, k = example_inputs(example)
    view = VIEWS[0]
    if link:
        inputs = [str(source or example.picture), runs.label_of(link.model), link.preset]
        inputs += [getattr(link, name) for name in VALUES]
        k, view = link.k, link.view
    look = view, OPACITY, True
    of_example = not source and tuple(inputs) == example_inputs(example)[:-1]
    if link:
        truth = str(example.truth) if example.truth and not source else None
        words, *pair = opened(example, *look) if of_example else ("", *_unsegmented(inputs[0], *look[1:]))
        yield "", *inputs, k, view, truth, *_waiting(words, *pair)
    session = yield from _with_inputs(explore(index, k, *look) if of_example else run(None, k, *look, *inputs))
    if link and link.full:
        yield from _with_inputs(recompute(session, *look, []))


def _with_inputs(work: Generator) -> Generator[tuple, None, Session]:
    """Another event's results, with none for the inputs that only opening the page fills; returns the last session."""
    session = None
    with closing(work):
        for status, session, *shows in work:
            yield status, *[gr.skip()] * (len(VALUES) + 6), session, *shows
    return session


# ---------------------------------------------------------------- for programs


def _to_run(values, num_segments) -> dict:
    return _values(values) | {"num_segments": num_segments}


@on_gpu(
    lambda image, model, k, timestep, *rest: _gpu_seconds(model, rest[-1], k, timestep),
    check=lambda image, model, k, *rest: _checked(image, model, rest[-1], _to_run(rest[:-1], k)),
)
def segment_endpoint(
    image, model, num_segments, modulation_timestep, strength, feature_timestep, smoothing, seed, preset="exact"
):
    """Segment a picture with EmerDiff.

    Returns the label PNG, at the size of the picture, whose palette index is the segment of each pixel; and a JSON
    object of the settings used, the segments' shares and confidences, and notes. While the run goes on, streams
    {"stage", "done", "total"} in place of the JSON, in rows of the U-Net. `/rescale_k`, `/probe` and `/export` go on
    from this result, for the same client.
    """

    def tell(progress, _seconds):
        return None, {"stage": progress.stage, "done": progress.done, "total": progress.total}, gr.skip()

    values = (modulation_timestep, strength, feature_timestep, smoothing, seed)
    found = yield from followed(runs.find(image, model, preset, _to_run(values, num_segments)), tell)
    label_file = _label_file(found.segmentation, found.name)
    yield label_file, found.segmentation.summary(), Session.of(found, num_segments)


def segment_once_endpoint(
    image, model, num_segments, modulation_timestep, strength, feature_timestep, smoothing, seed, preset="exact"
):
    """Segment a picture with EmerDiff, without keeping anything: as `/segment`, for callers that have no session.

    MCP clients are such: gradio 6.31 cannot return a result to them together with a state.
    """
    values = (modulation_timestep, strength, feature_timestep, smoothing, seed)
    for label_file, summary, _ in segment_endpoint(image, model, num_segments, *values, preset):
        yield label_file, summary


@plainly
def rescale_endpoint(session, k):
    """Cut this client's last segmentation to fewer segments, without the network.

    Returns the label PNG at the size of the picture and the JSON object of the segments, as `/segment` does.
    """
    session = _asked(session).cut(int(k))
    return _label_file(session.segmentation, session.found.name), session.segmentation.summary(), session


@on_gpu(
    lambda session, *_: _seconds_of(session, 2),
    check=lambda session, cells, _: _chosen_cells(_asked(session), cells),
)
def probe_endpoint(session, cells, strength):
    """Push the network in some cells of the low-resolution grid of this client's last picture.

    `cells` are written "row,column row,column ...", counted from 0. Returns two PNGs as the network sees the picture:
    painted again without a push, and with it.
    """
    chosen = _chosen_cells(session, cells)
    painted = yield from followed(
        runs.paint(session.found, np.stack([0 * chosen, strength * chosen])), lambda *_: (None, None)
    )
    size = session.segmentation.image.shape[1::-1]
    files = zip(painted, ("as_it_is", "pushed"), strict=True)
    yield tuple(_png(pictures.painted(picture, size), f"{session.found.name}_{what}") for picture, what in files)


@plainly
def export_endpoint(session):
    """This client's last segmentation as a zip: label PNG, overlay, cut-outs, COCO JSON, NPZ and settings."""
    return take_away(_asked(session))


def _asked(session: Session | Gone | None) -> Session:
    return _needed(
        session,
        "there is no result yet: call /segment first, with the same client",
        "the result had to make room for others: call /segment again",
    )


def _label_file(result: emerdiff.Segmentation, name: str) -> str:
    path = new_folder() / f"{name}_labels.png"
    indexed_png(result.labels_at_original_size, palette(result.settings.num_segments)).save(path)
    return str(path)


def own_values(model: str):
    """The values that suit a model that was chosen."""
    s = runs.defaults(model)
    return s.modulation_timestep, s.strength, s.feature_timestep, s.smoothing
