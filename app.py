"""EmerDiff Explorer: the page. `python app.py` serves it; `create_demo()` builds it."""

try:
    import spaces  # Hugging Face's ZeroGPU; has to be imported before torch
except ImportError:
    spaces = None

import html
import importlib.util
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from PIL import Image

import emerdiff
from emerdiff.batches import Results
from emerdiff.drawing import indexed_png
from emerdiff.exporting import export
from emerdiff.picture import open_picture
from emerdiff.settings import PRESETS
from explorer import links, pictures, runs
from explorer.examples import Example, examples, full, stored, warm
from explorer.pictures import VIEWS, duration
from explorer.runs import MODELS
from explorer.session import FINE, Session

VALUES = ("modulation_timestep", "strength", "feature_timestep", "smoothing", "seed")
SOON = 60  # seconds: a run that takes no longer begins as soon as a picture is dropped
LONGEST_RUN = 900 if os.environ.get("SPACE_ID") else None  # seconds; whom the machine belongs to may run for longer
CELL = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")

INTRO = """# EmerDiff Explorer
A text-to-image diffusion model was never told what a segment is. Nudge it inside one coarse patch of its own
features, let it paint the picture again, and the pixels that change are the object, to the pixel
([Namekata et al., ICLR 2024](https://arxiv.org/abs/2401.11739)). No training, no labels, no prompt."""

HELP = f"""
1. **Coarse map.** k-means groups what the network computes in a grid of 16 × 16 cells, into segments.
2. **Naive upsampling.** That map, enlarged: what one gets without EmerDiff.
3. **EmerDiff.** For each segment the picture is painted twice more, with the network pushed up and down (± strength)
   inside that segment, at one timestep. Each pixel goes to the segment whose push changes it most.

The same colour is the same segment everywhere, also when *k* moves.

**Moving k** does not run the network. A run finds {FINE} segments; fewer are made by merging those with the nearest
features, whose responses are added. "Recompute exactly" runs the network for just this *k*.

**Quality.** *Exact* is the published procedure. *Fast* and *preview* make fewer steps, push one way only, or push
several segments at once: their masks are rougher. The README has what they lose, measured.

The **miniature** is a small model trained on drawn scenes, so that everything here runs without a download; it knows
little of photographs. Stable Diffusion does, and wants a GPU.
"""

THEME = gr.themes.Soft(font=["ui-sans-serif", "system-ui", "sans-serif"])
CSS = """
.gradio-container {max-width: 1320px !important; margin: auto}
#status {min-height: 2.6em}
#status progress {width: 100%; height: .6em; accent-color: #6366f1}
#examples .grid-wrap {min-height: 0 !important}
#examples .grid-container {grid-template-columns: repeat(10, minmax(0, 1fr)) !important}
#examples .thumbnail-lg {aspect-ratio: 1}
@media (max-width: 640px) {
  #controls {order: 2}
  .tabs {max-width: calc(100vw - 2rem); overflow-x: clip}
  #segments td, #segments th {font-size: .75rem}
  .table-wrap {max-width: calc(100vw - 4rem)}
  #examples .grid-container {grid-template-columns: repeat(5, minmax(0, 1fr)) !important}
}
#examples .caption-label {font-size: .7rem; padding: .1rem .3rem}
footer {opacity: .7}
"""
CLIENT = """from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # or a Space's name
labels, summary = client.predict(handle_file("picture.jpg"), num_segments=30, api_name="/segment")
labels, summary = client.predict(8, api_name="/rescale_k")  # from the same run
as_it_is, pushed = client.predict("7,7 7,8 8,7", 10, api_name="/probe")
zip_file = client.predict(api_name="/export")
"""
COPY = "(link) => {navigator.clipboard?.writeText(link); return link}"


class Upload(gr.Image):
    """An image input that hands on the file as it is, so that every bad one gets our own message."""

    is_template = True

    def preprocess(self, payload):
        return payload.path if payload and payload.path else super().preprocess(payload)


