"""Segments as pictures: one colour a segment, the same for EmerDiff and naive upsampling."""

import matplotlib
import numpy as np
from PIL import Image

TONES = (0, 0.45, -0.4)  # of the base colours: how far towards white or, below 0, towards black


def palette(num_segments: int) -> np.ndarray:
    """(k, 3) uint8 colours; colour i does not depend on k.

    The first ten are Petroff's (arXiv 2107.02270), which people with colour blindness can tell apart, too. Lighter
    and darker tones of these follow.
    """
    base = 255 * np.array(matplotlib.color_sequences["petroff10"])
    tone, which = np.divmod(np.arange(num_segments), len(base))
    spread = np.where(tone % 2, 1, -1) * (0.1 + 0.65 * (tone * 0.61803 % 1))  # those after the named ones
    towards = np.where(tone < len(TONES), np.take(TONES, tone, mode="clip"), spread)[:, None]
    ends = np.where(towards > 0, 255, 0)
    return (base[which] + np.abs(towards) * (ends - base[which])).round().astype(np.uint8)


def boundaries(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose right or lower neighbour has another label."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    colours: np.ndarray,
    opacity: float | np.ndarray = 0.6,
    *,
    outlines: bool = True,
) -> np.ndarray:
    """`colours` (k, 3) of the segments over the picture (H, W, 3) uint8, with white outlines.

    `opacity`, 0 to 1, may differ by segment, (k,); a segment with opacity 0 has no outline either.
    """
    alpha = np.broadcast_to(np.asarray(opacity, np.float32), len(colours))[labels][..., None]
    mixed = image + alpha * (colours.astype(np.float32)[labels] - image)
    if outlines:
        mixed[boundaries(labels) & (alpha[..., 0] > 0)] = 255
    return mixed.round().astype(np.uint8)


def indexed_png(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Labels as a palette picture with `colours` (k, 3): the pixel's value is its segment's number."""
    picture = Image.fromarray(labels.astype(np.uint8), "P")
    picture.putpalette(colours.ravel().tolist())
    return picture
