"""Cars and boats."""

from typing import NamedTuple

import numpy as np

from .canvas import Canvas
from .materials import Material, make_material, part_material
from .palette import pick_colour
from .shapes import box, ellipse, rounded, stroke


class _CarMaterials(NamedTuple):
    body: Material
    glass: Material
    tyre: Material
    hub: Material
    trim: Material
    headlight: Material


def car(c: Canvas, rng) -> None:
    """A car about 1.5 m tall, from the side or from the front."""
    word, body = part_material(rng, "car body")
    body = body._replace(amount=0.3 * body.amount, light=rng.uniform(0.6, 1.4))
    names = "black navy grey teal blue white brown"
    materials = _CarMaterials(
        body,
        glass=make_material(rng, names, "cloudy", 3, (0.3, 0.9), (0.5, 0.9), (0.3, 1.3)),
        tyre=make_material(rng, pick_colour(rng, "black black grey brown")[1] * 0.7, "rough", 0.5),
        hub=make_material(rng, "grey white beige black red", "panel", 0.4),
        trim=make_material(rng, pick_colour(rng, "black grey")[1] * 0.6, "rough", 1),
        headlight=make_material(rng, "white yellow", "smooth", 1, glows=c.dark),
    )
    c.begin(word, "car", "car body")
    if rng.random() < 0.3:
        _car_from_the_front(c, rng, materials)
    else:
        _car_from_the_side(c, rng, materials)


def _car_from_the_front(c: Canvas, rng, materials: _CarMaterials) -> None:
    w, h = rng.uniform(0.8, 0.95), rng.uniform(1.4, 1.9)
    c.shadow(w, 1.2)
    c.paint([box(-w, 0, -w + 0.24, 0.5), box(w - 0.24, 0, w, 0.5)], "wheel", materials.tyre)
    right = [(w, 0.25), (w, 0.85), (w * 0.95, 0.95), (w * 0.75, h)]
    left = [(-x, y) for x, y in reversed(right)]
    c.paint(rounded([left[-1], *right, *left[:-1]]), "car body", materials.body)
    windscreen = [(-w * 0.84, 0.98), (w * 0.84, 0.98), (w * 0.67, h - 0.1), (-w * 0.67, h - 0.1)]
    c.paint(rounded(windscreen, 1), "car window", materials.glass)
    c.paint(rounded(box(-w * 0.5, 0.45, w * 0.5, 0.68), 1), "car body", materials.trim)
    c.paint([ellipse(s * w * 0.76, 0.66, 0.16, 0.1) for s in (-1, 1)], "car body", materials.headlight)


def _car_from_the_side(c: Canvas, rng, materials: _CarMaterials) -> None:
    kind = str(rng.choice(["sedan", "hatch", "van"], p=[0.4, 0.35, 0.25]))
    r = rng.uniform(0.3, 0.36)
    outline, panes = _van(rng) if kind == "van" else _sedan_or_hatchback(rng, kind == "sedan")
    c.shadow(2.2, 1.2)
    c.paint(box(-1.9, 0.18, 1.9, 0.5), "car body", materials.trim)
    c.paint(rounded(outline), "car body", materials.body)
    c.paint(panes, "car window", materials.glass)
    door, handle, sill = [(0, 0.4), (0, 0.93)], [(-0.28, 0.82), (-0.12, 0.82)], [(-1.9, 0.42), (2.05, 0.42)]
    c.paint([stroke(door, 0.025), stroke(handle, 0.05), stroke(sill, 0.05)], "car body", materials.trim)
    c.paint(rounded(box(1.9, 0.58, 2.1, 0.78), 1), "car body", materials.headlight)
    for x in (-1.3, 1.32):
        c.paint(ellipse(x, r + 0.04, r + 0.1, r + 0.1), "car body", materials.trim)
        c.paint(ellipse(x, r, r, r), "wheel", materials.tyre)
        c.paint(ellipse(x, r, r * 0.6, r * 0.6), "wheel", materials.hub)


