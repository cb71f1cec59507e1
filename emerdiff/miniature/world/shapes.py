"""Outlines as polygons, (n, 2) float arrays of x and y in whatever units are drawn in."""

import numpy as np


def box(x0, y0, x1, y1) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def ellipse(cx, cy, rx, ry, n=26) -> np.ndarray:
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([cx + rx * np.cos(a), cy + ry * np.sin(a)], 1)


def rounded(points, rounds=2) -> np.ndarray:
    """A closed polygon with its corners cut (Chaikin's algorithm)."""
    p = np.asarray(points, float)
    for _ in range(rounds):
        q = np.roll(p, -1, 0)
        p = np.stack([0.75 * p + 0.25 * q, 0.25 * p + 0.75 * q], 1).reshape(-1, 2)
    return p


def stroke(points, widths) -> np.ndarray:
    """The outline of a line through points, as wide as given: everywhere, or at each of them."""
    p = np.asarray(points, float)
    d = np.gradient(p, axis=0)
    side = np.stack([-d[:, 1], d[:, 0]], 1) / np.maximum(np.hypot(*d.T), 1e-9)[:, None]
    half = side * np.broadcast_to(np.asarray(widths, float), len(p))[:, None] / 2
    return np.concatenate([p + half, (p - half)[::-1]])


def skyline(rng, x0, x1, roughness=0.55, n=129) -> np.ndarray:
    """A fractal line (n, 2) from x0 to x1 with heights of about -1..1."""
    t, y = np.linspace(0, 1, n), np.zeros(n)
    for octave in range(2, 7):
        k = 2**octave + 1
        y += np.interp(t, np.linspace(0, 1, k), rng.uniform(-1, 1, k)) * roughness ** (octave - 2)
    return np.stack([x0 + (x1 - x0) * t, y * 0.6], 1)


def area_under(line: np.ndarray, bottom: float) -> np.ndarray:
    """What lies between a line and the height `bottom`."""
    return np.concatenate([line, [(line[-1, 0], bottom), (line[0, 0], bottom)]])
