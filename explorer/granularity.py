"""How segments merge, and the positions of the slider Granularity: from coarse to fine, the same in every picture."""

from dataclasses import dataclass

import numpy as np

import emerdiff
from emerdiff.recut import merge_height

COARSEST, FINEST, STEP = -3.0, 2.0, 0.1  # of the slider; one more halves the height at which the tree is cut
AUTOMATIC = 0.0


@dataclass(frozen=True, eq=False)
class Tree:
    """In which order segments merge, and how much those differ that do."""

    cuts: np.ndarray
    """As `emerdiff.cuts`."""
    heights: np.ndarray
    """As `emerdiff.heights`."""
    height: float
    """From which on segments are kept apart at the automatic position."""

    @classmethod
    def of(cls, *fine: emerdiff.Segmentation) -> "Tree":
        """Of one picture, or of several that were segmented together."""
        return cls(emerdiff.cuts(*fine), emerdiff.heights(*fine), merge_height(*fine))

    @property
    def most(self) -> int:
        """The number of segments that there are."""
        return len(self.cuts) - 1

    def number(self, position: float) -> int:
        """Of segments at a position of the slider: as `emerdiff.granular`, where one more is twice as granular."""
        return max(2, int((self.heights[1:] >= self.height / 2**position).sum()))

    def position(self, k: int) -> float:
        """The position that gives k segments or, where the slider has none, the nearest one."""
        below = self.heights[k + 1] if k < self.most else self.heights[k] / 2
        between, tiny = np.sqrt(self.heights[k] * below), np.finfo(float).tiny  # what merges may differ in nothing
        position = np.clip(np.log2(max(self.height, tiny) / max(between, tiny)), COARSEST, FINEST)
        return round(round(float(position) / STEP) * STEP, 1)
