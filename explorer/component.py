"""What the page's own components share: HTML that a script of ours draws, and how pictures travel to it."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import gradio as gr
from PIL import Image

HERE = Path(__file__).parent


class Component(gr.HTML):
    """HTML of a `TEMPLATE`, which a `SCRIPT` beside this file draws from the value; look.py finds the style sheets."""

    is_template = True
    TEMPLATE: str
    SCRIPT: str

    def __init__(self, value: object = None, **options) -> None:
        script = (HERE / self.SCRIPT).read_text()
        own = {"html_template": self.TEMPLATE, "js_on_load": script, "apply_default_css": False}
        super().__init__(value, **own, **options)


def file_of(path: str | Path) -> dict:
    """A file as gradio sends it: the same content has the same address, which a browser knows already."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def data_url(picture: Image.Image, kind: str, **options) -> str:
    """A small picture in place of a file's address; `kind` is JPEG or PNG, `options` are those of `Image.save`."""
    picture.save(stream := BytesIO(), kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(stream.getvalue()).decode()}"
