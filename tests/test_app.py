"""The page through a real server: its API with gradio_client, and the page itself in headless Chromium."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from zipfile import ZipFile

import gradio as gr
import httpx
import numpy as np
import pytest
from conftest import at_work, ready, row, says, set_slider, shows, unfold, value_of
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image
from playwright.sync_api import expect

import app
import emerdiff
from emerdiff.batches import MOST_ROWS
from emerdiff.matching import agreement
from emerdiff.miniature.scenes import draw_scene
from explorer import examples as example_store
from explorer import gpu, links, running, runs
from explorer.examples import examples, stored
from explorer.runs import MODELS, pipeline
from explorer.session import FINE, Session

MINIATURE = next(iter(MODELS))
QUICK = {"model": MINIATURE, "num_segments": 6, "modulation_timestep": 41, "strength": 10}
QUICK |= {"feature_timestep": 1, "smoothing": 0.8, "seed": 42, "preset": "exact", "side": 256, "words": ""}


@contextmanager
def served(demo, **options):
    _, address, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, **app.LOOK, **options)
    try:
        yield address
    finally:
        demo.close()
        end = time.monotonic() + 20
        while gpu.busy() and time.monotonic() < end:  # a run that a closed page has left ends at its next step
            time.sleep(0.1)


@pytest.fixture(scope="module")
def url():
    with served(app.create_demo()) as address:
        yield address


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
    settings = {k: v for k, v in (QUICK | changes).items() if k not in ("model", "side", "words")}
    pipe = pipeline("miniature")
    return pipe(picture, pipe.settings(**settings))


def pixels(file):
    return np.asarray(Image.open(file))


def test_endpoint_returns_the_labels_that_the_package_finds(client, pictures):
    file, summary = segment(client, pictures[0])
    result = expected(pictures[0])
    assert np.array_equal(pixels(file), result.labels_at_original_size)
    assert summary["settings"]["num_segments"] == 6
    assert summary["original_size"] == [128, 96]
    assert sum(part["share"] for part in summary["segments"]) == pytest.approx(1, abs=1e-3)


def test_endpoints_are_named_and_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/segment", "/segment_once", "/rescale_k", "/name", "/probe", "/export"}
    names = [parameter["parameter_name"] for parameter in endpoints["/segment"]["parameters"]]
    assert names == ["image", *QUICK]
    for endpoint, said in {
        "/segment": "label PNG",
        "/rescale_k": "without running the network",
        "/probe": "row,column",
        "/export": "COCO",
    }.items():
        assert said in endpoints[endpoint]["description"]


def test_a_result_is_rescaled_probed_and_exported_by_the_client_that_asked_for_it(url, pictures):
    client = Client(url, verbose=False)
    for name, arguments in (("/rescale_k", [3]), ("/probe", ["1,1", 10]), ("/export", [])):
        with pytest.raises(AppError, match="call /segment first"):
            client.predict(*arguments, api_name=name)
    segment(client, pictures[0])
    result = expected(pictures[0])
    file, summary = client.predict(3, api_name="/rescale_k")
    assert np.array_equal(pixels(file), emerdiff.recut(result, 3).labels_at_original_size)
    assert summary["settings"]["num_segments"] == 3
    with pytest.raises(AppError, match="2 to 6 segments, not 7"):
        client.predict(7, api_name="/rescale_k")

    before, after = (pixels(file) for file in client.predict("3,4 3,5", 20, api_name="/probe"))
    assert before.shape == after.shape == result.image.shape
    pipe = pipeline("miniature")
    reading = value_of(pipe.read(pictures[0], result.settings))
    offsets = np.zeros((2, *result.coarse_labels.shape))
    offsets[1, 3, 4:6] = 20
    for picture, painted in zip((before, after), value_of(pipe.probe(reading, offsets)), strict=True):
        assert np.abs(picture - painted.clip(0, 255)).max() <= 1
    assert (before != after).any()

    with ZipFile(client.predict(api_name="/export")) as archive:
        (labels,) = (name for name in archive.namelist() if name.endswith("_labels.png"))
        assert np.array_equal(pixels(archive.open(labels)), emerdiff.recut(result, 3).labels_at_original_size)


def test_a_timestep_off_the_grid_is_snapped_and_said(client, pictures):
    _, summary = segment(client, pictures[0], modulation_timestep=47)
    assert summary["settings"]["modulation_timestep"] == 41
    assert "47" in summary["notes"][0] and "41" in summary["notes"][0]


def test_bad_pictures_get_a_sentence_and_the_server_goes_on(client, pictures, tmp_path):
    broken, tiny, text = tmp_path / "broken.png", tmp_path / "tiny.png", tmp_path / "text.png"
    broken.write_bytes(pictures[0].read_bytes()[:2000])
    Image.new("RGB", (63, 200)).save(tiny)
    text.write_text("not a picture")
    for path, said in ((broken, "damaged|cannot be read"), (tiny, "at least 64"), (text, "not a picture")):
        with pytest.raises(AppError, match=said):
            segment(client, path)
    assert segment(client, pictures[0])[1]["settings"]["num_segments"] == 6


def test_nothing_but_the_pages_own_files_is_served(url):
    assert httpx.get(f"{url}gradio_api/file=/etc/passwd", timeout=30).status_code in (403, 404)
    linked = httpx.get(f"{url}gradio_api/file={links.FOLDER}/x.png", timeout=30)
    assert linked.status_code in (403, 404)


def test_visitors_at_once_get_their_own_results(url, pictures):
    def visit(picture):
        client = Client(url, verbose=False)
        segment(client, picture, preset="preview")
        return client.predict(4, api_name="/rescale_k")[0]

    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(visit, [*pictures, *pictures]))
    for picture, *own in zip(pictures, files[:2], files[2:], strict=True):
        labels = emerdiff.recut(expected(picture, preset="preview"), 4).labels_at_original_size
        assert all(np.array_equal(pixels(file), labels) for file in own)


def test_stored_examples_are_what_the_method_finds():
    example = examples()[0]
    full = example_store.found(example) or value_of(example_store.compute(example))
    labels = emerdiff.recut(full.segmentation, example.k).labels_at_original_size
    assert agreement(stored(example).labels, labels) > 0.95  # the page may compute in half precision


def test_a_full_result_is_computed_once_shared_and_computed_again_when_what_it_comes_from_changes(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(example_store, "CACHE", tmp_path)
    monkeypatch.setattr(runs, "FINE", 4)
    example = replace(examples()[1], picture=tmp_path / "small.png", name="small")
    Image.fromarray(draw_scene(5, 128).image).save(example.picture)
    assert example_store.found(example) is None
    first = value_of(example_store.compute(example))
    assert first.shared and example_store.found(example) is first  # one for all visitors, for as long as one has it
    arrays = {name: getattr(first.segmentation, name) for name in ("labels", "coarse_labels", "features", "responses")}
    settings = first.segmentation.settings
    del first
    again = example_store.found(example).segmentation
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(again, name), array)
    assert again.settings == settings
    Image.fromarray(draw_scene(6, 128).image).save(example.picture)
    assert example_store.found(example) is None
    value_of(example_store.compute(example))
    (file,) = tmp_path.glob("small-*.npz")
    assert example_store.found(example)
    file.write_bytes(file.read_bytes()[:-1000])  # as a disk that was full leaves it
    assert example_store.found(example) is None
    value_of(example_store.compute(example))
    assert example_store.found(example)


# ---------------------------------------------------------------- the page


@pytest.fixture
def page(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(url)
    page.get_by_role("button", name="Run", exact=True).wait_for()
    yield page
    page.close()


def test_only_tabs_lie_between_tabs():
    """Anything else there, be it a state, makes gradio's page count wrong and name one tab as another."""
    tabs = [block for block in app.create_demo().blocks.values() if isinstance(block, gr.Tabs)]
    assert tabs and all(isinstance(child, gr.Tab) for block in tabs for child in block.children)


