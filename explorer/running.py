"""The column of controls, and what they start: a run when Run is pressed or a picture is dropped, and a full run at k.

A run yields its progress and ends in a finding; a short event applies that to what the visitor has by then.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace

import gradio as gr

import emerdiff
from emerdiff import Progress
from emerdiff.batches import Results

from . import gpu, pictures, runs, spaces, uploads, waiting
from .asking import VALUES, Asked, Finding, Recomputed, applied, values_of
from .examples import awaited, example_of, examples, found, keep, own_run, own_values
from .opening import unfinished
from .page import LIGHT, NETWORK, NOW, Page, alone
from .pictures import duration
from .runs import KNOWS, MODELS, OWN
from .seen import Seen, seen
from .session import Found, Gone, Session, needed
from .visitors import Visitors
from .waiting import FAILED, PRESS_RUN, STOPPED

SOON = 60  # seconds: a run that takes no longer begins as soon as a picture is dropped
SEGMENTING = "Segmenting …"


def build(page: Page) -> None:
    inputs, status, visitors = page.inputs, page.status, page.demo.visitors
    inputs["image"].render()
    page.k.render()
    with gr.Row(elem_id="grain", elem_classes="grain"):
        page.granularity.render()
        page.automatic.render()
    with gr.Row():
        go = gr.Button("Run", variant="primary")
        exactly = gr.Button("Recompute at this k", interactive=False)
    refine = gr.Button("Refine exactly", visible=False)
    hint = gr.Markdown(visible=False, elem_id="hint")
    waiting.beside(page)
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        for name in ("preset", "side", *VALUES[:-1]):
            inputs[name].render()
        defaults = gr.Button("Defaults for this picture", size="sm", interactive=False)
    to_apply = gr.State(time_to_live=600)  # a finding that is not applied yet; seconds, where its visitor has left
    clock = gr.Timer(1, active=False)  # it runs while a run waits for its turn

    def begin(asked, session, k, shown):
        """What was found before, or else the run begins; a new picture is shown at once, and nothing of the last."""
        if result := asked.example is None and visitors.again(asked):
            new = Session.of(result, k, session)
            return {page.asked: asked, status: "", page.k: new.k, **page.show(new, **shown)}
        begun = {page.asked: asked, page.to_run: asked, status: told_to_wait(asked)}
        if isinstance(session, Session) and session.made_of.source == asked.source:
            return begun
        return {**page.clear(), **page.unsegmented(asked.source), page.words: "", **begun}

    def start(asked, session, k, image, model, preset, view, chosen, **values):
        check(image, model, preset, values)
        own = own_result_of(image, model, preset, values)
        new = Asked(image, model, preset, values, example=own).instead_of(asked)
        return begin(new, session, k, {"view": view, "chosen": chosen})

    def dropped(asked, session, k, image, model, preset, view, chosen, **values):
        """Shown as the network will see it, and segmented at once, roughly first, if that is known not to take long."""
        png = uploads.presentable(image, check(image, model, preset, values))
        shown = {page.strip: None, inputs["image"]: png or image}
        quick = preset if preset == "preview" else "fast"
        if is_soon(model, quick, values, k):
            new = Asked(image, model, quick, values, first_in=None if quick == "preview" else k).instead_of(asked)
            look = {"view": view, "chosen": chosen}
            return shown | {inputs["preset"]: quick} | begin(new, session, k, look)
        new = Asked(image, model, preset, values).instead_of(asked)
        return {
            **shown,
            **page.clear(),
            **page.unsegmented(image),
            page.asked: new,
            page.words: PRESS_RUN,
            status: "",
        }

    def refined(asked, session, k, **shown):
        """The same again, as published."""
        new = Asked(asked.source, asked.model, "exact", asked.values).instead_of(asked)
        return {inputs["preset"]: "exact", **begin(new, session, k, shown)}

    def wait(to_run):
        """Until its turn comes, a run's place in the queue is told."""
        if to_run is None or not to_run.waits:
            return {clock: gr.Timer(active=False)}
        return {clock: gr.Timer(active=True), status: told_to_wait(to_run)}

    def run(to_run, session, k, view):
        if to_run.begun.is_set() or to_run.stopped.is_set():  # it took the place of one before that had not begun yet
            return
        to_run.begun.set()
        so_far, own = to_run.so_far, None if to_run.example is None else examples()[to_run.example]
        is_stored = own is not None and own.summary.get("model") == MODELS[to_run.model]
        so_far.k, so_far.plain = k, alone(to_run.source)
        refines = is_rougher(session, to_run)

        def tell(said, progress):
            so_far.sketch = None if refines else progress.sketch or so_far.sketch
            stored = is_stored and so_far.k == own.k
            if progress.sketch is None or refines or stored:  # what is there is better
                return {status: said}
            return {status: said, page.viewer: pictures.view_of(so_far.layers(), view)}

        if own is None and not refines:
            yield {page.words: SEGMENTING}
        try:
            with closing(found_for(to_run, session, visitors, tell)) as work:
                for told in (result := Results(work)):
                    if to_run.dropped.is_set():
                        return
                    if to_run.stopped.is_set():
                        if so_far.sketch and own is None:
                            yield {to_apply: Finding(to_run, sketched(to_run, so_far.sketch), is_whole=False)}
                        return
                    yield told
            yield {to_apply: Finding(to_run, result.value)}
        finally:
            to_run.ended.set()
            so_far.sketch = None

    def recompute(session):
        session = needed(session)
        exact = visitors.exact(session)
        if exact is None:
            exact = yield from gpu.watched(gpu.recompute(session), lambda said, _: {status: said})
        yield {to_apply: Recomputed(session.made_of, exact)}

    def apply(finding, session, asked, k, **shown):
        nothing = {to_apply: None}
        if finding is None and asked and asked.stopped.is_set():
            return nothing | left(asked, session, k, shown, STOPPED)
        if finding is None or (new := applied(finding, session, asked, k)) is None:
            return nothing
        if isinstance(finding, Recomputed) or finding.is_whole:
            visitors.keep(finding)
        changes = {**nothing, status: "", page.k: new.k, **page.show(new, **shown)}
        if isinstance(finding, Finding) and not finding.is_whole:
            changes[status] = STOPPED
        elif isinstance(finding, Finding) and finding.asked.then_exactly:
            changes[page.to_recompute] = object()
        elif isinstance(finding, Recomputed) and not new.is_exact:
            number = finding.exact.settings.num_segments
            changes[status] = f"The result for k = {number} is ready: set k to {number} to see it."
        return changes

    def left(asked, session, k, shown, said):
        """What is there when a run has found nothing: the last result of this picture, or what it began with."""
        if isinstance(session, Session):
            return {status: said, **page.show(session.cut(min(k, session.found.tree.most)), **shown)}
        if asked is None or asked.example is None:
            return {status: said, page.words: PRESS_RUN}
        example = examples()[asked.example]
        return {status: said, page.k: example.k, **unfinished(page, example, asked.source, shown["view"])}

    def failed(asked, session, k, **shown):
        if asked and asked.waits:  # it was refused, as too many wait
            asked.stopped.set()
        return left(asked, session, k, shown, FAILED)

    def reset(image, model):
        """What suits the picture and the model, with the sides that the model can see."""
        return page.filled(own_values(image, model), model)

    def choose_model(image, model):
        return {inputs["preset"]: runs.own_preset(model), **reset(image, model)}

    def able(asked, to_run, session, image, model, preset, **values):
        """Which buttons can act, and about how long that takes, or why they cannot."""
        own, reason = own_values(image, model), why_not(image, model)
        said = reason or hint_of(asked, to_run, session, model, preset, values)
        return {
            go: gr.update(interactive=not reason),
            hint: gr.update(value=said, visible=bool(said)),
            defaults: gr.update(interactive=any(values[name] != own[name] for name in VALUES)),
            exactly: gr.update(**recomputing_of(session)),
            refine: gr.update(**refining_of(session, asked)),
        }

    now = {"session": page.session, "k": page.k}
    asking = {"asked": page.asked, **now, **inputs, **page.shown}
    begins = [page.asked, page.to_run, status, page.k, *page.shows]
    light = {"trigger_mode": "multiple", **LIGHT}
    starting = [
        go.click(start, None, begins, inputs_kwargs=asking, **light),
        page.strip.upload(
            dropped,
            None,
            [*begins, page.strip, inputs["image"], inputs["preset"]],
            inputs_kwargs=asking | {"image": page.strip},
            **light,
        ),
        refine.click(
            refined,
            None,
            [*begins, inputs["preset"]],
            inputs_kwargs={"asked": page.asked, **now, **page.shown},
            **light,
        ),
    ]
    for event in (page.to_run.change, clock.tick):  # the first listener of `to_run`: the next one waits for its turn
        event(wait, page.to_run, [clock, status], **NOW)
    running = page.to_run.change(
        run,
        None,
        [to_apply, status, page.words, page.viewer],
        inputs_kwargs={"to_run": page.to_run, **now, "view": page.view},
        **NETWORK,
    )
    recomputing = gr.on(
        [exactly.click, page.to_recompute.change],
        recompute,
        None,
        [to_apply, status],
        inputs_kwargs={"session": page.session},
        **NETWORK,
    )
    shows = {**now, **page.shown}
    buttons = {
        "fn": able,
        "inputs": None,
        "outputs": [go, hint, defaults, exactly, refine],
        "inputs_kwargs": {"asked": page.asked, "to_run": page.to_run, "session": page.session, **inputs},
        **LIGHT,
    }
    for event in (running, recomputing):
        applying = event.success(
            apply,
            None,
            [to_apply, status, page.k, page.to_recompute, *page.shows],
            inputs_kwargs={"finding": to_apply, "asked": page.asked, **shows},
            **LIGHT,
        )
        applying.then(**buttons)
        failing = event.failure(
            failed, None, [status, page.k, *page.shows], inputs_kwargs={"asked": page.asked, **shows}, **NOW
        )
        failing.then(**buttons)
    page.at_work(recomputing)
    for event in starting:  # what is in a folded accordion has no change of its own
        event.then(**buttons)
    changed = [part.change for part in (*inputs.values(), page.asked, page.session)]
    gr.on(changed, trigger_mode="always_last", **buttons)
    chosen, values = [inputs["image"], inputs["model"]], [inputs[name] for name in VALUES]
    defaults.click(reset, chosen, values, **LIGHT)
    inputs["model"].input(choose_model, chosen, [inputs["preset"], *values], **LIGHT)
    page.demo.load(lambda: gr.update(choices=offers()), None, inputs["model"], **LIGHT)


