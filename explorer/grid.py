"""A picture with the low-resolution grid, on whose cells one paints; drawn in the browser by grid.js."""

from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from .pictures import data_url

HERE = Path(__file__).parent
SIDE = 640  # pixels, of the longer side
LOOK = "(cells, brush, strength) => window.emerdiff.grid.look({cells, brush, strength})"
"""JavaScript of events: the grid shows these cells, "row,column row,column ...", and has another brush or strength."""
CELLS = "(value) => value.cells"
"""JavaScript: the cells, so written, after a stroke."""


class Grid(gr.HTML):
    """Shows a value of `shown`; nothing to paint on where it is None. Its `input` event comes after each stroke."""

    is_template = True

    def __init__(self, value: dict | None = None, **options) -> None:
        super().__init__(
            value,
            html_template="<div class='grid'><canvas role='img' aria-label='The picture with the grid of coarse cells: "
            "paint on it, or type cells below'></canvas><p>There is no result yet.</p></div>",
            js_on_load=(HERE / "grid.js").read_text(),
            apply_default_css=False,
            **options,
        )


def shown(picture: Image.Image, grid: tuple[int, int], cells: str) -> dict:
    """The value of a `Grid`: the picture in (h, w) cells, of which `cells` are chosen."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return {"picture": data_url(np.asarray(small)), "rows": grid[0], "columns": grid[1], "cells": cells}
