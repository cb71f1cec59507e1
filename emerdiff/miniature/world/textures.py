"""The bank of textures that materials are made of, and the noise of a camera's sensor."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

TEXELS = 512  # side of a texture


@lru_cache(maxsize=1)
def textures() -> dict[str, list[np.ndarray]]:
    """Tileable textures by name: pyramids of (n, n) uint8 with mean near 128, n = 512, 256, ..., 8."""
    return {name: _pyramid(field) for name, field in _fields(np.random.default_rng(20240)).items()}


@lru_cache(maxsize=1)
def film_grain() -> np.ndarray:
    """Camera noise, (1024, 1024, 3) int8 with deviation 32, partly shared by the channels."""
    rng = np.random.default_rng(7)
    grey = rng.standard_normal((1024, 1024, 1)) * 26 + rng.standard_normal((1024, 1024, 3)) * 18
    return np.clip(grey, -127, 127).astype(np.int8)


def _pyramid(field: np.ndarray) -> list[np.ndarray]:
    """The field at mean 128 and deviation 52, and halved again and again."""
    levels = [np.clip((field - field.mean()) / field.std() * 52 + 128, 0, 255).astype(np.float32)]
    while len(levels[-1]) > 8:
        a = levels[-1]
        levels.append((a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4)
    return [a.astype(np.uint8) for a in levels]


def _fields(rng: np.random.Generator) -> dict[str, np.ndarray]:  # (TEXELS, TEXELS) each, of any mean and deviation
    y, x = np.mgrid[0:TEXELS, 0:TEXELS].astype(np.float32)
    fine, soft, bent = _noise(rng, 0.6), _noise(rng, 1.7), _noise(rng, 1.6) * 6
    edge, tone = _cells(rng, 420)
    rock = _noise(rng, 1.5)
    relief = np.roll(rock, 2, 1) - np.roll(rock, -2, 1) + np.roll(rock, 2, 0) - np.roll(rock, -2, 0)

    def courses(*shape) -> np.ndarray:
        return _courses(rng, x, y, *shape) + 0.25 * fine

    natural = {
        "smooth": _noise(rng, 2.2),
        "cloudy": _noise(rng, 1.9),
        "rough": _noise(rng, 1.1),
        "grain": 0.7 * _noise(rng, 0.25) + 0.5 * soft,
        "leaf": _strokes(rng, 5200, 9, 5, 6.3) + 0.5 * _noise(rng, 1.4, low=6),
        "needle": _strokes(rng, 9000, 13, 2, 2.2) + 0.4 * soft,
        "grass": _strokes(rng, 9000, 15, 1.8, 1.1) + 0.5 * soft,
        "thatch": _strokes(rng, 9000, 30, 1.6, 0.4) + 0.5 * _wave(6, y),
        "fur": _strokes(rng, 7000, 16, 3, 1.2) * 0.6 + _noise(rng, 1.6),
        "wool": _strokes(rng, 2500, 11, 10, 6.3) + 0.3 * _noise(rng, 1.2),
        "bark": _noise(rng, 1.0, sx=0.35, sy=2.5) + 0.3 * fine,
        "ripple": _noise(rng, 1.3, sx=3.5, sy=0.6, low=4),
        "wave": 1.1 * _wave(14, y + 2 * bent) + 0.7 * _noise(rng, 1.2, sx=3, sy=0.7, low=5),
        "rock": 1.2 * relief / relief.std() + 0.5 * _noise(rng, 1.8),
        "ridge": 2.2 - 2.8 * np.abs(_noise(rng, 1.7, sx=1.6, sy=0.7)) + 0.4 * fine,
        "furrow": 1.2 * _wave(12, x + bent) + 0.6 * fine,
        "stone": 2.4 * edge - 1.8 + 0.6 * tone + 0.25 * fine,
    }
    shingle = (y * 16 / TEXELS) % 1
    scallop = (y * 16 / TEXELS - 0.45 * np.abs(np.sin(np.pi * (x * 16 / TEXELS + 0.5 * np.floor(y * 16 / TEXELS))))) % 1
    joint = (x * 14 / TEXELS) % 1 < 0.12
    built = {
        "brick": courses(16, 8, 0.12),
        "slab": courses(6, 6, 0.05, 0),
        "siding": 2.2 * ((y * 14 / TEXELS) % 1) ** 0.6 - 1.5 + 0.3 * fine,
        "plank": np.roll(courses(2, 14, 0.07, 0.3, 0.6).T, 9, 0).T * 0.7 - 1.3 * joint + 0.3 * fine,
        "panel": courses(2, 2, 0.12, 0, 0.1),
        "tile": 1.6 * scallop - 0.8 + 0.5 * courses(16, 16, 0.02, 0.5, 0.6),
        "shingle": 1.5 * shingle - 0.9 + 0.6 * courses(16, 12, 0.08, 0.5, 0.8),
    }
    woven = {
        "stripe": 1.3 * _wave(16, x) + 0.3 * fine,
        "weave": 0.7 * _wave(64, x) * _wave(64, y) + 0.6 * soft,
        "knit": 1.3 * np.sign(_wave(8, y)) + 0.5 * _wave(64, x + y),
        "check": 0.9 * np.sign(_wave(6, x)) + 0.9 * np.sign(_wave(6, y)) + 0.3 * fine,
    }
    return natural | built | woven


def _noise(rng, power: float, sx: float = 1, sy: float = 1, low: float = 1) -> np.ndarray:
    """1/f^power noise of deviation 1, flat below the frequency `low`; sx above 1 stretches it along x, sy along y."""
    frequency = np.fft.fftfreq(TEXELS) * TEXELS
    fx, fy = np.meshgrid(frequency, frequency)
    radius = np.maximum(np.hypot(fx * sx, fy * sy), low)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TEXELS, TEXELS))) / radius**power).real
    return field / field.std()


def _strokes(rng, count: int, length: float, width: float, spread: float) -> np.ndarray:
    """Narrow diamonds of random tones, upright within half of `spread` (radians), over one another."""
    n = TEXELS
    image = Image.new("L", (n, n), 110)
    pen = ImageDraw.Draw(image)
    for x, y, angle, tone in zip(*rng.uniform(0, 1, (4, count)), strict=True):
        angle = (angle - 0.5) * spread
        dx, dy = length * math.sin(angle), length * math.cos(angle)
        wx, wy = width * math.cos(angle), -width * math.sin(angle)
        for ox in (-n, 0, n):  # what leaves at one edge comes in at the other
            for oy in (-n, 0, n):
                px, py = x * n + ox, y * n + oy
                if -length < px < n + length and -length < py < n + length:
                    diamond = [px - dx, py - dy, px + wx, py + wy, px + dx, py + dy, px - wx, py - wy]
                    pen.polygon(diamond, fill=int(30 + 200 * tone))
    return (np.asarray(image, np.float32) - 125) / 50


def _cells(rng, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi cells: 0 at their edges, 1 inside; and a random tone for each."""
    from scipy.spatial import cKDTree  # here, because it is slow to import and not always needed

    points = rng.uniform(0, TEXELS, (count, 2))
    y, x = np.mgrid[0:TEXELS, 0:TEXELS].astype(float)
    near, which = cKDTree(points, boxsize=TEXELS).query(np.stack([x, y], -1).reshape(-1, 2), k=2)
    edge = np.clip((near[:, 1] - near[:, 0]) / 7, 0, 1).reshape(TEXELS, TEXELS)
    return edge, rng.standard_normal(count)[which[:, 0]].reshape(TEXELS, TEXELS)


def _courses(rng, x, y, rows: int, cols: int, joint: float, shift: float = 0.5, tone: float = 0.5) -> np.ndarray:
    """Bricks with dark joints between them, every other row shifted; `tone` is how much they differ."""
    row = np.floor(y * rows / TEXELS).astype(int)
    u = x * cols / TEXELS + shift * (row % 2)
    v = (y * rows / TEXELS) % 1
    tones = rng.standard_normal((rows, cols))[row, np.floor(u).astype(int) % cols]
    gap = np.minimum(np.minimum(u % 1, 1 - u % 1) * rows / cols * (cols / rows) ** 2, np.minimum(v, 1 - v))
    return tone * tones + 0.6 - 2.6 * np.clip(1 - gap / joint, 0, 1)


def _wave(count: float, along: np.ndarray) -> np.ndarray:
    """That many periods of a sine."""
    return np.sin(2 * np.pi * count * along / TEXELS)