# --- What is asked for


def check(image: str | None, model: str, preset: str, values: dict) -> Seen:
    """The picture of a run; `ValueError` for what can be refused before a model is loaded and a GPU asked for."""
    if not image:
        raise ValueError("choose a picture first: drop one in, paste one, or choose an example")
    runs.settings_of(model, preset, values)  # refuses settings that are not allowed
    return seen(image)


def found_for(
    asked: Asked, session: Session | Gone | None, visitors: Visitors, tell: Callable[[dict, Progress], dict]
) -> Generator[dict, None, Found]:
    """The result that was `asked` for: what is there already, or else a run's. An example's own is computed for all."""
    if asked.example is None:
        return visitors.again(asked) or (yield from gpu.watched(gpu.find(asked, session), tell))
    example = examples()[asked.example]
    yield from gpu.watched(awaited(example), tell)
    return found(example) or keep(example, (yield from gpu.watched(gpu.find(asked, session), tell)))


def sketched(asked: Asked, sketch: emerdiff.Segmentation) -> Found:
    """What a run has found until it was stopped, as a result that says so."""
    if sketch.known is None:
        said, preset = "A rough pass, as Preview makes it.", "preview"
    else:
        said, preset = f"A sketch: {sketch.known.sum()} of {len(sketch.known)} segments are known.", asked.preset
    return Found(asked.source, asked.so_far.plain.shown, replace(sketch, notes=(*sketch.notes, said)), preset, 0)


