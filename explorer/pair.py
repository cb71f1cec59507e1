"""A pair of pictures that hardly differ: behind a divider or as a flicker, with the change amplified if wished."""

from collections.abc import Sequence

import numpy as np

from .component import Component, file_of
from .pictures import save

FACTORS = (5, 1)  # by which the change is amplified, the first one at first


class Pair(Component):
    """Shows a value of `shown`; nothing where it is None."""

    TEMPLATE = "<div class='viewer pair' data-layout='divider' hidden></div>"
    SCRIPT = "pair.js"


def shown(unperturbed: np.ndarray, ends: Sequence[np.ndarray], titles: Sequence[str], name: str) -> dict:
    """The value of a `Pair`: two pictures (H, W, 3), 0 to 255, whose change from the `unperturbed` one is amplified."""
    files = {
        str(factor): [
            file_of(save(amplified(unperturbed, end, factor), f"{name}_{number}_x{factor}"))
            for number, end in enumerate(ends)
        ]
        for factor in FACTORS
    }
    return {"titles": list(titles), "files": files}


def amplified(unperturbed: np.ndarray, end: np.ndarray, factor: float) -> np.ndarray:
    """`unperturbed` (H, W, 3), 0 to 255, with `factor` times its change to `end`, clipped; uint8."""
    return (unperturbed + factor * (end - unperturbed)).clip(0, 255).round().astype(np.uint8)
