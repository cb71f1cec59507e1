"""What turns looking into finding: granularity, and what is alike; as functions, and on the page."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ready, set_slider
from PIL import Image
from test_visitors import session

import app
import emerdiff
from emerdiff.alike import cell_at
from explorer import alike, pictures
from explorer.asking import values_of
from explorer.examples import examples
from explorer.granularity import AUTOMATIC, COARSEST, FINEST, STEP, Tree
from explorer.links import Link
from explorer.viewer import Place

POSITIONS = np.arange(COARSEST, FINEST + STEP, STEP).round(1)


@pytest.fixture(scope="module")
def found():
    """30 segments of 64 cells."""
    one, generator = session().found, np.random.default_rng(0)
    segmentation = replace(
        one.segmentation,
        coarse_labels=(generator.permutation(64).reshape(8, 8) % 30).astype(np.int32),
        features=generator.gamma(1, size=(8, 8, 5)).astype(np.float32),
        responses=generator.random((30, 3, 32, 32)).astype(np.float16),
        settings=replace(one.segmentation.settings, num_segments=30),
    )
    return replace(one, segmentation=segmentation, shown=Image.new("RGB", (160, 160)))


# --- Granularity


@pytest.mark.parametrize("height", [None, 0.5])
def test_a_position_gives_as_many_segments_as_the_package_says(found, height):
    one = replace(found.segmentation, settings=replace(found.segmentation.settings, merge_height=height))
    for fine in ((one,), (one, replace(one, features=one.features[::-1] + 3))):
        tree = Tree.of(*fine)
        numbers = [tree.number(position) for position in POSITIONS]
        assert numbers == [emerdiff.granular(*fine, granularity=2.0**position) for position in POSITIONS]
        assert numbers == sorted(numbers) and 2 <= numbers[0] < numbers[-1] <= tree.most == 30


def test_each_number_has_a_position_that_gives_it_back_as_nearly_as_the_slider_can(found):
    tree = found.tree
    for k in range(2, 31):
        position = tree.position(k)
        assert COARSEST <= position <= FINEST and position in POSITIONS
        assert tree.number(position - STEP) <= k <= tree.number(position + STEP) or position in (COARSEST, FINEST)
    assert tree.position(tree.number(AUTOMATIC)) == pytest.approx(AUTOMATIC, abs=0.5)


# --- What is alike


def test_a_click_is_at_the_cell_of_the_pixels_own_segment(found):
    for x, y in ((0.01, 0.01), (0.5, 0.3), (0.99, 0.99)):
        at = int(y * 160), int(x * 160)
        expected = cell_at(found.labels, found.segmentation.coarse_labels, *at)
        assert alike.spot_at([found, found], [1, x, y]) == (1, *expected)


@pytest.mark.parametrize(
    "sent", [None, 3, [0], [2, 0.5, 0.5], [-1, 0.5, 0.5], [0, 1.0, 0], [0, 0, float("nan")], [0.0, 0, 0], [True, 0, 0]]
)
def test_what_is_no_place_of_the_viewer_is_refused(sent):
    with pytest.raises(ValueError, match="a place must be a pane from 0 to 1 and two shares from 0 to 1"):
        Place.of(sent, 2)


@pytest.mark.parametrize("text", ["", "1", "8,0", "0,8", "1,2,3", "a,b", "-1,0", None])
def test_what_is_no_cell_is_refused_and_what_is_one_is_read(text):
    with pytest.raises(ValueError, match="a row from 0 to 7 and a column from 0 to 7"):
        alike.cell_of(text, (8, 8))
    assert alike.cell_of(alike.written((0, 7, 0)), (8, 8)) == (7, 0)


def test_the_map_has_the_edges_of_the_masks_and_the_brightest_place_under_the_mark(found):
    spot = alike.interesting(found)
    assert found.segmentation.coarse_labels[spot[1:]] == pictures.interesting(found.segmentation)
    (pane,) = alike.panes([found], spot, ["title"])
    marked = np.asarray(pane.picture).astype(int)
    other = alike.panes([found, found], spot, "ab")[1]  # where the mark is not
    heat = np.asarray(other.picture).astype(int).sum(-1)
    own = found.labels == found.segmentation.coarse_labels[spot[1:]]
    assert heat[own].mean() > heat[~own].mean() and (marked != np.asarray(other.picture)).any()


def test_a_ring_marks_the_place_and_leaves_the_rest_of_the_picture(found):
    large = Image.new("RGB", (800, 400), (90, 120, 90))
    changed = (np.asarray(alike.marked(large, found, (0, 2, 5))) != np.asarray(large)).any(-1)
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 125) < 1 and abs(columns.mean() - 550) < 1 and np.ptp(rows) < 60
    assert not changed[125, 550]  # what is marked stays to be seen


# --- On the page


@pytest.fixture(scope="module")
def url():
    first = examples()[0]
    link = Link(model="miniature", k=first.k, preset="preview", example=first.name, **values_of(first.settings))
    demo = app.create_demo()
    _, address, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, **app.LOOK)
    yield f"{address}?{link.query}"
    demo.close()


@pytest.fixture(scope="module")
def page(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(url)
    ready(page)
    yield page
    page.close()


def number(page, label: str):
    return page.get_by_label(f"number input for {label}")


def waits(page, label: str, is_so: str) -> None:
    """Until `is_so` of a slider's number."""
    box = f"[aria-label='number input for {label}']"
    page.wait_for_function(f"() => {{ const v = +document.querySelector(\"{box}\").value; return {is_so} }}")


def test_granularity_and_k_follow_each_other_and_auto_lets_the_picture_decide(page):
    set_slider(page, "Granularity", FINEST)
    waits(page, "Segments (k)", "v == 30")
    set_slider(page, "Granularity", COARSEST)
    waits(page, "Segments (k)", "v < 6")
    assert float(number(page, "Granularity").input_value()) == COARSEST  # it stays where it was put
    set_slider(page, "Segments (k)", 29)
    waits(page, "Granularity", "v > 0")
    page.get_by_role("button", name="Auto", exact=True).click()
    waits(page, "Granularity", "v == 0")
    waits(page, "Segments (k)", "v > 5 && v < 29")
    page.wait_for_function(f"() => location.search.includes('k=' + {number(page, 'Segments (k)').input_value()})")


def test_a_click_and_a_typed_cell_show_what_is_alike(page):
    page.get_by_role("tab", name="Alike").click()
    heat, cell = page.locator("#alike img").last, page.get_by_label("Cell (row,column)")
    heat.wait_for()
    for act in (
        lambda: page.locator("#alike .stage").last.click(position={"x": 9, "y": 9}),
        lambda: (cell.fill("15,15"), cell.press("Enter")),
    ):
        before = heat.get_attribute("src")
        act()
        page.wait_for_function("src => [...document.querySelectorAll('#alike img')].at(-1).src != src", arg=before)
    assert cell.input_value() == "15,15"
