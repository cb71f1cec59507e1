"""Small random pipelines of the real classes, Stable Diffusion 1.x and 2.x in shape; and a browser for the page."""

import atexit
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
else:  # workers begin with what is set here: the full result of an example is computed once for all tests
    os.environ["EMERDIFF_CACHE"] = tempfile.mkdtemp(prefix="emerdiff-")
    atexit.register(shutil.rmtree, os.environ["EMERDIFF_CACHE"], ignore_errors=True)

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

import emerdiff
from emerdiff import Settings
from emerdiff.miniature.model import new_tokenizer
from emerdiff.miniature.scenes import draw_scene

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def small_parts(version: int = 1, **unet_changes) -> dict:
    """Parts of a random Stable Diffusion in miniature: 3 levels, latents a quarter of the picture's side."""
    torch.manual_seed(0)
    tokenizer = new_tokenizer(["a red house", "two cars on a street"])
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4
    )
    unet_config = {
        "sample_size": 32,
        "layers_per_block": 2,
        "block_out_channels": (32, 32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 2 if version == 1 else (1, 2, 2),  # diffusers' name for the number of heads
        "use_linear_projection": version == 2,
    }
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
    )
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    scheduler = PNDMScheduler(skip_prk_steps=True, **schedule)  # what the 1.5 checkpoint comes with
    if version == 2:
        scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, **schedule)
    return {
        "vae": vae.eval(),
        "text_encoder": CLIPTextModel(text_config).eval(),
        "tokenizer": tokenizer,
        "unet": UNet2DConditionModel(**unet_config | unet_changes).eval(),
        "scheduler": scheduler,
    }


def save_as_stable_diffusion(folder, parts: dict, **kwargs):
    pipeline = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder, **kwargs)
    return folder


def edit_json(path, **changes):
    """Changes values in a JSON file; `...` removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def quick(**changes) -> Settings:
    """Settings for a fast run: t = 301, 201, 101 and 1 of a grid of 10 steps, on 64 x 64 pixels or about that."""
    defaults = {
        "num_segments": 4,
        "num_inference_steps": 10,
        "modulation_timestep": 301,
        "image_area": 64 * 64,
        "kmeans_n_init": 1,
    }
    return Settings(**defaults | changes)


def value_of(run):
    """What a generator returns in the end."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder that Stable Diffusion's own pipeline saved."""
    return save_as_stable_diffusion(tmp_path_factory.mktemp("sd"), small_parts())


@pytest.fixture(scope="session")
def small(checkpoint):
    return emerdiff.load(checkpoint, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def small_v2(tmp_path_factory):
    """Like Stable Diffusion 2: linear projections, heads by level; and it predicts the velocity."""
    folder = save_as_stable_diffusion(tmp_path_factory.mktemp("sd2"), small_parts(version=2))
    return emerdiff.load(folder, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def miniature():
    return emerdiff.load("miniature", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def picture():
    """A picture that is not square: 192 x 128 pixels of a drawn scene."""
    return Image.fromarray(np.ascontiguousarray(draw_scene(3, 192).image[32:160]))


@pytest.fixture
def messages():
    """What the libraries log, as long as the test runs."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).addHandler(handler)
    yield found
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).removeHandler(handler)


# ---------------------------------------------------------------- the page in headless Chromium


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    assert Path(CHROMIUM).exists(), "the page's tests need Debian's package chromium"
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """With a failure, the text of the pages that are open."""
    report = yield
    if report.failed and (browser := item.funcargs.get("browser")):
        for page in (page for context in browser.contexts for page in context.pages):
            lines = page.evaluate("document.body.innerText").split("\n")
            report.sections.append((page.url, " | ".join(filter(None, map(str.strip, lines)))[:2000]))
    return report


def set_slider(page, label: str, value: float) -> None:
    box = page.get_by_label(f"number input for {label}")
    box.fill(str(value))
    box.press("Tab")


def ready(page):
    """The example can be explored: its full result is there, not only what is stored of it."""
    page.get_by_role("button", name="Recompute at this k", disabled=False).wait_for(timeout=300_000)
    row(page, "Segment 1").wait_for()


def shows(page, figures, **options) -> None:
    """Waits for the figures of the result that is shown, which are folded away."""
    page.locator("#summary").get_by_text(figures).first.wait_for(state="attached", **options)


def at_work(page):
    """The network works on what was asked for, and says how far it is."""
    return page.locator("#status .said").get_by_text(re.compile(r"\d+%, about .* left"))


def says(page, text, **options) -> None:
    """The status line comes to say it."""
    page.locator("#status .said").get_by_text(text).wait_for(**options)


def unfold(page) -> None:
    """The settings."""
    page.locator("#settings").get_by_text("Settings", exact=True).click()
    page.get_by_label("number input for Timestep", exact=True).wait_for()


def row(page, name: str):
    """The name in the table of segments; the table has a hidden row of its own."""
    return page.locator("#segments").get_by_text(name, exact=True).filter(visible=True).first
