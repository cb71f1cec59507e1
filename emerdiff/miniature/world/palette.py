"""Colours by name, and those of the seasons and of the times of day."""

import colorsys
from typing import NamedTuple

import numpy as np

# Hue, saturation, value; a surface's colour is drawn around one of them.
COLOURS = {
    "red": (0.0, 0.7, 0.65),
    "orange": (0.07, 0.7, 0.8),
    "yellow": (0.14, 0.62, 0.85),
    "green": (0.3, 0.45, 0.5),
    "olive": (0.2, 0.5, 0.45),
    "teal": (0.48, 0.45, 0.55),
    "blue": (0.58, 0.55, 0.68),
    "navy": (0.63, 0.55, 0.32),
    "purple": (0.77, 0.35, 0.5),
    "pink": (0.95, 0.32, 0.85),
    "brown": (0.07, 0.48, 0.4),
    "beige": (0.1, 0.25, 0.8),
    "grey": (0.6, 0.06, 0.52),
    "white": (0.1, 0.04, 0.92),
    "black": (0.6, 0.15, 0.16),
}
ANY = "red orange yellow green olive teal blue navy purple pink brown beige grey white black"


class Season(NamedTuple):
    """Names of the colours that meadows and leaves may have."""

    meadow: str
    leaves: str


class TimeOfDay(NamedTuple):
    """RGB of the light on surfaces, 1 being white; names of the sky's colours."""

    light: tuple[float, float, float]
    sky: str


SEASONS = {
    "spring": Season("green olive yellow teal", "green pink white yellow olive red"),
    "summer": Season("green olive yellow beige teal", "green olive teal navy purple"),
    "autumn": Season("brown beige yellow orange olive pink", "orange red yellow brown olive purple"),
    "winter": Season("white grey beige blue pink brown", "white grey green brown teal blue"),
}
TIMES = {
    "day": TimeOfDay((1.0, 1.0, 0.98), "blue teal blue white grey"),
    "morning": TimeOfDay((1.05, 0.96, 0.84), "blue yellow beige pink teal green"),
    "sunset": TimeOfDay((1.08, 0.82, 0.62), "orange red pink purple yellow"),
    "dusk": TimeOfDay((0.78, 0.7, 0.86), "purple navy pink blue orange"),
    "night": TimeOfDay((0.5, 0.56, 0.74), "navy black purple teal brown"),
    "overcast": TimeOfDay((0.84, 0.87, 0.9), "grey white beige olive"),
}
TIME_ODDS = (0.34, 0.14, 0.14, 0.14, 0.1, 0.14)


def pick_colour(rng: np.random.Generator, names: str) -> tuple[str, np.ndarray]:
    """One of the named colours (a name given twice is twice as likely), and an RGB triple in 0..1 near it."""
    name = rng.choice(names.split())
    h, s, v = np.array(COLOURS[name]) + rng.uniform(-1, 1, 3) * (0.035, 0.16, 0.17)
    return str(name), np.array(colorsys.hsv_to_rgb(h % 1, np.clip(s, 0, 1), np.clip(v, 0.06, 1)))
