"""The page through a real server: its API with gradio_client, and the page itself in headless Chromium."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
import emerdiff
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
MINIATURE = next(iter(app.MODELS))
QUICK = {"model": MINIATURE, "num_segments": 3, "modulation_timestep": 41, "strength": 10}
QUICK |= {"feature_timestep": 1, "smoothing": 0.8, "seed": 42}


@pytest.fixture(scope="module")
def url():
    demo = app.create_demo()
    _, address, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, theme=app.THEME, css=app.CSS)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two different pictures, as files."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in (1, 2):
        Image.fromarray(draw_scene(seed, 128).image[:96]).save(folder / f"{seed}.png")
    return [folder / "1.png", folder / "2.png"]


def segment(client, picture, **changes):
    return client.predict(handle_file(str(picture)), **QUICK | changes, api_name="/segment")


def expected(picture, **changes):
    settings = {k: v for k, v in (QUICK | changes).items() if k != "model"}
    pipe = app.pipeline("miniature")
    return pipe(picture, pipe.settings(**settings))


def test_endpoint_returns_the_labels_that_the_package_finds(client, pictures):
    file, summary = segment(client, pictures[0])
    result = expected(pictures[0])
    assert np.array_equal(np.asarray(Image.open(file)), result.labels_at_original_size)
    assert summary["settings"]["num_segments"] == 3
    assert summary["original_size"] == [128, 96]
    assert sum(part["share"] for part in summary["segments"]) == pytest.approx(1, abs=1e-3)


def test_endpoint_is_the_only_public_one_and_is_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/segment"]
    names = [parameter["parameter_name"] for parameter in endpoints["/segment"]["parameters"]]
    assert names == ["image", *QUICK]
    assert "label PNG" in endpoints["/segment"]["description"]


def test_a_timestep_off_the_grid_is_snapped_and_said(client, pictures):
    _, summary = segment(client, pictures[0], modulation_timestep=47)
    assert summary["settings"]["modulation_timestep"] == 41
    assert "47" in summary["notes"][0] and "41" in summary["notes"][0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feature_timestep": 2000}, "maximum value 999"),
        ({"strength": -3}, "minimum value 0"),
        ({"strength": float("nan")}, "strength must be a number|not JSON compliant"),
        ({"seed": -1}, "minimum value 0"),
        ({"seed": None}, "seed must be a whole number from 0"),
        ({"model": "../../etc/passwd"}, "not in the list of choices"),
    ],
)
def test_bad_settings_get_a_sentence(client, pictures, changes, said):
    with pytest.raises((AppError, ValueError), match=said):
        segment(client, pictures[0], **changes)


def test_bad_pictures_get_a_sentence_and_the_server_goes_on(client, pictures, tmp_path):
    broken, tiny, text = tmp_path / "broken.png", tmp_path / "tiny.png", tmp_path / "text.png"
    broken.write_bytes(pictures[0].read_bytes()[:2000])
    Image.new("RGB", (63, 200)).save(tiny)
    text.write_text("not a picture")
    for path, said in ((broken, "damaged|cannot be read"), (tiny, "at least 64"), (text, "not a picture")):
        with pytest.raises(AppError, match=said):
            segment(client, path)
    assert segment(client, pictures[0])[1]["settings"]["num_segments"] == 3


def test_two_visitors_get_their_own_results(url, pictures):
    with ThreadPoolExecutor(2) as pool:
        files = list(pool.map(lambda picture: segment(Client(url, verbose=False), picture)[0], pictures))
    for file, picture in zip(files, pictures, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), expected(picture).labels_at_original_size)


def test_stored_examples_are_what_the_method_finds():
    image, _, *values = app.example_inputs(0)
    pipe = emerdiff.load(dtype=torch.float32)
    result = pipe(image, pipe.settings(**dict(zip(app.SHOWN_SETTINGS, values, strict=True))))
    stored = np.asarray(Image.open(app.EXAMPLES / f"{app.examples()[0]['name']}_labels.png"))
    assert (stored == result.labels_at_original_size).mean() > 0.98  # processors round differently


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    assert Path(CHROMIUM).exists(), "the page's tests need Debian's package chromium"
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(url)
    page.get_by_role("button", name="Run").wait_for()
    yield page
    page.close()


def set_slider(page, label: str, value: float) -> None:
    box = page.get_by_label(f"number input for {label}")
    box.fill(str(value))
    box.press("Tab")


def test_page_opens_with_a_finished_example(page, tmp_path):
    page.get_by_text("than naive upsampling").wait_for()
    page.wait_for_function("[...document.images].filter(i => i.naturalWidth > 200).length >= 3")
    assert page.get_by_label("number input for Segments (k)").input_value() == str(app.example_inputs(0)[2])
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(set(Image.open(tmp_path / "page.png").convert("RGB").resize((64, 64)).getdata())) > 200  # not blank


def test_run_button_segments_with_the_sliders(page):
    set_slider(page, "Segments (k)", 3)
    set_slider(page, "Timestep", 41)
    page.get_by_role("button", name="Run").click()
    page.get_by_text("k = 3, timestep 41").wait_for(timeout=120_000)
    assert "U-Net rows" not in page.locator("#status").inner_text()


def test_stop_button_stops_the_network(page):
    calls = []
    handle = app.pipeline("miniature").unet.register_forward_hook(lambda *_: calls.append(time.monotonic()))
    try:
        set_slider(page, "Segments (k)", 40)
        page.get_by_role("button", name="Run").click()
        page.get_by_text("U-Net rows").wait_for(timeout=60_000)
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        time.sleep(3)  # one U-Net call may still have been under way
        before = len(calls)
        time.sleep(4)
        assert before > 0 and len(calls) == before
    finally:
        handle.remove()


def test_an_example_is_shown_at_once(page):
    page.locator("#examples button.thumbnail-item").nth(1).click()
    k = app.example_inputs(1)[2]
    page.get_by_text(f"k = {k}, timestep").wait_for(timeout=10_000)
    page.wait_for_function(f"document.querySelector('[aria-label=\"number input for Segments (k)\"]').value == '{k}'")


def test_without_a_picture_the_page_says_what_to_do(page):
    page.get_by_label("Remove Image").first.click()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Choose a picture first").wait_for()


def test_page_fits_a_phone(browser, url):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(url)
    page.get_by_role("button", name="Run").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