def is_whole(session: Session | Gone | None, source: str) -> bool:
    """Whether there is a result of the picture in the file `source`, and not just a sketch."""
    known = isinstance(session, Session) and session.made_of.source == source
    return known and session.found.segmentation.known is None


def is_rougher(session: Session | Gone | None, asked: Asked) -> bool:
    """Whether there is a result of what was `asked` for, though perhaps of another quality: better than a sketch."""
    if not is_whole(session, asked.source) or session.made_of.model != MODELS[asked.model]:
        return False
    return values_of(session.made_of.settings) == dict(asked.values)


def is_soon(model: str, preset: str, values: dict, first_in: int) -> bool:
    """Whether a run may begin unasked: where it costs a visitor nothing but a short while."""
    if spaces or not runs.is_installed(model):
        return False
    seconds = runs.plan(model, preset, values, first_in=first_in).seconds
    return seconds is not None and seconds <= SOON


def own_result_of(image: str, model: str, preset: str, values: dict) -> int | None:
    """The index of the example whose own result that is."""
    example = example_of(image)
    own = example and own_run(example)
    return examples().index(example) if own == (model, preset, values) else None


# --- What the controls say


def offers() -> list[tuple[str, str]]:
    """The models to choose from: a line on what each knows and what a run costs here, and the label."""
    parts = {label: (label, KNOWS.get(name, OWN), cost_of(label)) for label, name in MODELS.items()}
    return [(" · ".join(filter(None, part)), label) for label, part in parts.items()]