@contextmanager
def told() -> Iterator[None]:
    """What cannot be done becomes a sentence on the page."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise gr.Error(text[:1].upper() + text[1:], print_exception=False) from error
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


def _needed(session: Session | None) -> Session:
    if session is None:
        raise ValueError("nothing is segmented yet: press Run, or take an example and wait a moment")
    return session


def _checked(image: str | None, model: str, preset: str, values: dict) -> None:
    """Everything that can be refused is refused here, before a GPU is asked for."""
    if not image:
        raise ValueError("choose a picture first: drop one in, paste one, or take an example")
    if preset not in PRESETS:
        raise ValueError(f"quality must be one of {', '.join(PRESETS)}")
    open_picture(image)
    runs.pipeline_of(model).settings(preset=preset, **values)


# ---------------------------------------------------------------- runs


def on_gpu(seconds: Callable[..., int]) -> Callable:
    """An event that needs a GPU for `seconds` of its inputs at most, where that is counted: on ZeroGPU."""
    return lambda function: spaces.GPU(duration=seconds)(function) if spaces else function


def _gpu_seconds(model: str, preset: str, num_segments: int, timestep: int) -> int:
    """A generous guess: about 30 rows a second at Stable Diffusion's size."""
    try:
        rows, _ = runs.estimate(model, preset, {"num_segments": num_segments, "modulation_timestep": timestep})
    except (KeyError, ValueError):
        return 10  # what cannot be run is told by the event
    return int(min(300, 20 + rows / 30))


def _seconds_of(session: Session | None, k: int) -> int:
    if session is None:
        return 10
    found = session.found
    model = next(label for label, name in MODELS.items() if name == found.segmentation.model)
    return _gpu_seconds(model, found.preset, k, found.segmentation.settings.modulation_timestep)


def followed(run: Generator, tell: Callable) -> Generator:
    """What `tell(progress, seconds)` says of a run, at most twice a second and at each sketch; returns its result."""
    began = last = time.monotonic()
    with closing(run), told():
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
    took = f"about {duration(seconds)} on this machine" if seconds else "this model has not run here yet"
    return f"<span role='status'>A run: {rows} U-Net rows, {took}.</span>"


def compared(of: pictures.Layers, view: str, opacity: float, outlines: bool) -> tuple:
    """Slider, left and right picture."""
    drawn = [_png(picture) for picture in pictures.views(of, view, opacity, outlines)]
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


def _waiting(words: str, *pair) -> tuple:
    """Of what shows a session, words and maybe its pictures, while there is no session yet."""
    return gr.skip(), words, *(pair or [gr.skip()] * 3), *[gr.skip()] * (SHOWS - 5)


def _sketching(image: str, k: int, *look) -> Callable:
    """Tells status and sketches of a run that will be cut to k."""
    shown = runs.shown(open_picture(image))

    def tell(progress, seconds):
        pair = compared(pictures.sketched(progress.sketch, shown, k), *look) if progress.sketch else ()
        return _status(progress, seconds), *_waiting(gr.skip(), *pair)

    return tell


@on_gpu(lambda *inputs: _gpu_seconds(*inputs[6:8], FINE, inputs[8]))
def run(session, k, view, opacity, outlines, image, model, preset, *values):
    """The Run button: status and sketches while the network works, then everything."""
    values = _values(values)
    with told():
        _checked(image, model, preset, values)
    same_model = session and session.found.segmentation.model == MODELS[model]
    previous = session.found.reading if same_model else None
    yield _status(emerdiff.Progress("starting", 0, 1), 0), *_waiting("Segmenting …")
    tell = _sketching(image, k, view, opacity, outlines)
    found = yield from followed(runs.find(image, model, preset, {"num_segments": FINE} | values, previous), tell)
    yield "", *refreshed(Session(found, k), view, opacity, outlines)


def run_soon(session, k, view, opacity, outlines, image, model, preset, *values):
    """A picture was dropped: run, if that does not take long."""
    _, seconds = runs.estimate(model, preset, {"num_segments": FINE} | _values(values))
    if seconds and seconds > SOON:
        with told():
            picture = compared(pictures.alone(runs.shown(open_picture(image))), "picture", opacity, outlines)
        yield (
            estimated(model, preset, *values),
            None,
            "Press **Run** to segment this picture.",
            *picture,
            [],
            gr.skip(),
            gr.skip(),
        )
    else:
        yield from run(session, k, view, opacity, outlines, image, model, preset, *values)


