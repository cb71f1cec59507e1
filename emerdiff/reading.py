"""A picture as the network gets it, and as the network has read it."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from diffusers import SchedulerMixin
from PIL import Image
from torch import Tensor

from .inversion import Inversion, Step, sampling_steps, thinned
from .layers import Layers
from .picture import Picture, read_picture, size_for_network
from .prompt import Prompt
from .segmentation import Segmentation
from .settings import AUTO, Settings

OF_INVERSION = (  # settings that determine the inversion and what it records
    "seed",
    "feature_layer",
    "modulation_timestep",
    "num_inference_steps",
    "replay_steps",
    "attention_injection",
)
OF_SEEN = ("image_area", "keep_aspect")  # settings that determine the picture as the network sees it
OF_FEATURES = ("seed", "feature_layer", "feature_timestep", "feature_draws")


@dataclass(frozen=True, eq=False)
class Fitted:
    """Settings as a model can run them."""

    settings: Settings
    """As used: timesteps on the grid, `image_area` filled in."""
    steps: tuple[Step, ...]
    """From t_m down."""
    notes: tuple[str, ...]
    """What was changed in the settings, and why, as sentences."""

    @property
    def inverts_a_draw(self) -> bool:
        """Whether the inversion's last row is also the first draw of features."""
        return self.settings.feature_timestep == self.steps[-1].t

    @property
    def rows_to_segment(self) -> int:
        """U-Net rows in which segments are perturbed; the most there can be."""
        return self.rows_to_perturb(self.settings.most_segments)

    def rows_to_perturb(self, segments: int) -> int:
        """U-Net rows in which so many segments are perturbed."""
        return (2 if self.settings.two_sided else 1) * segments * len(self.steps)


@dataclass(frozen=True, eq=False)
class Seen(Fitted):
    """A picture and settings as the network gets them; the notes also say what was done to the picture."""

    picture: Image.Image
    """As the network sees it."""
    original_size: tuple[int, int]
    """(width, height) of the picture that was handed in."""
    grid: tuple[int, int]
    """(h, w) of the low-resolution grid."""


@dataclass(frozen=True, eq=False)
class Reading(Seen):
    """A picture as the network has read it: all that a run needs before it perturbs any segment."""

    prompt: Prompt
    """The empty prompt, encoded."""
    x_0: Tensor
    """The picture's latents, (1, 4, H / 8, W / 8) for Stable Diffusion."""
    inversion: Inversion
    features: np.ndarray
    """(h, w, c) float32."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes, nearly all of them for what the inversion recorded."""
        recorded = (tensor for inverted in self.inversion.steps for tensor in inverted.recorded.values())
        return sum(tensor.nbytes for tensor in recorded)

    def changed(self, **changes) -> "Reading":
        """The reading for other settings, as far as they need nothing that the network would have to compute.

        These are fewer `replay_steps`, and all that neither the inversion nor the features depend on. Raises
        `ValueError` for others.
        """
        settings, most = replace(self.settings, **changes), len(self.steps)
        fixed = {*OF_SEEN, *OF_INVERSION, *OF_FEATURES} - {"replay_steps"}
        if others := sorted(fixed & {name for name in changes if not _agree(self.settings, settings, [name])}):
            raise ValueError(f"the picture must be read again for another {others[0]}")
        if (count := settings.replay_steps or most) > most:
            raise ValueError(f"replay_steps must be at most {most}, those that were read, not {count}")
        inversion = self.inversion.thinned(count, self.x_0)
        steps = tuple(inverted.step for inverted in inversion.steps)
        return replace(self, settings=replace(settings, replay_steps=len(steps)), steps=steps, inversion=inversion)

    def blank(self, coarse_labels: np.ndarray, model: str) -> Segmentation:
        """The segmentation with its coarse labels (h, w), before the response of any segment that has cells is known.

        Nothing responds to a segment without cells.
        """
        k, image = self.settings.num_segments, np.asarray(self.picture)
        return Segmentation(
            image=image,
            coarse_labels=coarse_labels,
            features=self.features,
            responses=np.zeros((k, 3, *image.shape[:2]), np.float32),
            original_size=self.original_size,
            settings=self.settings,
            model=model,
            notes=self.notes,
            known=np.bincount(coarse_labels.ravel(), minlength=k) == 0,
        )


