"""The row of tiles that the page begins with: the visitor's own photo, then the examples by title."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from .component import Component, data_url
from .examples import Example
from .uploads import LARGEST_MEGABYTES

TILE = 156  # pixels: twice the side at which it is shown, for dense screens
ACCEPTED = "image/*,.heic,.heif,.avif,.tif,.tiff"  # what the chooser offers; the server looks at the content
OWN = """<label class="tile own">
  <svg class="picture" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" aria-hidden="true">
    <path d="M12 17V4M6 10l6-6 6 6M3 17v4h18v-4"/></svg>
  <span>Your photo</span>
  <span class="sending" role="status" hidden>Sending …</span>
  <input type="file" accept="{accept}" aria-label="Your photo" title="Choose a photo, or drop one anywhere on the page">
</label>"""
EXAMPLE = """<button type="button" class="tile" role="radio" aria-checked="false" tabindex="-1" title="{credit}">
  <img class="picture" src="{source}" alt="" draggable="false"><span>{title}</span></button>"""
ROW = """<div class="tiles">{own}<div role="radiogroup" aria-label="Examples">{tiles}</div></div>
<div class="frame" hidden>Drop the picture anywhere</div>"""


class Strip(Component):
    """Tiles of which one is marked. Its value is the marked one's index, or None for the visitor's own photo.

    `select` tells the index of an example that was chosen as `event.index`. On `upload` handlers are given the path of
    the visitor's file as the value, and say what is shown then.
    """

    SCRIPT = "strip.js"

    def __init__(self, examples: Sequence[Example], value: int | None = None, **options) -> None:
        tiles = (
            EXAMPLE.format(title=escape(one.title), credit=escape(one.credit), source=thumbnail(one.picture))
            for one in examples
        )
        self.TEMPLATE = ROW.format(own=OWN.format(accept=ACCEPTED), tiles="".join(tiles))
        super().__init__(value, megabytes=LARGEST_MEGABYTES, **options)

    def preprocess(self, payload: dict | None) -> str | None:
        return payload and payload["path"]

    def postprocess(self, value: int | None) -> int:
        return -1 if value is None else value  # gradio's page makes null an empty text

    def api_info(self) -> dict:
        return {"type": "object", "title": "FileData"}


def thumbnail(picture: Path) -> str:
    """The middle of a picture as a small JPEG, as a data URL: the row is there with the page."""
    with Image.open(picture) as opened:
        return thumbnail_of(opened.convert("RGB"))


def thumbnail_of(picture: Image.Image) -> str:
    """The same of a picture in memory, RGB."""
    return data_url(ImageOps.fit(picture, (TILE, TILE)), "JPEG", quality=80)
