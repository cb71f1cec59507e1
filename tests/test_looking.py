"""The grid that one paints on and the pair of painted pictures, in a real browser and without the network."""

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from explorer import grid, pair
from explorer.look import LOOK

GRID, SIDE = (4, 6), (240, 160)  # (rows, columns), (width, height): cells of 40 x 40 pixels


@pytest.fixture(scope="module")
def address():
    with gr.Blocks() as demo:
        cells = grid.Grid(grid.shown(Image.new("RGB", SIDE, (255, 169, 14)), GRID, ""), elem_id="grid")
        brush = gr.Radio([1, 3, 5], value=3, label="Brush")
        strength = gr.Slider(-50, 50, 10, label="Strength")
        text, strokes = gr.Textbox(label="Cells"), gr.Number(0, elem_id="strokes")
        cells.input(None, cells, text, js=grid.CELLS)
        cells.input(lambda count: count + 1, strokes, strokes, trigger_mode="multiple")
        look = [text, brush, strength]
        gr.on([part.change for part in look], None, look, None, js=grid.LOOK)
        flat = np.full((*SIDE[::-1], 3), 100.0)
        both = pair.Pair(pair.shown(flat, (flat - 10, flat + 20), ("less", "more"), "name"), elem_id="pair")
        gr.Button("Nothing").click(lambda: None, None, both)
    _, address, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, **LOOK)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def shared(browser, address):
    page = browser.new_page(viewport={"width": 700, "height": 1200}, has_touch=True)
    page.goto(address)
    page.locator("#grid canvas").wait_for()
    page.locator("#pair .stage").wait_for()
    yield page
    page.close()


@pytest.fixture
def page(shared):
    """With a brush of one cell, and none chosen."""
    shared.get_by_label("1", exact=True).check()
    type_cells(shared, "")
    return shared


def type_cells(page, text: str) -> None:
    page.get_by_label("Cells", exact=True).fill(text)
    page.wait_for_function("text => window.emerdiff.grid.cells === text", arg=text)


def at(page, row: int, column: int) -> tuple[float, float]:
    """The middle of a cell."""
    box = page.locator("#grid canvas").bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / GRID[1], box["y"] + (row + 0.5) * box["height"] / GRID[0]


def stroke(page, *cells: tuple[int, int]) -> set[str]:
    """The cells that are chosen after the pointer has been drawn over some."""
    count = strokes(page)
    page.mouse.move(*at(page, *cells[0]))
    page.mouse.down()
    for cell in cells[1:]:
        page.mouse.move(*at(page, *cell))
    page.mouse.up()
    page.wait_for_function("count => document.querySelector('#strokes input').value != count", arg=count)
    assert strokes(page) == count + 1  # one event, however long the stroke
    return set(page.get_by_label("Cells", exact=True).input_value().split())


def strokes(page) -> int:
    return int(page.locator("#strokes input").input_value())


def test_a_stroke_paints_all_cells_on_its_way_and_erases_where_it_begins_on_one(page):
    assert stroke(page, (1, 0), (1, 4)) == {"1,0", "1,1", "1,2", "1,3", "1,4"}  # in one leap of the pointer
    assert stroke(page, (3, 5)) == {"1,0", "1,1", "1,2", "1,3", "1,4", "3,5"}
    assert stroke(page, (1, 1), (1, 3)) == {"1,0", "1,4", "3,5"}
    assert page.get_by_label("Cells", exact=True).input_value() == "1,0 1,4 3,5"  # in reading order


def test_a_wide_brush_stays_within_the_picture_and_typed_cells_count(page):
    type_cells(page, "3,5 99,99")
    page.get_by_label("3", exact=True).check()
    assert stroke(page, (0, 0)) >= {"0,0", "0,1", "1,0", "1,1", "3,5"}
    assert "-1" not in page.get_by_label("Cells", exact=True).input_value()


def test_a_finger_paints_too(page):
    page.touchscreen.tap(*at(page, 2, 2))
    page.wait_for_function("window.emerdiff.grid.cells == '2,2'")


