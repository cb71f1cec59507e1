"""From modulated latents to pixel labels (paper, section 3.3), and the naive baseline."""

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (b, c, H, W) with a kernel of radius ceil(sigma), edges reflected; 0.8 is the notebook's 3x3 filter."""
    if sigma == 0:
        return x
    radius = math.ceil(sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (radius,) * 4, mode="reflect")
    x = F.conv2d(x, kernel[..., None, :], groups=x.shape[1])
    return F.conv2d(x, kernel[..., None], groups=x.shape[1])


def magnification(changes: Tensor) -> Tensor:
    """Factors (b, 1, 1, 1), 1 or more, that bring the largest value of changes (b, 4, h, w) of latents to 1.

    That is the latents' standard deviation, up to which pictures respond almost linearly. Half precision's rounding is
    as large as the responses themselves, but small beside the magnified ones.
    """
    return 1 / changes.abs().amax((1, 2, 3), keepdim=True).clamp(1e-4, 1)  # finite even if nothing changes


def response(minus: Tensor, plus: Tensor, smoothing: float) -> Tensor:
    """G(I+) - G(I-) of pictures (b, 3, H, W) in [-1, 1]. G is linear, so it runs once; its norm over RGB is d_i."""
    return gaussian_blur(plus - minus, smoothing)


def label(differences: np.ndarray) -> np.ndarray:
    """Labels (H, W) int32 from difference maps (k, H, W): at each pixel the segment of the largest difference."""
    return _largest(differences)


def confidence(differences: np.ndarray) -> np.ndarray:
    """Confidence (H, W) in [0, 1] of the labels from difference maps (k, H, W).

    It is how far the second largest difference falls short of the largest, as a share of it; 0 where all are 0.
    """
    best, second = np.zeros((2, *differences.shape[1:]), differences.dtype)
    for d in differences:
        np.maximum(second, np.minimum(best, d), out=second)
        np.maximum(best, d, out=best)
    return np.divide(best - second, best, out=np.zeros_like(best), where=best > 0)


def label_at(differences: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (height, width) at another `size` (width, height): the difference maps are resized, then compared."""
    return _largest(np.asarray(Image.fromarray(d).resize(size, Image.Resampling.BILINEAR)) for d in differences)


def _largest(maps: Iterable[np.ndarray]) -> np.ndarray:
    """(H, W) int32: which map is the largest, or the first of equals; `argmax` over all at once is slower."""
    maps = iter(maps)
    best = np.array(next(maps))
    labels = np.zeros(best.shape, np.int32)
    for i, values in enumerate(maps, 1):
        np.copyto(labels, i, where=values > best)
        np.maximum(best, values, out=best)
    return labels


def upsample_nearest(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values (h, w) of cells at the pixels (H, W) = `size` of a picture: each pixel has its cell's."""
    return cells[np.ix_(*(np.arange(pixels) * n // pixels for pixels, n in zip(size, cells.shape, strict=True)))]


def pooled(labels: np.ndarray, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of each pixel's feature (count, c) float64 and number of pixels (count,), by labels (H, W).

    A pixel has the feature of its cell in `features` (h, w, c). Labels from `count` on are ignored.
    """
    h, w, c = features.shape
    cells = upsample_nearest(np.arange(h * w).reshape(h, w), labels.shape)[labels < count]
    shared = np.bincount(labels[labels < count] * (h * w) + cells, minlength=count * h * w).reshape(count, h * w)
    return shared @ features.reshape(h * w, c).astype(np.float64), shared.sum(1)


def upsample_naive(coarse_labels: np.ndarray, num_segments: int, size: tuple[int, int]) -> np.ndarray:
    """The paper's baseline: one-hot labels (h, w), bilinear to (H, W) = `size`, argmax; int32."""
    one_hot = F.one_hot(torch.from_numpy(coarse_labels).long(), num_segments).permute(2, 0, 1)[None].float()
    return _largest(F.interpolate(one_hot, size=size, mode="bilinear")[0].numpy())