def network_calls():
    calls = []
    return calls, pipeline("miniature").unet.register_forward_hook(lambda *_: calls.append(time.monotonic()))


def test_page_opens_with_a_finished_example(page, tmp_path):
    page.get_by_text(f"{examples()[0].k} segments").wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('#viewer img')].filter(i => i.naturalWidth > 200).length == 2"
    )
    assert page.get_by_label("number input for Segments (k)").input_value() == str(examples()[0].k)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(set(Image.open(tmp_path / "page.png").convert("RGB").resize((64, 64)).getdata())) > 200  # not blank


def test_the_divider_moves_by_keyboard_also_after_it_was_away(page):
    ready(page)
    divider = page.get_by_role("slider", name="Divider")
    for away in (False, True):
        if away:
            page.get_by_label("Masks", exact=True).click()
            divider.wait_for(state="detached")
            page.get_by_label("Slider", exact=True).click()
        divider.focus()
        for key, place in (("ArrowRight", 51), ("ArrowLeft", 50), ("ArrowLeft", 49)):
            page.keyboard.press(key)
            assert divider.input_value() == str(place)
    assert page.get_by_alt_text("EmerDiff: the picture").first.is_visible()


def test_moving_k_shows_other_segments_without_the_network(page):
    ready(page)
    calls, handle = network_calls()
    try:
        for k in (4, 17):
            set_slider(page, "Segments (k)", k)
            shows(page, f"k = {k}, timestep")
        assert not calls
    finally:
        handle.remove()


