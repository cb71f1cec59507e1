"""Houses and towers, and what stands along a street: fences and lamps."""

from typing import NamedTuple

import numpy as np

from .canvas import Canvas
from .materials import Material, make_material, part_material, relit
from .shapes import box, ellipse, rounded, stroke


class _Measures(NamedTuple):
    """Of a house, in metres; its front is centred at x = 0."""

    style: str  # of its roof
    floors: int
    width: float
    storey: float
    depth: np.ndarray  # (2,) along the side wall, as it is seen
    peak: float  # height of the roof
    eaves: float

    @property
    def half(self) -> float:
        return self.width / 2

    @property
    def height(self) -> float:
        """Without the roof."""
        return self.floors * self.storey


def house(c: Canvas, rng) -> None:
    """A house about 7 m tall: front and one side wall, roof, windows, door, chimney."""
    m = _measure(rng)
    colour, wall = part_material(rng, "wall")
    roof = part_material(rng, "roof")[1]
    c.shadow(m.half + 1, m.height)
    word = {"brick": "brick", "stone": "stone", "plank": "wooden"}.get(wall.texture, colour)
    c.begin(word, "tower" if m.style == "flat" and m.floors > 3 else "house", "wall")
    _side_wall(c, rng, m, wall)
    _chimney(c, rng, m)
    if m.style == "gable":
        _gabled_front(c, rng, m, wall, roof)
    else:
        c.paint(box(-m.half, 0, m.half, m.height), "wall", wall)
        if m.style == "flat":
            _flat_roof(c, m, roof)
        else:
            _sloping_roof(c, rng, m, roof)
    _openings(c, rng, m)


def _measure(rng) -> _Measures:
    style = str(rng.choice(["gable", "eaves", "hip", "flat"], p=[0.32, 0.34, 0.2, 0.14]))
    floors = int(rng.integers(1, 4)) + (style == "flat")
    width, storey = rng.uniform(5, 11), rng.uniform(2.6, 3.2)
    deep = rng.uniform(1.2, 4.5)
    depth = np.array([deep, deep * rng.uniform(0.0, 0.16)])
    peak = 0 if style == "flat" else rng.uniform(0.28, 0.6) * min(width, 7)
    return _Measures(style, floors, width, storey, depth, peak, rng.uniform(0.15, 0.5))


def _ridge_end(m: _Measures) -> np.ndarray:
    """The right end of a ridge that runs along the front."""
    return np.array([m.half, m.height]) + m.depth / 2 + (0, m.peak)


def _side_wall(c: Canvas, rng, m: _Measures, wall: Material) -> None:
    side = relit(wall, rng.uniform(0.5, 0.85))
    base, eave = np.array([m.half, 0.0]), np.array([m.half, m.height])
    peaked = [_ridge_end(m)] if m.style == "eaves" else []
    c.paint(np.array([base, base + m.depth, eave + m.depth, *peaked, eave]), "wall", side)
    if rng.random() < 0.7 and m.depth[0] > 2:
        windows = []
        for a, b in ((0.18, 0.4), (0.6, 0.82)):
            left, right = base + m.depth * a, base + m.depth * b
            for y in np.arange(m.floors) * m.storey + 0.9:
                windows.append(np.array([left + (0, y), right + (0, y), right + (0, y + 1.3), left + (0, y + 1.3)]))
        c.paint(windows, "window", make_material(rng, "navy teal grey white black yellow", "cloudy", 2))


def _chimney(c: Canvas, rng, m: _Measures) -> None:
    wide = rng.uniform(1.0, 2.0)
    x = rng.uniform(-0.35, 0.3) * m.width
    y = m.height + m.peak * (1 - abs(x) / m.half * 0.8 if m.style == "gable" else 0.7)
    if m.style != "flat" and rng.random() < 0.9:
        shape = box(x, y - 1, x + wide, y + rng.uniform(1.3, 2.8))
        c.paint(shape, "chimney", part_material(rng, "chimney")[1])


