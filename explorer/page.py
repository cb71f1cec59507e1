"""What the tabs share: the components that several of them read or fill, and how a session is shown in these.

Events take their inputs by name (`inputs_kwargs`) and return what they fill by component.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from emerdiff import Settings
from emerdiff.exporting import OPACITY
from emerdiff.filenames import safe_stem
from emerdiff.settings import PRESETS

from . import pictures, runs, uploads
from .examples import Example, change, examples, own_run, stored, table
from .granularity import AUTOMATIC, COARSEST, FINEST, STEP
from .guard import Detail, Kept
from .pictures import VIEWS, Layers
from .runs import MODELS
from .seen import seen
from .session import FINE, Session
from .strip import Strip
from .viewer import Viewer
from .waiting import FAILED, PRESS_RUN, STOPPED, Waiting

LIGHT = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 4}
NETWORK = LIGHT | {"concurrency_limit": 1, "concurrency_id": "network"}  # one run at a time, for all visitors
NOW = LIGHT | {"queue": False}
CANCELLING = 5  # seconds after Stop in which an event that fails has been cancelled by it


class Upload(gr.Image):
    """An image input that passes the file on unchanged, so that our own message names what is wrong with it."""

    is_template = True

    def preprocess(self, payload):
        return payload and uploads.original(payload.path)


class Chosen(gr.Dropdown):
    """Numbers of segments. Which there are is known by the visitor's session, not by what gradio was last told."""

    is_template = True

    def preprocess(self, payload):
        return payload or []


@dataclass(frozen=True, eq=False)
class Page:
    """Components that are not placed yet: each tab renders its own. They begin with the `first` example's result."""

    demo: gr.Blocks
    session: Kept
    made_of: gr.State
    """The `MadeOf` of the session, None without one: it changes with the picture and the run, not with k or edits."""
    asked: gr.State
    """The `Asked` that the visitor asked for last."""
    to_run: gr.State
    """An `Asked`: when it changes, the run begins."""
    to_run_together: gr.State
    """An `AskedTogether`, likewise; within its tab it would change as the page is opened, and wait in the queue."""
    to_recompute: gr.State
    """As it changes, so does a full run at k begin."""
    stopped: gr.State
    """When Stop was pressed last, in seconds of `time.monotonic`."""
    strip: Strip
    """Your photo, and the examples."""
    inputs: Mapping[str, Component]
    """Of a run: image, model, preset and `asking.VALUES`."""
    k: gr.Slider
    granularity: gr.Slider
    automatic: gr.Button
    """Puts the granularity where the picture decides k."""
    status: Waiting
    words: gr.Markdown
    view: gr.Radio
    opacity: gr.Slider
    outlines: gr.Checkbox
    viewer: Viewer
    evidence: gr.HTML
    """Of the segments that are looked at."""
    table: gr.Dataframe
    chosen: Chosen
    undo: gr.Button
    truth: gr.File
    work: list[Dependency] = field(default_factory=list)
    """Events that the network works on, which Stop cancels."""

    @property
    def shows(self) -> tuple[Component, ...]:
        """All that `show` and `clear` fill."""
        looked_at = self.viewer, self.evidence, self.table, self.chosen, self.undo
        return self.session, self.made_of, self.granularity, self.words, *looked_at

    @property
    def shown(self) -> dict[str, Component]:
        """What `show` needs to know besides the session."""
        return {"view": self.view, "chosen": self.chosen}

    def show(self, session: Session, view: str, chosen: Sequence[int] | None = None) -> dict:
        """A session in all components that show it.

        Of the segments that were `chosen` as the event began those stay chosen that are there; while that is all of
        them, what has been chosen since is left alone. None: there were none, as of a session that is opened.
        """
        seconds = None if session.is_exact else session.found.seconds
        choices = [(session.name(i), i) for i in session.ids]
        there = [i for i in chosen or [] if i in session.ids]
        return {
            self.session: session,
            self.made_of: session.made_of,
            self.granularity: session.found.tree.position(session.k),
            self.words: pictures.words(session.segmentation.summary(), session.k, seconds),
            self.viewer: pictures.view_of(pictures.layers(session), view),
            self.evidence: pictures.evidence_of(session, there),
            self.table: pictures.table(session),
            self.chosen: gr.update(choices=choices, **{} if there == chosen else {"value": there}),
            self.undo: gr.update(interactive=bool(session.before)),
        }

    def clear(self) -> dict:
        """Of what shows a session, all but words and pictures: without one."""
        return {
            self.session: None,
            self.made_of: None,
            self.granularity: AUTOMATIC,
            self.evidence: "",
            self.table: [],
            self.chosen: gr.update(choices=[], value=[]),
            self.undo: gr.update(interactive=False),
        }

    def filled(self, values: Mapping[str, object], model: str) -> dict:
        """Inputs of a run with these values, with the sides that the model can see."""
        sides = [(f"{side} px", side) for side in runs.sides(model)]
        filled = {self.inputs[name]: value for name, value in values.items()}
        return filled | {self.inputs["side"]: gr.update(choices=sides, value=values["side"])}

    def unsegmented(self, image: str | Path) -> dict:
        """In the viewer, what is not segmented yet."""
        return {self.viewer: pictures.view_of(alone(image), "picture")}

    def at_work(self, event: Dependency) -> None:
        """Note an event of the network: its failure is said, and Stop cancels it, which is none."""

        def failed(stopped):
            return gr.skip() if time.monotonic() - stopped < CANCELLING else FAILED

        event.failure(failed, self.stopped, self.status, **NOW)
        self.work.append(event)

    def finish(self) -> None:
        """When all tabs are there: what ends the work for the network."""

        def stop(asked, session):
            """A run is not cancelled but ends at its next step: gradio loses what is asked for while it cancels."""
            now = {self.stopped: time.monotonic()}
            if asked and not asked.ended.is_set():
                asked.stopped.set()
                if asked.begun.is_set():
                    return {**now, self.status: "Stopping …"}
            has_words = session or (asked and asked.example is not None)  # those of an example's stored result
            return {**now, self.status: STOPPED} | ({} if has_words else {self.words: PRESS_RUN})

        known = [self.asked, self.session]
        self.status.stop(stop, known, [self.stopped, self.status, self.words], cancels=self.work, **NOW)


