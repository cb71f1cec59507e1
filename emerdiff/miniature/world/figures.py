"""People and animals."""

from typing import NamedTuple

import numpy as np

from .canvas import Canvas
from .materials import Material, make_material, part_material, relit
from .palette import ANY, pick_colour
from .shapes import box, ellipse, rounded, stroke


def person(c: Canvas, rng) -> None:
    """A person about 1.7 m tall, standing or walking."""
    k = rng.uniform(0.88, 1.1)
    word, coat = part_material(rng, "torso")
    cloth = part_material(rng, "legs")[1]
    tone = np.array([0.86, 0.66, 0.52]) * rng.uniform(0.35, 1.1)
    skin = make_material(rng, tone, "smooth", 0.5, (0.1, 0.4), (0.3, 0.5))
    hair = make_material(rng, "black brown yellow grey orange white red blue", "fur", 0.3)
    shoe = make_material(rng, pick_colour(rng, ANY)[1] * 0.7, "rough", 0.3)
    c.begin(word, "person", "torso")
    c.shadow(0.25, 1.7)
    step, wide = rng.uniform(0.05, 0.28), rng.uniform(0.19, 0.29)
    _legs(c, 0.86 * k, step, cloth, shoe)
    _torso(c, rng, k, wide, coat, cloth, skin)
    _head(c, rng, 1.44 * k, skin, hair)


def _legs(c: Canvas, hip: float, step: float, cloth: Material, shoe: Material) -> None:
    for s in (-1, 1):
        x = s * step
        knee, ankle = (s * 0.1 + x * 0.4, hip * 0.5), (x + s * 0.05, 0.07)
        c.paint(rounded(stroke([(s * 0.09, hip + 0.06), knee, ankle], [0.22, 0.17, 0.13]), 1), "legs", cloth)
        c.paint(rounded(box(x + s * 0.05 - 0.08, -0.01, x + s * 0.05 + 0.15, 0.1), 1), "legs", shoe)


def _torso(c: Canvas, rng, k: float, wide: float, coat: Material, cloth: Material, skin: Material) -> None:
    """Arms, hands and a coat, short or down to the thighs; `k` is the person's size, 1 being the usual."""
    hip, waist, top = 0.86 * k, 1.05 * k, 1.44 * k
    hem = rng.choice([hip - 0.05, hip - 0.05, hip * 0.6])
    flare = wide * (0.85 if hem > 0.7 * hip else rng.uniform(1, 1.4))
    for s in (-1, 1):
        swing = rng.uniform(-0.12, 0.25)
        hand = (s * (wide + swing), rng.uniform(0.72, 0.95) * k)
        c.paint(ellipse(*hand, 0.055, 0.065, 12), "torso", skin)
        shoulder, upper = (s * wide * 0.5, top), (s * wide * 0.9, top - 0.09)
        elbow = (s * (wide + 0.06 + swing * 0.2), 1.13 * k)
        c.paint(rounded(stroke([shoulder, upper, elbow, hand], [0.02, 0.15, 0.13, 0.1])), "torso", coat)
    right = [(flare, hem), (wide * 0.8, waist), (wide, top - 0.06), (0.09, top + 0.03)]
    left = [(-x, y) for x, y in reversed(right)]
    c.paint(rounded([left[-1], *right, *left[:-1]]), "torso", coat)
    if rng.random() < 0.5:
        c.paint(stroke([(0, hem), (0, top)], 0.03), "torso", cloth)


def _head(c: Canvas, rng, neck: float, skin: Material, hair: Material) -> None:
    """A head with long or short hair, seen from the front or from behind."""
    y = neck + 0.19
    c.paint(box(-0.05, neck - 0.02, 0.05, y), "head", skin)
    behind = rng.random() < 0.25
    long = rng.random() < 0.4
    fall = y - 0.1 - 0.15 * long if behind or long else y
    crown = [(-0.16, y + 0.02), (-0.14, y + 0.16), (0, y + 0.21), (0.14, y + 0.16), (0.16, y + 0.02)]
    c.paint(rounded([*crown, (0.14, fall), (-0.14, fall)]), "head", hair)
    if not behind:
        c.paint(ellipse(0.01, y - 0.01, 0.115, 0.15), "head", skin)
        eyes = [ellipse(x, y + 0.02, 0.014, 0.012, 8) for x in (0.045, -0.03)]
        mouth = stroke([(-0.03, y - 0.07), (0.04, y - 0.07)], 0.014)
        c.paint([*eyes, mouth], "head", relit(skin, 0.3))
        fringe = [(-0.12, y + 0.06), (0.12, y + 0.06), (0.1, y + 0.16), (-0.1, y + 0.16)]
        c.paint(rounded(fringe, 1), "head", hair)


