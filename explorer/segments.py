"""The tab Segments: their table, choosing them, what shows that they are segments, and a visitor's edits."""

import gradio as gr
import numpy as np

from . import gpu, pictures
from .page import LIGHT, NETWORK, Page, picture_output
from .pictures import save
from .session import has_result, needed

HIDDEN = gr.update(visible=False)


def build(page: Page) -> None:
    session, chosen = page.session, page.chosen
    with gr.Tab("Segments"), gr.Row():
        with gr.Column(scale=2, min_width=320):
            page.table.render()
        with gr.Column(scale=3, min_width=320):
            chosen.render()
            with gr.Row():
                name = gr.Textbox(label="Name", max_length=80, scale=2, min_width=140)
                rename = gr.Button("Rename", size="sm", min_width=80)
                merge = gr.Button("Merge", size="sm", min_width=80)
                hide = gr.Button("Hide or show", size="sm", min_width=100)
                page.undo.render()
            facts = gr.Markdown(pictures.CHOOSE)
            with gr.Row():
                cells = picture_output(
                    "Coarse cells",
                    "The picture with the grid of coarse cells; the segment's cells are orange",
                    visible=False,
                )
                difference = picture_output(
                    "Difference map",
                    "How much perturbing the segment changes each pixel: bright is much",
                    visible=False,
                )
            with gr.Row():
                minus = picture_output(
                    "I⁻: perturbed by −strength",
                    "The picture painted again with the segment perturbed by minus the strength",
                    visible=False,
                )
                plus = picture_output(
                    "I⁺: perturbed by +strength",
                    "The picture painted again with the segment perturbed by plus the strength",
                    visible=False,
                )
            paint = gr.Button("Paint the two perturbed pictures")

    def pick(session, chosen, event: gr.SelectData):
        """A click on a picture puts a segment among the chosen ones, or takes it out."""
        return toggled(chosen, event.index) if has_result(session) and event.index in session.ids else gr.skip()

    def pick_row(session, chosen, event: gr.SelectData):
        """A click on a row of the table, in whatever order it has been sorted."""
        clicked = pictures.segment_of_row(event.row_value)
        return toggled(chosen, clicked) if has_result(session) and clicked in session.ids else gr.skip()

    def evidence(session, chosen):
        """What is known of the chosen segments without the network."""
        if not has_result(session) or not chosen:
            return dict.fromkeys((cells, difference, minus, plus), HIDDEN) | {facts: pictures.CHOOSE}
        found = session.found
        drawn = {
            cells: save(pictures.cells(session, session.cells_of(chosen)), f"{found.name}_cells"),
            difference: save(pictures.difference(session, chosen), f"{found.name}_difference"),
        }
        shown = {picture: gr.update(value=file, visible=True) for picture, file in drawn.items()}
        return {facts: pictures.facts(session, chosen), **shown, minus: HIDDEN, plus: HIDDEN}

    def perturbed(session, chosen):
        """The two perturbed pictures of the chosen segments."""
        if not needed(session) or not chosen:
            raise ValueError("choose a segment first")
        strength = session.made_of.settings.strength * session.cells_of(chosen)
        work = gpu.paint(session, np.stack([-strength, strength]))
        painted = yield from gpu.watched(work, lambda said, _: {page.status: said})
        files = pictures.save_painted(session, painted, ("minus", "plus"))
        shown = (gr.update(value=file, visible=True) for file in files)
        yield {page.status: "", **dict(zip((minus, plus), shown, strict=True))}

    edits = {
        rename: lambda session, chosen, name: session.rename(chosen, name),
        merge: lambda session, chosen, _: session.merge(chosen),
        hide: lambda session, chosen, _: session.hide(chosen),
        page.undo: lambda session, *_: session.undo(),
    }
    choice = {"session": session, "chosen": chosen}
    page.viewer.select(pick, None, chosen, inputs_kwargs=choice, trigger_mode="multiple", **LIGHT)
    page.table.select(pick_row, None, chosen, inputs_kwargs=choice, trigger_mode="multiple", **LIGHT)
    chosen.change(evidence, None, [facts, cells, difference, minus, plus], inputs_kwargs=choice, **LIGHT)
    page.at_work(paint.click(perturbed, None, [page.status, minus, plus], inputs_kwargs=choice, **NETWORK))
    for button, change in edits.items():

        def edit(session, name, chosen, view, change=change):
            return page.show(change(needed(session), chosen, name), view, chosen)

        button.click(edit, None, page.shows, inputs_kwargs={**choice, "name": name, "view": page.view}, **LIGHT)


def toggled(chosen: list[int], clicked: int) -> list[int]:
    return [i for i in chosen if i != clicked] if clicked in chosen else [*chosen, clicked]
