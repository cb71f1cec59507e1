"""EmerDiff: pixel-level segments from a text-to-image diffusion model, without training, labels or prompt."""

from .imagetext import load_image_text
from .loading import load
from .naming import Names, Words, name_segments
from .pipeline import EmerDiffPipeline, Progress, Reading
from .recut import cuts, granular, heights, merge, recut
from .segmentation import Segmentation
from .settings import Settings

__version__ = "0.1.0"
__all__ = [
    "EmerDiffPipeline",
    "Names",
    "Progress",
    "Reading",
    "Segmentation",
    "Settings",
    "Words",
    "cuts",
    "granular",
    "heights",
    "load",
    "load_image_text",
    "merge",
    "name_segments",
    "recut",
]