def test_a_clicked_segment_shows_its_evidence(page):
    ready(page)
    page.locator("#evidence").get_by_text("Click another segment").wait_for()  # one is looked at from the start
    box, map_ = (page.locator(part).last.bounding_box() for part in ("#viewer .stage", "#evidence figure"))
    assert map_["y"] + map_["height"] <= 900 and map_["x"] > box["x"] + box["width"]  # beside it, without scrolling
    page.mouse.click(box["x"] + 30, box["y"] + box["height"] / 2)
    page.locator("#evidence").get_by_text("Click another segment").wait_for(state="detached")
    page.get_by_alt_text("How much perturbing these cells changes each pixel").wait_for()
    assert page.locator("#evidence").get_by_text("levels of 255").is_visible()
    page.get_by_role("button", name="Paint it perturbed").click()
    painted = page.locator("#painted")
    painted.get_by_alt_text("I⁺: plus strength, its change amplified 5 times").wait_for(timeout=120_000)
    row(page, "Segment 2").click()
    painted.locator(".stage").wait_for(state="hidden")  # it was of another segment


def test_segments_that_are_clicked_quickly_while_k_moves_are_all_chosen(page, monkeypatch):
    def late(session, k, cut=Session.cut):
        time.sleep(3)  # as on a slow machine
        return cut(session, k)

    ready(page)
    monkeypatch.setattr(Session, "cut", late)
    set_slider(page, "Segments (k)", 8)
    for number in (1, 2):
        row(page, f"Segment {number}").click()
    row(page, "Segment 7").wait_for()
    page.locator("#evidence").get_by_text("Segment 1, Segment 2: ").wait_for()
    page.locator("button:enabled").get_by_text("Merge", exact=True).wait_for()


def test_the_table_sorts_by_size_and_a_click_in_it_chooses_what_it_shows(page):
    ready(page)
    set_slider(page, "Segments (k)", 8)
    row(page, "Segment 7").wait_for()
    heading = page.locator("#segments thead th").filter(has_text="area %").first
    heading.hover()
    heading.get_by_label("Open cell menu").click()
    page.get_by_text("Sort descending").click()
    page.wait_for_timeout(300)
    names, shares = (page.locator(f"#segments [role=gridcell][data-col='{i}']").all_inner_texts() for i in (1, 2))
    values = [float(share) for share in shares]
    assert values == sorted(values, reverse=True) and values[0] > 10 and values[-1] < 10  # not sorted as text
    assert names != sorted(names, key=lambda name: int(name.split()[1]))
    row(page, names[0]).click()
    page.get_by_text(f"{names[0]}: {values[0]:.1f}% of the pixels").wait_for()


