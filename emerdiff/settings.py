"""The settings of a run, with the paper's values as defaults, and presets."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Real

AUTO = "auto"  # for `num_segments`
FINE = 30  # segments that are found first where their number follows from the picture


def _bounded(default, low: float, high: float):
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class Settings:
    """The settings of one run. Every field is checked; a value that is not allowed raises `ValueError` with the range.

    The defaults are the paper's (arXiv 2401.11739) or, where it is silent, those of its authors' notebook. A model may
    have its own defaults: `pipe.settings(num_segments=12)` starts from those.
    """

    num_segments: int | str = _bounded(20, 2, 256)
    """k, the number of clusters; at most the number of cells of the low-resolution grid.

    "auto": as many as differ enough, at most 30, which on average is no better than a well-chosen number. What a run
    returns says how many these are.
    """
    merge_height: float | None = _bounded(None, 0.0, 1e6)
    """How different segments must be for "auto" to keep them apart, as `emerdiff.heights` measures it.

    Models have their own, as their features differ in size. None: a share of the variation of the picture's features.
    """
    feature_timestep: int = _bounded(1, 0, 999)
    """t_f, where the features are read; it need not lie on the sampling grid."""
    feature_draws: int = _bounded(1, 1, 1000)
    """Independent noise draws whose features are averaged (the notebook uses 100). The first is free at t_f = 1."""
    feature_layer: int = _bounded(0, 0, 99)
    """Which of the low-resolution block's cross-attention layers the features are read from, counted from 0."""
    modulation_timestep: int = _bounded(281, 0, 999)
    """t_m, where the network is perturbed; snapped to the nearest timestep of the sampling grid."""
    modulation_layer: int | None = _bounded(None, 0, 99)
    """Which of that block's cross-attention layers is perturbed; None: the model's own, the third in Stable Diffusion.

    Where its transformers have several, that is the last of the third transformer: as in Stable Diffusion, no attention
    then follows in the same transformer, which would spread the offset over other cells.
    """
    strength: float = _bounded(10.0, 0, 1000)
    """The paper's lambda: the size of the offset."""
    smoothing: float = _bounded(0.8, 0, 20)
    """Sigma of the Gaussian blur before differences are taken, in pixels of the picture the network sees."""
    num_inference_steps: int = _bounded(50, 2, 1000)
    """Steps of the whole sampling grid, of which those from t_m down are run."""
    replay_steps: int | None = _bounded(None, 1, 1000)
    """How many of those are run, evenly spaced, from t_m to the last; None: all of them. 1 is t_m alone."""
    two_sided: bool = True
    """Compare -lambda with +lambda, as the paper does; False: compare +lambda with the unperturbed picture."""
    kmeans_n_init: int = _bounded(100, 1, 1000)
    """Runs of k-means, of which the best is kept; the notebook makes 100."""
    image_area: int | None = _bounded(None, 64 * 64, 4096 * 4096)
    """Approximate number of pixels of the picture the network sees; None: the model's native side squared."""
    magnified_decoding: bool = False
    """If the network runs in half precision, decode in it too, with the changes magnified beyond its rounding."""
    keep_aspect: bool = True
    """Keep the aspect ratio, with sides that are multiples of 64; False: squash the picture into a square."""
    attention_injection: bool = True
    """Replay with the queries and keys of the unperturbed replay; without them fine structure is lost."""
    seed: int = _bounded(42, 0, 2**63 - 1)
    """Seed of the noise."""

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))

    @property
    def most_segments(self) -> int:
        """The most segments that a run finds."""
        return FINE if self.num_segments == AUTO else self.num_segments

    @classmethod
    def range_of(cls, name: str) -> tuple[float, float]:
        """The smallest and largest value that a numeric field allows."""
        return cls.__dataclass_fields__[name].metadata["range"]


PRESETS: Mapping[str, Mapping[str, object]] = {
    "exact": {},
    "fast": {"two_sided": False, "replay_steps": 6},
    "preview": {"two_sided": False, "replay_steps": 3, "magnified_decoding": True},
}
"""What each preset changes for speed; `exact` is the published procedure. Costs and scores are in docs/results.md."""


def _checked(f: Field, value: object) -> bool | int | float | None:
    """The value as a plain Python value of the field's type, or `ValueError`."""
    low, high = f.metadata.get("range", (0, 0))
    kind = type(f.default if f.default is not None else low)  # the annotation may be a string
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise ValueError(f"{f.name} must be True or False, not {value!r}")
    if f.default is None and value is None:
        return None
    also = " or None" if f.default is None else ""
    if f.name == "num_segments" and isinstance(value, str):
        also = f" or {AUTO!r}"
        if value == AUTO:
            return AUTO
    noun = "number" if kind is float else "whole number"
    in_range = isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high  # NaN is not
    if not in_range or (kind is int and value != int(value)):  # 20.0 is 20: JSON and sliders send it so
        raise ValueError(f"{f.name} must be a {noun} from {low} to {high}{also}, not {value!r}")
    return kind(value)