@on_gpu(lambda session, *_: _seconds_of(session, session.k if session else 0))
def recompute(session, view, opacity, outlines, chosen):
    """A full run at the k that is shown."""
    with told():
        session = _needed(session)
    found = session.found
    yield from _recomputed(session, view, opacity, outlines, chosen, _exact(found, session.k))


def _exact(found, k: int) -> Generator:
    pipe, settings = runs.pipeline(found.segmentation.model), replace(found.segmentation.settings, num_segments=k)
    reading = yield from pipe.read(found.source, settings, previous=found.reading)
    return (yield from pipe.segment(reading))


def _recomputed(session, view, opacity, outlines, chosen, work):
    exact = yield from followed(work, lambda *progress: (_status(*progress), *[gr.skip()] * SHOWS))
    yield "", *refreshed(session.recomputed(exact), view, opacity, outlines, chosen)


@plainly
def cut(session, k, view, opacity, outlines, chosen):
    """k has moved."""
    if session is None:
        return [gr.skip()] * SHOWS
    return refreshed(session.cut(k), view, opacity, outlines, chosen)


@plainly
def redraw(session, view, opacity, outlines):
    if session is None:
        return [gr.skip()] * 3
    return compared(pictures.layers(session), view, opacity, outlines)


# ---------------------------------------------------------------- segments


def pick(session, chosen, event: gr.SelectData):
    """A click on a picture puts a segment among the chosen ones, or takes it out."""
    if session is None:
        return gr.skip()
    clicked = session.at(*event.index)
    return [i for i in chosen if i != clicked] if clicked in chosen else [*chosen, clicked]


def pick_row(session, chosen, event: gr.SelectData):
    if session is None or event.index[0] >= len(session.ids):
        return gr.skip()
    clicked = session.ids[event.index[0]]
    return [i for i in chosen if i != clicked] if clicked in chosen else [*chosen, clicked]


@plainly
def evidence(session, chosen):
    """What is known of the chosen segments without the network: words, cells and difference map."""
    if session is None or not chosen:
        return (pictures.facts(session, chosen) if session else "", *[gr.update(visible=False)] * 4)
    size, part = session.found.shown.size, np.isin(session.ids, chosen)
    response = session.segmentation.responses[part].astype(np.float32).sum(0)
    cells = part[session.segmentation.coarse_labels]
    difference = pictures.heat(np.linalg.norm(response, axis=0), size)
    shown = (gr.update(value=_png(picture), visible=True) for picture in (pictures.cells(session, cells), difference))
    return pictures.facts(session, chosen), *shown, *[gr.update(visible=False)] * 2


@on_gpu(lambda session, *_: _seconds_of(session, 2))
def perturbed(session, chosen):
    """The two perturbed pictures of the chosen segments."""
    with told():
        session = _needed(session)
        if not chosen:
            raise ValueError("choose a segment first")
    cells = np.isin(session.ids, chosen)[session.segmentation.coarse_labels]
    strength = session.found.segmentation.settings.strength * cells
    work = runs.paint(session.found, np.stack([-strength, strength]))
    painted = yield from followed(work, lambda *progress: (_status(*progress), gr.skip(), gr.skip()))
    size = session.found.shown.size
    yield "", *(gr.update(value=_png(pictures.painted(picture, size)), visible=True) for picture in painted)


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


def brush(session, text, width, event: gr.SelectData):
    """A click on the grid: its cells are chosen, or no longer if the one under the pointer was."""
    if session is None:
        return gr.skip()
    with told():
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
    if session is None:
        return gr.skip()
    return pictures.cells(session, _cells(text, session.segmentation.coarse_labels.shape), -1 if strength < 0 else 1)


@plainly
def cells_of_chosen(session, chosen):
    session = _needed(session)
    if not chosen:
        raise ValueError("choose a segment first, in the tab Segments")
    return _written(np.isin(session.ids, chosen)[session.segmentation.coarse_labels])


@on_gpu(lambda session, *_: _seconds_of(session, 2))
def probed(session, text, strength):
    """The picture with the chosen cells pushed, and where it changed."""
    with told():
        session = _needed(session)
        cells = _cells(text, session.segmentation.coarse_labels.shape)
        if not cells.any():
            raise ValueError("choose cells first: click on the grid")
    work = runs.paint(session.found, np.stack([0 * cells, strength * cells]))
    before, after = yield from followed(work, lambda *progress: (_status(*progress), *[gr.skip()] * 3))
    size = session.found.shown.size
    change = pictures.heat(np.linalg.norm(after - before, axis=-1), size)
    yield "", pictures.painted(before, size), pictures.painted(after, size), change