def test_segments_are_renamed_merged_and_hidden_and_that_is_undone(page):
    def able(*names):
        """Of the buttons only these can act."""
        for name in ("Rename", "Merge", "Hide or show", "Undo"):
            state = "enabled" if name in names else "disabled"
            page.locator(f"button:{state}").get_by_text(name, exact=True).wait_for()

    ready(page)
    able()
    page.get_by_text("To rename, merge or hide segments, click them").wait_for()
    row(page, "Segment 1").click()
    page.get_by_text("To rename the segment, type a name. To merge, choose a second segment.").wait_for()
    able("Hide or show")
    name = page.get_by_label("Name", exact=True)
    name.fill("sky <b>&</b>")
    able("Hide or show", "Rename")
    name.press("Enter")
    row(page, "sky <b>&</b>").wait_for()
    row(page, "Segment 2").click()
    able("Hide or show", "Merge", "Undo")
    page.get_by_role("button", name="Merge").click()
    page.get_by_text(f"{examples()[0].k - 1} segments").wait_for()
    assert not row(page, "Segment 2").is_visible()
    undo = page.get_by_role("button", name="Undo", exact=True)
    undo.click()
    row(page, "Segment 2").wait_for()
    assert row(page, "sky <b>&</b>").is_visible()
    page.get_by_role("button", name="Hide or show").click()
    row(page, "sky <b>&</b> (hidden)").wait_for()
    undo.click()
    row(page, "sky <b>&</b>").wait_for()
    undo.click()
    row(page, "Segment 1").wait_for()


def test_the_probe_begins_with_one_and_painted_cells_are_probed(page):
    ready(page)
    page.get_by_role("tab", name="Probe").click()
    page.get_by_text("What changed as the run perturbed the").wait_for()
    cells = page.get_by_label("Cells (row,column)")
    assert cells.input_value()
    page.get_by_role("button", name="Clear", exact=True).click()
    page.locator("button:disabled").get_by_text("Perturb these cells").wait_for()
    canvas = page.locator("#grid canvas")
    canvas.scroll_into_view_if_needed()
    canvas.click(position={"x": 100, "y": 100})
    page.locator("button:enabled").get_by_text("Perturb these cells").wait_for()
    assert len(cells.input_value().split()) == 9
    cells.press("Enter")
    page.get_by_text("What changed as 9 of the cells were perturbed by 10").wait_for(timeout=120_000)
    assert page.locator("#probed").get_by_alt_text("its change amplified 5 times").last.is_visible()


def test_figure_scores_zip_and_code(page):
    ready(page)
    page.get_by_role("tab", name="Vary k").click()
    page.get_by_role("button", name="Draw one run").click()
    page.get_by_alt_text("The picture in 5, 10, 15, 20 and 30 segments").wait_for(timeout=60_000)
    page.get_by_role("tab", name="Score").click()
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_text("Naive upsampling", exact=True).last.wait_for(timeout=30_000)
    page.get_by_role("tab", name="Export and share").click()
    page.get_by_role("button", name="Make the zip").click()
    page.locator("#zip a").first.wait_for(timeout=30_000)


def copied(page):
    """The link, once it has been copied."""
    page.get_by_role("tab", name="Export and share").click()
    page.get_by_role("button", name="Copy link").click()
    page.locator("#copied").get_by_text("Copied. This link does not expire.").wait_for()
    return page.evaluate("navigator.clipboard.readText()")


