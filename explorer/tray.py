"""Tiles of which several can be chosen: the examples, and a visitor's own pictures; drawn by tray.js."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .component import Component
from .examples import Example
from .strip import thumbnail

EXAMPLE = """<label class="tile" title="{credit}"><input type="checkbox"><img class="picture" src="{source}" alt=""
  draggable="false"><span>{title}</span></label>"""
ROW = """<div class="tiles tray"><div role="group" aria-label="Pictures">{tiles}</div></div>"""


@dataclass(frozen=True)
class Own:
    """A visitor's own picture."""

    source: str
    """Its file."""
    title: str
    thumbnail: str
    """A data URL."""


class Tray(Component):
    """Shows a value of `shown`; `select` tells the index of a tile as `event.index`, whether it is on as the value."""

    SCRIPT = "tray.js"

    def __init__(self, examples: Sequence[Example], **options) -> None:
        tiles = (
            EXAMPLE.format(title=escape(one.title), credit=escape(one.credit), source=thumbnail(one.picture))
            for one in examples
        )
        self.TEMPLATE = ROW.format(tiles="".join(tiles))
        super().__init__(shown((), ()), **options)

    def api_info(self) -> dict:
        return {"type": "object"}


def shown(own: Sequence[Own], on: Sequence[int]) -> dict:
    """The value of a tray: a visitor's pictures, which come after the examples, and the indices of the tiles on."""
    tiles = [{"title": one.title, "source": one.thumbnail} for one in own]
    return {"own": tiles, "on": list(on)}
