"""EmerDiff beside naive upsampling: the views, and k."""

import gradio as gr

from . import pictures, viewer
from .examples import examples
from .granularity import AUTOMATIC, Tree
from .page import LIGHT, Page
from .session import has_result

OTHERS = "Press Run to see other numbers of segments."
IN_BROWSER = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
HAS = """(view) => [view === 'confidence', ['slider', 'side by side', 'masks'].includes(view)].map(
  (visible) => ({__type__: 'update', visible}))"""
"""JavaScript: whether a view has a colour bar, and whether its segments can be seen through and outlined."""


def build(page: Page) -> None:
    page.viewer.render()
    page.view.render()
    bar = gr.HTML(pictures.colour_bar(100, "per cent sure"), visible=False)
    with gr.Row() as look_of_segments:
        page.opacity.render()
        page.outlines.render()

    def cut(asked, to_run, session, k, **shown):
        """k has moved. Of a run that goes on, what it has found so far follows; a stored result has its own k only."""
        if asked:
            asked.so_far.k = k
            if sketch := asked.so_far.layers():
                return {page.viewer: pictures.view_of(sketch, shown["view"])}
        if has_result(session):
            return page.show(session.cut(k), **shown)
        if asked and asked.example is not None and (asked is not to_run or asked.stopped.is_set()):
            return {page.k: examples()[asked.example].k, page.granularity: AUTOMATIC, page.status: OTHERS}
        return gr.skip()

    def cut_at(asked, to_run, session, k, granularity, **shown):
        """The granularity has moved, and k follows."""
        if asked and (sketch := asked.so_far.sketch):
            number = Tree.of(sketch).number(granularity)
        elif has_result(session):
            number = session.found.tree.number(granularity)
        else:
            return cut(asked, to_run, session, k, **shown)
        stays = {page.granularity: granularity}
        return stays if number == k else {page.k: number, **cut(asked, to_run, session, number, **shown), **stays}

    def cut_automatically(**known):
        return cut_at(granularity=AUTOMATIC, **known)

    def redraw(asked, session, view):
        if asked and (sketch := asked.so_far.layers()):
            return pictures.view_of(sketch, view)
        return pictures.view_of(pictures.layers(session), view) if has_result(session) else gr.skip()

    session, latest = {"asked": page.asked, "session": page.session}, {"trigger_mode": "always_last", **LIGHT}
    moved = session | {"to_run": page.to_run, "k": page.k, **page.shown}
    grain, outputs = moved | {"granularity": page.granularity}, [page.k, page.status, *page.shows]
    page.k.input(cut, None, outputs, inputs_kwargs=moved, **latest)
    page.granularity.input(cut_at, None, outputs, inputs_kwargs=grain, **latest)
    page.automatic.click(cut_automatically, None, outputs, inputs_kwargs=moved, **latest)
    page.view.input(redraw, None, page.viewer, inputs_kwargs=session | {"view": page.view}, **latest)
    page.view.change(None, page.view, [bar, look_of_segments], js=HAS, **IN_BROWSER)
    look = [page.opacity, page.outlines]
    gr.on([part.change for part in look], None, look, None, js=viewer.LOOK, **IN_BROWSER)
    page.chosen.change(None, page.chosen, None, js=viewer.CHOOSE, **IN_BROWSER)
