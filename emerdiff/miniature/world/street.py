"""Streets, seen along their length or crossing the view."""

import math

import numpy as np

from .buildings import house, street_lamp
from .canvas import Canvas
from .figures import person
from .landscape import land, strip
from .materials import make_material
from .plants import tree
from .vehicles import car


def road_along(c: Canvas, rng, wide: float, kerb: float) -> None:
    """A road that leads away from the viewer, with houses, trees, lamps, people and cars on both sides."""
    turn = math.pi / 2 + rng.normal(0, 0.06)
    near = rng.uniform(-0.7, -0.3) * wide
    _road(c, rng, near, wide, kerb, turn)
    for side, edge in ((-1, -(near + wide) - kerb), (1, -near + kerb)):
        z = rng.uniform(7, 12)
        for _ in range(int(rng.integers(2, 6))):
            x = edge + side * rng.uniform(4, 6)
            draw = house if rng.random() < 0.75 else tree
            c.place(draw, 7, x=0.5 + x / z, y=c.horizon + c.eye / z)
            z *= rng.uniform(1.25, 1.7)
        z = rng.uniform(3, 7)
        for _ in range(int(rng.integers(0, 4))):
            draw = (street_lamp, tree, person, car)[rng.integers(4)]
            x = edge - side * kerb * rng.uniform(0.3, 0.8) * (1 if draw is not car else 2.2)
            c.place(draw, 5, x=0.5 + x / z, y=c.horizon + c.eye / z)
            z *= rng.uniform(1.3, 2)


def road_across(c: Canvas, rng, wide: float, kerb: float) -> None:
    """A road that crosses the view, with a row of houses and trees behind it and cars on it."""
    turn = rng.normal(0, 0.06)
    near = c.eye * rng.uniform(1.0, 3)
    _road(c, rng, near, wide, kerb, turn)
    z = near + wide + kerb + rng.uniform(0.3, 3)
    x = -z * 0.6
    while x < z * 0.6:
        draw = house if rng.random() < 0.7 else tree
        c.place(draw, 7, x=0.5 + x / z, y=c.horizon + c.eye / z)
        x += rng.uniform(7, 13)
    for _ in range(int(rng.integers(1, 5))):
        z = near + wide * rng.uniform(0.15, 0.85)
        c.place(car, 1.5, y=c.horizon + c.eye / z)


def _road(c: Canvas, rng, near: float, wide: float, kerb: float, turn: float) -> None:
    """A road from `near` metres ahead, `wide` metres across, with pavements as broad as `kerb` and a dashed line."""
    land(c, rng, "pavement", strip(c, near - kerb, near + wide + kerb, turn, 0))
    land(c, rng, "road", strip(c, near, near + wide, turn, 0))
    c.use_frame()
    paint = make_material(rng, "white yellow white", "rough", 0.2)
    middle, cos, sin = near + wide / 2, math.cos(turn), math.sin(turn)
    for x in np.arange(-60, 60, 6.0):
        dash = ((x, middle - 0.1), (x + 3, middle - 0.1), (x + 3, middle + 0.1), (x, middle + 0.1))
        ends = [(a * cos - b * sin, a * sin + b * cos) for a, b in dash]
        if min(ahead for _, ahead in ends) > c.eye / 2:
            c.paint(c.on_ground(ends), "road", paint)