def cost_of(model: str) -> str:
    """About how long a run of a model takes here, with its own settings; empty where that is not known yet."""
    if not runs.is_installed(model):
        return "not installed"
    run = model, runs.own_preset(model), values_of(runs.defaults(model))
    if spaces:
        return f"at most {duration(gpu.seconds_of(*run))} of GPU time"
    plan = runs.plan(*run)
    return about(plan) if plan.is_known else ""


def told_to_wait(asked: Asked) -> dict:
    before = gpu.ahead(asked)
    return waiting.said(f"Waiting, {before} ahead" if before else "Starting …")


def why_not(image: str | None, model: str) -> str:
    """Why nothing can be run; an empty text where it can."""
    if not image:
        return "Choose a picture first."
    if not runs.is_installed(model) and not runs.can_download():
        return f"{model} is not installed, and this machine is offline. Choose the miniature."
    return ""


def hint_of(
    asked: Asked | None, to_run: Asked | None, session: Session | Gone | None, model: str, preset: str, values: dict
) -> str:
    """What Run would do: nothing new, or an update, and how long that takes."""
    same = asked is not None and (asked.model, asked.preset, dict(asked.values)) == (model, preset, values)
    goes_on = same and asked is to_run and not (asked.ended.is_set() or asked.stopped.is_set())
    if goes_on or (same and is_whole(session, asked.source) and not asked.stopped.is_set()):
        return ""
    reading = asked and gpu.read_before(session, asked.source, MODELS[model])
    takes = estimated(model, runs.plan(model, preset, values, previous=reading), gpu.seconds_of(model, preset, values))
    return f"A run takes {takes}." if same or asked is None else f"**Settings changed: run to update** ({takes})."


def estimated(model: str, plan: runs.Plan, gpu_seconds: int) -> str:
    """How long a run takes here, in words."""
    if not runs.is_installed(model):
        return "long the first time: the model is not installed, and several GB are downloaded"
    if spaces:
        return f"at most {duration(gpu_seconds)} of GPU time"
    return f"about {duration(plan.seconds)}" if plan.is_known else "a while: how long is not known yet"


def recomputing_of(session: Session | Gone | None) -> dict:
    """The button for a full run at this k."""
    label, why = "Recompute at this k", None
    if not isinstance(session, Session):
        why = "no result yet"
    elif session.found.segmentation.known is not None:
        why = "after a whole run"
    elif session.is_exact:
        why = "done"
    if why:
        return {"interactive": False, "value": f"{label} ({why})"}
    plan = runs.plan_again(session.made_of, session.found.reading, num_segments=session.k)
    return {"interactive": True, "value": f"{label} ({about(plan)})" if plan.is_known else label}


def refining_of(session: Session | Gone | None, asked: Asked | None) -> dict:
    """The button for an exact run, where what is shown is not one."""
    if not isinstance(session, Session) or asked is None or session.made_of.preset == "exact":
        return {"visible": False}
    plan = runs.plan(asked.model, "exact", asked.values, previous=session.found.reading)
    return {"visible": True, "value": f"Refine exactly ({about(plan)})" if plan.is_known else "Refine exactly"}


def about(plan: runs.Plan) -> str:
    return f"about {duration(plan.seconds)}"
