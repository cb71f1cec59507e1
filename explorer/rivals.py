"""The tab Rivals: other ways to segment the same picture, beside EmerDiff, with their seconds and numbers of segments.

Those that need no network of their own are there at once, and follow k and edits. The others run after a button, one
after another; what they have found is shown where the visitor still has the same picture, seen by the same network.
"""

import time
import zlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import gradio as gr
import numpy as np

from emerdiff import Progress, Segmentation
from emerdiff.drawing import palette
from emerdiff.exporting import Legend
from emerdiff.loading import MINIATURE
from emerdiff.matching import match
from emerdiff.studies.competitors import METHODS, coarse_map

from . import gpu, runs, viewer, waiting
from .page import LIGHT, NETWORK, NOW, Page
from .pictures import counted, duration
from .segments import choosing
from .session import FINE, NOTHING_YET, PUT_AWAY, Gone, MadeOf, Session, needed
from .viewer import Pane, Viewer

TITLE = "Rivals"
FROM_COARSE = {"Naive upsampling": "bilinear", "Joint bilateral": "joint bilateral"}  # titles and methods
AT_ONCE = FROM_COARSE | {"SLIC": "SLIC"}
BY_NETWORK = ("DiffSeg", "DiffCut")
COARSE = "coarse map"
MOST = 256  # segments that a viewer shows
GPU_SECONDS = 60  # for one of them; a few are enough
RUN = "Run the rivals"

ABOUT = """
The segments of each pane are matched with EmerDiff's, one to one, so that most pixels agree; matched ones have the same
colour. Seconds count from the picture to the label of every pixel, on this machine, with all of the network's work but
without loading it. EmerDiff's are those of a whole run at the pace that runs have here.

- **EmerDiff** (Namekata et al., ICLR 2024) perturbs the network for each segment, so it usually takes the longest.
- **Naive upsampling**, the same paper's baseline, enlarges the coarse map. It cannot draw an edge finer than a cell.
- **Joint bilateral** upsampling (Kopf et al., SIGGRAPH 2007) enlarges the coarse map along edges of colour. It cannot
  tell apart two things of one colour.
- **SLIC** (Achanta et al., PAMI 2012) groups pixels by colour and place, without the network. It cannot know which
  parts belong to one thing.
- **DiffSeg** (Tian et al., CVPR 2024) merges self-attention maps that differ by less than a threshold. It cannot be
  told how many segments to make.
- **DiffCut** (Couairon et al., NeurIPS 2024) cuts a graph of the encoder's features until a threshold is reached. It
  cannot be told how many segments to make either. The paper's last step, which refines the pixels, is left out here.

With Stable Diffusion the two thresholds are the published ones, 1 and 0.5. With the miniature they are 0.12 and 0.9,
chosen on 20 drawn scenes where both then make about as many segments as EmerDiff at k = 12.
"""


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of the network's work for a rival."""

    seconds: float = 0
    packed: bytes = b""
    """Its labels (H, W) uint8, without gaps, compressed by zlib; of the coarse map only the seconds are kept."""
    refused: str = ""
    """Why there are none, as a sentence."""


@dataclass(frozen=True, eq=False)
class Contest:
    """The answers so far, by rival or `COARSE`."""

    of: tuple
    """The picture as the network sees it, see `seen`."""
    answers: Mapping[str, Answer]


def seen(made_of: MadeOf) -> tuple:
    """All that the network's work for the rivals follows from. Runs of other strengths or qualities have the same."""
    settings = made_of.settings
    return made_of.source, made_of.model, settings.image_area, settings.keep_aspect, settings.seed


