"""What stands in a room: tables, seats, cupboards and lamps."""

import numpy as np

from .canvas import Canvas
from .materials import Material, make_material, part_material, relit
from .palette import ANY
from .shapes import box, ellipse, rounded, stroke


def behind(c: Canvas, points, deep: float) -> np.ndarray:
    """Where points (metres) are seen once they are moved `deep` metres away from the viewer."""
    shrink = 1 / (1 + deep * c.scale)
    return (np.asarray(points, float) - (0, c.eye)) * shrink + (0, c.eye)


def block(c: Canvas, part: str, material: Material, x0, y0, x1, y1, deep: float) -> None:
    """A block with its front at (x0, y0)..(x1, y1): the front and, where it is seen, the top in a light of its own."""
    front = box(x0, y0, x1, y1)
    if y1 < c.eye:
        top = front[[3, 2]]
        c.paint(np.concatenate([top, behind(c, top, deep)[::-1]]), part, relit(material, 1.15))
    c.paint(front, part, material)


def table(c: Canvas, rng) -> None:
    """A dining or a coffee table, on four legs or one foot."""
    word, wood = part_material(rng, "table")
    half, h, deep = rng.uniform(0.5, 1), rng.uniform(0.68, 0.8), rng.uniform(0.6, 1)
    if rng.random() < 0.35:
        h *= 0.6
    c.shadow(half, 0.4 * h)
    c.begin(word, "table", "table")
    thick, leg = rng.uniform(0.04, 0.12), rng.uniform(0.05, 0.1)
    ends = np.array([(-half + leg, h), (half - leg, h)])
    if rng.random() < 0.75:
        far = behind(c, np.concatenate([ends, ends * (1, 0)]), deep)
        c.paint([stroke(far[[i, i + 2]], leg * 0.8) for i in (0, 1)], "table", relit(wood, 0.6))
        c.paint([stroke([end, end * (1, 0)], leg) for end in ends], "table", relit(wood, 0.85))
    else:
        c.paint([stroke([(0, h), (0, 0.05)], 2 * leg), ellipse(0, 0.04, half * 0.45, 0.06)], "table", relit(wood, 0.7))
    block(c, "table", wood, -half, h - thick, half, h, deep)


def chair(c: Canvas, rng) -> None:
    """A chair with a straight back, seen from its front."""
    word, wood = part_material(rng, "seat")
    half, h, top, leg = rng.uniform(0.2, 0.26), rng.uniform(0.42, 0.48), rng.uniform(0.85, 1.1), 0.05
    c.shadow(half, 0.5)
    c.begin(word, "chair", "seat")
    far = behind(c, [(-half, 0), (half, 0), (-half, top), (half, top), (-half, h), (half, h)], 0.42)
    c.paint([stroke(far[[i, i + 2]], leg) for i in (0, 1)], "seat", relit(wood, 0.75))
    if rng.random() < 0.5:
        rows = rng.uniform(h + 0.1, top, int(rng.integers(1, 4)))
        bars = [behind(c, box(-half, y - 0.09, half, y), 0.42) for y in (top, *rows)]
        c.paint(bars, "seat", relit(wood, 0.9))
    else:
        c.paint(rounded(far[[4, 5, 3, 2]] + [(0, 0.06), (0, 0.06), (0, 0), (0, 0)], 1), "seat", relit(wood, 0.9))
    c.paint([box(x - leg / 2, 0, x + leg / 2, h) for x in (-half, half)], "seat", relit(wood, 0.8))
    block(c, "seat", wood, -half - 0.03, h - 0.06, half + 0.03, h, 0.45)


