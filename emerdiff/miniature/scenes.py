"""Drawn scenes with pixel-exact part labels, on which the miniature is trained; `world` holds what is drawn in them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .world.canvas import Canvas
from .world.captions import amounts, describe
from .world.film import develop
from .world.layouts import KINDS, LAYOUTS, SEEDED
from .world.materials import CLASSES

__all__ = ["CLASSES", "KINDS", "Scene", "View", "draw_scene", "draw_views"]
SIZES = (32, 2048)


@dataclass(frozen=True)
class Scene:
    """image (size, size, 3) uint8 RGB; labels (size, size) uint8, index of CLASSES; caption, one sentence."""

    image: np.ndarray
    labels: np.ndarray
    caption: str


@dataclass(frozen=True)
class View:
    """image (side, side, 3) uint8 RGB: a scene, or a detail of it.

    amounts: what is seen there, the largest first, and how much of each, in a word: "most", "much", "some" and so on.
    """

    image: np.ndarray
    amounts: dict[str, str]


def draw_scene(seed: int, size: int = 512, kind: str | None = None) -> Scene:
    """Draw the scene of a seed, size x size pixels, of the given kind or of one drawn from the seed."""
    c, image, rng = _drawn(seed, size, kind)
    return Scene(image, c.labels.astype(np.uint8), describe(c, rng))


def draw_views(seed: int, side: int, kind: str | None, details: int) -> tuple[View, ...]:
    """The scene of a seed, drawn at twice the side, and random squares of it, each shrunk or enlarged to the side.

    A caption names only some of what is seen; here all is named, and of a detail, all that is seen in it.
    """
    c, image, rng = _drawn(seed, 2 * side, kind)
    views = []
    for i in range(details + 1):
        cut = int(2 * side * (rng.uniform(0.35, 0.8) if i else 1))
        y, x = rng.integers(0, 2 * side - cut + 1, 2)
        window = np.s_[y : y + cut, x : x + cut]
        square = Image.fromarray(image[window]).resize((side, side), Image.Resampling.LANCZOS)
        views.append(View(np.asarray(square), amounts(c, window)))
    return tuple(views)


def _drawn(seed: int, size: int, kind: str | None) -> tuple[Canvas, np.ndarray, np.random.Generator]:
    """The canvas of a scene, its picture (size, size, 3) uint8, and the generator of what is drawn next."""
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must be in {SIZES[0]}..{SIZES[1]}, not {size}")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    rng = np.random.default_rng(seed)
    seeded = str(rng.choice(SEEDED))  # drawn even if a kind is given, so that the numbers after it are the same
    c = Canvas(rng, size)
    LAYOUTS[kind or seeded](c, rng)
    c.draw_things()
    return c, develop(c.image, rng), rng