def build(page: Page) -> None:
    with gr.Tab(TITLE) as tab:
        is_open = gr.State(False)
        contest = gr.State(time_to_live=3600)  # seconds: as long as the visitor's result
        gr.Markdown("The same picture, segmented in other ways. Click a segment, and its counterparts light up too.")
        go = gr.Button(RUN, variant="primary", interactive=False)
        waiting.beside(page)
        panes = Viewer(elem_id="rivals")
        choosing(page.session, page.chosen, panes.select)
        gr.Markdown(ABOUT)

    def draw(session, contest, is_open):
        if not is_open:
            return gr.skip()
        if not isinstance(session, Session):
            missing = PUT_AWAY if isinstance(session, Gone) else NOTHING_YET
            return {panes: None, go: gr.update(value=f"{RUN}: {missing}", interactive=False)}
        answers = contest.answers if contest and contest.of == seen(session.made_of) else {}
        shown = viewer.shown(panes_of(session, answers), session.found.name)
        return {panes: shown, go: gr.update(value=label(session, answers), interactive=True)}

    def tab_chosen(session, contest, event: gr.SelectData):
        chosen = event.value == TITLE
        return {is_open: chosen} | (draw(session, contest, chosen) if chosen else {})

    def asked_for():
        return waiting.said("Waiting for another run …" if gpu.busy() else "Starting …")

    def run_rivals(session):
        """Each answer as soon as it is there."""
        session = needed(session)
        of, answers = seen(session.made_of), {}
        for name, work in works(session):
            try:
                answer = yield from gpu.watched(work, lambda said, _: {page.status: said})
            except gr.Error as refusal:
                answer = Answer(refused=refusal.message)
            answers = answers | {name: answer}
            yield {contest: Contest(of, answers)}
        yield {page.status: ""}

    session = {"session": page.session}
    now = session | {"contest": contest}
    tab.parent.select(tab_chosen, None, [is_open, panes, go], inputs_kwargs=now, **LIGHT)
    gr.on(
        [page.session.change, contest.change],
        draw,
        None,
        [panes, go],
        inputs_kwargs=now | {"is_open": is_open},
        trigger_mode="always_last",
        **LIGHT,
    )
    go.click(asked_for, None, page.status, **NOW)
    page.at_work(go.click(run_rivals, None, [contest, page.status], inputs_kwargs=session, **NETWORK))


# ---------------------------------------------------------------- the network's work


def works(session: Session) -> list[tuple[str, Generator[Progress, None, Answer]]]:
    """What the network does for the rivals, by rival or `COARSE`."""
    run = whole(session)
    bare = replace(run, features=run.features[:0], responses=run.responses[:0])  # may go to another process
    return [(name, answer(name, bare)) for name in (COARSE, *BY_NETWORK)]


def answer(name: str, bare: Segmentation) -> Generator[Progress, None, Answer]:
    """The answer of a rival or, for the coarse map, how long that takes alone; yields its progress."""
    yield from runs.loaded(runs.label_of(bare.model), or_another=False)
    return (yield from _answer(name, bare))


@gpu.on_gpu(lambda *_: GPU_SECONDS)
def _answer(name: str, bare: Segmentation) -> Generator[Progress, None, Answer]:
    yield Progress(f"running {name}" if name != COARSE else "timing the coarse map", 0, 1)
    pipe, method = runs.pipeline(bare.model), coarse_map if name == COARSE else METHODS[method_of(name, bare.model)]
    begin = time.perf_counter()
    labels = method(pipe, bare)
    seconds = time.perf_counter() - begin
    if name == COARSE:
        return Answer(seconds)
    numbers, labels = np.unique(labels, return_inverse=True)
    if len(numbers) > MOST:
        raise ValueError(f"{name} finds {len(numbers)} segments here; more than {MOST} cannot be shown")
    return Answer(seconds, zlib.compress(labels.astype(np.uint8).tobytes()))


def method_of(name: str, model: str) -> str:
    """Of `METHODS`: the rival with a threshold that suits the model."""
    own = {"DiffSeg": "DiffSeg 0.12", "DiffCut": "DiffCut 0.9"} if model == MINIATURE else {}
    return own.get(name, name)


def label(session: Session, answers: Mapping[str, Answer]) -> str:
    """The button's words."""
    done = len(answers) == 1 + len(BY_NETWORK)
    words = f"{RUN} again" if done else RUN
    seconds = sum(one.seconds for one in answers.values()) if done else guess(session)
    return f"{words} (about {duration(seconds)})" if seconds else words


