"""The status line: what the network does for this visitor, how long it will take, and Stop.

It stands above the result. `beside` shows the same line beside a button of a tab.
"""

from typing import TYPE_CHECKING

import gradio as gr

from .component import Component

if TYPE_CHECKING:
    from .page import Page

PRESS_RUN = "Press **Run** to segment this picture."
STOPPED = "Stopped."
FAILED = "This has failed, for the reason that was shown."
LINE = "<p class='said'></p><progress max='1' hidden></progress>"
STOP = "<button type='button' class='stop' disabled>Stop</button>"
TOLD = "<div class='told' role='status' aria-live='polite'></div>"


class Waiting(Component):
    """A status line, whose value is made by `said`; a text stands for itself. Its `stop` event is a click on Stop.

    A screen reader is told of stages and of quarters of the way, not of each step.
    """

    TEMPLATE = f"<div class='waiting'>{LINE}{STOP}</div>{TOLD}"
    SCRIPT = "waiting.js"

    def __init__(self, value: dict | str = "", **options) -> None:
        super().__init__(value, **options)

    def api_info(self) -> dict:
        return {"type": "object"}


def said(text: str, done: float | None = None, *, told: str = "") -> dict:
    """The value of a status line while there is something to stop: a text and how much is `done`, 0 to 1, if known.

    `told` is what a screen reader is told; by default the text.
    """
    return {"text": text, "done": done, "told": told or text}


def build(page: "Page") -> None:
    """The words on the result with Stop beside them; while there is a status, that has a line of its own above."""
    with gr.Row(elem_id="line"):
        page.words.render()
        page.status.render()


def beside(page: "Page") -> gr.HTML:  # noqa: ARG001  where it stands is all that matters
    """The same line once more, to be called where it is to stand: beside a button that starts work for the network.

    It follows `page.status` in the browser. A tab's events fill `page.status` alone: with what `gpu.watched` says
    while the network works, and with "" or a sentence when that has ended.
    """
    return gr.HTML(
        html_template=f"<div class='waiting'>{LINE}</div>",
        js_on_load="document.dispatchEvent(new Event('beside'));",
        apply_default_css=False,
        elem_classes="beside",
    )
