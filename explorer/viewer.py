"""The viewer: pictures and their segments, drawn in the browser by viewer.js, where a segment can be lit and chosen.

A picture travels as a file, its segments as a grey PNG of their numbers. So opacity, outlines, hovering and choosing
need no server.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from emerdiff.exporting import OPACITY, Legend

from .component import Component, data_url, file_of
from .folders import new_folder

LAYOUTS = ("row", "divider")
NUMBER = (int, float)
LOOK = "(opacity, outlines) => window.emerdiff.viewers.look({opacity, outlines})"
CHOOSE = "(chosen) => window.emerdiff.viewers.look({chosen})"
"""JavaScript of events: all viewers show another opacity, outlines or not, or other chosen segments, by their ids."""


def choose_in(group: str) -> str:
    """JavaScript of events, as `CHOOSE`, of the viewers of a `group`."""
    return f"(chosen) => window.emerdiff.viewers.look({{chosen}}, {group!r})"


@dataclass(frozen=True, eq=False)
class Pane:
    """A picture of a viewer, with its segments."""

    title: str
    alt: str
    """What the picture shows, for those who do not see it."""
    picture: Image.Image | np.ndarray
    """(H, W, 3) uint8."""
    labels: np.ndarray | None = None
    """(H, W) numbers of segments, as shown; at most 256."""
    legend: Legend | None = None
    """Of the segments, by number."""
    ids: tuple[int, ...] | None = None
    """Of the segments, by number, where they can be chosen: a segment of one id lights up in all panes."""
    fill: float | None = None
    """Opacity of the segments, 0 to 1, which then have no outlines; None: as the visitor likes to see them."""
    note: str = ""
    """A line below the picture."""


@dataclass(frozen=True)
class Place:
    """Where a viewer was clicked."""

    pane: int
    x: float
    """Of the picture's width, 0 to 1, 1 not included."""
    y: float
    """Of its height."""

    @classmethod
    def of(cls, sent: object, panes: int) -> "Place":
        """What a browser sent as `event.at` of a viewer of so many panes; `ValueError` for anything else."""
        if isinstance(sent, list) and [type(one) for one in sent] in ([int, a, b] for a in NUMBER for b in NUMBER):
            place = cls(*sent)
            if 0 <= place.pane < panes and 0 <= place.x < 1 and 0 <= place.y < 1:  # NaN is not
                return place
        raise ValueError(f"a place must be a pane from 0 to {panes - 1} and two shares from 0 to 1, not {sent!r:.60}")

    def pixel(self, size: tuple[int, int]) -> tuple[int, int]:
        """(x, y) in a picture of that size (width, height)."""
        return int(self.x * size[0]), int(self.y * size[1])


class Viewer(Component):
    """Panes in a row, or two on top of one another with a divider; empty where its value is None.

    Its `select` event tells the id of the segment that was clicked as `event.index`, None in a pane without segments,
    and as `event.at` where that was: see `Place`.
    """

    TEMPLATE = "<div class='viewer'></div>"
    SCRIPT = "viewer.js"

    def __init__(self, value: dict | None = None, **options) -> None:
        super().__init__(value, opacity=OPACITY, **options)


def shown(panes: Sequence[Pane], name: str, layout: str = "row", *, group: str = "") -> dict:
    """The value of a viewer that shows `panes`, two where the `layout` is a divider; `name` is that of saved files.

    In all viewers of a `group` the same segments are chosen.
    """
    if layout not in LAYOUTS or (layout == "divider" and len(panes) != 2):
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, and a divider needs two panes")
    pictures = {id(pane.picture): pane.picture for pane in panes}  # most panes show the same one
    files = {key: _file(picture) for key, picture in pictures.items()}
    sent = [_sent(pane, files[id(pane.picture)]) for pane in panes]
    return {"name": name, "layout": layout, "group": group, "panes": sent}


def _sent(pane: Pane, picture: dict) -> dict:
    sent = {"title": pane.title, "alt": pane.alt, "note": pane.note, "fill": pane.fill, "picture": picture}
    if pane.labels is not None:
        legend = pane.legend
        sent |= {
            "labels": data_url(Image.fromarray(pane.labels.astype(np.uint8)), "PNG", compress_level=1),
            "names": legend.names,
            "colours": legend.colours.tolist(),
            "hidden": sorted(legend.hidden),
            "ids": pane.ids,
        }
    return sent


def _file(picture: Image.Image | np.ndarray) -> dict:
    path = new_folder() / "picture.jpg"
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(path, quality=95, subsampling=0)
    return file_of(path)
