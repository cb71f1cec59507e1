"""The viewer in a real browser: what it draws, lights up, chooses and lets through."""

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from emerdiff.drawing import boundaries, palette
from emerdiff.exporting import Legend
from explorer import component, viewer
from explorer.viewer import Pane, Viewer

SIDE = 60
LABELS = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % SIDE) // 20  # three vertical bands
ACROSS = LABELS.T.copy()
IDS = (0, 4, 7)
COLOURS = palette(3)
NAMES = ("sky <b>", "house", "lawn")


def pane(title, labels, *, ids=IDS, hidden=(), **changes):
    picture = np.full((SIDE, SIDE, 3), 200, np.uint8)
    legend = Legend(NAMES, COLOURS, frozenset(hidden))
    return Pane(title, f"picture of {title}", picture, labels, legend, ids, **changes)


@pytest.fixture(scope="module")
def page(browser):
    values = {
        "divider": viewer.shown([pane("left", LABELS), pane("right", ACROSS)], "name", "divider"),
        "row": viewer.shown(
            [pane("first", LABELS, hidden=[2]), pane("other", ACROSS, ids=None), pane("heat", LABELS, fill=0)], "name"
        ),
        "nothing": None,
    }
    with gr.Blocks() as demo:
        shown, picked = Viewer(values["divider"]), gr.JSON(elem_id="picked")
        kind = gr.Radio(list(values), value="divider", label="Kind")
        opacity, outlines = gr.Slider(0, 1, 1, label="Opacity"), gr.Checkbox(True, label="Outlines")
        chosen = gr.Textbox(label="Chosen")
        gr.HTML("<div style='height: 3000px'></div>")

        def tell(event: gr.SelectData):
            return {"index": event.index, "value": event.value}

        shown.select(tell, None, picked)
        kind.input(lambda kind: values[kind], kind, shown)
        gr.on([opacity.change, outlines.change], None, [opacity, outlines], None, js=viewer.LOOK)
        chosen.submit(None, chosen, None, js=f"(ids) => ({viewer.CHOOSE})(JSON.parse(ids))")
    css = (component.HERE / "viewer.css").read_text()
    _, address, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, css=css)
    page = browser.new_page(viewport={"width": 700, "height": 900})
    page.goto(address)
    page.locator(".viewer canvas").first.wait_for()
    yield page
    page.close()
    demo.close()


@pytest.fixture
def show(page):
    """Shows one of the values with opacity 1, outlines, and nothing chosen or under the pointer."""

    def shown(kind: str) -> None:
        page.mouse.move(1, 1)
        page.get_by_label(kind, exact=True).check()  # which may scroll
        page.evaluate("window.scrollTo(0, 0)")
        look(page, "opacity: 1, outlines: true, chosen: []")
        page.wait_for_function(f"document.querySelector('.viewer').dataset.layout == '{kind.replace('nothing', '')}'")

    return shown


def look(page, changes: str) -> None:
    page.evaluate(f"window.emerdiff.viewers.look({{{changes}}})")


def drawn(page, index: int) -> np.ndarray:
    """(H, W, 4) of a canvas."""
    script = """index => { const c = document.querySelectorAll('.viewer canvas')[index];
        return [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }"""
    height, width, *values = page.evaluate(script, index)
    return np.array(values, np.uint8).reshape(height, width, 4)


def at(page, x: float, y: float, index: int = 0) -> tuple[float, float]:
    """A point of a stage, as a share of its size, on the page."""
    box = page.locator(".viewer .stage").nth(index).bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def test_segments_are_drawn_with_their_colours_and_outlines(page, show):
    show("divider")
    for index, labels in enumerate((LABELS, ACROSS)):
        edges, pixels = boundaries(labels), drawn(page, index)
        assert (pixels[edges] == 255).all()
        np.testing.assert_array_equal(pixels[~edges][:, :3], COLOURS[labels][~edges])
    look(page, "outlines: false, opacity: 0.4")
    assert set(drawn(page, 0)[..., 3].ravel()) == {round(0.4 * 255)}


def test_opacity_and_outlines_need_no_server(page, show):
    show("divider")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_label("number input for Opacity").fill("0.2")
    page.get_by_label("number input for Opacity").press("Tab")
    page.get_by_label("Outlines").uncheck()
    page.wait_for_function("window.emerdiff.viewers.opacity == 0.2 && !window.emerdiff.viewers.outlines")
    assert set(drawn(page, 1)[..., 3].ravel()) == {51} and not asked
    page.get_by_label("Outlines").check()


