"""Modulated denoising: the replay with one segment perturbed (paper, section 3.2)."""

from collections.abc import Generator
from contextlib import ExitStack

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from .attention import injected
from .hooks import edit, widen
from .inversion import Inversion, predict
from .layers import Layers
from .prompt import Prompt


@torch.inference_mode()
def replay(
    unet: UNet2DConditionModel,
    inversion: Inversion,
    prompt: Prompt,
    offsets: Tensor,
    layers: Layers,
    *,
    attention_injection: bool,
    shared: bool = True,
) -> Generator[int, None, Tensor]:
    """Denoise from x_{t_m} with the output of the modulated layer changed by `offsets` (rows, cells).

    The offset of a cell is added to every channel, at the first step only. With attention injection, all queries and
    keys, at every step, are those of the unperturbed replay: computed once (`shared`) or in each row, for which the
    inversion must have recorded what is needed. Returns the clean latents (rows, 4, h, w); yields the rows of each
    U-Net call.
    """
    rows = len(offsets)
    x_t = inversion.steps[0].x_t
    for inverted in inversion.steps:
        first = inverted is inversion.steps[0]
        if not (first and layers.differing):
            x_t = x_t.expand(rows, -1, -1, -1)
        with ExitStack() as stack:
            if attention_injection:
                stack.enter_context(injected(unet, layers, inverted.recorded, shared=shared))
            if first:  # all rows are equal up to the modulated transformer: one row goes in, and widens there
                stack.enter_context(edit(unet, {layers.modulation: lambda output: output + offsets[..., None]}))
                stack.enter_context(widen(unet, layers.differing, rows))
            prediction = predict(unet, x_t, inverted.step.t, prompt)
        x_t = inverted.previous(x_t, prediction)
        yield rows
    return x_t
