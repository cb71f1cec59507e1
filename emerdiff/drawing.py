"""Segments as pictures: one colour a segment, the same for EmerDiff and naive upsampling."""

import colorsys

import numpy as np
from PIL import Image


def palette(num_segments: int) -> np.ndarray:
    """(k, 3) uint8 colours. Colour i does not depend on k; hues advance by the golden ratio, in three tones."""
    tones = ((0.55, 0.93), (0.75, 0.68), (0.35, 0.80))  # saturation, value
    colours = [colorsys.hsv_to_rgb((0.56 + i * 0.61803) % 1, *tones[i % 3]) for i in range(num_segments)]
    return (np.array(colours) * 255).round().astype(np.uint8)


def colour(labels: np.ndarray, num_segments: int) -> np.ndarray:
    """Labels (H, W) -> (H, W, 3) uint8."""
    return palette(num_segments)[labels]


def boundaries(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose right or lower neighbour has another label."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def overlay(image: np.ndarray, labels: np.ndarray, num_segments: int, opacity: float = 0.6) -> np.ndarray:
    """Segment colours over the picture (H, W, 3) uint8, with white outlines where opacity is below 1."""
    mixed = image * (1 - opacity) + colour(labels, num_segments) * opacity
    if opacity < 1:
        mixed[boundaries(labels)] = 255
    return mixed.round().astype(np.uint8)


def indexed_png(labels: np.ndarray, num_segments: int) -> Image.Image:
    """Labels as a palette picture: the pixel's value is its segment's number."""
    picture = Image.fromarray(labels.astype(np.uint8), "P")
    picture.putpalette(palette(num_segments).ravel().tolist())
    return picture
