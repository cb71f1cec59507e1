"""The tab Score: EmerDiff and naive upsampling against a label picture."""

import gradio as gr

from . import pictures
from .page import LIGHT, Page
from .session import needed


def build(page: Page) -> None:
    with gr.Tab("Score"):
        gr.Markdown(
            "Compare the segments with a label picture of the same size: classes as numbers (an indexed or grey PNG; "
            "255 is void) or as colours. The drawn examples have one."
        )
        page.truth.render()
        judge = gr.Button("Score")
        scores = gr.Dataframe(
            headers=["", "mIoU, one to one", "mIoU, commonest class", "pixel accuracy", "boundary F"],
            interactive=False,
            label="Scores",
        )
        gr.Markdown(
            "*One to one*: each class gets at most one segment (Hungarian matching); the others count as wrong. "
            "*Commonest class*: each segment takes the class that most of its pixels have, also for pixel accuracy. "
            "*Boundary F*: precision and recall of the outlines, within 2 pixels."
        )

    def score(session, truth):
        size = needed(session).segmentation.original_size
        if not truth:
            raise ValueError(
                "choose a label picture first: the same size as the picture, with classes as numbers or colours"
            )
        return pictures.scores(session, pictures.truth_of(truth, size))

    judge.click(score, None, scores, inputs_kwargs={"session": page.session, "truth": page.truth}, **LIGHT)
