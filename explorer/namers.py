"""The image–text model that names segments on the page, and words that suit it."""

import os
import threading
from functools import cache

from emerdiff import Words, load_image_text
from emerdiff.imagetext import Clip
from emerdiff.loading import MINIATURE, best_device
from emerdiff.miniature.words import WORDS

from . import spaces

WISHED = os.environ.get("EMERDIFF_NAME_MODEL", "").strip() or MINIATURE
"""What the owner of the server wants segments to be named by: the Hub id or folder of a CLIP."""
EVERYDAY = Words.of(
    "sky, cloud, mountain, grass, field, sand, rock, water|sea|river|lake, snow, road|street, pavement|sidewalk, "
    "house|building, wall, window, door, fence, tree, bush|hedge, flower, car, bus, train, bicycle, motorcycle, boat, "
    "aeroplane, person|man|woman|child, dog, cat, horse, cow, sheep, bird, floor, rug|carpet, table, chair, "
    "sofa|couch, bed, lamp, cupboard, shelf, painting|picture, book, cup, plate, food, fruit"
)
_loading = threading.Lock()


def words() -> Words:
    """A sensible list for the model."""
    return WORDS if WISHED == MINIATURE else EVERYDAY


def model() -> Clip:
    """The model, loaded when it is first asked for; `ValueError` if it cannot be loaded.

    On ZeroGPU it is on the CPU: no GPU is lent for what takes a moment.
    """
    with _loading:  # whoever asks meanwhile gets the same
        return _model()


@cache
def _model() -> Clip:
    return load_image_text(WISHED, device="cpu" if spaces or WISHED == MINIATURE else best_device())