def test_a_finger_may_scroll_the_page_and_what_it_began_to_paint_is_taken_back(page):
    type_cells(page, "0,0")
    count, (x, y) = strokes(page), at(page, 2, 1)
    page.evaluate(
        """([x, y]) => { const canvas = document.querySelector('#grid canvas');
        canvas.setPointerCapture = () => {};
        for (const [name, down] of [['pointerdown', 0], ['pointermove', 40], ['pointercancel', 40]])
          canvas.dispatchEvent(new PointerEvent(name, {clientX: x + down, clientY: y, pointerType: 'touch'})); }""",
        [x, y],
    )  # as a browser tells of a finger once it scrolls
    assert "pan-y" in page.locator("#grid canvas").evaluate("(canvas) => getComputedStyle(canvas).touchAction")
    assert stroke(page, (3, 3)) == {"0,0", "3,3"} and strokes(page) == count + 1


def test_chosen_cells_and_the_brush_are_seen_also_on_a_picture_of_their_colour(page):
    def pixels():
        return np.array(
            page.evaluate(
                """() => { const c = document.querySelector('#grid canvas');
                return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }"""
            )
        ).reshape(SIDE[1], SIDE[0], 4)[..., :3]

    page.mouse.move(1, 1)
    plain = pixels()
    page.mouse.move(*at(page, 1, 1))
    brush = pixels()
    changed = (np.abs(plain - brush).sum(2) > 90).nonzero()
    assert 35 <= changed[0].min() <= 42 and 78 <= changed[0].max() <= 85  # around the cell
    page.mouse.move(1, 1)
    type_cells(page, "1,1")
    chosen = pixels()
    assert chosen[60, 60].sum() > 1.8 * chosen[140, 140].sum()  # the rest is dark
    assert (chosen[40, 45:75] > 200).any() and (chosen[36:40, 45:75] < 60).all(2).any()  # white, and black around it


def shown_alone(page) -> str | None:
    return page.evaluate("document.querySelector('#pair .stage').dataset.alone ?? null")


def test_a_pair_begins_amplified_and_says_so(page):
    levels = """() => [...document.querySelectorAll('#pair img')].map((image) => {
      const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext('2d');
      context.drawImage(image, 0, 0);
      return context.getImageData(0, 0, 1, 1).data[0]; })"""
    page.wait_for_function("[...document.querySelectorAll('#pair img')].every((image) => image.complete)")
    assert page.evaluate(levels) == [50, 200]
    assert page.get_by_label("amplified × 5").is_checked()
    assert page.get_by_alt_text("more, its change amplified 5 times").is_visible()
    page.get_by_label("as it is").check()
    page.wait_for_function(f"JSON.stringify(({levels})()) == '[90,120]'")
    page.get_by_label("amplified × 5").check()
    divider = page.get_by_role("slider", name="less on the left, more on the right")
    divider.focus()
    divider.press("ArrowRight")
    assert divider.input_value() == "51" and "51 %" in divider.get_attribute("aria-valuetext")


def test_a_flicker_is_off_at_first_no_faster_than_twice_a_second_and_ends(page):
    button = page.get_by_role("button", name="Flicker")
    assert button.get_attribute("aria-pressed") == "false" and shown_alone(page) is None
    page.evaluate("""() => { window.changes = []; new MutationObserver(() => window.changes.push(performance.now()))
        .observe(document.querySelector('#pair .stage'), {attributes: true, attributeFilter: ['data-alone']}) }""")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    page.wait_for_function("window.changes.length > 3")
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and shown_alone(page) is None
    times = page.evaluate("window.changes")[:-1]
    assert (times[-1] - times[0]) / (len(times) - 1) >= 500


def test_who_prefers_less_motion_swaps_the_pictures_by_hand(browser, address):
    page = browser.new_page(reduced_motion="reduce")
    page.goto(address)
    button = page.get_by_role("button", name="Swap")
    seen = []
    for _ in range(3):
        button.click()
        seen.append(shown_alone(page))
    assert seen == ["0", "1", None]
    button.click()
    page.wait_for_timeout(800)
    assert shown_alone(page) == "0"
    page.close()


def test_a_pair_of_nothing_is_not_there(page):
    page.get_by_role("button", name="Nothing").click()
    page.locator("#pair .stage").wait_for(state="hidden")
