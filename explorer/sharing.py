"""The tab Export and share: a zip of everything, and a link that restores what is shown."""

import os
from pathlib import Path

import gradio as gr

from emerdiff.exporting import export
from emerdiff.picture import open_picture

from . import links
from .asking import VALUES
from .examples import example_of
from .folders import new_folder
from .page import LIGHT, Page
from .session import Session, needed

COPY = "(link) => {navigator.clipboard?.writeText(link); return link}"


def build(page: Page) -> None:
    with gr.Tab("Export and share"), gr.Row():
        with gr.Column(min_width=320):
            gr.Markdown(
                "A zip of the label PNG at the picture's size, an overlay, a transparent cut-out of each segment, COCO "
                "JSON, labels and confidence as NPZ, and the settings to reproduce it."
            )
            pack = gr.Button("Make the zip")
            file = gr.File(label="Zip", interactive=False, elem_id="zip")
        with gr.Column(min_width=320):
            gr.Markdown(
                "A link that opens this picture with these settings, *k* and view. It does not include names, merges "
                "or hidden segments."
            )
            copy = gr.Button("Copy link")
            url = gr.Textbox(label="Link", interactive=False, buttons=["copy"], elem_id="link")
            note = gr.Markdown()

    def share(session, view, request: gr.Request):
        link = link_of(needed(session), view)
        space = os.environ.get("SPACE_ID")
        base = f"https://huggingface.co/spaces/{space}" if space else str(request.request.base_url).rstrip("/") + "/"
        kept = f"The picture is kept on this server for {links.KEPT_HOURS} hours, or until it restarts."
        return {url: f"{base}?{link.query}", note: kept if link.picture else "This link does not expire."}

    pack.click(zipped, page.session, file, **LIGHT)
    shared = {"session": page.session, "view": page.view}
    copy.click(share, None, [url, note], inputs_kwargs=shared, **LIGHT).success(None, url, None, js=COPY)


def zipped(session: Session) -> str:
    """The file of a session's zip."""
    found, file = needed(session).found, new_folder() / f"{session.found.name}_emerdiff.zip"
    run = {"preset": found.preset, "cut_from": found.segmentation.settings.num_segments}
    picture = open_picture(found.source)
    export(session.segmentation, session.legend, picture, file, run=run, name=Path(found.source).name)
    return str(file)


def link_of(session: Session, view: str) -> links.Link:
    made_of, settings = session.made_of, session.made_of.settings
    example = example_of(made_of.source)
    return links.Link(
        model=made_of.model,
        k=session.k,
        preset=made_of.preset,
        view=view,
        full=session.is_exact,
        example=example and example.name,
        picture=None if example else links.keep(open_picture(made_of.source)),
        name=None if example else session.found.name,
        **{name: getattr(settings, name) for name in VALUES},
    )
