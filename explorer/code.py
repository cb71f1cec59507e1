"""The tab Code: what is shown, as Python, and the page as a service."""

import gradio as gr

from emerdiff.loading import AUTOMATIC, MINIATURE

from . import runs
from .asking import VALUES
from .page import LIGHT, Page
from .session import Gone, Session

CLIENT = """from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # or a Space's name
labels, summary = client.predict(handle_file("picture.jpg"), num_segments=30, api_name="/segment")
labels, summary = client.predict(8, api_name="/rescale_k")  # from the same run
summary = client.predict("sky, tree, house, road, car", api_name="/name")
unperturbed, perturbed = client.predict("7,7 7,8 8,7", 10, api_name="/probe")
zip_file = client.predict(api_name="/export")
"""


def build(page: Page) -> None:
    with gr.Tab("Code"):
        python = gr.Code(language="python", label="What is shown, in Python", interactive=False, wrap_lines=True)
        gr.Code(CLIENT, language="python", label="This page as a service", interactive=False, wrap_lines=True)
    page.session.change(code, page.session, python, **LIGHT)


def code(session: Session | Gone | None) -> str:
    """The settings that are shown, as Python."""
    if not isinstance(session, Session):
        return ""
    made_of, settings = session.made_of, session.made_of.settings
    own = runs.own_settings(runs.label_of(made_of.model))
    names = (*VALUES[:-1], "image_area")
    changed = {n: getattr(settings, n) for n in names if getattr(settings, n) != getattr(own, n)}
    words = "".join(f", {n}={value!r}" for n, value in changed.items())
    preset = "" if made_of.preset == "exact" else f", preset={made_of.preset!r}"
    small = "" if made_of.model == MINIATURE else f", autoencoder={AUTOMATIC!r}"
    segments = session.k if session.is_exact else settings.num_segments
    lines = [
        "import emerdiff",
        "",
        f"pipe = emerdiff.load({made_of.model!r}{small})",
        f"segmentation = pipe('picture.jpg', pipe.settings(num_segments={segments}{preset}{words}))",
    ]
    if not session.is_exact:
        lines.append(f"segmentation = emerdiff.recut(segmentation, {session.k})")
    return "\n".join([*lines, "print(segmentation.labels_at_original_size)"])
