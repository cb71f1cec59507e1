"""What a checkpoint is and what a run with it needs, told from its configurations alone."""

from dataclasses import dataclass

import torch
from PIL import Image

from .attention import recorded_layers
from .batches import ACTIVATIONS_PER_ROW
from .loading import cast, networks_of, small_autoencoder
from .pipeline import EmerDiffPipeline
from .settings import PRESETS

SIDE = 512  # pixels; beside the model's own
WHOLE = {"1.x": 16, "2.x": 16, "XL": 70}  # transformer blocks of a U-Net that is not distilled
WIDTHS = {768: "1.x", 1024: "2.x"}  # of the prompt


@dataclass(frozen=True)
class Run:
    """A run with a preset's settings for a square picture."""

    preset: str
    side: int
    """Pixels."""
    grid: int
    """Cells along each side."""
    rows: int
    """Of the U-Net."""
    recorded: int
    """Bytes that the inversion keeps of the attention layers."""
    activations: int
    """Bytes, roughly, of the U-Net for two rows, the fewest at once. More rows need more, and so does decoding."""


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is and what a run with it needs."""

    family: str
    block: tuple[str, ...]
    """Dotted names of the cross-attentions that `feature_layer` and `modulation_layer` number."""
    feature_layer: int
    modulation_layer: int
    timesteps: tuple[int, int]
    """The first and the last of the sampling grid that are run."""
    weights: int
    """Bytes of all networks."""
    small_autoencoder: str | None
    """The Hub id of one that fits."""
    runs: tuple[Run, ...]
    """Of each preset, at the native side and at 512 pixels."""


def inspect(pipe: EmerDiffPipeline, dtype: torch.dtype) -> Inspection:
    """Inspects a pipeline on the device "meta" for runs in `dtype`, to which it is cast."""
    cast(pipe, dtype)
    settings = pipe.settings()
    layers, steps = pipe.layers.modulated_at(settings.modulation_layer), pipe.steps(settings)
    weights = sum(weight.nbytes for network in networks_of(pipe).values() for weight in network.parameters())
    sides = dict.fromkeys((pipe.native_side, SIDE))
    runs = tuple(run for side in sides for run in _runs(pipe, side))
    return Inspection(
        family(pipe),
        layers.block,
        settings.feature_layer,
        layers.modulated,
        (steps[0].t, steps[-1].t),
        weights,
        small_autoencoder(pipe),
        runs,
    )


def family(pipe: EmerDiffPipeline) -> str:
    """The kind of a pipeline's networks, from their structure."""
    config, blocks = pipe.unet.config, len(pipe.layers.cross_attention)
    kind = "XL" if config.addition_embed_type else WIDTHS.get(config.cross_attention_dim)
    traits = [f"Stable Diffusion {kind}" if kind else "like Stable Diffusion, of another width"]
    if kind and blocks < WHOLE[kind]:
        traits.append(f"distilled to {blocks} of {WHOLE[kind]} transformer blocks")
    if config.time_cond_proj_dim:
        traits.append("told a guidance scale, as consistency models are")
    velocity = pipe.scheduler.config.get("prediction_type") == "v_prediction"
    return ", ".join([*traits, "predicts velocity" if velocity else "predicts noise"])


def _runs(pipe: EmerDiffPipeline, side: int) -> list[Run]:
    """A run with each preset at one side."""
    area = side**2
    image, own = Image.linear_gradient("L").resize((side, side)), pipe.settings(image_area=area)
    names = recorded_layers(pipe.layers, shared=pipe.share_attention) if own.attention_injection else ()
    outputs = pipe.outputs(image, (*names, "conv_in"), own.feature_timestep, own)
    latents = outputs.pop("conv_in")  # (1, channels, h, w)
    per_step = sum(output.nbytes for output in outputs.values())
    grid = latents.shape[-1] // pipe.layers.stride
    runs = []
    for preset in PRESETS:
        settings = pipe.settings(preset=preset, image_area=area)
        rows, recorded = sum(pipe.rows(settings)), per_step * len(pipe.steps(settings))
        runs.append(Run(preset, side, grid, rows, recorded, 2 * ACTIVATIONS_PER_ROW * latents.nbytes))
    return runs


def described(inspection: Inspection) -> list[str]:
    """The inspection as lines of text."""
    i, last, first_run = inspection, len(inspection.block) - 1, inspection.runs[0]
    lines = [
        f"family       {i.family}",
        f"native size  {first_run.side} x {first_run.side} pixels, a grid of {first_run.grid} x {first_run.grid} cells",
        f"features     feature_layer {i.feature_layer} of 0 to {last}: {i.block[i.feature_layer]}",
        f"modulation   modulation_layer {i.modulation_layer} of 0 to {last}: {i.block[i.modulation_layer]}",
        f"timesteps    {i.timesteps[0]} to {i.timesteps[1]}",
        f"weights      {_size(i.weights)}",
    ]
    if i.small_autoencoder:
        lines.append(f"autoencoder  {i.small_autoencoder} is a small one for these latents")
    lines.append(f"{'run':10}{'side':>6}{'grid':>9}{'rows':>7}{'recorded':>11}{'two rows':>11}{'with weights':>14}")
    for run in i.runs:
        total = i.weights + run.recorded + run.activations
        grid = f"{run.grid} x {run.grid}"
        lines.append(
            f"{run.preset:10}{run.side:6}{grid:>9}{run.rows:7}{_size(run.recorded):>11}{_size(run.activations):>11}"
            f"{_size(total):>14}"
        )
    return lines


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
