"""The tab Vary k: the paper's figure."""

import gradio as gr

from . import pictures
from .folders import new_folder
from .page import LIGHT, Page
from .session import has_result, needed

NO_RESULT = "There is no result yet: press Run, or choose an example."


def build(page: Page) -> None:
    with gr.Tab("Vary k"):
        draw = gr.Button("Draw one run in 5, 10, 15, 20 and 30 segments", interactive=False)
        lacks = gr.Markdown(NO_RESULT)
        figure = gr.Image(
            label="",
            format="png",
            show_label=False,
            interactive=False,
            alt_text="The picture in 5, 10, 15, 20 and 30 segments, side by side",
            buttons=["download", "fullscreen"],
        )
        files = gr.File(label="PNG and PDF", interactive=False, file_count="multiple")

    def begin(session):
        """With another result."""
        there = has_result(session)
        return {draw: gr.update(interactive=there), lacks: "" if there else NO_RESULT, figure: None, files: None}

    def draw_figure(session):
        plot, folder = pictures.figure(needed(session)), new_folder()
        drawn = [folder / f"{session.found.name}_over_k.{kind}" for kind in ("png", "pdf")]
        for file in drawn:
            plot.savefig(file, dpi=150)
        return {figure: str(drawn[0]), files: [str(file) for file in drawn]}

    page.made_of.change(begin, page.session, [draw, lacks, figure, files], trigger_mode="always_last", **LIGHT)
    draw.click(draw_figure, page.session, [figure, files], **LIGHT)
