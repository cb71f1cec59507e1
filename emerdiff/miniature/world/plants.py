"""Trees, bushes and hedges."""

import math

import numpy as np

from .canvas import Canvas
from .materials import Material, make_material, part_material
from .palette import ANY, SEASONS, pick_colour
from .shapes import box, ellipse, stroke


def foliage(c: Canvas, rng) -> tuple[str, Material]:
    """The name of its colour, and the material of foliage in the season."""
    word, rgb = pick_colour(rng, SEASONS[c.season].leaves)
    texture = str(rng.choice(["leaf", "leaf", "needle"]))
    return word, make_material(rng, rgb, texture, 2.2, (0.5, 1), (0.55, 0.85), (0.5, 1.1))


def tree(c: Canvas, rng) -> None:
    """A broadleaf, poplar, conifer or bare tree, about 7 m tall."""
    h, lean = rng.uniform(5, 9), rng.normal(0, 0.4)
    kind = rng.choice(["round", "round", "tall", "fir", "bare"], p=[0.3, 0.2, 0.15, 0.2, 0.15])
    if c.season == "winter" and kind == "round" and rng.random() < 0.6:
        kind = "bare"
    thick = h * rng.uniform(0.035, 0.08)
    c.shadow(h * 0.25, h)
    bark = part_material(rng, "trunk")[1]
    word, leaves = foliage(c, rng)
    c.begin("bare" if kind == "bare" else word, "tree", "trunk" if kind == "bare" else "crown")
    foot = rng.uniform(0.16, 0.42) * h
    c.paint(_trunk_and_branches(rng, kind, h, lean, foot, thick), "trunk", bark)
    if kind == "fir":
        _fir_crown(c, rng, h, lean, foot * 0.6, leaves)
    elif kind != "bare":
        _leafy_crown(c, rng, kind, h, lean, foot, leaves)


def _trunk_and_branches(rng, kind: str, h: float, lean: float, foot: float, thick: float) -> list[np.ndarray]:
    top = np.array([lean, h * (0.9 if kind in ("bare", "fir") else 0.7)])
    spine = np.array([(0, -0.02 * h), (0.1 * lean, 0.3 * foot), (0.3 * lean, 0.4 * h), top])
    limbs = [stroke(spine, [thick * 1.5, thick, thick * 0.8, thick * 0.15])]
    if kind == "fir":
        return limbs
    sides, forks = ((-1, 1, -1, 1), 4) if kind == "bare" else ((-1, 1, -1), 2)
    for side in sides:
        start = np.array([0.25 * lean, rng.uniform(0.9, 1.6) * foot])
        spread = rng.uniform(0.25, 1.0) * (0.4 if kind == "tall" else 1)
        limbs += _branch(rng, start, side * spread, h * 0.26, thick * 0.6, forks)
    return limbs


def _branch(rng, start, angle: float, length: float, width: float, forks: int) -> list[np.ndarray]:
    """A branch at an angle from upright (radians), with those that grow out of it."""
    end = start + length * np.array([math.sin(angle), math.cos(angle)])
    bend = (start + end) / 2 + rng.normal(0, 0.07, 2) * length
    limbs = [stroke([start, bend, end], [width, width * 0.75, width * 0.5])]
    for _ in range(2 if forks > 1 else 0):
        fork = bend if rng.random() < 0.3 else end
        limbs += _branch(rng, fork, angle + rng.normal(0, 0.55), length * 0.68, width * 0.6, forks - 1)
    return limbs


def _fir_crown(c: Canvas, rng, h: float, lean: float, low: float, leaves: Material) -> None:
    """Tiers of drooping branches from the height `low` to the top."""
    tiers, y = int(rng.integers(4, 8)), low
    wide = rng.uniform(0.18, 0.32) * h
    for i in range(tiers):
        r, up = wide * (1 - i / tiers) + 0.05 * h, (h - low) / tiers
        n = int(rng.integers(5, 9))
        xs = np.linspace(-r, r, 2 * n + 1)
        ys = y + np.abs(xs / r) * -0.1 * h + (np.arange(2 * n + 1) % 2) * 0.07 * h
        tier = np.concatenate([np.stack([xs + lean * y / h, ys], 1), [(lean * y / h, y + up * 1.9)]])
        c.paint(tier, "crown", leaves, 0.012 * h, "needle")
        y += up


def _leafy_crown(c: Canvas, rng, kind: str, h: float, lean: float, foot: float, leaves: Material) -> None:
    wide, tall = (0.13, 0.42) if kind == "tall" else (rng.uniform(0.24, 0.42), rng.uniform(0.24, 0.36))
    rx, ry = wide * h, tall * h
    cy = max(foot + ry * 0.75, h - ry)

    def lump(angle: float, out: float, r: float) -> np.ndarray:
        return ellipse(lean + rx * out * math.sin(angle), cy + ry * out * math.cos(angle), rx * r, ry * r)

    lumps = [lump(a, 0.7, r) for a, r in zip(rng.uniform(0, 6.3, 7), rng.uniform(0.25, 0.5, 7), strict=True)]
    c.paint([ellipse(lean, cy, rx * 0.85, ry * 0.85), *lumps], "crown", leaves, 0.03 * h)
    for _ in range(3):  # in front, each with leaves and light of its own
        a, r = rng.uniform(0, 6.3), rng.uniform(0.3, 0.5)
        c.paint(lump(a, 0.5, r), "crown", leaves._replace(offset=tuple(rng.uniform(0, 1, 2))), 0.03 * h)


def bush(c: Canvas, rng) -> None:
    """A bush, now and then in flower, or a length of hedge; about 1.3 m tall."""
    h, wide = rng.uniform(0.8, 1.7), rng.uniform(0.7, 1.6)
    word, leaves = foliage(c, rng)
    leaves = leaves._replace(period=1.1)
    hedge = rng.random() < 0.3
    c.shadow(wide, h)
    c.begin(word, "hedge" if hedge else "bush", "bush")
    if hedge:
        c.paint(box(-2.5 * wide, -0.05, 2.5 * wide, h), "bush", leaves, 0.06)
        return
    lumps = [box(-0.85 * wide, 0, 0.85 * wide, 0.4 * h)]
    lumps += [
        ellipse(x * wide * 0.6, h * 0.45, wide * 0.5, h * r)
        for x, r in zip((-1, 0, 1), rng.uniform(0.35, 0.6, 3), strict=True)
    ]
    c.paint(lumps, "bush", leaves, 0.09)
    if rng.random() < 0.3:
        flowers = ellipse(rng.uniform(-0.4, 0.4) * wide, h * 0.55, wide * 0.4, h * 0.3)
        c.paint(flowers, "bush", make_material(rng, ANY, "leaf", 0.9, (0.5, 1), (0.5, 0.8)), 0.15)
