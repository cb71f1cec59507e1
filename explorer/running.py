"""The column of controls, and what they start: a run when Run is pressed or a picture is dropped, and a full run at k.

A run yields its progress and ends in a finding; a short event applies that to what the visitor has by then.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace

import gradio as gr

from emerdiff import Progress
from emerdiff.batches import Results
from emerdiff.picture import Opened, read_picture
from emerdiff.settings import PRESETS

from . import gpu, pictures, runs, spaces, uploads
from .asking import VALUES, Asked, Finding, Recomputed, applied
from .examples import awaited, examples, found, keep
from .page import LIGHT, NETWORK, STOPPED, Page, alone
from .pictures import duration
from .session import Found, Gone, Session, needed

SOON = 60  # seconds: a run that takes no longer begins as soon as a picture is dropped


def build(page: Page) -> None:
    inputs, status = page.inputs, page.status
    inputs["image"].render()
    page.k.render()
    exactly = gr.Button("Recompute at this k", size="sm")
    for name in ("preset", "modulation_timestep", "strength"):
        inputs[name].render()
    with gr.Accordion("Advanced", open=False):
        for name in ("model", "feature_timestep", "smoothing", "seed"):
            inputs[name].render()
    with gr.Row():
        go = gr.Button("Run", variant="primary")
        page.stop.render()
    status.render()
    waiting = gr.State(time_to_live=600)  # a finding that is not applied yet; seconds, where its visitor has left

    def begun(asked):
        said = "waiting for another run to end" if gpu.busy() else "starting"
        return {page.asked: asked, page.to_run: asked, status: gpu.status(Progress(said, 0, 1))}

    def start(asked, image, model, preset, **values):
        check(image, model, preset, values)
        return begun(Asked(image, model, preset, values).instead_of(asked))

    def dropped(asked, image, model, preset, **values):
        """Shown as the network will see it, and segmented at once if that is known not to take long."""
        png = uploads.presentable(image, check(image, model, preset, values))
        asked = Asked(image, model, preset, values).instead_of(asked)
        shown = {page.strip: None, inputs["image"]: png or image}
        _, seconds = runs.estimate(model, preset, values)
        if seconds and seconds <= SOON:
            return shown | begun(asked)
        return {
            **shown,
            **page.clear(),
            **page.unsegmented(image),
            page.asked: asked,
            page.words: "Press **Run** to segment this picture.",
            status: estimated(model, preset, **values),
        }

    def run(to_run, session, k, view):
        if to_run.begun.is_set():  # it took the place of one before that had not begun yet
            return
        to_run.begun.set()
        plain = alone(to_run.source)

        def tell(said, progress):
            sketch = progress.sketch and pictures.sketched(progress.sketch, plain, k)
            return {status: said} | ({page.viewer: pictures.view_of(sketch, view)} if sketch else {})

        if to_run.example is None:
            yield {page.words: "Segmenting …"}
        with closing(found_for(to_run, session, tell)) as work:
            for told in (result := Results(work)):
                if to_run.dropped.is_set():
                    return
                yield told
        yield {waiting: Finding(to_run, result.value)}

    def recompute(session):
        session = needed(session)
        exact = yield from gpu.watched(gpu.recompute(session), lambda said, _: {status: said})
        yield {waiting: Recomputed(session.made_of, exact)}

    def apply(finding, session, asked, k, **shown):
        if finding is None or (new := applied(finding, session, asked, k)) is None:
            return {waiting: None} | ({} if asked else {status: STOPPED})
        changes = {waiting: None, status: "", page.k: new.k, **page.show(new, **shown)}
        if isinstance(finding, Finding) and finding.asked.then_exactly:
            changes[page.to_recompute] = object()
        elif isinstance(finding, Recomputed) and not new.is_exact:
            number = finding.exact.settings.num_segments
            changes[status] = f"The result for k = {number} is ready: set k to {number} to see it."
        return changes

    def own_values(model):
        """What suits a model that was chosen."""
        own = runs.defaults(model)
        return {inputs[name]: getattr(own, name) for name in VALUES if name != "seed"}

    now = {"session": page.session, "k": page.k}
    settings = {name: part for name, part in inputs.items() if name != "image"}
    go.click(start, None, [page.asked, page.to_run, status], inputs_kwargs={"asked": page.asked, **inputs}, **LIGHT)
    page.strip.upload(
        dropped,
        None,
        [page.asked, page.to_run, status, page.strip, inputs["image"], *page.shows],
        inputs_kwargs={"asked": page.asked, **inputs, "image": page.strip},
        trigger_mode="multiple",
        **LIGHT,
    )
    running = page.to_run.change(
        run,
        None,
        [waiting, status, page.words, page.viewer],
        inputs_kwargs={"to_run": page.to_run, **now, "view": page.view},
        **NETWORK,
    )
    recomputing = gr.on(
        [exactly.click, page.to_recompute.change],
        recompute,
        None,
        [waiting, status],
        inputs_kwargs={"session": page.session},
        **NETWORK,
    )
    for event in (running, recomputing):
        event.success(
            apply,
            None,
            [waiting, status, page.k, page.to_recompute, *page.shows],
            inputs_kwargs={"finding": waiting, "asked": page.asked, **now, **page.shown},
            **LIGHT,
        )
    page.at_work(running, cancelled=False)  # it stops by itself, see `Page.finish`
    page.at_work(recomputing)

    for name in ("model", "preset", "modulation_timestep"):
        inputs[name].change(estimated, None, status, inputs_kwargs=settings, **LIGHT)
    inputs["model"].input(own_values, inputs["model"], [inputs[name] for name in VALUES], **LIGHT)


def check(image: str | None, model: str, preset: str, values: dict) -> Opened:
    """The picture of a run; `ValueError` for what can be refused before a model is loaded and a GPU asked for."""
    if not image:
        raise ValueError("choose a picture first: drop one in, paste one, or choose an example")
    replace(runs.defaults(model), **PRESETS[preset] | values)  # refuses settings that are not allowed
    return read_picture(image)


def found_for(
    asked: Asked, session: Session | Gone | None, tell: Callable[[str, Progress], dict]
) -> Generator[dict, None, Found]:
    """The result that was `asked` for: an example's own is computed once for all, any other by a run."""
    if asked.example is None:
        return (yield from gpu.watched(gpu.find(asked, session), tell))
    example = examples()[asked.example]
    yield from gpu.watched(awaited(example), tell)
    return found(example) or keep(example, (yield from gpu.watched(gpu.find(asked, session), tell)))


def estimated(model: str, preset: str, **values) -> str:
    """How long a run would take here, in words."""
    try:
        _, seconds = runs.estimate(model, preset, values)
    except (ValueError, KeyError):
        return ""
    if seconds:
        said = f"A run takes about {duration(seconds)} on this machine."
    elif spaces:
        said = f"A run uses at most {duration(gpu.seconds_of(model, preset, values))} of GPU time."
    else:
        said = "How long a run takes here is not known yet."
    return f"<span role='status'>{said}</span>"