def guess(session: Session) -> float | None:
    """About the seconds that the network's work takes here; None where no run tells how fast it is.

    The picture is encoded and read three times, clustered once, and DiffSeg compares each latent cell with each.
    """
    if not (plan := whole_run(session)).is_known:
        return None
    (rows, reading), (_, clustering), *_ = plan.parts
    height, width = session.found.segmentation.image.shape[:2]
    return 8 * reading / rows + clustering + 3 * (height * width / 512**2) ** 2


def whole(session: Session) -> Segmentation:
    """The run that is shown, before it is cut."""
    return session.exact if session.is_exact else session.found.segmentation


def whole_run(session: Session) -> runs.Plan:
    """Of all that EmerDiff's result took, also where a part of it was known before the run."""
    return runs.plan_again(session.made_of, None, num_segments=whole(session).settings.num_segments)


# ---------------------------------------------------------------- what is shown


def panes_of(session: Session, answers: Mapping[str, Answer]) -> list[Pane]:
    """EmerDiff, what needs no network, and what the network has answered so far, all as the network saw the picture."""
    result, shown, coarse = session.segmentation, session.found.shown, answers.get(COARSE)

    def pane(title: str, note: str, labels: np.ndarray | None = None, ids=session.ids, legend=session.legend) -> Pane:
        if labels is None:
            return Pane(title, "The picture", shown, note=note)
        alt, note = f"The picture, covered by the segments of {title}", f"{counted(len(np.unique(labels)))} · {note}"
        return Pane(title, alt, shown, labels, legend, ids, note=note)

    drawn = [pane("EmerDiff", seconds_of(session), result.labels)]
    for title, method in AT_ONCE.items():
        begin = time.perf_counter()
        try:
            labels = METHODS[method](None, replace(result))  # a copy in which nothing is computed yet
        except ValueError as error:
            drawn.append(pane(title, f"{error}."))
            continue
        seconds = time.perf_counter() - begin
        if title not in FROM_COARSE:
            drawn.append(pane(title, took(seconds), labels, *paired(labels, session, len(drawn))))
        elif coarse:
            drawn.append(pane(title, took(seconds + coarse.seconds), labels))
        else:
            drawn.append(pane(title, f"{took(seconds)} after the coarse map", labels))
    for title in BY_NETWORK:
        if not (found := answers.get(title)):
            drawn.append(pane(title, "Not run yet."))
        elif found.refused:
            drawn.append(pane(title, found.refused))
        else:
            labels = np.frombuffer(zlib.decompress(found.packed), np.uint8).reshape(result.labels.shape)
            drawn.append(pane(title, took(found.seconds), labels, *paired(labels, session, len(drawn))))
    return drawn


def paired(labels: np.ndarray, session: Session, place: int) -> tuple[tuple[int, ...], Legend]:
    """Ids and legend of a rival's segments, (H, W) from 0 without gaps: those of the segments of EmerDiff's they match.

    The others have ids of their own, below 0, which depend on the pane's `place`.
    """
    own, ours = labels.max() + 1, session.segmentation.labels
    partners = match(labels, ours, max(own, len(session.ids)))[:own]
    known = [i for i in range(own) if ((labels == i) & (ours == partners[i])).any()]
    ids = [-1 - MOST * place - i for i in range(own)]
    names, colours = ["No counterpart"] * own, palette(FINE + own)[FINE:]
    for i in known:
        ids[i] = session.ids[partners[i]]
        names[i], colours[i] = session.legend.names[partners[i]], session.legend.colours[partners[i]]
    return tuple(ids), Legend(tuple(names), colours)


def seconds_of(session: Session) -> str:
    """What EmerDiff's whole run takes or, where no run tells how fast it is here, what this one took, in words."""
    k = whole(session).settings.num_segments
    seconds = whole_run(session).seconds or (0 if session.is_exact else session.found.seconds)
    cut = f", cut from {k}" if k > session.k else ""
    return (f"about {took(seconds)}" if seconds else "kept from an earlier run") + cut


def took(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 0.05 else "under 0.1 s"
