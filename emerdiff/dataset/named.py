"""The classes of a picture's segments: those that an image–text model tells, or one for all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..naming import ImageText, Words, name_segments
from ..recut import merge
from ..segmentation import Segmentation

CLASSES = ("segment",)
"""The classes of a dataset whose segments have no names."""
UNSURE = "unsure"
"""The last class of a dataset whose segments have names: that of segments for which no word is sure enough."""


@dataclass(frozen=True, eq=False)
class Named:
    """A picture's segments, and what is known of each."""

    result: Segmentation
    classes: Sequence[int]
    """(k,) which of the dataset's classes each segment has."""
    told: Sequence[Mapping[str, object]]
    """(k,) what its entry in a summary says about it, as values for JSON."""


def unnamed(result: Segmentation) -> Named:
    k = result.settings.num_segments
    return Named(result, (0,) * k, ({},) * k)


@dataclass(frozen=True)
class Namer:
    """Gives each segment one of some words, or `UNSURE`. Raises `ValueError` if that is among the words."""

    words: Words
    model: ImageText
    merged: bool = False
    """Whether segments of one name become one."""

    def __post_init__(self) -> None:
        if UNSURE in self.words.names:
            raise ValueError(f"{UNSURE!r} cannot be one of the words: it stands for segments that no word fits")

    @property
    def classes(self) -> tuple[str, ...]:
        return (*self.words.names, UNSURE)

    def __call__(self, result: Segmentation) -> Named:
        k, unsure = result.settings.num_segments, len(self.words.names)
        names = name_segments(result, self.words, self.model)
        best = names.best()
        classes = [int(best[i]) if names.name(i) else unsure for i in range(k)]
        if not self.merged:
            return Named(result, classes, [names.summary(i) for i in range(k)])
        groups = np.array([unsure + i if of == unsure else of for i, of in enumerate(classes)])
        united = np.minimum(np.unique(groups), unsure).tolist()  # in the order of `merge`
        told = [{"name": None if of == unsure else self.words.names[of]} for of in united]
        return Named(merge(result, groups), united, told)
