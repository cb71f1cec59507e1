"""The row of tiles by itself, in headless Chromium: your photo, and examples."""

import io
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from explorer.examples import examples
from explorer.folders import UPLOADS
from explorer.guard import Guarded
from explorer.look import LOOK
from explorer.strip import Strip

TITLES = ("House", "Sea & <b>sky</b>", "Tree")
FILES = """files => {
  const held = new DataTransfer();
  for (const [name, bytes] of files) held.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
  return held;
}"""


@pytest.fixture(scope="module")
def url():
    """A page of a row, what was chosen in it, and a text field. It refuses files of fewer than 100 bytes."""
    with Guarded() as demo:
        strip = Strip([replace(one, title=title) for one, title in zip(examples(), TITLES, strict=False)], 1)
        strip.props["megabytes"] = 1
        said = gr.Textbox(label="Said")
        gr.Textbox(label="Other")

        def choose(event: gr.SelectData):
            return event.index, f"{event.index} {event.value}"

        def take(path):
            if Path(path).stat().st_size < 100:
                raise ValueError("this is not a picture")
            return None, path

        strip.select(choose, None, [strip, said], trigger_mode="multiple")
        strip.upload(take, strip, [strip, said], trigger_mode="multiple")
    _, address, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, **LOOK)
    yield address
    demo.close()


@pytest.fixture
def page(browser, url):
    page = browser.new_page(viewport={"width": 390, "height": 700})
    page.goto(url)
    page.get_by_role("radio", name="House").wait_for()
    yield page
    page.close()


def png() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((40, 40), 60).save(stream, "PNG")
    return stream.getvalue()


def choose(page, name: str, content: bytes) -> None:
    page.get_by_label("Your photo").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def marked(page) -> list[str]:
    """What is shown by the page's own word."""
    return page.locator("[aria-checked=true], [aria-current=true]").evaluate_all(
        "them => them.map(it => it.ariaLabel || it.innerText.trim())"
    )


def said(page, text: str) -> None:
    has = "text => document.querySelector('textarea, input[type=text]')?.value.includes(text)"
    page.wait_for_function(has, arg=text)


def test_titles_are_text_and_the_one_that_is_shown_is_marked(page):
    assert page.get_by_role("radio").all_inner_texts() == list(TITLES)
    assert marked(page) == [TITLES[1]]
    page.get_by_role("radio", name="Tree").click()
    said(page, "2 Tree")
    assert marked(page) == ["Tree"]


def test_by_keyboard_the_examples_are_one_tab_stop_and_chosen_only_by_enter_or_space(page):
    focused = "document.activeElement.ariaLabel || document.activeElement.innerText.trim()"
    stops = []
    for _ in range(2):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(focused))
    assert stops == ["Your photo", TITLES[1]]
    for key, title in (("ArrowRight", "Tree"), ("ArrowRight", "House"), ("End", "Tree"), ("ArrowLeft", TITLES[1])):
        page.keyboard.press(key)
        assert page.evaluate(focused) == title
    assert marked(page) == [TITLES[1]]  # nothing is chosen yet
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    said(page, "0 House")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    said(page, "1 Sea")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") in ("TEXTAREA", "INPUT")  # past the other examples


def drop(page, held, target="body"):
    page.dispatch_event(target, "dragover", {"dataTransfer": held})
    assert page.get_by_text("Drop the picture anywhere").is_visible()
    page.dispatch_event(target, "drop", {"dataTransfer": held})
    assert page.get_by_text("Drop the picture anywhere").is_hidden()


def paste(page, held, target="body"):
    page.evaluate(
        """([held, target]) => document.querySelector(target).dispatchEvent(
            new ClipboardEvent("paste", {clipboardData: held, bubbles: true, cancelable: true}))""",
        [held, target],
    )


@pytest.mark.parametrize("way", ["chosen", "dropped", "pasted"])
def test_a_picture_is_sent_however_it_comes_and_is_what_the_page_then_shows(page, way):
    if way == "chosen":
        choose(page, "my cat.png", png())
    else:
        held = page.evaluate_handle(FILES, [["my cat.png", list(png())]])
        (drop if way == "dropped" else paste)(page, held, "textarea" if way == "dropped" else "body")
    said(page, "my cat.png")
    path = page.get_by_label("Said").input_value()
    assert Path(path).is_relative_to(UPLOADS) and Path(path).read_bytes()[:4] == b"\x89PNG"
    assert marked(page) == ["Your photo"]
    page.get_by_role("radio", name="House").click()
    said(page, "0 House")
    assert marked(page) == ["House"]


def test_what_is_refused_gets_a_sentence_and_leaves_the_mark_where_it_was(page):
    for _ in range(2):  # the same file can be tried again
        choose(page, "a.png", b"no picture")
        page.get_by_text("this is not a picture").first.wait_for()
        page.get_by_label("Close").first.click()
    choose(page, "b.png", bytes(2**20 + 1))
    page.get_by_text("b.png is too large: choose a picture of at most 1 MB").wait_for()
    assert page.get_by_label("Said").input_value() == "" and marked(page) == [TITLES[1]]
    choose(page, "c.png", png())
    said(page, "c.png")


def test_of_several_files_the_first_is_taken_and_that_is_said(page):
    drop(page, page.evaluate_handle(FILES, [["one.png", list(png())], ["two.png", list(png())]]))
    page.get_by_text("One picture at a time: this is one.png").wait_for()
    said(page, "one.png")


def test_text_that_is_dragged_or_pasted_is_left_alone(page):
    held, put = page.evaluate_handle("new DataTransfer()"), "held => held.setData('text/plain', 'word')"
    held.evaluate(put)
    page.dispatch_event("body", "dragover", {"dataTransfer": held})
    assert page.get_by_text("Drop the picture anywhere").is_hidden()
    both = page.evaluate_handle(FILES, [["cells.png", list(png())]])  # as a spreadsheet copies: text, and its picture
    both.evaluate(put)
    paste(page, both, "textarea, input[type=text]")
    page.wait_for_timeout(300)
    assert page.get_by_label("Said").input_value() == "" and marked(page) == [TITLES[1]]


def test_the_row_scrolls_on_a_phone_and_the_page_does_not(browser, url, page):
    page.set_viewport_size({"width": 300, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    row = page.locator(".tiles")
    assert row.evaluate("row => row.scrollWidth > row.clientWidth")
    page.get_by_role("radio", name="Tree").click()
    said(page, "2 Tree")
    assert row.evaluate("row => row.scrollLeft") > 0
