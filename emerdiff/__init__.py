"""EmerDiff: pixel-level segments from a text-to-image diffusion model, without training, labels or prompt."""

from .loading import load
from .pipeline import EmerDiffPipeline, Progress
from .recut import merge, recut
from .segmentation import Segmentation
from .settings import Settings

__all__ = ["EmerDiffPipeline", "Progress", "Segmentation", "Settings", "load", "merge", "recut"]
