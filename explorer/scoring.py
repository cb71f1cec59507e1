"""The tab Score: EmerDiff and naive upsampling against a label picture."""

import gradio as gr

from . import pictures
from .page import LIGHT, Page
from .session import has_result, needed
from .varying import NO_RESULT


def build(page: Page) -> None:
    with gr.Tab("Score"):
        gr.Markdown(
            "Compare the segments with a label picture of the same size: classes as numbers (an indexed or grey PNG; "
            "255 is void) or as colours. The drawn examples have one."
        )
        page.truth.render()
        judge = gr.Button("Score", interactive=False)
        lacks = gr.Markdown()
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

    def begin(session, truth):
        """With another result or label picture."""
        there = has_result(session)
        said = NO_RESULT if not there else "" if truth else "Choose a label picture first."
        return {judge: gr.update(interactive=there and bool(truth)), lacks: said, scores: None}

    def score(session, truth):
        size = needed(session).segmentation.original_size
        if not truth:
            raise ValueError(
                "choose a label picture first: the same size as the picture, with classes as numbers or colours"
            )
        rows = pictures.scores(session, pictures.truth_of(truth, size))
        return gr.update(value=rows, label=f"Scores of {len(session.ids)} segments")

    judged = {"session": page.session, "truth": page.truth}
    changes = [page.made_of.change, page.truth.change]
    gr.on(changes, begin, None, [judge, lacks, scores], inputs_kwargs=judged, trigger_mode="always_last", **LIGHT)
    judge.click(score, None, scores, inputs_kwargs=judged, **LIGHT)
