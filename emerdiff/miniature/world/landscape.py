"""Sky, mountains, hills, the ground, and what runs across it."""

import math

import numpy as np

from .canvas import SHADE, Canvas, log_uniform
from .materials import Material, make_material, part_material
from .palette import SEASONS, TIMES, pick_colour
from .plants import foliage
from .shapes import area_under, box, ellipse, rounded, skyline


def sky(c: Canvas, rng) -> None:
    """The sky with its sun or moon and clouds; sets the colour of the haze."""
    names = TIMES[c.time].sky
    word, top = pick_colour(rng, names)
    low = pick_colour(rng, names)[1]
    low = low + (1 - low) * rng.uniform(0, 0.5) * (0.2 if c.time == "night" else 1)
    c.haze = np.clip(0.8 * low + 0.1 * c.tint, 0, 1)
    gradient = Material(
        low + (top - low) * np.linspace(0, 1, 256)[:, None],
        "cloudy",
        rng.uniform(0.8, 2.5),
        rng.uniform(0.05, 0.45),
        rng.uniform(0.8, 1.6),
        tuple(rng.uniform(0, 1, 2)),
        True,
    )
    c.begin(word, "sky", "sky")
    c.paint(box(-1, -1, 2, 2), "sky", gradient)
    if rng.random() < 0.5:
        _sun_or_moon(c, rng)
    _clouds(c, rng)


def _sun_or_moon(c: Canvas, rng) -> None:
    x, y, r = rng.uniform(0.05, 0.95), rng.uniform(-0.05, 0.75) * max(c.horizon, 0.4), rng.uniform(0.035, 0.11)
    white = c.time in ("day", "night")
    disc = pick_colour(rng, "white yellow beige" if white else "white yellow orange red pink")[1]
    c.veil(ellipse(x, y, 2.2 * r, 2.2 * r), disc, rng.uniform(0.2, 0.6), r)
    c.begin("", "moon" if c.dark else "sun", "sun")
    glow = make_material(rng, 0.3 * disc + 0.7, "cloudy", 4 * r, (0, 0.5), (0.1, 0.3), glows=True)
    c.paint(ellipse(x, y, r, r, 48), "sun", glow)


def _clouds(c: Canvas, rng) -> None:
    """None or up to six clouds of one colour, each of six lumps."""
    count = int(rng.integers(0, 7)) if rng.random() < 0.7 else 0
    pale = c.time in ("day", "overcast", "morning")
    word, rgb = pick_colour(rng, "white grey pink" if pale else "grey pink orange purple navy beige")
    for _ in range(count):
        size = log_uniform(rng, 0.06, 0.3)
        x, y = rng.uniform(-0.1, 1.1), rng.uniform(-0.05, 0.9) * max(c.horizon, 0.3)
        flat = rng.uniform(0.25, 0.7)
        spots = zip(rng.normal(0, 0.7, 6), rng.uniform(-0.6, 0.2, 6), rng.uniform(0.3, 0.6, 6), strict=True)
        lumps = [
            ellipse(x + size * dx, y + size * flat * (dy - abs(dx) * 0.1), size * r, size * flat * r)
            for dx, dy, r in spots
        ]
        c.begin(word, "cloud", "cloud")
        hazy = 0.8 * rgb + 0.2 * c.haze
        vapour = make_material(rng, hazy, "cloudy", size * 2.5, (0.2, 0.6), (0.2, 0.5), (0.5, 1.2), True)
        c.paint(lumps, "cloud", vapour, size * 0.14, "cloudy")


def mountains(c: Canvas, rng) -> None:
    """One to three ranges, each fainter than the one before it, with or without snow."""
    count = int(rng.integers(1, 4))
    tall = log_uniform(rng, 0.25, 1.1)
    snow = rng.random() < 0.45
    for i in range(count):
        line = skyline(rng, -0.8, 1.8, rng.uniform(0.42, 0.62))
        height = tall * (1 - 0.3 * i)
        line[:, 1] = c.horizon + 0.01 - height * (0.55 + 0.8 * line[:, 1]).clip(0.02)
        word, rock = part_material(rng, "mountain")
        c.use_frame(max(0.05, 0.45 - 0.2 * i) * rng.uniform(0.2, 1.1))
        c.begin("snowy" if snow and i == 0 else word, "mountain", "mountain")
        rock = rock._replace(period=rock.period * height * 1.6)
        c.paint(area_under(line, c.horizon + 0.1), "mountain", rock)
        if snow and i == 0:
            _snow(c, rng, line, height)
    c.use_frame()


