"""EmerDiff Explorer: the page. `python app.py` serves it; `create_demo()` builds it."""

import explorer  # isort: skip  # before torch

import importlib.util
import logging
import threading

import gradio as gr

import emerdiff
from emerdiff.exporting import OPACITY
from emerdiff.settings import PRESETS
from explorer import events, folders, pictures, runs, uploads
from explorer.examples import examples, files_of_examples, stored, warm
from explorer.guard import Guarded, Kept
from explorer.pictures import VIEWS
from explorer.runs import MODELS
from explorer.session import FINE

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
features, whose responses are added. "Recompute exactly" runs the network for just this *k*. On 29 drawn scenes, cut to
12, both score the same; 74 % of the pixels agree, as k-means finds other segments, and 93 % on the very same segments.

**Quality.** *Exact* is the published procedure. *Fast* makes 6 of its 15 steps and *preview* 3, both with the push up
alone, preview decoded in half precision too: their masks are rougher. The README has what they lose, measured.

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
#examples .caption-label {font-size: .7rem; padding: .1rem .3rem}
@media (max-width: 640px) {
  #controls {order: 2}
  .tabs {max-width: calc(100vw - 2rem); overflow-x: clip}
  #segments .body-cell, #segments th {font-size: .75rem}
  #segments .header-content span {font-size: .65rem; letter-spacing: -.02em}
  #segments .cell-wrap {padding-inline: .2rem}
  .table-wrap {max-width: calc(100vw - 4rem)}
  #examples .grid-container {grid-template-columns: repeat(5, minmax(0, 1fr)) !important}
  #examples .caption-label {font-size: .52rem; padding: 0 .15rem; inset: auto 0 0 auto; max-width: 100%}
  #outlines span {font-size: .8rem; margin-left: 0}
}
footer {opacity: .7}
"""
CLIENT = """from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # or a Space's name
labels, summary = client.predict(handle_file("picture.jpg"), num_segments=30, api_name="/segment")
labels, summary = client.predict(8, api_name="/rescale_k")  # from the same run
as_it_is, pushed = client.predict("7,7 7,8 8,7", 10, api_name="/probe")
zip_file = client.predict(api_name="/export")
"""
KEYS = """() => {  // gradio's slider of two pictures knows no keyboard, and its pictures have no text
  const handles = '[data-testid="slider"]', step = 32;
  const name = () => document.querySelectorAll(handles).forEach((handle) => {
    if (handle.tabIndex === 0) return;
    Object.assign(handle, {tabIndex: 0, role: 'slider', ariaLabel: 'Divider: naive upsampling left, EmerDiff right'});
    handle.parentElement.querySelectorAll('img').forEach((image, i) => {
      image.alt = `The picture under ${['the segments of naive upsampling', "EmerDiff's segments"][i]}`;
    });
  });
  name();
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  document.addEventListener('keydown', (event) => {
    const move = {ArrowLeft: -step, ArrowRight: step}[event.key], handle = event.target;
    if (!move || !handle.matches(handles)) return;
    event.preventDefault();
    const box = handle.getBoundingClientRect(), x = box.x + box.width / 2, clientY = box.y + box.height / 2;
    const drag = (type, target, clientX) =>
      target.dispatchEvent(new MouseEvent(type, {clientX, clientY, bubbles: true, cancelable: true, view: window}));
    drag('mousedown', handle, x);
    drag('mousemove', window, x + move);
    drag('mouseup', window, x + move);
  });
}"""
COPY = "(link) => {navigator.clipboard?.writeText(link); return link}"


class Upload(gr.Image):
    """An image input that hands on the file as it is, so that every bad one gets our own message."""

    is_template = True

    def preprocess(self, payload):
        return payload and uploads.original(payload.path)


class Segments(gr.Dropdown):
    """Numbers of segments. Which there are is known by the visitor's session, not by what gradio was last told."""

    is_template = True

    def preprocess(self, payload):
        return payload or []


