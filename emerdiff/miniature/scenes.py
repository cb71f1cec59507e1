"""Drawn scenes with pixel-exact part labels, on which the miniature is trained; `world` holds what is drawn in them."""

from dataclasses import dataclass

import numpy as np

from .world.canvas import Canvas
from .world.captions import amounts, describe
from .world.film import develop
from .world.layouts import KINDS, LAYOUTS, SEEDED
from .world.materials import CLASSES

__all__ = ["CLASSES", "KINDS", "Detail", "Scene", "draw_details", "draw_scene"]
SIZES = (32, 2048)


@dataclass(frozen=True)
class Scene:
    """image (size, size, 3) uint8 RGB; labels (size, size) uint8, index of CLASSES; caption, one sentence."""

    image: np.ndarray
    labels: np.ndarray
    caption: str


@dataclass(frozen=True)
class Detail:
    """image (side, side, 3) uint8 RGB: a square of a scene.

    amounts: what is seen there, the largest first, and how much of each, in a word: "most", "much", "some" and so on.
    """

    image: np.ndarray
    amounts: dict[str, str]


def draw_scene(seed: int, size: int = 512, kind: str | None = None) -> Scene:
    """Draw the scene of a seed, size x size pixels, of the given kind or of one drawn from the seed."""
    c, image, rng = _drawn(seed, size, kind)
    return Scene(image, c.labels.astype(np.uint8), describe(c, rng))


def draw_details(seed: int, size: int, side: int, kind: str | None = None, *, count: int) -> tuple[Detail, ...]:
    """The scene of a seed, size x size pixels, as random squares of side x side pixels, each told completely."""
    c, image, rng = _drawn(seed, size, kind)
    details = []
    for y, x in rng.integers(0, size - side + 1, (count, 2)):
        window = np.s_[y : y + side, x : x + side]
        details.append(Detail(image[window].copy(), amounts(c, window)))
    return tuple(details)


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
