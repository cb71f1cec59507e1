"""What a run returns: what the network found of a picture, and what follows from it."""

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from .masks import confidence, label, label_at, upsample_naive
from .settings import Settings


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segments of one picture. H x W is the size the network saw, h x w its low-resolution grid.

    Segment i has the same number in every array; a segment may have no pixels in `labels`. The fields are what the
    network found. Everything else follows from them; it is computed at the first use, and most of it is kept.
    """

    image: np.ndarray
    """(H, W, 3) uint8 RGB: the picture as the network saw it."""
    coarse_labels: np.ndarray
    """(h, w) int32: the k-means cluster of each grid cell."""
    features: np.ndarray
    """(h, w, c) float32: the queries that were clustered."""
    responses: np.ndarray
    """(k, 3, H, W) float32: how each pixel changes from one perturbation of each segment to the other, blurred."""
    original_size: tuple[int, int]
    """(width, height) of the picture that was handed in."""
    settings: Settings
    """As used: timesteps on the grid, `image_area` filled in."""
    model: str
    """The checkpoint's name or folder."""
    notes: tuple[str, ...] = ()
    """What was done to the picture or changed in the settings, and why, as sentences."""
    known: np.ndarray | None = None
    """(k,) bool: in a sketch of a run that goes on, which of the responses are known; the others are 0. None: all.

    Where the naive label is a segment whose response is not known, it is also the label, and the confidence is 0."""

    @property
    def differences(self) -> np.ndarray:
        """(k, H, W) float32 >= 0: the size of the responses over RGB. Computed at each use, as it takes much memory."""
        return np.linalg.norm(self.responses.astype(np.float32, copy=False), axis=1)

    @cached_property
    def labels(self) -> np.ndarray:
        """(H, W) int32 in 0..k-1: EmerDiff's segment of each pixel, that of the largest difference."""
        labels = label(self.differences)
        return labels if self.known is None else np.where(self._judged, labels, self.naive_labels)

    @cached_property
    def confidence(self) -> np.ndarray:
        """(H, W) float32 in [0, 1]: how far the second largest difference falls short of the largest, as a share."""
        shares = confidence(self.differences)
        return shares if self.known is None else np.where(self._judged, shares, 0)

    @cached_property
    def naive_labels(self) -> np.ndarray:
        """(H, W) int32: the coarse labels upsampled, the paper's baseline."""
        return upsample_naive(self.coarse_labels, self.settings.num_segments, self.image.shape[:2])

    @property
    def _judged(self) -> np.ndarray:
        """(H, W) bool: the pixels of a sketch whose naive label is a segment with a known response."""
        return self.known[self.naive_labels]

    @property
    def labels_at_original_size(self) -> np.ndarray:
        """(height, width) int32: labels of the picture that was handed in."""
        return self.labels_at(self.original_size)

    def labels_at(self, size: tuple[int, int]) -> np.ndarray:
        """Labels (height, width) int32 at any `size` (width, height), from resized difference maps."""
        labels = label_at(self.differences, size)
        if self.known is None:
            return labels
        naive = self.naive_labels_at(size)
        return np.where(self.known[naive], labels, naive)

    def naive_labels_at(self, size: tuple[int, int]) -> np.ndarray:
        """Naive labels (height, width) int32 at any `size` (width, height), from the coarse labels."""
        return upsample_naive(self.coarse_labels, self.settings.num_segments, size[::-1])

    @property
    def changed(self) -> float:
        """Share of the pixels, 0 to 1, whose segment differs from naive upsampling's."""
        return float((self.labels != self.naive_labels).mean())

    def summary(self) -> dict:
        """Settings and segments as plain values, for JSON."""
        shares, naive_shares, cells = (
            np.bincount(labels.ravel(), minlength=self.settings.num_segments) / labels.size
            for labels in (self.labels, self.naive_labels, self.coarse_labels)
        )
        segments = [
            {
                "segment": i,
                "share": round(float(shares[i]), 6),
                "naive_share": round(float(naive_shares[i]), 6),
                "cells": round(cells[i] * self.coarse_labels.size),
                "mean_confidence": round(float(self.confidence[self.labels == i].mean()), 4) if shares[i] else None,
            }
            for i in range(self.settings.num_segments)
        ]
        return {
            "model": self.model,
            "settings": asdict(self.settings),
            "notes": list(self.notes),
            "original_size": list(self.original_size),
            "size": list(self.labels.shape[::-1]),
            "grid": list(self.coarse_labels.shape[::-1]),
            "differs_from_naive": round(self.changed, 6),
            "segments": segments,
        }