def sofa(c: Canvas, rng) -> None:
    """An armchair, or a sofa for two or three, with cushions."""
    places = int(rng.integers(1, 4))
    word, cloth = part_material(rng, "seat")
    half, h, top = 0.32 * places + rng.uniform(0, 0.1), rng.uniform(0.38, 0.48), rng.uniform(0.75, 1.0)
    arm, rise = rng.uniform(0.12, 0.24), rng.uniform(0.12, 0.24)
    c.shadow(half + arm, 0.5)
    c.begin(word, "armchair" if places == 1 else "sofa", "seat")
    feet = [box(x - 0.03, 0, x + 0.03, 0.15) for x in (-half, half)]
    c.paint(feet, "seat", make_material(rng, "brown black grey", "bark", 1))
    c.paint(rounded(behind(c, box(-half - arm, 0.1, half + arm, top), 0.6), 1), "seat", relit(cloth, 0.8))
    lefts = np.linspace(-half, half, places + 1)[:-1]
    for x in lefts:
        back = behind(c, box(x, h, x + 2 * half / places, top - 0.02), 0.5)
        c.paint(rounded(back, 1), "seat", cloth._replace(light=cloth.light + 0.3))
    for x in lefts:
        block(c, "seat", cloth, x + 0.01, h - 0.16, x + 2 * half / places - 0.01, h, 0.55)
    if rng.random() < 0.6:
        x = rng.uniform(-half, half - 0.3)
        cushion = rounded(box(x, h, x + 0.38, h + 0.34) + rng.normal(0, 0.03, (4, 2)), 1)
        c.paint(cushion, "seat", part_material(rng, "seat")[1])
    c.paint(box(-half, 0.1, half, h - 0.15), "seat", relit(cloth, 0.7))
    for side in (-1, 1):
        x = side * (half + arm / 2)
        block(c, "seat", relit(cloth, 0.9), x - arm / 2, 0.08, x + arm / 2, h + rise, 0.6)


def cupboard(c: Canvas, rng) -> None:
    """A cupboard with doors or drawers, or a bookcase."""
    word, wood = part_material(rng, "cupboard")
    half, h, deep = rng.uniform(0.35, 0.9), rng.uniform(0.75, 2.2), rng.uniform(0.35, 0.6)
    bookcase = rng.random() < 0.4
    c.shadow(half, h)
    c.begin(word, "bookcase" if bookcase else "cupboard", "cupboard")
    block(c, "cupboard", wood, -half, 0.0, half, h, deep)
    rows, gap = max(1, round(h / rng.uniform(0.35, 0.6))), 0.05
    tall = (h - gap) / rows
    bottoms = [gap + row * tall for row in range(rows)]
    if bookcase:
        for y in bottoms:
            _books(c, rng, half, y, tall - gap, wood)
    else:
        _doors(c, rng, half, bottoms, tall, gap, h < 1.2, wood)


def _doors(c: Canvas, rng, half: float, bottoms, tall: float, gap: float, drawers: bool, wood: Material) -> None:
    """One to three doors or drawers in each row: in all rows alike, or (drawers) as many as may be."""
    panel = relit(wood, 0.78)._replace(texture="panel", period=tall)
    for row, y in enumerate(bottoms):
        if row == 0 or drawers:
            edges = np.linspace(-half, half, int(rng.integers(1, 4)) + 1)
            columns = list(zip(edges[:-1], edges[1:], strict=True))
        c.paint([box(a + 0.03, y, b - 0.03, y + tall - gap) for a, b in columns], "cupboard", panel)
        knobs = [ellipse((a + b) / 2, y + tall * 0.6, 0.03, 0.03, 10) for a, b in columns]
        c.paint(knobs, "cupboard", relit(wood, 0.35))


def _books(c: Canvas, rng, half: float, y: float, tall: float, wood: Material) -> None:
    """A shelf of books, full or nearly so."""
    c.paint(box(-half + 0.05, y, half - 0.05, y + tall), "cupboard", relit(wood, 0.4))
    x = -half + 0.06
    while x < half - 0.12 and rng.random() < 0.96:
        thick = rng.uniform(0.025, 0.07)
        spine = make_material(rng, ANY, "rough", 0.3)
        c.paint(box(x, y, x + thick, y + tall * rng.uniform(0.6, 0.95)), "cupboard", spine)
        x += thick + 0.005


def standing_lamp(c: Canvas, rng) -> None:
    """A lamp with a shade, about 1.6 m tall, lit after dark and often by day."""
    h, half = rng.uniform(1.2, 1.9), rng.uniform(0.16, 0.32)
    lit = c.dark or rng.random() < 0.3
    shade = make_material(rng, "yellow orange white beige" if lit else ANY, "weave", 0.5, glows=lit)
    c.begin("", "lamp", "lamp")
    c.shadow(0.15, 1)
    metal = make_material(rng, "black grey brown white", "rough", 0.6)
    c.paint([stroke([(0, 0), (0, h)], 0.05), ellipse(0, 0.03, 0.17, 0.04)], "lamp", metal)
    low, high = h - 0.3, h + 0.1
    c.paint(np.array([(-half, low), (half, low), (half * 0.6, high), (-half * 0.6, high)]), "lamp", shade)
    if lit:
        c.veil(ellipse(0, h - 0.1, 0.9, 0.9), (1, 0.85, 0.5), 0.4, 0.5)