# ---------------------------------------------------------------- taking away, scoring, sharing


def _folder() -> Path:
    """A new folder for files that an event returns: gradio copies them, and old ones are swept away here."""
    base = Path(tempfile.gettempdir()) / f"emerdiff-out-{os.getpid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    for old in base.iterdir():
        with suppress(FileNotFoundError):  # another visitor's event sweeps too
            if time.time() - old.stat().st_mtime > 600:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=base))


def _png(picture: np.ndarray) -> str:
    """A file of the picture: gradio's own compression takes five times as long, for files a tenth smaller."""
    path = _folder() / "picture.png"
    Image.fromarray(picture).save(path, compress_level=1)
    return str(path)


@plainly
def draw_figure(session):
    plot, folder = pictures.figure(_needed(session)), _folder()
    files = [folder / f"emerdiff_k.{kind}" for kind in ("png", "pdf")]
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
    session, file = _needed(session), _folder() / "emerdiff.zip"
    run = {"preset": session.found.preset, "cut_from": session.found.segmentation.settings.num_segments}
    export(session.segmentation, session.legend, open_picture(session.found.source), file, run=run)
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
    if session is None:
        return ""
    found, settings = session.found, session.found.segmentation.settings
    name = found.segmentation.model
    own = runs.defaults(next(label for label, value in MODELS.items() if value == name))
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
    s = example.settings if example.summary else runs.defaults(next(iter(MODELS)))
    return str(example.picture), next(iter(MODELS)), "exact", *(getattr(s, name) for name in VALUES), example.k


def opened(example: Example, view: str, opacity: float, outlines: bool) -> tuple:
    """Words and pictures of a stored result; of an example that has none, the picture."""
    if not example.summary:
        return "", *compared(pictures.alone(runs.shown(open_picture(example.picture))), "picture", opacity, outlines)
    shown, labels, naive, coarse = stored(example)
    of = pictures.Layers(shown, labels, naive, coarse, pictures.unnamed(example.k))
    return pictures.words(example.summary), *compared(of, view, opacity, outlines)


def choose_example(view, opacity, outlines, event: gr.SelectData):
    example = examples()[event.index]
    truth = str(example.truth) if example.truth else None
    return event.index, None, truth, *example_inputs(example), *opened(example, view, opacity, outlines)


def explore(index, k, view, opacity, outlines):
    """The full result of an example, so that it can be explored."""

    def tell(progress, seconds):
        return _status(progress, seconds), *[gr.skip()] * SHOWS

    found = yield from followed(full(examples()[index]), tell)
    yield "", *refreshed(Session(found, k), view, opacity, outlines)


def restore(request: gr.Request):
    """What a link says, or the first example: inputs, then the result."""
    try:
        link = links.Link.parse(dict(request.query_params))
        source = link and (links.kept(link.picture) if link.picture else None)
    except ValueError as error:
        gr.Warning(f"This link cannot be restored: {error}. Here is an example instead.")
        link = source = None
    example = next((e for e in examples() if link and e.name == link.example), examples()[0])
    if link is None:
        *inputs, k = example_inputs(example)
        view = VIEWS[0]
    else:
        label = next(label for label, name in MODELS.items() if name == link.model)
        values = tuple(getattr(link, name) for name in VALUES)
        inputs, k, view = [str(source or example.picture), label, link.preset, *values], link.k, link.view
    truth = str(example.truth) if example.truth and not source else None
    look = view, 0.6, True
    settled = [gr.skip()] * (len(inputs) + 3)
    if link is None or (not source and tuple(inputs) == example_inputs(example)[:-1]):
        work, told_at_first = full(example), opened(example, *look)
    else:
        work = runs.find(inputs[0], inputs[1], inputs[2], {"num_segments": FINE} | _values(inputs[3:]))
        shown = runs.shown(open_picture(inputs[0]))
        told_at_first = ("Restoring what the link says …", *compared(pictures.alone(shown), "picture", *look[1:]))
    if link:
        yield "", *inputs, k, view, truth, *_waiting(*told_at_first)
    sketch = _sketching(inputs[0], k, *look)

    def tell(*progress):
        status, *shows = sketch(*progress)
        return status, *settled, *shows

    session = Session((yield from followed(work, tell)), k)
    if link and link.full:
        exact = yield from followed(_exact(session.found, k), lambda *p: (_status(*p), *settled, *_waiting(gr.skip())))
        session = session.recomputed(exact)
    yield "", *settled, *refreshed(session, *look)


