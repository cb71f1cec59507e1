"""The tab Segments: their table, choosing them, and a visitor's edits."""

from collections.abc import Callable, Mapping, Sequence

import gradio as gr
from gradio.components import Component
from gradio.events import EventListener

from . import pictures
from .comparing import IN_BROWSER
from .guard import Kept
from .page import LIGHT, Chosen, Page
from .session import has_result, needed

TOGGLE = """(clicked, chosen) => [clicked === null ? chosen
  : chosen.includes(clicked) ? chosen.filter((i) => i !== clicked) : [...chosen, clicked]]"""
"""JavaScript: a click puts a segment among the chosen ones, or takes it out."""

ABLE = """(chosen, name) => {
  const able = (yes) => ({__type__: 'update', interactive: yes});
  const one = chosen.length === 1, named = Boolean(name?.trim()); // null while the field has not been shown
  const lacks = !chosen.length ? 'To rename, merge or hide segments, click them in a picture or in the table.'
    : !one ? 'To rename, choose one segment only.'
    : named ? 'To merge, choose a second segment.'
    : 'To rename the segment, type a name. To merge, choose a second segment.';
  return [able(one && named), able(chosen.length > 1), able(chosen.length > 0), lacks];
}"""
"""JavaScript: which of Rename, Merge and Hide can act, and what the others lack."""


def build(page: Page) -> None:
    with gr.Tab("Segments"), gr.Row():
        with gr.Column(scale=3, min_width=320):
            page.table.render()
        with gr.Column(scale=2, min_width=320):
            editing(page, page.session, page.chosen, page.undo, page.show, page.shows, {"view": page.view})
            choosing(page.session, page.chosen, page.viewer.select)
            choosing(page.session, page.chosen, page.table.select, of_row)


def editing(
    page: Page,
    session: Kept,
    chosen: Chosen,
    undo: gr.Button,
    show: Callable[..., dict],
    shows: Sequence[Component],
    view: Mapping[str, Component],
) -> None:
    """What can be done to chosen segments; `show(session, chosen=…, **view)` then fills what `shows` the session."""
    chosen.render()
    name = gr.Textbox(label="Name", max_length=80, placeholder="Enter renames the chosen segment")
    with gr.Row():
        rename, merge, hide = buttons = [
            gr.Button(label, size="sm", min_width=100, interactive=False)
            for label in ("Rename", "Merge", "Hide or show")
        ]
        undo.render()
    lacks = gr.Markdown()
    edits = (
        ([rename.click, name.submit], lambda session, chosen, name: session.rename(chosen, name)),
        ([merge.click], lambda session, chosen, _: session.merge(chosen)),
        ([hide.click], lambda session, chosen, _: session.hide(chosen)),
        ([undo.click], lambda session, *_: session.undo()),
    )
    known = {"session": session, "chosen": chosen, "name": name, **view}
    gr.on(
        [page.demo.load, chosen.change, name.change],
        None,
        [chosen, name],
        [*buttons, lacks],
        js=ABLE,
        **IN_BROWSER,
    )
    for triggers, change in edits:

        def edit(session, name, chosen, change=change, **view):
            return show(change(needed(session), chosen, name), chosen=chosen, **view)

        gr.on(triggers, edit, None, shows, inputs_kwargs=known, **LIGHT)


def of_row(event: gr.SelectData) -> int | None:
    """The id of the segment whose row of a table was clicked."""
    return pictures.segment_of_row(event.row_value)


def choosing(
    session: Kept,
    chosen: Chosen,
    select: EventListener,
    segment: Callable[[gr.SelectData], int | None] = lambda event: event.index,
) -> None:
    """A click on a `segment` chooses it. The browser notes that, as there may be other clicks by then."""
    clicked = gr.Number(visible=False, precision=0)

    def pick(session, event: gr.SelectData):
        return number if has_result(session) and (number := segment(event)) in session.ids else None

    picked = select(pick, session, clicked, trigger_mode="multiple", **LIGHT)
    picked.success(None, [clicked, chosen], chosen, js=TOGGLE, **IN_BROWSER)
