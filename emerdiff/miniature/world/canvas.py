"""The canvas: the picture being painted and its labels, with the camera, the season and the light."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .materials import INDEX, Material
from .palette import SEASONS, TIME_ODDS, TIMES
from .shapes import ellipse, rounded
from .textures import TEXELS, textures

SHADE = (0.04, 0.05, 0.12)  # RGB of a shadow


class Coverage(NamedTuple):
    """How far polygons cover the pixels of a part of the frame."""

    mask: np.ndarray  # (y1 - y0, x1 - x0) uint8, 255 being all
    area: tuple[int, int, int, int]  # x0, y0, x1, y1
    low: np.ndarray  # (2,) pixels, the corners of the polygons' bounds, which may lie outside the frame
    high: np.ndarray


class Thing(NamedTuple):
    """Something to be drawn: where it stands (frame units), what draws it and with which random numbers."""

    y: float
    x: float
    draw: Callable[["Canvas", np.random.Generator], None]
    rng: np.random.Generator


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


class Canvas:
    """The picture being painted, `size` pixels a side, with all that its scene has in common."""

    def __init__(self, rng: np.random.Generator, size: int):
        self.rng, self.size = rng, size
        self.image = Image.new("RGB", (size, size))
        self.codes = np.zeros((size, size), np.uint16)  # 64 * object + class, the objects in the order of `tags`
        self.tags: list[tuple[str, str, str]] = []  # per object: describing word, noun, class
        self.things: list[Thing] = []
        self.indoors, self.blur = False, 0.0  # blur of what is behind the first thing, as a share of the side
        self.season = str(rng.choice(list(SEASONS)))
        self.time = str(rng.choice(list(TIMES), p=TIME_ODDS))
        self.tint = np.array(TIMES[self.time].light) * rng.uniform(0.85, 1.12)
        self.sun = np.array([rng.uniform(-1, 1), -rng.uniform(0.3, 1)])  # where the light comes from, y down
        self.shadows = rng.uniform(0.15, 0.5) * (0.35 if self.time in ("overcast", "night", "dusk") else 1)
        self.horizon = rng.uniform(-0.25, 0.9)
        self.eye = log_uniform(rng, 1.2, 6)  # height of the camera in metres
        if self.horizon < 0.2:
            self.eye *= rng.uniform(1.5, 3.5)
        self.haze_distance = log_uniform(rng, 60, 900)  # metres
        self.haze = np.ones(3)  # RGB
        tilt, mirror = math.radians(np.clip(rng.normal(0, 4), -12, 12)), rng.choice([-1, 1])
        c, s = math.cos(tilt), math.sin(tilt)
        turn = np.array([[c, -s], [s, c]]) @ np.diag([mirror, 1]) * size
        self.camera = np.column_stack([turn, size / 2 - turn @ (0.5, 0.5)])  # (2, 3), from frame units to pixels
        self.use_frame()

    @property
    def dark(self) -> bool:
        """Whether lamps are lit."""
        return self.time in ("night", "dusk")

    @property
    def labels(self) -> np.ndarray:  # (size, size), index of CLASSES
        return self.codes & 63

    @property
    def objects(self) -> np.ndarray:  # (size, size), index of `tags`
        return self.codes >> 6

    def use_frame(self, haziness: float = 0.0) -> None:
        """Draw in frame units from now on."""
        self.local, self.haziness, self.scale = self.camera, haziness, 1.0

    def stand(self, x: float, y: float, flip: int = 1) -> None:
        """Draw in metres from now on, standing at frame position (x, y) on the ground."""
        self.scale = (y - self.horizon) / self.eye
        local = np.array([[self.scale * flip, 0, x], [0, -self.scale, y], [0, 0, 1]])
        self.local = self.camera @ local
        self.haziness = 0.85 * (1 - math.exp(-1 / (self.scale * self.haze_distance)))

    def begin(self, word: str, noun: str, part: str) -> None:
        """Start a new object, known in the caption as word + noun if enough of it, and of the part, stays visible."""
        self.tags.append((word, noun, part))

    def paint(self, shapes, part: str, material: Material, fuzz: float = 0.0, fray="leaf", ground=False) -> None:
        """Fill polygons (local units) with a material and label them as a part.

        `fuzz` (local units) makes the edge uneven after the texture `fray`; `ground` lays the material on the ground,
        where it recedes to the horizon.
        """
        covered = self._cover(shapes, fuzz, fray if fuzz else None)
        if covered is None:
            return
        x0, y0, x1, y1 = covered.area
        filled = Image.fromarray(self._shades(material).take(self._tones(material, covered, ground), 0))
        self.image.paste(filled, covered.area, Image.fromarray(covered.mask))
        code = 64 * len(self.tags) - 64 + INDEX[part]
        np.copyto(self.codes[y0:y1, x0:x1], code, where=covered.mask > 127)

    def veil(self, shapes, rgb, strength: float, blur: float) -> None:
        """Tint the picture softly inside polygons and leave labels alone: shadows, glows, reflections."""
        covered = self._cover(shapes, blur)
        if covered is not None:
            mask = Image.fromarray(covered.mask).point([int(i * strength) for i in range(256)])
            self.image.paste(tuple(int(255 * v) for v in np.clip(rgb, 0, 1)), covered.area, mask)

    def shadow(self, half: float, height: float) -> None:
        """The soft shadow on the ground of a thing of half width and height (metres)."""
        mirrored = self.local[0, 0] * self.camera[0, 0] <= 0
        reach = -self.sun[0] * height * 0.5 * (-1 if mirrored else 1)
        low, high = -0.04 * half, height * 0.1
        shape = rounded([(-half, low), (half, low), (half + reach, high), (reach - half, high)])
        self.veil([shape, ellipse(0, 0, half * 1.15, half * 0.14)], SHADE, self.shadows, 0.1 * half + 0.02)

    def on_ground(self, points) -> np.ndarray:
        """Frame positions of ground points (metres to the right, metres ahead)."""
        p = np.asarray(points, float)
        return np.stack([0.5 + p[:, 0] / p[:, 1], self.horizon + self.eye / p[:, 1]], 1)

    def place(self, draw, height: float, share=(0.12, 0.7), x=None, y=None) -> None:
        """Queue a thing `height` metres tall at a visible spot where it takes up a share of the frame."""
        rng = self.rng
        child = np.random.default_rng(rng.integers(2**62))
        for _ in range(8):
            f = log_uniform(rng, *share)
            at_x, base = rng.uniform(-0.05, 1.05), self.horizon + f * self.eye / height
            if 0.05 < base < 1.1 + 0.4 * f or y is not None:
                self.things.append(Thing(base if y is None else y, at_x if x is None else x, draw, child))
                return

    def focus(self, draw, height: float, share=(0.6, 1.3)) -> None:
        """Turn the camera to a thing so that it takes up a large share of the frame, and queue it."""
        rng = self.rng
        f, top = rng.uniform(*share), rng.uniform(0.02, 0.3)
        self.eye = min(max(rng.uniform(0.5, 1.1) * height, 0.7), 6) if height < 3 else rng.uniform(1.2, 5)
        base = top + f if rng.random() < 0.85 else rng.uniform(0.8, 1.0)
        self.horizon = base - f * self.eye / height
        self.things.append(Thing(base, rng.uniform(0.32, 0.68), draw, np.random.default_rng(rng.integers(2**62))))

    def draw_things(self) -> None:
        """Draw what is queued, from the farthest to the nearest; before the thing in focus, blur what is there."""
        subject = self.things[0] if self.blur else None
        for thing in sorted(self.things, key=lambda t: t.y):
            if thing is subject:
                self.image = self.image.filter(ImageFilter.GaussianBlur(self.blur * self.size))
            if thing.y > self.horizon + 0.004:
                self.stand(thing.x, thing.y, int(thing.rng.choice([-1, 1])))
                thing.draw(self, thing.rng)

    def _cover(self, shapes, blur: float = 0.0, fray: str | None = None) -> Coverage | None:
        """What polygons (local units) cover; None where that is outside the frame.

        A blur (local units) softens the edge; `fray` names the texture which then breaks it up.
        """
        shapes = [shapes] if isinstance(shapes, np.ndarray) else shapes
        turn, shift = self.local[:, :2].T, self.local[:, 2]
        shapes = [s @ turn + shift for s in shapes]
        low, high = np.min([s.min(0) for s in shapes], 0), np.max([s.max(0) for s in shapes], 0)
        radius = blur * math.sqrt(abs(np.linalg.det(self.local[:, :2])))
        x0, y0 = np.maximum(np.floor(low - radius * 1.5), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(high + radius * 1.5), self.size).astype(int).tolist()
        if x1 <= x0 or y1 <= y0:
            return None
        k = 1 if blur else 2  # a sharp edge is drawn at twice the size
        image = Image.new("L", (k * (x1 - x0), k * (y1 - y0)))
        pen = ImageDraw.Draw(image)
        for s in shapes:
            pen.polygon(((s - (x0, y0)) * k - (k - 1) * 0.5).ravel().tolist(), fill=255)
        area = (x0, y0, x1, y1)
        if not blur:
            return Coverage(np.asarray(image.reduce(2)), area, low, high)
        soft = np.asarray(image.filter(ImageFilter.BoxBlur(min(radius, self.size / 8))))
        if fray:
            rag = self._texels(fray, area, blur * 14, (0.3, 0.7)).astype(np.float32) - 128
            ragged = (soft + rag * 0.9 - 128) * 1.6 * 2.5 + 128  # times 4 would be rounded otherwise
            soft = np.clip(ragged, 0, 255) * (soft > 6)
        return Coverage(soft.astype(np.uint8), area, low, high)

    def _texels(self, texture: str, area, period: float, offset, ground: bool = False) -> np.ndarray:
        """The texture over a part of the frame, (h, w) uint8, in local units or (ground) receding to the horizon."""
        x0, y0, x1, y1 = area
        a = np.linalg.inv(self.local[:, :2])
        b = -a @ self.local[:, 2]
        a, b = a.astype(np.float32), b.astype(np.float32)
        xs, ys = np.arange(x0, x1, dtype=np.float32) + 0.5, np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5
        u, v = a[0, 0] * xs + b[0] + a[0, 1] * ys, a[1, 0] * xs + b[1] + a[1, 1] * ys
        pixel = math.sqrt(abs(np.linalg.det(a)))  # its side in local units
        if ground:
            d = np.maximum(v - np.float32(self.horizon), 0.012)
            middle = max(float(d[:: max(1, len(d) // 8), ::64].mean()) * 0.6, 0.02)
            period /= self.eye
            pixel /= middle
            u, v = (u - np.float32(0.5)) / d, np.log(d) * np.float32(1.6)
        step = TEXELS * pixel / period  # texels from one pixel to the next
        while step < 0.6:  # a texture seen from near is repeated more often, so that it does not blur
            step, period = step * 2, period / 2
        level = min(max(round(math.log2(step)), 0), 6)
        bits = 9 - level
        n = 1 << bits
        u *= np.float32(n / period)
        v *= np.float32(n / period)
        u += np.float32((64 + offset[0]) * n)  # 64: truncation below is then of positive numbers
        v += np.float32((64 + offset[1]) * n)
        index = ((v.astype(np.int32) & (n - 1)) << bits) | (u.astype(np.int32) & (n - 1))
        return textures()[texture][level].ravel().take(index)

    def _tones(self, material: Material, covered: Coverage, ground: bool) -> np.ndarray:
        """Which of its shades a material shows at each pixel covered, (h, w) uint8: by its texture and the sun."""
        x0, y0, x1, y1 = covered.area
        tone = self._texels(material.texture, covered.area, material.period, material.offset, ground)
        tone = tone.astype(np.float32)
        tone -= 128
        tone *= material.amount * 1.5
        low, high = covered.low, covered.high
        whole = np.array([self.size, self.size], float)
        span, centre = (whole, whole / 2) if ground else (np.maximum(high - low, 1), (low + high) / 2)
        glow = material.light * 100 * self.sun
        tone += ((np.arange(x0, x1) + 0.5 - centre[0]) * (glow[0] / span[0])).astype(np.float32)
        tone += ((np.arange(y0, y1) + 0.5 - centre[1]) * (glow[1] / span[1]) + 128).astype(np.float32)[:, None]
        return np.clip(tone, 0, 255, out=tone).astype(np.uint8)

    def _shades(self, material: Material) -> np.ndarray:  # (256, 3) uint8 RGB
        """A material's shades in the light of the day, through the haze."""
        colours = material.shades * (1.0 if material.glows else self.tint)
        colours += (self.haze - colours) * self.haziness
        return (colours.clip(0, 1) * 255).astype(np.uint8)
