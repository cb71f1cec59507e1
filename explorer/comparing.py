"""EmerDiff beside naive upsampling: the views, and k."""

import gradio as gr

from . import pictures
from .page import LIGHT, Page
from .session import has_result


def build(page: Page) -> None:
    page.words.render()
    page.look["view"].render()
    page.slider.render()
    with gr.Row():
        page.left.render()
        page.right.render()
    with gr.Row():
        page.look["opacity"].render()
        page.look["outlines"].render()

    def cut(session, k, **shown):
        """k has moved."""
        return page.show(session.cut(k), **shown) if has_result(session) else gr.skip()

    def redraw(session, **look):
        return page.compare(pictures.layers(session), **look) if has_result(session) else gr.skip()

    session = {"session": page.session}
    page.k.input(
        cut, None, page.shows, inputs_kwargs={**session, "k": page.k, **page.shown}, trigger_mode="always_last", **LIGHT
    )
    for part in page.look.values():
        part.input(redraw, None, page.pair, inputs_kwargs=session | page.look, trigger_mode="always_last", **LIGHT)