# ---------------------------------------------------------------- for programs


@on_gpu(lambda image, model, k, timestep, *rest: _gpu_seconds(model, rest[-1], k, timestep))
def segment_endpoint(
    image, model, num_segments, modulation_timestep, strength, feature_timestep, smoothing, seed, preset="exact"
):
    """Segment a picture with EmerDiff.

    Returns the label PNG, at the size of the picture, whose palette index is the segment of each pixel; and a JSON
    object of the settings used, the segments' shares and confidences, and notes. While the run goes on, streams
    {"stage", "done", "total"} in place of the JSON, in rows of the U-Net. `/rescale_k`, `/probe` and `/export` go on
    from this result, for the same client.
    """
    values = (modulation_timestep, strength, feature_timestep, smoothing, seed)
    yield from _segmented(image, model, preset, num_segments, values)


def _segmented(image, model, preset, num_segments, values) -> Iterator[tuple]:
    """Label file, JSON object and session; progress before."""
    values = _values(values) | {"num_segments": num_segments}
    with told():
        _checked(image, model, preset, values)

    def tell(progress, _seconds):
        return None, {"stage": progress.stage, "done": progress.done, "total": progress.total}, gr.skip()

    found = yield from followed(runs.find(image, model, preset, values), tell)
    session = Session(found, len(found.cuts) - 1)
    yield _label_file(found.segmentation), found.segmentation.summary(), session


@on_gpu(lambda image, model, k, timestep, *rest: _gpu_seconds(model, rest[-1], k, timestep))
def segment_once_endpoint(
    image, model, num_segments, modulation_timestep, strength, feature_timestep, smoothing, seed, preset="exact"
):
    """Segment a picture with EmerDiff, without keeping anything: as `/segment`, for callers that have no session.

    MCP clients are such: gradio 6.31 cannot return a result to them together with a state.
    """
    values = (modulation_timestep, strength, feature_timestep, smoothing, seed)
    for label_file, summary, _ in _segmented(image, model, preset, num_segments, values):
        yield label_file, summary


@plainly
def rescale_endpoint(session, k):
    """Cut this client's last segmentation to fewer segments, without the network.

    Returns the label PNG at the size of the picture and the JSON object of the segments, as `/segment` does.
    """
    session = _asked(session).cut(int(k))
    return _label_file(session.segmentation), session.segmentation.summary(), session


@on_gpu(lambda session, *_: _seconds_of(session, 2))
def probe_endpoint(session, cells, strength):
    """Push the network in some cells of the low-resolution grid of this client's last picture.

    `cells` are written "row,column row,column ...", counted from 0. Returns two PNGs as the network sees the picture:
    painted again without a push, and with it.
    """
    with told():
        session = _asked(session)
        chosen = _cells(cells, session.segmentation.coarse_labels.shape)
    painted = yield from followed(
        runs.paint(session.found, np.stack([0 * chosen, strength * chosen])), lambda *_: (None, None)
    )
    yield tuple(pictures.painted(picture, session.segmentation.image.shape[1::-1]) for picture in painted)


@plainly
def export_endpoint(session):
    """This client's last segmentation as a zip: label PNG, overlay, cut-outs, COCO JSON, NPZ and settings."""
    return take_away(_asked(session))


def _asked(session: Session | None) -> Session:
    if session is None:
        raise ValueError("there is no result yet: call /segment first, with the same client")
    return session


def _label_file(result: emerdiff.Segmentation) -> str:
    path = _folder() / "labels.png"
    k = result.settings.num_segments
    indexed_png(result.labels_at_original_size, pictures.unnamed(k).colours).save(path)
    return str(path)


# ---------------------------------------------------------------- the page


