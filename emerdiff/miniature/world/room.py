"""Rooms: walls, what hangs on them, the floor, a rug and the furniture."""

import math

import numpy as np

from .canvas import Canvas
from .figures import person
from .furniture import chair, cupboard, sofa, standing_lamp, table
from .materials import Material, make_material, part_material, relit
from .palette import ANY, TIMES, pick_colour
from .shapes import area_under, box, ellipse, skyline


def room(c: Canvas, rng) -> None:
    """Indoors: a wall, perhaps the wall beside it, what hangs there, the floor and what stands on it."""
    c.indoors, c.haze_distance = True, 1e9
    c.eye, c.horizon, far = rng.uniform(1.0, 2.0), rng.uniform(0.05, 0.6), rng.uniform(2.2, 5.5)
    foot, side = c.horizon + c.eye / far, rng.choice([-1, 1])
    corner = side * rng.uniform(0.15, 0.5) * far if rng.random() < 0.6 else None  # metres to the right
    word, paper = part_material(rng, "wallpaper")
    c.stand(0.5, foot)
    _far_wall(c, rng, word, paper, far)
    c.use_frame()
    _floor(c, rng, foot, far)
    if corner is not None:
        c.begin(word, "wall", "wall")
        at, out = 0.5 + corner / far, 0.5 + corner / 0.2
        shape = np.array([(at, -2), (at, foot), (out, c.horizon + c.eye / 0.2), (out, -2)])
        c.paint(shape, "wall", relit(paper, rng.uniform(0.55, 0.85))._replace(period=paper.period / far))
    _furnish(c, rng, far, side, corner)


def _far_wall(c: Canvas, rng, word: str, paper: Material, far: float) -> None:
    c.begin(word, "wall", "wall")
    c.paint(box(-15, -0.5, 15, 9), "wall", paper)
    skirting = make_material(rng, "white beige brown grey", "rough", 1)
    c.paint(box(-15, 0, 15, rng.uniform(0.06, 0.16)), "wall", skirting)
    hung = [_window, _window, _painting, _painting, _door]
    x = -0.55 * far + rng.uniform(0, 1)
    while x < 0.55 * far:
        x += hung[rng.integers(len(hung))](c, rng, x) + rng.uniform(0.4, 1.5)


def _window(c: Canvas, rng, x: float) -> float:
    """A window from inside, with panes and often curtains; returns its width."""
    w, low, h = rng.uniform(0.7, 1.6), rng.uniform(0.6, 1.0), rng.uniform(1.0, 1.5)
    frame = make_material(rng, "white white beige brown grey black", "bark", 1)
    light = pick_colour(rng, TIMES[c.time].sky)[1]
    c.begin("", "window", "window")
    c.paint(box(x - 0.08, low - 0.08, x + w + 0.08, low + h + 0.08), "window", frame)
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    wide, tall = w / columns, h / rows
    panes = [
        box(x + i * wide + 0.03, low + j * tall + 0.03, x + (i + 1) * wide - 0.03, low + (j + 1) * tall - 0.03)
        for i in range(columns)
        for j in range(rows)
    ]
    c.paint(panes, "window", make_material(rng, light, "cloudy", 2, contrast=(0.1, 0.4), glows=True))
    if rng.random() < 0.6:
        cloth = part_material(rng, "torso")[1]._replace(texture="stripe", period=0.8)
        part = rng.uniform(0.2, 0.45) * w
        foot = rng.choice([low - 0.2, 0.05])
        curtains = [box(a, foot, a + part, low + h + 0.2) for a in (x - 0.25, x + w + 0.25 - part)]
        c.paint(curtains, "window", cloth)
    return w


def _door(c: Canvas, rng, x: float) -> float:
    """A door in its frame; returns its width."""
    w, h = rng.uniform(0.75, 0.95), rng.uniform(1.95, 2.15)
    word, wood = part_material(rng, "door")
    c.begin(word, "door", "door")
    c.paint(box(x - 0.08, 0, x + w + 0.08, h + 0.08), "door", make_material(rng, "white brown beige", "bark", 1))
    c.paint(box(x, 0, x + w, h), "door", wood)
    c.paint(ellipse(x + w * 0.88, 1.0, 0.035, 0.035, 10), "door", relit(wood, 0.4))
    return w


def _painting(c: Canvas, rng, x: float) -> float:
    """A framed picture of a landscape; returns its width."""
    w, h = rng.uniform(0.4, 1.3), rng.uniform(0.4, 0.9)
    low, rim = rng.uniform(1.1, 1.6), rng.uniform(0.03, 0.09)
    left, right, bottom, top = x + rim, x + w - rim, low + rim, low + h - rim
    c.begin("", "painting", "painting")
    frame = make_material(rng, "brown yellow black white grey", "bark", 1)
    c.paint(box(x, low, x + w, low + h), "painting", frame)
    c.paint(box(left, bottom, right, top), "painting", make_material(rng, ANY, "cloudy", 1))
    line = skyline(rng, left, right, 0.5, 33)
    line[:, 1] = np.clip(low + h * (0.45 + 0.3 * line[:, 1]), bottom, top)
    texture = str(rng.choice(["leaf", "wave", "furrow", "rock"]))
    c.paint(area_under(line, bottom), "painting", make_material(rng, ANY, texture, 1))
    return w


def _floor(c: Canvas, rng, foot: float, far: float) -> None:
    """The floor up to the foot of the wall `far` metres away, often with a rug in a border of its own."""
    word, boards = part_material(rng, "floor")
    c.begin(word, "floor", "floor")
    c.paint(box(-2, foot, 3, 4), "floor", boards, ground=True)
    if rng.random() < 0.6:
        word, border = part_material(rng, "rug")
        c.begin(word, "rug", "rug")
        near, turn = rng.uniform(0.45, 0.75) * far, rng.normal(0, 0.25)
        half = np.array([rng.uniform(0.6, 1.3), rng.uniform(0.35, 0.8)])
        spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        for inset, cloth in ((1.0, border), (0.82, part_material(rng, "rug")[1])):
            ends = box(-1, -1, 1, 1) * half * inset @ spin + (rng.normal(0, 0.02) if inset < 1 else 0, near)
            c.paint(c.on_ground(np.maximum(ends, (-9, 0.3))), "rug", cloth, ground=True)


def _furnish(c: Canvas, rng, far: float, side: int, corner: float | None) -> None:
    """Queue two to six things, none beyond the corner."""
    furniture = (table, chair, chair, sofa, sofa, cupboard, cupboard, standing_lamp, person)
    for draw in rng.choice(furniture, int(rng.integers(2, 7))):
        z = far * 0.97 if draw is cupboard else far * rng.uniform(0.45, 0.96)
        reach = 0.45 * z
        x = rng.uniform(-reach, reach)
        if corner is not None:
            x = side * min(side * x, side * corner - 0.5)
        c.place(draw, 1, x=0.5 + x / z, y=c.horizon + c.eye / z)