@dataclass(frozen=True, eq=False)
class Known:
    """What is valid of an earlier reading; None for what has to be computed again."""

    x_0: Tensor | None = None
    inversion: Inversion | None = None
    features: np.ndarray | None = None

    def rows_to_read(self, fitted: Fitted) -> int:
        """U-Net rows for all that no segment changes and that is not known."""
        inverted = 0 if self.inversion else len(fitted.steps)
        return inverted + (0 if self.features is not None else fitted.settings.feature_draws - fitted.inverts_a_draw)


def known(previous: Reading | None, seen: Seen) -> Known:
    """What is valid of the `previous` reading for a picture and settings."""
    return Known() if previous is None or previous.picture != seen.picture else known_of_same(previous, seen)


def known_of_same(previous: Reading, fitted: Fitted) -> Known:
    """What is valid of the `previous` reading for the same picture with other settings."""
    if not _agree(previous.settings, fitted.settings, OF_SEEN):
        return Known()
    return Known(
        previous.x_0,
        previous.inversion if _agree(previous.settings, fitted.settings, OF_INVERSION) else None,
        previous.features if _agree(previous.settings, fitted.settings, OF_FEATURES) else None,
    )


def _agree(ones: Settings, others: Settings, names: Collection[str]) -> bool:
    return all(getattr(ones, name) == getattr(others, name) for name in names)


def fit(settings: Settings, scheduler: SchedulerMixin, layers: Layers, native_side: int) -> Fitted:
    """The settings as a model with these parts can run them; raises `ValueError` if it cannot."""
    last = len(layers.block) - 1
    for name in ("feature_layer", "modulation_layer"):
        if (index := getattr(settings, name)) is not None and index > last:
            raise ValueError(f"{name} must be from 0 to {last} for this model, not {index}")
    grid = sampling_steps(scheduler, settings.num_inference_steps)
    t_m = min((step.t for step in grid), key=lambda t: abs(t - settings.modulation_timestep))
    notes = ()
    if t_m != settings.modulation_timestep:
        notes = (
            f"Modulation timestep {settings.modulation_timestep} is not on the grid of "
            f"{settings.num_inference_steps} sampling steps; the nearest, {t_m}, was used.",
        )
    steps = tuple(step for step in grid if step.t <= t_m)
    if settings.replay_steps:
        steps = thinned(steps, settings.replay_steps)
        settings = replace(settings, replay_steps=len(steps))
    area = settings.image_area or native_side**2
    return Fitted(replace(settings, modulation_timestep=t_m, image_area=area), steps, notes)


def see(image: Picture, fitted: Fitted, *, cell: int, multiple: int) -> Seen:
    """The picture at the size for the network: sides of a `multiple` of pixels, in grid cells of `cell` pixels a side.

    Raises `ValueError` for a picture that cannot be read or has fewer cells than there are segments.
    """
    opened, settings = read_picture(image), fitted.settings
    original = opened.picture
    size = size_for_network(original.size, settings.image_area, keep_aspect=settings.keep_aspect, multiple=multiple)
    height, width = grid = tuple(side // cell for side in reversed(size))
    if settings.num_segments != AUTO and settings.num_segments > math.prod(grid):
        raise ValueError(
            f"num_segments is {settings.num_segments}, but this picture's low-resolution grid has only "
            f"{width} x {height} = {width * height} cells: choose at most that many, or a larger image_area"
        )
    picture = original.resize(size, Image.Resampling.LANCZOS)
    notes = (*opened.notes, *fitted.notes)
    return Seen(settings, fitted.steps, notes, picture=picture, original_size=original.size, grid=grid)


def check_coarse(labels: np.ndarray, seen: Seen) -> None:
    """Raises `ValueError` unless `labels` give each cell of the grid one of k segments."""
    if seen.settings.num_segments == AUTO:
        raise ValueError(f"with coarse_labels, num_segments must be a number, not {AUTO!r}")
    (height, width), last = seen.grid, seen.settings.num_segments - 1
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != seen.grid or not whole or labels.min() < 0 or labels.max() > last:
        raise ValueError(
            f"coarse_labels must be whole numbers from 0 to {last} (num_segments - 1) on this picture's "
            f"low-resolution grid, {height} rows of {width}"
        )
