"""The tab Alike: how alike every place of the picture is to the one that was clicked."""

from collections.abc import Sequence

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw

from emerdiff.alike import alike, cell_at, sharpened

from . import pictures, probing, viewer
from .page import LIGHT, NOW, Page
from .session import Found, has_result, needed
from .varying import NO_RESULT
from .viewer import Pane, Place, Viewer

SAID = (
    "Click anywhere, and see what the network takes for alike: bright places have the same features, whatever segments "
    "they are in. Where nothing else is bright, the picture has nothing else of that kind."
)
TITLES = "The picture: click in it", "Bright is alike"
UNIT = "alike (cosine of the features)"
MARK = 0.018  # radius of the mark on the place, of the picture's longer side

Spot = tuple[int, int, int]
"""Picture, row and column of a cell."""


def build(page: Page) -> None:
    with gr.Tab("Alike"):
        gr.Markdown(SAID)
        shown = Viewer(elem_id="alike")
        with gr.Row():
            bar = gr.HTML(pictures.colour_bar(1, UNIT), visible=False)
            text = gr.Textbox(
                label="Cell (row,column)",
                info="Click in a picture, or type one; Enter shows what is like it.",
                placeholder=NO_RESULT,
                max_length=20,
                interactive=False,
            )

    def begin(session):
        """With another result, the tab begins with a place in a segment that shows well."""
        there = has_result(session)
        if not there:
            return {shown: None, bar: gr.update(visible=False), text: gr.update(value="", interactive=False)}
        spot = interesting(session.found)
        now = {"value": written(spot), "interactive": True, "placeholder": ""}
        return {shown: view_of(session.found, spot), bar: gr.update(visible=True), text: gr.update(**now)}

    def click(session, event: gr.SelectData):
        found = needed(session).found
        spot = spot_at([found, found], event.at)
        return {shown: view_of(found, spot), text: written(spot)}

    def look(session, text):
        return view_of(needed(session).found, (0, *cell_of(text, session.grid)))

    known = {"session": page.session}
    latest = {"trigger_mode": "always_last", **LIGHT}
    page.made_of.change(begin, page.session, [shown, bar, text], **latest)
    shown.select(click, None, [shown, text], inputs_kwargs=known, trigger_mode="always_last", **NOW)
    text.submit(look, None, shown, inputs_kwargs=known | {"text": text}, **latest)


def view_of(found: Found, spot: Spot) -> dict:
    """What a viewer shows: the picture, and how alike all of it is to the `spot`, on which both have a mark."""
    plain = Pane(TITLES[0], "The picture, with a mark on the place", marked(found.shown, found, spot))
    return viewer.shown([plain, *panes([found], (0, *spot[1:]), TITLES[1:])], f"{found.name}_alike")


def panes(founds: Sequence[Found], spot: Spot, titles: Sequence[str]) -> list[Pane]:
    """A pane for each of some pictures: how alike all places are to the one `spot`, which has a mark."""
    picture, *cell = spot
    found = alike([one.segmentation for one in founds], tuple(cell), picture)
    drawn = []
    for i, (one, values, title) in enumerate(zip(founds, found, titles, strict=True)):
        sharp = sharpened(values, one.segmentation.coarse_labels, one.labels)
        heat = Image.fromarray(pictures.heat(sharp, one.shown.size, most=1))
        alt = f"How alike each place of {one.name} is to the one with the mark: bright is alike"
        drawn.append(Pane(title, alt, marked(heat, one, spot) if i == picture else heat))
    return drawn


def marked(picture: Image.Image, found: Found, spot: Spot) -> Image.Image:
    """A ring, seen on any colour, around the middle of a cell."""
    (width, height), (h, w) = picture.size, found.segmentation.coarse_labels.shape
    x, y = (spot[2] + 0.5) * width / w, (spot[1] + 0.5) * height / h
    radius, picture = MARK * max(picture.size), picture.copy()
    for colour, line in (("#000", 3 * radius / 4), ("#fff", radius / 4)):
        reach = radius + line / 2
        box, line = [x - reach, y - reach, x + reach, y + reach], max(1, round(line))
        ImageDraw.Draw(picture).ellipse(box, outline=colour, width=line)
    return picture


def spot_at(founds: Sequence[Found], sent: object) -> Spot:
    """The cell that was clicked, as a viewer with a pane for each of `founds` tells it."""
    place = Place.of(sent, len(founds))
    found = founds[place.pane]
    x, y = place.pixel(found.shown.size)
    return place.pane, *cell_at(found.labels, found.segmentation.coarse_labels, y, x)


def interesting(found: Found) -> Spot:
    """The cell in the middle of a segment that shows well."""
    cells = np.argwhere(found.segmentation.coarse_labels == pictures.interesting(found.segmentation))
    middle = cells[np.linalg.norm(cells - cells.mean(0), axis=1).argmin()]
    return 0, int(middle[0]), int(middle[1])


def cell_of(text: str, grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column; `ValueError` for what is no cell of the grid (h, w)."""
    if not (cell := probing.cell_of(text or "", grid)):
        raise ValueError(
            f"write a cell as row,column, with a row from 0 to {grid[0] - 1} and a column from 0 to {grid[1] - 1}: "
            f"{text!r:.20} is not a cell"
        )
    return cell


def written(spot: Spot) -> str:
    return f"{spot[1]},{spot[2]}"
