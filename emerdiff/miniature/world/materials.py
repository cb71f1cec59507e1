"""The part classes, and what each of them is made of: a texture laid over shades of a colour."""

from typing import NamedTuple

import numpy as np

from .palette import ANY, pick_colour

CLASSES = (
    "sky",
    "cloud",
    "sun",
    "mountain",
    "meadow",
    "soil",
    "water",
    "road",
    "pavement",
    "wall",
    "roof",
    "window",
    "door",
    "chimney",
    "fence",
    "crown",
    "trunk",
    "bush",
    "car body",
    "car window",
    "wheel",
    "head",
    "torso",
    "legs",
    "hull",
    "sail",
    "lamp",
    "animal",
    "floor",
    "rug",
    "table",
    "seat",
    "cupboard",
    "painting",
)
INDEX = {name: i for i, name in enumerate(CLASSES)}

# Per part: the colours it comes in, and its textures with the length (metres) of one texture period.
# Wallpaper is no class: it is what the walls of a room are made of.
MATERIALS = {
    "mountain": ("grey brown blue purple olive green beige pink teal", {"rock": 1, "ridge": 1}),
    "soil": ("beige brown orange grey yellow pink white olive", {"grain": 2, "furrow": 5, "stone": 4}),
    "water": ("blue teal green grey navy brown olive white pink orange", {"ripple": 6, "wave": 9}),
    "road": ("grey black brown beige purple white navy", {"grain": 2.5, "rough": 4}),
    "pavement": ("grey beige red brown white pink yellow", {"slab": 3, "stone": 2, "brick": 2.5}),
    "wall": (ANY, {"brick": 2.2, "plank": 2.5, "stone": 3, "rough": 2.5, "siding": 2.5}),
    "roof": (ANY, {"tile": 3.5, "shingle": 3.5, "stripe": 3, "thatch": 2}),
    "door": (ANY, {"plank": 1.6, "rough": 1, "panel": 1.1}),
    "chimney": ("red brown grey beige white black orange", {"brick": 1.6, "rough": 1, "stone": 2}),
    "fence": ("white brown grey black green beige red blue", {"bark": 1, "rough": 1}),
    "trunk": ("brown grey black beige olive white red", {"bark": 1.2, "rock": 1}),
    "car body": (ANY, {"smooth": 3, "rough": 4}),
    "torso": (ANY, {"weave": 0.5, "check": 0.9, "knit": 0.6, "rough": 0.6}),
    "legs": (ANY, {"weave": 0.4, "rough": 0.5, "knit": 0.8}),
    "hull": (ANY, {"siding": 2, "smooth": 3, "rough": 2}),
    "sail": ("white beige red orange blue yellow pink green teal black", {"stripe": 6, "smooth": 4, "weave": 2}),
    "animal": ("white brown black beige grey orange red", {"fur": 0.7, "wool": 0.8}),
    "wallpaper": (ANY, {"rough": 2.5, "smooth": 3, "stripe": 1.5, "brick": 2.2, "plank": 2, "check": 1.5}),
    "floor": ("brown beige orange grey white black red teal olive", {"plank": 2.2, "slab": 3, "rough": 2, "brick": 2}),
    "rug": (ANY, {"weave": 1, "check": 1.5, "knit": 1.5, "wool": 1}),
    "table": ("brown beige white black orange grey teal red", {"plank": 1.6, "bark": 1.2, "smooth": 1}),
    "seat": (ANY, {"weave": 0.5, "check": 0.6, "knit": 0.8, "smooth": 1, "plank": 1}),
    "cupboard": ("brown beige white black grey teal green blue red", {"plank": 1.6, "bark": 1.2, "smooth": 1}),
}


class Material(NamedTuple):
    """Shades of a colour, chosen at each pixel by a texture and by the light."""

    shades: np.ndarray  # (256, 3) RGB in 0..1, from dark to bright
    texture: str
    period: float  # length of one period of the texture, in the units that are drawn in
    amount: float  # how much of the texture shows
    light: float  # how much the side towards the sun differs from the other
    offset: tuple[float, float]  # of the texture, in periods
    glows: bool  # whether it shines by itself: the light of the day does not tint it


def make_material(
    rng: np.random.Generator,
    colour: str | np.ndarray,
    texture: str,
    period: float,
    amount: tuple[float, float] = (0.35, 0.9),
    contrast: tuple[float, float] = (0.4, 0.75),
    light: tuple[float, float] = (0.2, 0.8),
    glows: bool = False,
) -> Material:
    """A material of a colour, RGB in 0..1 or names to pick from; its strengths are drawn from the given ranges."""
    rgb = pick_colour(rng, colour)[1] if isinstance(colour, str) else colour
    return Material(
        shades_of(rng, rgb, rng.uniform(*contrast)),
        texture,
        period * rng.uniform(0.7, 1.4),
        rng.uniform(*amount),
        rng.uniform(*light),
        tuple(rng.uniform(0, 1, 2)),
        glows,
    )


def part_material(rng: np.random.Generator, part: str, names: str | None = None) -> tuple[str, Material]:
    """What a part is made of this time, in one of its colours or of those named: the colour's name and the material."""
    colours, textures = MATERIALS[part]
    name, rgb = pick_colour(rng, names or colours)
    texture = str(rng.choice(list(textures)))
    return name, make_material(rng, rgb, texture, textures[texture])


def shades_of(rng: np.random.Generator, rgb: np.ndarray, contrast: float) -> np.ndarray:  # (256, 3) RGB in 0..1
    """Shades of a colour from dark to bright, cool or warm, the dark ones now and then mixed with a second hue."""
    warm = rng.uniform(-0.12, 0.12) * np.array([1, 0, -1])
    dark = rgb * (1 - contrast) * (1 - warm)
    bright = 1 - (1 - rgb * (1 + warm)) * (1 - 0.75 * contrast)
    if rng.random() < 0.25:
        dark = 0.5 * dark + 0.5 * pick_colour(rng, ANY)[1] * (1 - 0.5 * contrast)
    t = np.linspace(0, 1, 256)[:, None]
    return np.where(t < 0.5, dark + (rgb - dark) * 2 * t, rgb + (bright - rgb) * (2 * t - 1)).clip(0, 1)


def relit(material: Material, factor: float) -> Material:
    """The material, lit that many times as strongly."""
    return material._replace(shades=material.shades * factor)
