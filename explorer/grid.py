"""A picture with the low-resolution grid, on whose cells one paints; drawn in the browser by grid.js."""

from PIL import Image

from .component import Component, data_url

SIDE = 640  # pixels, of the longer side
LOOK = "(cells, brush, strength) => window.emerdiff.grid.look({cells, brush, strength})"
"""JavaScript of events: the grid shows these cells, "row,column row,column ...", and has another brush or strength."""
CELLS = "(value) => value.cells"
"""JavaScript: the cells, so written, after a stroke."""


class Grid(Component):
    """Shows a value of `shown`; nothing to paint on where it is None. Its `input` event comes after each stroke."""

    TEMPLATE = (
        "<div class='grid'><canvas role='img' aria-label='The picture with the grid of coarse cells: paint on it, or "
        "type cells below'></canvas><p>There is no result yet.</p></div>"
    )
    SCRIPT = "grid.js"


def shown(picture: Image.Image, grid: tuple[int, int], cells: str) -> dict:
    """The value of a `Grid`: the picture in (h, w) cells, of which `cells` are chosen."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    source = data_url(small, "JPEG", quality=90, subsampling=0)
    return {"picture": source, "rows": grid[0], "columns": grid[1], "cells": cells}