def _snow(c: Canvas, rng, line: np.ndarray, height: float) -> None:
    edge = skyline(rng, -0.8, 1.8, 0.8)
    edge[:, 1] = np.maximum(c.horizon - height * (0.62 + 0.18 * edge[:, 1]), line[:, 1])
    white = np.array([0.9, 0.92, 0.97]) * rng.uniform(0.8, 1)
    snow = make_material(rng, white, "rock", height * 1.2, light=(0.3, 1))
    c.paint(np.concatenate([line, edge[::-1]]), "mountain", snow)


def hills(c: Canvas, rng) -> None:
    """Rolling meadow hills on the horizon, some with a wood along the crest."""
    for i in range(int(rng.integers(1, 3))):
        line = skyline(rng, -0.8, 1.8, 0.3)
        height = rng.uniform(0.03, 0.22)
        line[:, 1] = c.horizon + 0.01 - height * (0.6 + 0.6 * line[:, 1]).clip(0.05) / (i + 1)
        c.use_frame(rng.uniform(0.05, 0.45) / (i + 1))
        if rng.random() < 0.5:
            _wood(c, rng, line)
        word, rgb = pick_colour(rng, SEASONS[c.season].meadow)
        c.begin(word, "hill", "meadow")
        c.paint(area_under(line, c.horizon + 0.1), "meadow", make_material(rng, rgb, "grass", 0.3))
    c.use_frame()


def _wood(c: Canvas, rng, crest: np.ndarray) -> None:
    word, leaves = foliage(c, rng)
    start, stop = sorted(rng.integers(0, 129, 2))
    if stop - start > 12:
        tall = rng.uniform(0.02, 0.07)
        trees = crest[start:stop] - [(0, tall * 0.8)]
        c.begin(word, "wood", "crown")
        c.paint(area_under(trees, c.horizon), "crown", leaves._replace(period=tall * 4), tall * 0.3)


def land(c: Canvas, rng, part: str, shape=None, noun: str | None = None) -> None:
    """Cover the ground, or one shape on it (frame units), with a ground part."""
    c.use_frame()
    if shape is None:
        line = skyline(rng, -1, 2, 0.4)
        line[:, 1] = c.horizon + (0 if part == "water" else 0.008) * line[:, 1]
        shape = area_under(line, 4)
    word, cover = _ground(c, rng, part)
    c.begin(word, noun or part, part)
    c.paint(shape, part, cover._replace(light=0.6 * cover.light), ground=True)
    if rng.random() < 0.4:  # the shadow of a cloud
        spot = ellipse(rng.uniform(0, 1), c.horizon + rng.uniform(0.1, 0.8), rng.uniform(0.2, 0.7), 0.12)
        if spot[:, 1].min() > c.horizon and part != "water":
            c.veil(rounded(spot), SHADE, c.shadows * 0.8, 0.05)


def _ground(c: Canvas, rng, part: str) -> tuple[str, Material]:
    """The colour's name and the material of a ground part."""
    if part != "meadow":
        return part_material(rng, part)
    word, rgb = pick_colour(rng, SEASONS[c.season].meadow)
    return word, make_material(rng, rgb, str(rng.choice(["grass", "grass", "leaf"])), 3, (0.4, 1), (0.4, 0.7))


def path(c: Canvas, rng) -> None:
    """A lane, path, stream or ploughed field across the meadow."""
    near = c.eye * rng.uniform(0.9, 6)
    width = rng.uniform(1.5, 6) + near * 0.25
    part = str(rng.choice(["road", "soil", "water", "soil", "road"]))
    noun = {"road": "road", "soil": "field", "water": "stream"}[part]
    across = strip(c, near, near + width, rng.uniform(-1.2, 1.2), rng.normal(0, 2), rng.uniform(0, 2))
    land(c, rng, part, across, noun)


def strip(c: Canvas, near: float, far: float, turn: float, shift: float, wave: float = 0.0) -> np.ndarray:
    """A band on the ground between `near` and `far` metres ahead, as (n, 2) in frame units.

    It is turned about the viewer by `turn` radians, moved to the right by `shift` metres, and winds by `wave` metres.
    """
    x = np.concatenate([-np.geomspace(2000, 0.5, 60), np.geomspace(0.5, 2000, 60)])
    cos, sin = math.cos(turn), math.sin(turn)
    edges = []
    for z in (near, far):
        ahead = z + wave * np.sin(x / 9 + shift)
        p = np.stack([x * cos - ahead * sin + shift, x * sin + ahead * cos], 1)
        edges.append(p[p[:, 1] > c.eye / 3])
    if min(map(len, edges)) < 2:
        return np.zeros((3, 2)) - 9  # outside of the frame
    return c.on_ground(np.concatenate([edges[0], edges[1][::-1]]))