def alone(image: str | Path) -> Layers:
    """A picture that is not segmented yet."""
    return pictures.alone(safe_stem(Path(image).name), seen(str(image)).shown)


def stored_words(example: Example) -> str:
    """Of an example's stored result; they say whose that is where the page starts with another model."""
    summary, said = example.summary, "This is the miniature's result, stored with the page."
    notes = [said, *summary["notes"]] if summary["model"] != runs.started().model else summary["notes"]
    return pictures.words(summary | {"notes": notes}, example.k)


def stored_evidence(example: Example) -> str:
    """Of an example's stored result, as HTML: that of one segment."""
    layers, number = stored(example), example.segment
    part, cells = example.summary["segments"][number], layers.coarse_labels == number
    said = pictures.told(layers.legend.names[number], part["share"], cells.sum(), part["mean_confidence"])
    return pictures.evidence(layers.shown, cells, change(example), f"{said} {pictures.ANOTHER}")


def new_granularity(label: str = "Granularity", **options) -> tuple[gr.Slider, gr.Button]:
    """A slider from coarse to fine, and the button that puts it where the picture decides k; they lie on one line."""
    look = {"elem_classes": "granularity", "scale": 4, "buttons": []}
    slider = gr.Slider(COARSEST, FINEST, AUTOMATIC, step=STEP, label=label, **look, **options)
    return slider, gr.Button("Auto", size="sm", scale=0, min_width=72, **options)


def new_views(views: Sequence[str], label: str, elem_id: str, **options) -> gr.Radio:
    """Which of the `views` is shown; the first at the beginning."""
    look = {"show_label": False, "container": False, "elem_id": elem_id}
    return gr.Radio([(name.capitalize(), name) for name in views], value=views[0], label=label, **look, **options)