def _van(rng) -> tuple[list[tuple[float, float]], list[np.ndarray]]:
    """The outline of a van, and its one to three windows."""
    h = rng.uniform(1.8, 2.3)
    outline = [(-2.3, 0.3), (2.2, 0.3), (2.25, 0.9), (1.75, 1.1), (1.25, h), (-2.25, h)]
    count = int(rng.integers(1, 4))
    xs = np.linspace(-2.1, 1.2, count + 1)
    panes = [box(a + 0.05, 1.1, b - 0.05, h - 0.2) for a, b in zip(xs[:-1], xs[1:], strict=True)]
    front = xs[-2] + 0.05
    panes[-1] = np.array([(front, 1.1), (1.6, 1.1), (1.18, h - 0.2), (front, h - 0.2)])
    return outline, panes


def _sedan_or_hatchback(rng, sedan: bool) -> tuple[list[tuple[float, float]], list[np.ndarray]]:
    """The outline and the windows of a car with a boot, or without."""
    h, tail = rng.uniform(1.35, 1.6), -2.1 if sedan else -1.85
    back, lean = (-1.35, -1.12) if sedan else (tail + 0.08, -1.35)
    bonnet = [(2.1, 0.3), (2.12, 0.7), (1.9, 0.85), (1.05, 0.95)]
    outline = [(tail, 0.3), *bonnet, (0.35, h), (-0.8, h), (back, 0.98), (tail, 0.9)]
    panes = [
        np.array([(0.06, 0.97), (0.86, 0.97), (0.28, h - 0.1), (0.06, h - 0.1)]),
        np.array([(-0.04, 0.97), (lean, 0.97), (-0.76, h - 0.1), (-0.04, h - 0.1)]),
    ]
    return outline, panes


def boat(c: Canvas, rng) -> None:
    """A sailing boat, about 6 m tall, or a small motor boat, with its reflection."""
    word, hull = part_material(rng, "hull")
    stripe = part_material(rng, "hull")[1]
    cloth = part_material(rng, "sail")[1]
    long, deep = rng.uniform(2.2, 3.6), rng.uniform(0.8, 1.3)
    sails = rng.random() < 0.75
    h = rng.uniform(5, 8)
    side = np.array([(-long, deep), (-long * 0.85, -0.1), (long * 0.7, -0.1), (long * 1.15, deep * 1.15)])
    c.veil(side * (1, -0.9), hull.shades[70] * c.tint, 0.6, 0.2)
    c.begin(word, "boat", "hull")
    if sails:
        _sails(c, rng, long, deep, h, cloth)
    else:
        _cabin(c, rng, long, deep, stripe)
    c.paint(side, "hull", hull)
    band, stern, bow = rng.uniform(0.12, 0.3), deep, deep * 1.15
    rim = [(-long, stern), (-long * 0.97, stern - band), (long * 1.08, bow - band), (long * 1.15, bow)]
    c.paint(np.array(rim), "hull", stripe)


def _sails(c: Canvas, rng, long: float, deep: float, h: float, cloth: Material) -> None:
    """The sails' reflection, the mast, mainsail and foresail."""
    c.veil(np.array([(-long * 0.7, -deep), (0, -h * 0.8), (long, -deep)]), cloth.shades[110] * c.tint, 0.35, 0.35)
    mast = make_material(rng, "brown grey white black", "bark", 1)
    c.paint(stroke([(0.1, deep * 0.5), (0.1, h)], 0.14), "sail", mast)
    belly = rng.uniform(0, 0.4)
    main = [(0, deep + 0.45), (0, h - 0.2), (-long * 0.45, h * 0.5 - belly), (-long * 0.95, deep + 0.5)]
    fore = [(0.2, deep + 0.5), (0.2, h * 0.88), (long * 0.7 + belly, h * 0.42), (long * 1.05, deep + 0.4)]
    c.paint(np.array(main), "sail", cloth)
    c.paint(np.array(fore), "sail", cloth)


def _cabin(c: Canvas, rng, long: float, deep: float, paint: Material) -> None:
    low, high = deep * 0.8, deep + 1.2
    cabin = [(-long * 0.5, low), (long * 0.45, low), (long * 0.25, high), (-long * 0.5, high)]
    c.paint(rounded(cabin, 1), "hull", paint)
    windows = [box(x, deep + 0.35, x + long * 0.2, deep + 0.95) for x in (-long * 0.4, -long * 0.12)]
    c.paint(windows, "window", make_material(rng, "navy black grey teal white", "cloudy", 2))
