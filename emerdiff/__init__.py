"""EmerDiff: pixel-level segments from a text-to-image diffusion model, without training, labels or prompt."""

from .loading import load
from .pipeline import EmerDiffPipeline, Progress, Reading
from .recut import cuts, granular, heights, merge, recut
from .segmentation import Segmentation
from .settings import Settings

__version__ = "0.1.0"
__all__ = [
    "EmerDiffPipeline",
    "Progress",
    "Reading",
    "Segmentation",
    "Settings",
    "cuts",
    "granular",
    "heights",
    "load",
    "merge",
    "recut",
]
