"""The page for everyone, in headless Chromium: contrast, names, keyboard, phone; light and dark."""

from contextlib import contextmanager
from dataclasses import dataclass

import gradio as gr
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from conftest import ready, row

import app
from explorer.asking import values_of
from explorer.examples import examples
from explorer.links import Link

PHONE = 390
RULES = {"target-size": {"enabled": True}}  # 24 x 24 pixels or as much room around it; not among axe's defaults
AXE = """rules => axe.run({resultTypes: ['violations'], rules}).then(({violations}) => violations
  .filter(({impact}) => ['serious', 'critical'].includes(impact))
  .flatMap(({id, nodes}) => nodes.map((node) => `${id}: ${node.html.slice(0, 200)} ${node.failureSummary}`)))"""
PLACEHOLDERS = """() => {
  const rgb = (text) => { const colour = new axe.commons.color.Color(); colour.parseString(text); return colour; };
  axe.setup(document);
  const found = [...document.querySelectorAll('[placeholder]')].filter((e) => e.placeholder && e.checkVisibility())
    .map((e) => [e.placeholder, axe.commons.color.getContrast(
      axe.commons.color.getBackgroundColor(e), rgb(getComputedStyle(e, '::placeholder').color))]);
  axe.teardown();
  return found;
}"""
WITHOUT_RING = """() => {
  const look = (e) => [e, e.closest('label, .tile, #model'), e.nextElementSibling].filter(Boolean)
    .map((e) => { const s = getComputedStyle(e); return s.outline + s.boxShadow; }).join();
  const reached = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
    .filter((e) => e.tabIndex >= 0 && !e.disabled && e.checkVisibility({visibilityProperty: true}));
  return reached.filter((e) => {
    const before = look(e);
    e.focus();
    const same = document.activeElement === e && look(e) === before;
    e.blur();
    return same;
  }).map((e) => e.outerHTML.slice(0, 200));
}"""
RADIO_NAMES = """() => [...document.querySelectorAll('fieldset:has([type=radio])')]
  .map((group) => [...group.querySelectorAll('[type=radio]')].map((choice) => choice.name))"""
OPEN_TAB = """name => [...document.querySelectorAll('[role=tab], .overflow-dropdown button')]
  .find((e) => e.textContent.trim() === name && !e.closest('.visually-hidden')).click()"""
SCROLLS_SIDEWAYS = """() => [...document.querySelectorAll('body, body *')]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.checkVisibility() && !e.closest('.tiles'))
  .filter((e) => e === document.body || /auto|scroll/.test(getComputedStyle(e).overflowX))
  .map((e) => e.outerHTML.slice(0, 200))"""


@dataclass(frozen=True)
class Served:
    url: str
    """Of a result that is made in seconds, and found again by who comes next."""
    tabs: list[str]


@contextmanager
def page_of_first_example():
    """The page on a server, at an address that asks for a preview of the first example."""
    first = examples()[0]
    link = Link(model="miniature", k=first.k, preset="preview", example=first.name, **values_of(first.settings))
    demo = app.create_demo()
    _, address, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, **app.LOOK)
    tabs = [block.label for block in demo.blocks.values() if isinstance(block, gr.Tab)]
    yield Served(f"{address}?{link.query}", tabs)
    demo.close()


@pytest.fixture(scope="module")
def served():
    with page_of_first_example() as page:
        yield page


def opened(browser, served, scheme: str, width: int):
    """The page with a result, one segment of which is chosen."""
    size = {"width": width, "height": 800 if width == PHONE else 1000}
    page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page.goto(served.url)
    ready(page)
    row(page, "Segment 1").click()
    page.get_by_text("Segment 1: ").first.wait_for()
    page.evaluate(AXE_SCRIPT)
    return page


@pytest.fixture(scope="module", params=["light", "dark"])
def wide(request, browser, served):
    page = opened(browser, served, request.param, 1320)
    yield page
    page.close()


@pytest.fixture(scope="module", params=["light", "dark"])
def phone(request, browser, served):
    page = opened(browser, served, request.param, PHONE)
    yield page
    page.close()


def open_tab(page, name: str) -> str:
    """The text of the tab's panel. gradio has each tab once more, to measure it, or in a menu where room is short."""
    page.evaluate(OPEN_TAB, name)
    page.wait_for_timeout(100)
    return "".join(page.locator("[role=tabpanel]").filter(visible=True).all_inner_texts())


def each_tab(page, served):
    """Opens one tab after the other."""
    seen = set()
    for name in served.tabs:
        seen.add(open_tab(page, name))
        yield name
    assert len(seen) == len(served.tabs)