def new_page(demo: gr.Blocks, first: Example) -> Page:
    """A page's shared components, which begin with the stored result of the `first` example."""
    (model, preset, values), ranges = own_run(first), Settings.range_of
    granularity, automatic = new_granularity(render=False)
    return Page(
        demo,
        session=Kept(None),
        made_of=gr.State(),
        asked=gr.State(),
        to_run=gr.State(),
        to_run_together=gr.State(),
        to_recompute=gr.State(),
        stopped=gr.State(0),
        strip=Strip(examples(), examples().index(first), elem_id="strip", render=False),
        inputs={
            "image": Upload(
                str(first.picture),
                type="filepath",
                image_mode=None,
                format="png",
                sources=["upload", "clipboard"],
                label="Picture",
                visible=False,
                render=False,
            ),
            "model": gr.Dropdown(
                list(MODELS),
                value=model,
                label="Model",
                show_label=False,
                container=False,
                filterable=False,
                min_width=150,
                elem_id="model",
                render=False,
            ),
            "preset": gr.Radio(
                [(name.capitalize(), name) for name in PRESETS], value=preset, label="Quality", render=False
            ),
            "modulation_timestep": gr.Slider(
                1,
                981,
                values["modulation_timestep"],
                step=20,
                precision=0,
                label="Timestep",
                info="How noisy the picture is when the network is perturbed. Low keeps details; high changes more.",
                buttons=[],
                render=False,
            ),
            "strength": gr.Slider(
                0, 50, values["strength"], step=0.5, label="Perturbation strength", buttons=[], render=False
            ),
            "feature_timestep": gr.Slider(
                *ranges("feature_timestep"),
                values["feature_timestep"],
                step=1,
                precision=0,
                label="Feature timestep",
                buttons=[],
                render=False,
            ),
            "smoothing": gr.Slider(
                0, 5, values["smoothing"], step=0.1, label="Smoothing (pixels)", buttons=[], render=False
            ),
            "seed": gr.Number(
                values["seed"],
                label="Seed",
                precision=0,
                minimum=ranges("seed")[0],
                maximum=ranges("seed")[1],
                render=False,
            ),
            "side": Detail(
                [(f"{side} px", side) for side in runs.all_sides()],
                value=values["side"],
                label="Detail",
                info="Side of the picture as the network sees it. More finds finer outlines, and takes longer.",
                render=False,
            ),
        },
        k=gr.Slider(
            2,
            FINE,
            first.k,
            step=1,
            precision=0,
            label="Segments (k)",
            info="Changes at once, without running the network.",
            buttons=[],
            elem_id="k",
            render=False,
        ),
        granularity=granularity,
        automatic=automatic,
        status=Waiting(elem_id="status", render=False),
        words=gr.Markdown(stored_words(first), elem_id="summary", render=False),
        view=new_views(VIEWS, "View", "views", render=False),
        opacity=gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", scale=3, buttons=[], render=False),
        outlines=gr.Checkbox(True, label="Outlines", scale=1, min_width=110, elem_id="outlines", render=False),
        viewer=Viewer(pictures.view_of(stored(first), VIEWS[0]), elem_id="viewer", render=False),
        evidence=gr.HTML(stored_evidence(first), elem_id="evidence", render=False),
        table=gr.Dataframe(
            table(first),
            headers=["", "name", "area %", "naive %", "sure %"],
            interactive=False,
            datatype=["html", "str", *["number"] * 3],
            label="Segments (click a row)",
            max_height=420,
            column_widths=["9%", "31%", "20%", "20%", "20%"],
            elem_id="segments",
            render=False,
        ),
        chosen=Chosen([], value=[], multiselect=True, label="Chosen segments", render=False),
        undo=gr.Button("Undo", size="sm", min_width=80, interactive=False, render=False),
        truth=gr.File(
            first.truth and str(first.truth), label="Label picture", file_types=[".png"], height=120, render=False
        ),
    )