def _gabled_front(c: Canvas, rng, m: _Measures, wall: Material, roof: Material) -> None:
    """The roof's right slope, the front up to the gable, and the edge of the roof along it."""
    half, h = m.half, m.height
    tip = np.array([0, h + m.peak])
    low = np.array([half + m.eaves, h - m.eaves * m.peak / half])
    c.paint(np.array([tip, tip + m.depth, low + m.depth, low]), "roof", roof)
    c.paint(np.array([(-half, 0), (half, 0), (half, h), (0, h + m.peak), (-half, h)]), "wall", wall)
    up = np.array([0, rng.uniform(0.3, 0.6)])
    left = low * (-1, 1)
    edge = np.array([tip + up, low + up * 0.4, low - up * 0.4, tip, left - up * 0.4, left + up * 0.4])
    c.paint(edge, "roof", roof._replace(light=0.3))


def _flat_roof(c: Canvas, m: _Measures, roof: Material) -> None:
    left, right, h = -m.half - 0.2, m.half + 0.2, m.height
    far = np.array([m.half, h]) + m.depth
    c.paint(
        np.array([(left, h), (right, h), far + (0.2, 0), far + (0.2, 0.6), (m.half, h + 0.7), (left, h + 0.7)]),
        "roof",
        roof,
    )


def _sloping_roof(c: Canvas, rng, m: _Measures, roof: Material) -> None:
    """A hipped roof, or one whose ridge is as long as the front."""
    half, h, out = m.half, m.height, m.eaves
    inset = rng.uniform(0.15, 0.3) * m.width if m.style == "hip" else -out
    ridge_left = np.array([-half + inset, h]) + m.depth / 2 + (0, m.peak)
    ridge_right = _ridge_end(m) - (max(inset, -out), 0)
    eave = np.array([half, h])
    corner, far = eave + (out, -0.15), eave + m.depth + (out, -0.15)
    if m.style == "hip":
        c.paint(np.array([corner, far, ridge_right]), "roof", relit(roof, 0.75))
    c.paint(np.array([(-half - out, h - 0.15), corner, ridge_right, ridge_left]), "roof", roof)
    c.paint(box(-half - out, h - 0.35, half + out, h - 0.12), "roof", relit(roof, 0.6))


def _openings(c: Canvas, rng, m: _Measures) -> None:
    """Windows and a door in the front."""
    count = max(2, int(m.width / rng.uniform(1.9, 3)))
    pitch = m.width / count
    width, height, sill = rng.uniform(0.42, 0.66) * pitch, rng.uniform(1.1, 1.7), rng.uniform(0.7, 1.0)
    door_at = int(rng.integers(count))
    spots = [
        ((i + 0.5) * pitch - m.width / 2, floor * m.storey + sill)
        for floor in range(m.floors)
        for i in range(count)
        if floor or i != door_at
    ]
    if m.style == "gable" and m.peak > 2:
        spots.append((0, m.floors * m.storey + 0.15))
    frame = make_material(rng, "white white brown grey black green red blue beige", "rough", 1, (0.1, 0.4))
    trim = rng.uniform(0.06, 0.14)
    if rng.random() < 0.25:
        shutters = [
            box(x + s * width * 0.5, y, x + s * (width * 0.5 + pitch * 0.15), y + height)
            for x, y in spots
            for s in (-1, 1)
        ]
        c.paint(shutters, "window", part_material(rng, "door")[1])
    frames = [box(x - width / 2 - trim, y - trim, x + width / 2 + trim, y + height + trim) for x, y in spots]
    c.paint(frames, "window", frame)
    _panes(c, rng, spots, width, height)
    _front_door(c, rng, (door_at + 0.5) * pitch - m.width / 2, trim, frame)