class _Build(NamedTuple):
    """Of an animal, in metres."""

    noun: str
    half: float  # of its trunk's length
    legs: float
    thick: float  # half of its trunk's height
    rise: float  # of the raised head above the back
    leg_width: float

    @property
    def back(self) -> float:
        return self.legs + 2 * self.thick


BUILDS = (
    _Build("sheep", 0.62, 0.42, 0.32, 0.15, 0.1),
    _Build("cow", 0.95, 0.68, 0.38, 0.12, 0.14),
    _Build("horse", 0.9, 0.85, 0.33, 0.55, 0.14),
)


def animal(c: Canvas, rng) -> None:
    """A sheep, cow or horse, about 1.4 m tall, standing sideways."""
    build = BUILDS[rng.integers(3)]
    sheep = build.noun == "sheep"
    word, coat = part_material(rng, "animal", "white beige grey brown black" if sheep else None)
    coat = coat._replace(texture="wool" if sheep else "fur")
    other = make_material(rng, "black white brown beige grey", "fur", 0.5)
    c.begin(word, build.noun, "animal")
    c.shadow(build.half, 1.2)
    _animal_legs(c, rng, build, other if sheep else coat)
    _animal_trunk(c, rng, build, coat, other)
    grazing = rng.random() < 0.4
    skull = other if sheep or rng.random() < 0.2 else coat
    _animal_head(c, build, grazing, coat, skull, other)


def _animal_legs(c: Canvas, rng, build: _Build, coat: Material) -> None:
    width = build.leg_width
    for share in (-0.85, -0.6, 0.6, 0.82):
        x = share * build.half
        knee, foot = x + rng.normal(0, 0.03), x + rng.normal(0, 0.07)
        leg = [(x, build.legs + 0.25), (knee, build.legs * 0.5), (foot, 0)]
        c.paint(stroke(leg, [width * 1.9, width, width * 0.85]), "animal", coat)


def _animal_trunk(c: Canvas, rng, build: _Build, coat: Material, other: Material) -> None:
    """The tail, the trunk, and a cow's spots."""
    half, low, back = build.half, build.legs, build.back
    if build.noun != "sheep":
        tail = [(-half, back - 0.12), (-half - 0.14, back - 0.4), (-half - 0.1, low - 0.1)]
        c.paint(stroke(tail, [0.05, 0.07, 0.1]), "animal", other)
    belly = [(-half, low + 0.1), (-0.4 * half, low), (0.4 * half, low), (half, low + 0.12)]
    spine = [(half * 1.06, back - 0.15), (0.6 * half, back), (0, back - 0.05), (-0.8 * half, back + 0.02)]
    trunk = rounded([*belly, *spine, (-1.05 * half, back - 0.2)])
    c.paint(trunk, "animal", coat, 0.035 if build.noun == "sheep" else 0.0)
    for _ in range(3 if build.noun == "cow" else 0):
        x, y = rng.uniform(-0.7, 0.7) * half, rng.uniform(low + 0.27, back - 0.25)
        spot = ellipse(x, y, 0.22, 0.16, 9) + rng.normal(0, 0.04, (9, 2))
        c.paint(rounded(spot), "animal", other)


def _animal_head(c: Canvas, build: _Build, grazing: bool, coat: Material, skull: Material, mane: Material) -> None:
    """Neck, head, ear and eye, and a horse's mane."""
    horse, thick = build.noun == "horse", build.thick
    nape = np.array([build.half * 0.95, build.back - 0.22])
    head = np.array([build.half + 0.42, 0.28 if grazing else build.back + build.rise])
    neck = (nape + head) / 2
    c.paint(stroke([nape, neck, head], [thick * 1.25, thick * 0.85, thick * 0.6]), "animal", coat)
    nose = head + ((0.12, -0.22) if grazing else (0.3, -0.14))
    face = stroke([head + (-0.08, 0.08), (head + nose) / 2, nose], [0.22, 0.22, 0.15])
    c.paint(rounded(face, 1), "animal", skull)
    ear = rounded([head + (-0.12, 0.1), head + (-0.02, 0.1), head + (-0.1, 0.3 if horse else 0.2)], 1)
    eye = ellipse(*(head + (0.03, 0.05)), 0.022, 0.022, 8)
    c.paint([ear, eye], "animal", relit(skull, 0.3))
    if horse:
        line = [nape + (-0.12, 0.2), neck + (-0.14, 0.08), head + (-0.1, 0.12)]
        c.paint(stroke(line, [0.1, 0.16, 0.1]), "animal", mane)
