"""Dead leaves: random textured shapes that occlude one another, with the statistics of natural images.

The networks are trained on them as well as on drawn scenes, so that photographs are less unfamiliar to them (model:
Lee, Mumford and Huang, "Occlusion models for natural images", 2001).
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

CAPTIONS = ("a pile of shapes", "abstract shapes", "overlapping shapes with texture", "patches of colour and texture")
_SIDE = 1024  # of the texture bank


@lru_cache(maxsize=1)
def _textures() -> np.ndarray:  # (6, 1024, 1024) float32, zero mean, unit variance
    """1/f^a noise for six exponents: from nearly white to smooth."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_SIDE), np.fft.rfftfreq(_SIDE), indexing="ij"))
    frequency[0, 0] = 1
    bank = []
    for exponent in (0.3, 0.7, 1.0, 1.3, 1.7, 2.2):
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_SIDE, _SIDE))) / frequency**exponent)
        bank.append((noise - noise.mean()) / noise.std())
    return np.stack(bank).astype(np.float32)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:  # (size, size)
    bank = _textures()[rng.integers(6)]
    stretch = rng.integers(1, 4, 2)  # grain runs along an axis
    rows, columns = ((rng.integers(_SIDE) + np.arange(size) * s) % _SIDE for s in stretch)
    texture = bank[np.ix_(rows, columns)]
    if rng.random() < 0.25:  # stripes, bent by the noise
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 40)
        y, x = np.ogrid[:size, :size]
        phase = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)
        texture = np.sin(phase + texture * rng.uniform(0, 1)).astype(np.float32) * 1.2
    return texture


def _outline(rng: np.random.Generator, radius: float) -> np.ndarray:  # (n, 2), centred at 0
    """A polygon, a rectangle or a smooth blob of about the given radius."""
    kind = rng.integers(3)
    count = (int(rng.integers(3, 8)), 4, 48)[kind]
    angle = np.sort(rng.uniform(0, 2 * np.pi, count)) if kind == 0 else np.arange(count) / count * 2 * np.pi
    length = np.full(count, radius)
    if kind == 2:
        for harmonic in range(2, 7):
            length += radius * rng.normal(0, 0.5 / harmonic) * np.cos(harmonic * angle + rng.uniform(0, 6.3))
    turn, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1)
    points = np.stack([np.cos(angle) * length, np.sin(angle) * length * squeeze], 1)
    return points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def draw_leaves(seed: int, size: int = 512) -> tuple[np.ndarray, str]:
    """One picture of dead leaves.

    Returns the picture, (size, size, 3) uint8 RGB, and a caption. Deterministic in `seed` and `size`.
    """
    rng = np.random.default_rng([seed, 1])
    picture = np.empty((size, size, 3), np.float32)
    leaf_count = int(rng.integers(15, 70))
    radii = np.sort(size * 0.04 * (1 + rng.pareto(1.2, leaf_count).clip(0, 12)))[::-1]
    centres = rng.uniform(-0.1, 1.1, (leaf_count, 2)) * size
    grey, saturation = rng.uniform(0.05, 0.95, (6, 1)), rng.uniform(0, 0.8, (6, 1))  # nature is rarely garish
    palette = grey + saturation * (rng.uniform(0, 1, (6, 3)) - grey)
    for index in range(-1, leaf_count):  # -1 is the background
        box = (0, 0, size, size)
        if index >= 0:
            points = _outline(rng, radii[index]) + centres[index]
            box = np.concatenate([np.floor(points.min(0)), np.ceil(points.max(0))]).astype(int).clip(0, size)
        width, height = int(box[2] - box[0]), int(box[3] - box[1])
        if min(width, height) < 2:
            continue
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        grain = _texture(rng, max(width, height))[:height, :width]
        light = 1 + rng.normal(0, 0.2) * x + rng.normal(0, 0.2) * y + rng.uniform(0, 0.3) * grain
        colour = palette[rng.integers(6)] * rng.uniform(0.5, 1.1) + rng.normal(0, 0.08, 3)
        leaf = (light[..., None] * colour).astype(np.float32)
        region = picture[box[1] : box[3], box[0] : box[2]]
        if index < 0:
            region[:] = leaf
            continue
        mask = Image.new("L", (2 * width, 2 * height))
        ImageDraw.Draw(mask).polygon([tuple(p) for p in (points - box[:2]) * 2], fill=255)
        alpha = np.asarray(mask.reduce(2), np.float32)[..., None] / 255
        region += alpha * (leaf - region)
    picture = picture * rng.uniform(0.8, 1.15) + rng.normal(0, rng.uniform(0, 0.02), picture.shape)
    return (picture.clip(0, 1) * 255).astype(np.uint8), CAPTIONS[rng.integers(len(CAPTIONS))]