def faults(page, served, script: str, *arguments) -> dict[str, list[str]]:
    """What a script finds with each of the tabs open; tabs without faults are left out."""
    found = {name: page.evaluate(script, *arguments) for name in each_tab(page, served)}
    return {name: what for name, what in found.items() if what}


def test_axe_finds_nothing_serious_on_a_wide_screen(wide, served):
    assert not faults(wide, served, AXE, RULES)


def test_axe_finds_nothing_serious_on_a_phone(phone, served):
    assert not faults(phone, served, AXE, RULES)


def test_placeholders_can_be_read(wide, served):
    found = [placeholder for name in each_tab(wide, served) for placeholder in wide.evaluate(PLACEHOLDERS)]
    assert found
    assert not [(text, ratio) for text, ratio in found if ratio < 4.5]


def test_the_keyboard_reaches_run_soon_and_its_place_is_always_seen(wide, served):
    wide.evaluate("() => {document.activeElement.blur(); window.scrollTo(0, 0)}")
    wide.locator("h1").click()
    reached = []
    while "Run" not in reached:
        wide.keyboard.press("Tab")
        reached.append(wide.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel"))
        assert len(reached) <= 12, reached
    assert not faults(wide, served, WITHOUT_RING)


def test_choices_are_one_tab_stop_and_arrow_keys_go_through_them(wide):
    groups = wide.evaluate(RADIO_NAMES)
    assert groups
    assert all(len(names) > 1 and len(set(names)) == 1 for names in groups)
    views = wide.locator("#views input")
    views.first.focus()
    for key, chosen in (("ArrowRight", 1), ("ArrowLeft", 0)):
        wide.keyboard.press(key)
        wide.wait_for_function("i => document.querySelectorAll('#views input')[i].checked", arg=chosen)
        wide.wait_for_timeout(300)  # the names are set again after each change


def test_the_page_says_what_it_is(wide):
    assert wide.title() == "EmerDiff Explorer"
    assert wide.evaluate("document.documentElement.lang") == "en"
    assert wide.get_by_role("heading", level=1).all_inner_texts() == ["EmerDiff Explorer"]
    assert wide.get_by_role("main").count() == 1


def test_nothing_moves_for_who_wants_that(wide):
    moving = "[...document.querySelectorAll('*')].filter(e => parseFloat(getComputedStyle(e).transitionDuration) > .01)"
    assert wide.evaluate(f"{moving}.length") == 0


def test_of_several_messages_the_newest_is_shown(wide, tmp_path):
    messages = wide.locator(".toast-message-text")
    for count, name in enumerate(("first.png", "second.png"), 1):
        (tmp_path / name).write_bytes(b"no picture")
        wide.locator("#strip input[type=file]").set_input_files(tmp_path / name)
        wide.wait_for_function(f"document.querySelectorAll('.toast-message-text').length == {count}")
    assert messages.filter(visible=True).count() == 1
    assert messages.last.is_visible()


def test_a_phones_first_screen_holds_what_matters(phone):
    phone.evaluate("window.scrollTo(0, 0)")
    boxes = {name: phone.locator(name).bounding_box() for name in ("#intro p", "#strip", "#viewer", "#k", "#views")}
    tops = [box["y"] for box in boxes.values()]
    assert tops == sorted(tops)
    assert boxes["#intro p"]["height"] < 30  # one line
    assert boxes["#strip"]["height"] < 130  # one row
    assert boxes["#k"]["y"] + boxes["#k"]["height"] <= 800


def test_on_a_phone_only_the_examples_scroll_sideways(phone, served):
    open_tab(phone, "Segments")
    phone.get_by_label("Name", exact=True).fill("W" * 80)
    phone.get_by_role("button", name="Rename").click()
    row(phone, "W" * 80).wait_for()
    assert not faults(phone, served, SCROLLS_SIDEWAYS)


def test_the_model_and_the_list_of_models_stay_within_a_phones_screen(phone):
    for width in (320, PHONE):
        phone.set_viewport_size({"width": width, "height": 800})
        phone.evaluate("() => {document.activeElement.blur(); window.scrollTo(0, 0)}")  # the list opens with the focus
        phone.locator("#model .options").wait_for(state="detached")
        phone.get_by_label("Model", exact=True).click()
        for part in ("#model", "#model .options"):
            box = phone.locator(part).bounding_box()
            assert box["x"] >= 11.5 and box["x"] + box["width"] <= width - 11.5, (part, width, box)