def create_demo() -> gr.Blocks:
    """The whole page; it opens with the first example's stored result."""
    first = examples()[0]
    image0, model0, preset0, *values0, k0 = example_inputs(first)
    words0 = pictures.words(first.summary)
    shown0, labels0, naive0, coarse0 = stored(first)
    pair0 = pictures.views(pictures.Layers(shown0, labels0, naive0, coarse0, pictures.unnamed(k0)), VIEWS[0], 0.6, True)
    limits = emerdiff.Settings.range_of
    with gr.Blocks(title="EmerDiff Explorer", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        session = gr.State(None, time_to_live=3600)
        example = gr.State(0)
        gr.Markdown(INTRO)
        gallery = gr.Gallery(
            [(str(e.picture), e.title) for e in examples()], label="Examples", columns=10, height="auto",
            allow_preview=False, buttons=[], elem_id="examples", object_fit="cover",
        )  # fmt: skip
        with gr.Row():
            with gr.Column(scale=2, min_width=300, elem_id="controls"):
                image = Upload(
                    image0, type="filepath", image_mode=None, format="png", sources=["upload", "clipboard"],
                    label="Picture", height=240, buttons=[],
                )  # fmt: skip
                k = gr.Slider(
                    2, FINE, k0, step=1, label="Segments (k)", info="Moves at once: nothing is computed again."
                )
                exactly = gr.Button("Recompute exactly at this k", size="sm")
                preset = gr.Radio([(name.capitalize(), name) for name in PRESETS], value=preset0, label="Quality")
                timestep = gr.Slider(
                    1, 981, values0[0], step=20, label="Timestep",
                    info="How noisy the picture is when the network is pushed: low keeps details, high changes more.",
                )  # fmt: skip
                strength = gr.Slider(0, 50, values0[1], step=0.5, label="Perturbation strength")
                with gr.Accordion("Advanced", open=False):
                    model = gr.Dropdown(list(MODELS), value=model0, label="Model")
                    feature_timestep = gr.Slider(
                        *limits("feature_timestep"), values0[2], step=1, label="Feature timestep"
                    )
                    smoothing = gr.Slider(0, 5, values0[3], step=0.1, label="Smoothing (pixels)")
                    seed = gr.Number(values0[4], label="Seed", precision=0, minimum=0)
                with gr.Row():
                    go = gr.Button("Run", variant="primary")
                    stop = gr.Button("Stop", variant="stop")
                status = gr.HTML("", elem_id="status")
            with gr.Column(scale=3, min_width=320):
                words = gr.Markdown(words0, elem_id="summary")
                view = gr.Radio(
                    [(name.capitalize(), name) for name in VIEWS], value=VIEWS[0], label="View", show_label=False,
                    container=False,
                )  # fmt: skip
                slider = gr.ImageSlider(
                    tuple(pair0), format="png", label="Naive upsampling (left) | EmerDiff (right)", max_height=640
                )
                with gr.Row():
                    left = _output("Naive upsampling", "The picture under segments; the table has them too", False)
                    right = _output("EmerDiff", "The picture under EmerDiff's segments; the table has them too", False)
                with gr.Row():
                    opacity = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity", scale=3)
                    outlines = gr.Checkbox(True, label="Outlines", scale=1, min_width=110)
        with gr.Tabs():
            with gr.Tab("Segments"), gr.Row():
                with gr.Column(scale=2, min_width=320):
                    table = gr.Dataframe(
                        headers=["", "name", "share", "naive", "sure"], interactive=False, elem_id="segments",
                        datatype=["html", *["str"] * 4], label="Segments (click to choose)", max_height=420,
                        column_widths=["10%", "36%", "18%", "18%", "18%"],
                    )  # fmt: skip
                with gr.Column(scale=3, min_width=320):
                    chosen = gr.Dropdown([], value=[], multiselect=True, label="Chosen segments")
                    with gr.Row():
                        name = gr.Textbox(label="Name", max_length=80, scale=2, min_width=140)
                        rename = gr.Button("Rename", size="sm", min_width=80)
                        merge = gr.Button("Merge", size="sm", min_width=80)
                        hide = gr.Button("Hide or show", size="sm", min_width=100)
                        undo = gr.Button("Undo", size="sm", min_width=80, interactive=False)
                    facts = gr.Markdown("Choose a segment: click on a picture, on a row of the table, or here.")
                    with gr.Row():
                        cells = _output(
                            "Its coarse cells", "The cells of the low-resolution grid that it is made of", False
                        )
                        difference = _output(
                            "Difference map", "How much its push changes each pixel: bright is much", False
                        )
                    with gr.Row():
                        minus = _output(
                            "I⁻: pushed down", "The picture painted again with the segment pushed down", False
                        )
                        plus = _output("I⁺: pushed up", "The picture painted again with the segment pushed up", False)
                    paint = gr.Button("Paint the two perturbed pictures")
            with gr.Tab("Probe"):
                gr.Markdown(
                    "Push the network in cells of your choice and see where the picture changes: mostly inside the "
                    "object that the cells lie on. This is the observation that EmerDiff is built on."
                )
                with gr.Row():
                    with gr.Column(scale=2, min_width=320):
                        grid = _output("Click cells", "The picture with the low-resolution grid; type cells below")
                        with gr.Row():
                            width = gr.Radio([1, 3, 5], value=3, label="Brush (cells)", min_width=150)
                            push = gr.Slider(-50, 50, 10, step=1, label="Push (±)", min_width=180)
                        written = gr.Textbox(
                            label="Cells (row,column)", placeholder="7,7 7,8 8,7", lines=2, max_lines=4, max_length=3000
                        )
                        with gr.Row():
                            of_chosen = gr.Button("Cells of the chosen segments", size="sm")
                            clear = gr.Button("Clear", size="sm")
                        perturb = gr.Button("Perturb", variant="primary")
                    with gr.Column(scale=3, min_width=320):
                        with gr.Row():
                            before = _output("As it is", "The picture painted again without a push")
                            after = _output("Changed", "The picture painted again with the push")
                        change = _output("Where it changed", "How much each pixel changed: bright is much")
            with gr.Tab("Vary k"):
                draw = gr.Button("Draw the figure: one run, cut into 5, 10, 15, 20 and 30 segments")
                varied = _output("", "The picture in 5, 10, 15, 20 and 30 segments, side by side")
                figure_files = gr.File(label="PNG and PDF", interactive=False, file_count="multiple")
            with gr.Tab("Score"):
                gr.Markdown(
                    "Have you the truth? A label picture of the same size, classes as numbers (indexed or grey PNG; "
                    "255 is void) or as colours. Drawn examples bring theirs."
                )
                truth = gr.File(str(first.truth), label="Label picture", file_types=[".png"], height=120)
                judge = gr.Button("Score")
                judged = gr.Dataframe(
                    headers=["", "mIoU, one to one", "mIoU, commonest class", "pixel accuracy", "boundary F"],
                    interactive=False, label="Scores",
                )  # fmt: skip
                gr.Markdown(
                    "*One to one*: each class gets at most one segment (Hungarian matching), the others count "
                    "as wrong. *Commonest class*: each segment takes the class that most of its pixels have, also for "
                    "pixel accuracy. *Boundary F*: precision and recall of outlines, within 2 pixels."
                )
            with gr.Tab("Take away and share"), gr.Row():
                with gr.Column(min_width=320):
                    gr.Markdown(
                        "A zip of the label PNG at the picture's size, an overlay, a transparent cut-out of each "
                        "segment, COCO JSON, labels and confidence as NPZ, and the settings that make it again."
                    )
                    pack = gr.Button("Make the zip")
                    taken = gr.File(label="Zip", interactive=False, elem_id="zip")
                with gr.Column(min_width=320):
                    gr.Markdown(
                        "A link that opens this picture with these settings, *k* and view; edits are not in it."
                    )
                    link = gr.Button("Copy link")
                    url = gr.Textbox(label="Link", interactive=False, buttons=["copy"], elem_id="link")
                    note = gr.Markdown()
            with gr.Tab("Code"):
                python = gr.Code(language="python", label="What is shown, in Python", interactive=False)
                gr.Code(CLIENT, language="python", label="This page as a service", interactive=False)
            with gr.Tab("Help"):
                gr.Markdown(HELP)

        inputs = [image, model, preset, timestep, strength, feature_timestep, smoothing, seed]
        look = [view, opacity, outlines]
        pair = [slider, left, right]
        shows = [session, words, *pair, table, chosen, undo]
        private = {"api_visibility": "private", "show_progress": "hidden"}
        heavy = private | {"concurrency_limit": 1, "concurrency_id": "network"}
        ready = private | {"concurrency_limit": 2, "concurrency_id": "ready"}  # mostly without the network
        light = private | {"concurrency_limit": 4}

        opening = demo.load(restore, None, [status, *inputs, k, view, truth, *shows], **ready)
        running = go.click(run, [session, k, *look, *inputs], [status, *shows], **heavy)
        dropped = image.upload(run_soon, [session, k, *look, *inputs], [status, *shows], **heavy)
        exact = exactly.click(recompute, [session, *look, chosen], [status, *shows], **heavy)
        exploring = gallery.select(
            choose_example, look, [example, session, truth, *inputs, k, words, *pair], **light
        ).then(explore, [example, k, *look], [status, *shows], **ready)
        painting = paint.click(perturbed, [session, chosen], [status, minus, plus], **heavy)
        probing = perturb.click(probed, [session, written, push], [status, before, after, change], **heavy)
        work = [opening, running, dropped, exact, exploring, painting, probing]
        for event in work:
            event.failure(lambda: "", None, status, **light)
        stop.click(lambda: "Stopped.", None, status, cancels=work, queue=False, api_visibility="private")

        k.input(cut, [session, k, *look, chosen], shows, trigger_mode="always_last", **light)
        for part in look:
            part.input(redraw, [session, *look], pair, trigger_mode="always_last", **light)
        for part in (model, preset, timestep):
            part.change(estimated, inputs[1:], status, **light)
        model.input(own_values, model, inputs[3:7], **light)

        for picture in (left, right):
            picture.select(pick, [session, chosen], chosen, **light)
        table.select(pick_row, [session, chosen], chosen, **light)
        chosen.change(evidence, [session, chosen], [facts, cells, difference, minus, plus], **light)
        edits = {
            rename: lambda session, ids, name: session.rename(ids, name),
            merge: lambda session, ids, _: session.merge(ids),
            hide: lambda session, ids, _: session.hide(ids),
            undo: lambda session, *_: session.undo(),
        }
        for button, act in edits.items():
            button.click(edit(act), [session, *look, chosen, name], shows, **light)

        grid.select(brush, [session, written, width], written, **light)
        gr.on([written.change, push.change, session.change], grid_shown, [session, written, push], grid, **light)
        of_chosen.click(cells_of_chosen, [session, chosen], written, **light)
        clear.click(lambda: "", None, written, **light)
        session.change(code, session, python, **light)

        draw.click(draw_figure, session, [varied, figure_files], **light)
        judge.click(score, [session, truth], judged, **light)
        pack.click(take_away, session, taken, **light)
        link.click(share, [session, view], [url, note], **light).success(None, url, None, js=COPY)

        named = {"concurrency_limit": 1, "concurrency_id": "network"}
        label_file, summary = gr.File(visible=False), gr.JSON(visible=False)
        hidden = gr.Button(visible=False)
        hidden.click(
            segment_endpoint, [image, model, k, *inputs[3:], preset], [label_file, summary, session],
            api_name="segment", **named,
        )  # fmt: skip
        hidden.click(
            segment_once_endpoint, [image, model, k, *inputs[3:], preset], [label_file, summary],
            api_name="segment_once", **named,
        )  # fmt: skip
        hidden.click(rescale_endpoint, [session, k], [label_file, summary, session], api_name="rescale_k")
        hidden.click(probe_endpoint, [session, written, push], [before, after], api_name="probe", **named)
        hidden.click(export_endpoint, session, taken, api_name="export")
    return demo.queue(max_size=32)


def own_values(model: str):
    """The values that suit a model that was chosen."""
    s = runs.defaults(model)
    return s.modulation_timestep, s.strength, s.feature_timestep, s.smoothing


def _output(label: str, alt: str, visible: bool = True) -> gr.Image:
    return gr.Image(
        format="png", label=label, show_label=bool(label), interactive=False, alt_text=alt, visible=visible,
        buttons=["download", "fullscreen"],
    )  # fmt: skip


def main() -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    runs.pipeline("miniature")  # on ZeroGPU models are placed before the first visitor comes
    if not spaces:
        threading.Thread(target=warm, daemon=True).start()
    create_demo().launch(
        theme=THEME, css=CSS, max_file_size="30mb", strict_cors=True, show_error=False, state_session_capacity=64,
        mcp_server=importlib.util.find_spec("mcp") is not None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