def _panes(c: Canvas, rng, spots: list[tuple[float, float]], width: float, height: float) -> None:
    """The glass of the windows at these places; behind some of it light is on."""
    cols, rows, bar = int(rng.integers(1, 4)), int(rng.integers(1, 4)), rng.uniform(0.03, 0.07)
    dx, dy = width / cols, height / rows

    def panes(chosen) -> list[np.ndarray]:
        return [
            box(
                x - width / 2 + i * dx + bar,
                y + j * dy + bar,
                x - width / 2 + (i + 1) * dx - bar,
                y + (j + 1) * dy - bar,
            )
            for x, y in chosen
            for i in range(cols)
            for j in range(rows)
        ]

    names = "navy black grey teal blue white beige brown"
    glass = make_material(rng, names, "cloudy", 4, (0.3, 0.9), (0.5, 0.9), (0.2, 1.2))
    c.paint(panes(spots), "window", glass)
    lit = [s for s in spots if rng.random() < (0.5 if c.dark else 0.08)]
    if lit:
        c.paint(panes(lit), "window", make_material(rng, "yellow orange white beige", "cloudy", 2, glows=True))


def _front_door(c: Canvas, rng, x: float, trim: float, frame: Material) -> None:
    half, height = rng.uniform(0.5, 0.75), rng.uniform(2.05, 2.45)
    c.paint(box(x - half - trim, 0, x + half + trim, height + trim), "door", frame)
    c.paint(box(x - half, 0, x + half, height), "door", part_material(rng, "door")[1])
    c.paint(ellipse(x + half * 0.7, height * 0.48, 0.05, 0.05, 10), "door", frame)


def fence(c: Canvas, rng) -> None:
    """A run of fence about 1.1 m tall: rails or pickets, with gaps to see through."""
    h, long = rng.uniform(0.9, 1.4), rng.uniform(4, 10)
    word, wood = part_material(rng, "fence")
    c.begin(word, "fence", "fence")
    if rng.choice(["rail", "picket"]) == "rail":
        gap, wide, heights = rng.uniform(1.4, 2), 0.14, (0.3, 0.6, 0.88)
    else:
        gap, wide, heights = rng.uniform(0.2, 0.32), 0.13, (0.3, 0.75)
    spots = np.arange(-long, long, gap)
    posts = [stroke([(x, -0.03), (x, h * rng.uniform(0.97, 1.03))], wide) for x in spots]
    rails = [stroke([(-long, y * h), (spots[-1], y * h)], 0.11) for y in heights]
    c.shadow(long, h * 0.3)
    c.paint(rails, "fence", wood)
    c.paint(posts, "fence", wood)


def street_lamp(c: Canvas, rng) -> None:
    """A street lamp about 5 m tall, lit after dark."""
    h = rng.uniform(4, 6)
    metal = make_material(rng, "black grey green navy white brown", "rough", 0.6)
    names = "yellow orange white" if c.dark else "white grey beige teal"
    glass = make_material(rng, names, "smooth", 0.4, glows=c.dark)
    c.begin("", "lamp", "lamp")
    c.shadow(0.12, h)
    pole = [stroke([(0, 0), (0, 0.12 * h), (0, h)], [0.46, 0.3, 0.2]), box(-0.32, -0.04, 0.32, 0.4)]
    if rng.random() < 0.5:  # hung from an arm
        reach = rng.uniform(0.7, 1.5)
        pole.append(stroke([(0, h), (reach * 0.4, h + 0.25), (reach, h + 0.2)], 0.11))
        bulb, head = (reach, h), [(-0.6, 0.4), (0.6, 0.4), (0.4, 0), (-0.4, 0)]
    else:
        bulb, head = (0, h), [(-0.28, 0), (0.28, 0), (0.5, 0.8), (0, 1.2), (-0.5, 0.8)]
    c.paint(pole, "lamp", metal)
    c.paint(rounded(np.add(head, bulb), 1), "lamp", glass)
    if c.dark:
        c.veil(ellipse(*bulb, 1.1, 1.1), (1, 0.85, 0.5), 0.45, 0.7)
