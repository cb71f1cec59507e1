"""Drawn scenes with pixel-exact part labels, on which the miniature is trained; `world` holds what is drawn in them."""

from dataclasses import dataclass

import numpy as np

from .world.canvas import Canvas
from .world.captions import describe, nouns
from .world.film import develop
from .world.layouts import KINDS, LAYOUTS, SEEDED
from .world.materials import CLASSES

__all__ = ["CLASSES", "KINDS", "Scene", "draw_scene"]
SIZES = (32, 2048)


@dataclass(frozen=True)
class Scene:
    """image (size, size, 3) uint8 RGB; labels (size, size) uint8, index of CLASSES; caption, one sentence.

    nouns: what is seen in it, the largest first; a caption names only some of them.
    """

    image: np.ndarray
    labels: np.ndarray
    caption: str
    nouns: tuple[str, ...]


def draw_scene(seed: int, size: int = 512, kind: str | None = None) -> Scene:
    """Draw the scene of a seed, size x size pixels, of the given kind or of one drawn from the seed."""
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
    image = develop(c.image, rng)
    return Scene(image, c.labels.astype(np.uint8), describe(c, rng), nouns(c))