def create_demo() -> gr.Blocks:
    """The whole page; it opens with the first example's stored result."""
    first = examples()[0]
    image0, model0, preset0, *values0, k0 = events.example_inputs(first)
    words0 = pictures.words(first.summary)
    shown0, labels0, naive0, coarse0 = stored(first)
    pair0 = pictures.views(
        pictures.Layers(first.name, shown0, labels0, naive0, coarse0, pictures.unnamed(k0)), VIEWS[0], OPACITY, True
    )
    limits = emerdiff.Settings.range_of
    gr.set_static_paths(files_of_examples())  # shown as they are, from wherever the page is started
    with Guarded(title="EmerDiff Explorer", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        session = Kept(None)
        example = gr.State(0)
        gr.Markdown(INTRO)
        gallery = gr.Gallery(
            [(str(e.picture), e.title) for e in examples()], label="Examples", show_label=False, columns=10,
            height="auto", allow_preview=False, buttons=[], elem_id="examples", object_fit="cover",
        )  # fmt: skip
        with gr.Row():
            with gr.Column(scale=2, min_width=300, elem_id="controls"):
                image = Upload(
                    image0, type="filepath", image_mode=None, format="png", sources=["upload", "clipboard"],
                    label="Picture", height=240, buttons=[],
                )  # fmt: skip
                k = gr.Slider(
                    2, FINE, k0, step=1, precision=0, label="Segments (k)",
                    info="Moves at once: nothing is computed again.",
                )  # fmt: skip
                exactly = gr.Button("Recompute exactly at this k", size="sm")
                preset = gr.Radio([(name.capitalize(), name) for name in PRESETS], value=preset0, label="Quality")
                timestep = gr.Slider(
                    1, 981, values0[0], step=20, precision=0, label="Timestep",
                    info="How noisy the picture is when the network is pushed: low keeps details, high changes more.",
                )  # fmt: skip
                strength = gr.Slider(0, 50, values0[1], step=0.5, label="Perturbation strength")
                with gr.Accordion("Advanced", open=False):
                    model = gr.Dropdown(list(MODELS), value=model0, label="Model")
                    feature_timestep = gr.Slider(
                        *limits("feature_timestep"), values0[2], step=1, precision=0, label="Feature timestep"
                    )
                    smoothing = gr.Slider(0, 5, values0[3], step=0.1, label="Smoothing (pixels)")
                    lowest, highest = limits("seed")
                    seed = gr.Number(values0[4], label="Seed", precision=0, minimum=lowest, maximum=highest)
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
                slider = gr.ImageSlider(tuple(pair0), format="png", label="Naive | EmerDiff", max_height=640)
                with gr.Row():
                    left = _output("Naive upsampling", "The picture under segments; the table has them too", False)
                    right = _output("EmerDiff", "The picture under EmerDiff's segments; the table has them too", False)
                with gr.Row():
                    opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", scale=3)
                    outlines = gr.Checkbox(True, label="Outlines", scale=1, min_width=110, elem_id="outlines")
        with gr.Tabs():
            with gr.Tab("Segments"), gr.Row():
                with gr.Column(scale=2, min_width=320):
                    table = gr.Dataframe(
                        headers=["", "name", "share %", "naive %", "sure %"], interactive=False,
                        datatype=["html", "str", *["number"] * 3], label="Segments (click to choose)", max_height=420,
                        column_widths=["9%", "31%", "20%", "20%", "20%"], elem_id="segments",
                    )  # fmt: skip
                with gr.Column(scale=3, min_width=320):
                    chosen = Segments([], value=[], multiselect=True, label="Chosen segments")
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

        demo.load(None, None, None, js=KEYS)
        opening = demo.load(events.restore, None, [status, *inputs, k, view, truth, *shows], **ready)
        checked = go.click(events.check, inputs, status, **light)
        running = checked.success(events.run, [session, k, *look, *inputs], [status, *shows], **heavy)
        dropped = image.upload(events.dropped, inputs, [status, image], **light)
        soon = dropped.success(events.run_soon, [session, k, *look, *inputs], [status, *shows], **heavy)
        exact = exactly.click(events.recompute, [session, *look, chosen], [status, *shows], **heavy)
        exploring = gallery.select(
            events.choose_example, look, [example, session, truth, *inputs, k, words, *pair], **light
        ).then(events.explore, [example, k, *look], [status, *shows], **ready)
        painting = paint.click(events.perturbed, [session, chosen], [status, minus, plus], **heavy)
        probing = perturb.click(events.probed, [session, written, push], [status, before, after, change], **heavy)
        work = [opening, checked, running, dropped, soon, exact, exploring, painting, probing]
        for event in work:
            event.failure(lambda: "", None, status, queue=False, **private)
        stop.click(lambda: "Stopped.", None, status, cancels=work, queue=False, **private)

        k.input(events.cut, [session, k, *look, chosen], shows, trigger_mode="always_last", **light)
        for part in look:
            part.input(events.redraw, [session, *look], pair, trigger_mode="always_last", **light)
        for part in (model, preset, timestep):
            part.change(events.estimated, inputs[1:], status, **light)
        model.input(events.own_values, model, inputs[3:7], **light)

        for picture in (left, right):
            picture.select(events.pick, [session, chosen], chosen, **light)
        table.select(events.pick_row, [session, chosen], chosen, **light)
        chosen.change(events.evidence, [session, chosen], [facts, cells, difference, minus, plus], **light)
        edits = {
            rename: lambda session, ids, name: session.rename(ids, name),
            merge: lambda session, ids, _: session.merge(ids),
            hide: lambda session, ids, _: session.hide(ids),
            undo: lambda session, *_: session.undo(),
        }
        for button, act in edits.items():
            button.click(events.edit(act), [session, *look, chosen, name], shows, **light)

        grid.select(events.brush, [session, written, width], written, **light)
        gr.on([written.change, push.change, session.change], events.grid_shown, [session, written, push], grid, **light)
        of_chosen.click(events.cells_of_chosen, [session, chosen], written, **light)
        clear.click(lambda: "", None, written, **light)
        session.change(events.code, session, python, **light)

        draw.click(events.draw_figure, session, [varied, figure_files], **light)
        judge.click(events.score, [session, truth], judged, **light)
        pack.click(events.take_away, session, taken, **light)
        link.click(events.share, [session, view], [url, note], **light).success(None, url, None, js=COPY)

        named = {"concurrency_limit": 1, "concurrency_id": "network"}
        label_file, summary = gr.File(visible=False), gr.JSON(visible=False)
        hidden = gr.Button(visible=False)
        hidden.click(
            events.segment_endpoint, [image, model, k, *inputs[3:], preset], [label_file, summary, session],
            api_name="segment", **named,
        )  # fmt: skip
        hidden.click(
            events.segment_once_endpoint, [image, model, k, *inputs[3:], preset], [label_file, summary],
            api_name="segment_once", **named,
        )  # fmt: skip
        hidden.click(events.rescale_endpoint, [session, k], [label_file, summary, session], api_name="rescale_k")
        hidden.click(events.probe_endpoint, [session, written, push], [before, after], api_name="probe", **named)
        hidden.click(events.export_endpoint, session, taken, api_name="export")
    return demo.queue(max_size=32)


def _output(label: str, alt: str, visible: bool = True) -> gr.Image:
    return gr.Image(
        format="png", label=label, show_label=bool(label), interactive=False, alt_text=alt, visible=visible,
        buttons=["download", "fullscreen"],
    )  # fmt: skip


def main() -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    folders.sweep(folders.UPLOADS)
    runs.pipeline("miniature")  # on ZeroGPU models are placed before the first visitor comes
    if not explorer.spaces:
        threading.Thread(target=warm, daemon=True).start()
    create_demo().launch(
        theme=THEME, css=CSS, max_file_size="30mb", strict_cors=True, show_error=False,
        state_session_capacity=2000,  # 150 kB each; results are not among them, see explorer/visitors.py
        mcp_server=importlib.util.find_spec("mcp") is not None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