def test_hidden_segments_are_not_drawn_and_a_fill_of_its_own_has_no_outlines(page, show):
    show("row")
    pixels = drawn(page, 0)
    assert not pixels[LABELS == 2].any() and (pixels[LABELS == 0][:, 3] == 255).all()
    assert not drawn(page, 2).any()


def test_what_is_under_the_pointer_is_named_and_lights_up_in_every_pane_that_has_it(page, show):
    show("row")
    before = [drawn(page, index) for index in range(3)]
    page.mouse.move(*at(page, 0.5, 0.5))
    chip = page.locator(".viewer .chip").first
    chip.wait_for()
    assert chip.inner_text() == "house · 33 %"
    changed = [(drawn(page, index) != before[index]).any() for index in range(3)]
    assert changed == [True, False, True]  # the second has segments of its own
    framed = drawn(page, 2)[30, :, 3]
    assert framed[18:22].all() and framed[38:42].all() and not framed[25:35].any()
    page.mouse.move(*at(page, 0.1, 0.5))
    page.wait_for_function("document.querySelector('.viewer .chip').textContent == 'sky <b> · 33 %'")  # as text


def test_a_click_chooses_and_all_but_the_chosen_are_dimmed(page, show):
    for kind, index, point, number in (("row", 0, (0.5, 0.5), 1), ("divider", 0, (0.9, 0.1), 0)):
        show(kind)
        page.mouse.click(*at(page, *point, index))
        said = f'"index":{IDS[number]},'
        page.wait_for_function(f"document.querySelector('#picked').innerText.replace(/\\s/g, '').includes('{said}')")
        look(page, f"chosen: [{IDS[number]}]")
        page.mouse.move(1, 1)
        page.wait_for_timeout(100)
        pixels = drawn(page, 0)
        inside = np.s_[10, 20 * number + 8 : 20 * number + 12]
        outside = np.s_[10, 20 * (number + 1) + 8 : 20 * (number + 1) + 12]
        np.testing.assert_array_equal(pixels[inside][:, :3], np.broadcast_to(COLOURS[number], (4, 3)))
        assert pixels[outside][:, :3].max() < 60 and (pixels[outside][:, 3] > 100).all()
        assert page.locator(".viewer .chip").first.inner_text().startswith(NAMES[number])


def test_the_divider_has_a_name_and_a_value_and_obeys_keys(page, show):
    show("divider")
    divider = page.get_by_role("slider", name="Divider: left on the left, right on the right")
    divider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert divider.get_attribute("aria-valuetext") == "left on 30 % of the width, then right"
    page.mouse.move(*at(page, 0.4, 0.1))  # right of the divider: the band on top
    page.wait_for_function("document.querySelector('.viewer .chip').textContent.startsWith('sky')")
    clip = page.locator(".viewer .layer").nth(1).evaluate("e => getComputedStyle(e).clipPath")
    assert clip == "inset(0px 0px 0px 30%)"


def test_wheel_and_vertical_swipes_move_the_page(page, show):
    show("divider")
    page.mouse.move(*at(page, 0.5, 0.5))
    page.mouse.wheel(0, 400)
    page.wait_for_function("window.scrollY > 100")
    page.evaluate("window.scrollTo(0, 0)")
    for part in (".stage", ".divider"):
        assert "pan-y" in page.locator(f".viewer {part}").first.evaluate("e => getComputedStyle(e).touchAction")


def test_pictures_can_be_saved_as_they_are_seen(page, show, tmp_path):
    show("row")
    page.mouse.move(0, 0)  # nothing is lit under the pointer
    with page.expect_download() as download:
        page.get_by_label("Save the picture").first.press("Enter")
    assert download.value.suggested_filename == "name_first.png"
    download.value.save_as(tmp_path / "a.png")
    saved = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert np.abs(saved[LABELS == 2] - 200).max() <= 2
    inside = (LABELS == 0) & ~boundaries(LABELS)
    assert np.abs(saved[inside] - COLOURS[0]).max() <= 2


def test_nothing_shows_nothing(page, show):
    show("nothing")
    assert page.locator(".viewer figure").count() == 0
    show("divider")
    assert page.locator(".viewer canvas").count() == 2


def test_a_divider_has_two_panes():
    for panes, layout in (([pane("a", LABELS)], "divider"), ([pane("a", LABELS)], "heap")):
        with pytest.raises(ValueError, match="divider needs two panes"):
            viewer.shown(panes, "name", layout)