def test_a_copied_link_and_the_browsers_address_restore_picture_settings_k_look_and_edits(browser, url):
    context = browser.new_context(
        viewport={"width": 1280, "height": 1000}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.goto(f"{url}?__theme=dark")
    ready(page)
    set_slider(page, "Segments (k)", 5)
    shows(page, "k = 5, timestep")
    name_segment(page, 1, "sky <b>&amp;</b> é")
    row(page, "Segment 2").click()
    page.get_by_text("Segment 2: ").wait_for()
    page.get_by_role("button", name="Merge").click()
    row(page, "Segment 2").wait_for(state="detached")
    page.get_by_label("Masks", exact=True).click()
    set_slider(page, "Opacity", 0.35)
    page.get_by_label("Outlines").uncheck()
    page.wait_for_function("/outlines=false/.test(location.search) && /merged/.test(location.search)")
    link, entries = copied(page), page.evaluate("history.length")
    assert link.startswith(url) and "k=5" in link and f"example={examples()[0].name}" in link
    assert page.url.startswith(f"{url}?__theme=dark&") and page.url.replace("__theme=dark&", "") == link
    page.reload()
    other = context.new_page()
    other.goto(link)
    for opened in (page, other):
        row(opened, "sky <b>&amp;</b> é").wait_for(timeout=60_000)
        assert not row(opened, "Segment 2").is_visible()
        shows(opened, "k = 5, timestep")
        for name, value in (("Segments (k)", "5"), ("Opacity", "0.35")):
            assert opened.get_by_label(f"number input for {name}").input_value() == value
        assert opened.get_by_label("Masks", exact=True).is_checked()
        assert not opened.get_by_label("Outlines").is_checked()
    assert page.evaluate("history.length") == entries  # Back leads to where the visitor came from
    context.close()


def test_segments_are_named_a_word_is_found_and_the_address_carries_the_words(page):
    ready(page)
    page.get_by_role("tab", name="Names").click()
    page.get_by_label("Words").fill("sky, sea|water, boat")
    page.get_by_role("button", name="Name the segments").click()
    page.locator("#names table").wait_for()
    assert page.locator("#names meter").count() == page.locator("#names tr").count() - 1 > 1
    page.wait_for_function("/words/.test(location.search) && /sea%7Cwater/.test(location.search)")
    page.get_by_label("Find").fill("boat")
    page.locator("#lit figure").wait_for()
    page.get_by_label("Words").fill("sky")
    page.get_by_role("button", name="Name the segments").click()
    page.get_by_text("Give at least two words, since a name is a choice between words").wait_for()
    page.reload()
    page.get_by_role("tab", name="Names").click()
    page.locator("#names table").wait_for(timeout=60_000)
    assert page.get_by_label("Words").input_value() == "sky, sea|water, boat"
    page.get_by_role("button", name="Remove the names").click()
    page.locator("#names table").wait_for(state="detached")
    page.wait_for_function("!/words/.test(location.search)")


def test_where_copying_is_refused_the_link_is_selected_to_be_copied_by_hand(page):
    ready(page)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')) }")
    page.get_by_role("tab", name="Export and share").click()
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("The link is selected: press Ctrl+C").wait_for()
    selected = page.evaluate("() => document.getSelection().toString()")
    assert selected == page.locator("#link textarea, #link input").first.input_value() != ""


@pytest.mark.parametrize("query", ["?model=../../etc&k=3", "?model=miniature&k=<script>", "?picture=../../etc/passwd"])
def test_a_link_that_is_none_says_so_and_shows_an_example(browser, url, query):
    page = browser.new_page()
    page.goto(url + query)
    page.get_by_text("cannot be restored").wait_for()
    ready(page)
    page.close()


def name_segment(page, number: int, name: str) -> None:
    row(page, f"Segment {number}").click()
    page.get_by_text(f"Segment {number}: ").wait_for()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Rename").click()
    row(page, name).wait_for()


def quick_run(page, k: int) -> None:
    """A result that takes a second or two."""
    ready(page)
    unfold(page)
    page.get_by_label("Preview").click()
    set_slider(page, "Segments (k)", k)
    set_slider(page, "Timestep", 41)
    page.get_by_role("button", name="Run", exact=True).click()
    shows(page, f"k = {k}, timestep 41", timeout=120_000)


def test_names_merges_and_k_moved_while_a_full_run_goes_on_are_kept(page, monkeypatch):
    quick_run(page, 6)
    begin, recompute = Event(), gpu._recompute

    def late(*args):
        while not begin.wait(0.1):
            yield emerdiff.Progress("held back", 0, 1)
        return (yield from recompute(*args))

    monkeypatch.setattr(gpu, "_recompute", late)
    page.get_by_role("button", name="Recompute at this k").click()
    says(page, "Held back")
    for number in (1, 2):
        row(page, f"Segment {number}").click()
        page.get_by_text(f"Segment {number}: ").wait_for()
        page.get_by_label("Name", exact=True).fill(f"name {number}")
        page.get_by_role("button", name="Rename").click()
        row(page, f"name {number}").wait_for()
        row(page, f"name {number}").click()
        page.get_by_text("To rename, merge or hide segments").wait_for()  # none is chosen any longer
    for number in (3, 4):
        row(page, f"Segment {number}").click()
    page.get_by_text("Segment 3, Segment 4: ").wait_for()
    page.get_by_role("button", name="Merge").click()
    page.get_by_text("5 segments").wait_for()
    assert "k = 6" in page.locator("#summary").text_content()
    set_slider(page, "Segments (k)", 5)
    shows(page, "k = 5, timestep 41")
    begin.set()
    says(page, "The result for k = 6 is ready: set k to 6 to see it", timeout=60_000)
    assert page.get_by_label("number input for Segments (k)").input_value() == "5"
    assert "k = 5, timestep 41" in (words := page.locator("#summary").text_content()) and "Cut from 30" in words
    assert row(page, "name 1").is_visible() and row(page, "name 2").is_visible()
    set_slider(page, "Segments (k)", 6)
    page.wait_for_function("/k = 6, timestep 41/.test(document.querySelector('#summary').textContent)")
    assert "5 segments" in (words := page.locator("#summary").text_content()) and "Cut from 30" not in words
    assert row(page, "name 1").is_visible() and not row(page, "Segment 4").is_visible()


def test_an_example_that_is_chosen_while_a_run_goes_on_is_what_stays(page):
    begin_long_run(page)
    page.locator("#strip").get_by_role("radio").nth(0).click()
    own = f"k = {examples()[0].k}, timestep {examples()[0].settings.modulation_timestep}"
    shows(page, own)
    for _ in range(150):  # nobody waits for the run: it stops at its next step
        if not gpu.busy():
            break
        time.sleep(0.1)
    assert not gpu.busy()
    page.wait_for_timeout(500)
    assert own in page.locator("#summary").text_content()


def begin_long_run(page) -> None:
    ready(page)
    unfold(page)
    set_slider(page, "Timestep", 981)
    page.get_by_role("button", name="Run", exact=True).click()
    at_work(page).wait_for(timeout=60_000)


def test_a_stopped_run_keeps_its_sketch_which_k_cuts_and_says_so(page):
    begin_long_run(page)
    assert page.locator("#hint").is_hidden()  # what the controls say is on its way
    set_slider(page, "Segments (k)", 4)
    says(page, "Perturbing segments", timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    says(page, "Stopped.", timeout=20_000)
    assert page.get_by_role("button", name="Stop").is_disabled()
    page.locator("#summary").get_by_text(re.compile(r"A sketch: \d+ of 30 segments are known")).wait_for()
    for k in (4, 7):
        set_slider(page, "Segments (k)", k)
        shows(page, f"k = {k}, timestep 981")
        row(page, f"Segment {k - 1}").wait_for()
    page.locator("#hint").get_by_text("A run takes about").wait_for()


def test_an_example_that_is_stopped_shows_what_is_stored_and_says_how_to_see_more(page, monkeypatch, tmp_path):
    ready(page)
    monkeypatch.setattr(example_store, "CACHE", tmp_path)  # where its own result is not
    example, k = examples()[2], page.get_by_label("number input for Segments (k)")
    page.locator("#strip").get_by_role("radio").nth(2).click()
    at_work(page).wait_for(timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    says(page, "Stopped.", timeout=20_000)
    page.locator("#summary").get_by_text(f"{example.k} segments").wait_for()
    assert page.locator("#viewer canvas").count() == 2 and k.input_value() == str(example.k)
    set_slider(page, "Segments (k)", example.k + 3)
    says(page, "Press Run to see other numbers of segments.")
    expect(k).to_have_value(str(example.k))


def test_a_checkpoint_is_loaded_in_the_open_and_stop_does_not_wait_for_it(page, monkeypatch):
    end = Event()

    def load(name, **_):
        assert end.wait(60)
        raise ValueError(f"cannot load {name}")

    monkeypatch.setattr(emerdiff, "load", load)
    monkeypatch.setattr(runs, "is_installed", lambda _: True)
    ready(page)
    unfold(page)
    name = [*MODELS][1]
    page.get_by_label("Model").click()
    page.get_by_role("option", name=name).click()
    try:
        for last in (False, True):
            page.get_by_role("button", name="Run", exact=True).click()
            says(page, f"Loading {name}", timeout=30_000)
            if not last:
                page.get_by_role("button", name="Stop").click()
                says(page, "Stopped.", timeout=30_000)
    finally:
        end.set()
    page.get_by_text("Cannot load").wait_for()
    says(page, "This has failed")


def test_a_dropped_picture_is_segmented_at_once_only_where_that_is_soon_and_roughly_first(page, pictures, monkeypatch):
    ready(page)
    unfold(page)
    set_slider(page, "Timestep", 41)
    monkeypatch.setattr(running, "is_soon", lambda *_: False)
    dropped(page, pictures[0])
    page.get_by_text("Press Run to segment this picture").wait_for()
    page.locator("#hint").get_by_text("A run takes").wait_for()
    assert not gpu.busy() and not row(page, "Segment 1").is_visible()
    sketches, segment = [], pipeline("miniature").segment

    def noted(reading, **options):
        sketches.append((reading.settings.num_segments, reading.settings.replay_steps, len(reading.steps)))
        return (yield from segment(reading, **options))

    monkeypatch.setattr(running, "is_soon", lambda *_: True)
    monkeypatch.setattr(pipeline("miniature"), "segment", noted)
    dropped(page, pictures[1])
    shows(page, re.compile("k = .*, timestep 41"), timeout=60_000)
    assert sketches == [(examples()[0].k, 3, 3), (FINE, 3, 3)]  # t = 41, 21 and 1
    assert page.get_by_label("Fast").is_checked()
    page.get_by_role("button", name="Refine exactly").click()
    page.get_by_role("button", name="Refine exactly").wait_for(state="hidden", timeout=120_000)
    shows(page, re.compile("k = .*, timestep 41"), timeout=60_000)
    assert page.get_by_label("Exact").is_checked()


def dropped(page, picture) -> None:
    page.get_by_label("Your photo").set_input_files(picture)


def test_run_button_segments_with_the_sliders_and_settings_that_moved_are_said(page):
    ready(page)
    unfold(page)
    hint, defaults = page.locator("#hint"), page.get_by_role("button", name="Defaults for this picture")
    set_slider(page, "Perturbation strength", 3)
    hint.get_by_text("Settings changed: run to update").wait_for()
    defaults.click()
    hint.wait_for(state="hidden")
    assert page.get_by_label("number input for Perturbation strength").input_value() == "10"
    page.get_by_role("button", name="Defaults for this picture", disabled=True).wait_for()
    set_slider(page, "Segments (k)", 3)
    set_slider(page, "Timestep", 41)
    page.get_by_role("button", name="Run", exact=True).click()
    shows(page, "k = 3, timestep 41", timeout=120_000)
    assert "%" not in page.locator("#status").inner_text()


def settled(calls):
    """How many calls there are once none has come for 2 seconds."""
    while time.monotonic() - calls[-1] < 2:
        time.sleep(0.1)
    return len(calls)


LATE = """
  const fetched = window.fetch, text = new TextDecoder();
  const held = {async transform(chunk, to) {
    if (text.decode(chunk).includes('close_stream')) await new Promise((go) => setTimeout(go, 600));
    to.enqueue(chunk);
  }};
  window.fetch = async (...request) => {
    const answer = await fetched(...request), path = String(request[0].url ?? request[0]);
    if (!path.includes('/queue/data')) return answer;
    return new Response(answer.body.pipeThrough(new TransformStream(held)), {headers: answer.headers});
  };
"""
"""A network on which the page hears late that a stream of answers has ended."""


def test_what_is_asked_for_as_a_stream_of_answers_ends_is_not_lost(browser, url):
    page = browser.new_page()
    page.add_init_script(LATE)
    page.goto(url)
    ready(page)
    unfold(page)
    page.get_by_label("Preview").click()
    page.wait_for_timeout(1500)
    set_slider(page, "Timestep", 21)
    page.wait_for_timeout(300)  # the answer has come, and its stream has ended on the server only
    page.get_by_role("button", name="Run", exact=True).click()
    shows(page, "timestep 21", timeout=30_000)
    page.close()


def test_stop_button_and_a_closed_tab_stop_the_network(browser, url):
    pipe = pipeline("miniature")
    rows = sum(pipe.rows(pipe.settings(num_segments=FINE, modulation_timestep=981)))
    for stop in (lambda page: page.get_by_role("button", name="Stop").click(), lambda page: page.close()):
        page = browser.new_page()
        page.goto(url)
        calls, handle = network_calls()
        try:
            begin_long_run(page)
            stop(page)
            assert settled(calls) < rows / MOST_ROWS["cpu"] / 2  # of the calls that a whole run makes at least
        finally:
            handle.remove()
            page.close()


def test_who_has_to_wait_sees_the_new_picture_and_how_many_are_ahead(page, url, pictures, monkeypatch):
    monkeypatch.setattr(running, "is_soon", lambda *_: True)
    ready(page)
    other = Client(url, verbose=False).submit(
        handle_file(str(pictures[0])), **QUICK | {"modulation_timestep": 981, "num_segments": FINE}, api_name="/segment"
    )
    while not other.outputs():
        time.sleep(0.1)
    dropped(page, pictures[1])
    says(page, "Waiting, 1 ahead", timeout=10_000)
    page.get_by_text("The picture", exact=True).wait_for()
    assert not row(page, "Segment 1").is_visible()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Press Run to segment this picture").wait_for()
    says(page, "Stopped.")
    page.wait_for_timeout(500)
    says(page, "Stopped.", timeout=1000)  # what Stop has cancelled has not failed
    page.get_by_role("button", name="Run", exact=True).click()
    says(page, "Waiting, 1 ahead", timeout=10_000)
    other.cancel()
    at_work(page).wait_for(timeout=60_000)
    page.get_by_role("button", name="Stop").click()


def test_a_full_queue_is_told_and_the_server_goes_on(browser, pictures, url):
    demo = app.create_demo()
    with served(demo) as full:
        page = browser.new_page()
        page.goto(full)
        ready(page)
        demo._queue.max_size = 2  # as late as this, for a page that opens asks for more answers at once
        client, slow = Client(full, verbose=False), QUICK | {"modulation_timestep": 581}
        jobs = [client.submit(handle_file(str(pictures[0])), **slow, api_name="/segment") for _ in range(5)]
        while not (refused := [job.exception() for job in jobs if job.done()]):
            time.sleep(0.1)
        assert all(isinstance(error, QueueError) for error in refused)
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("currently busy").last.wait_for(timeout=10_000)
        for job in jobs:
            job.cancel()
        assert segment(Client(full, verbose=False), pictures[1])[1]["settings"]["num_segments"] == 6
        page.close()


def test_an_example_is_shown_at_once(page):
    page.locator("#strip").get_by_role("radio").nth(1).click()
    k = examples()[1].k
    shows(page, f"k = {k}, timestep", timeout=10_000)
    page.wait_for_function(f"document.querySelector('[aria-label=\"number input for Segments (k)\"]').value == '{k}'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(browser, url, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto(url)
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
