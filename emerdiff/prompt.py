"""The empty prompt, and what else some U-Nets are told beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

GUIDANCE = 8.5  # the library's default for consistency models; without a prompt, all scales guide to the same picture
SIZES = 6  # numbers that tell Stable Diffusion XL of a picture: original height and width, cut-off, height and width

Encoder = tuple[PreTrainedTokenizerBase, nn.Module]  # a tokenizer and its text encoder


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a U-Net is told beside the latents and the timestep, for one row."""

    tokens: Tensor
    """(1, 77, c), in the U-Net's dtype."""
    pooled: Tensor | None = None
    """(1, c'): the prompt as a whole, for Stable Diffusion XL."""
    sizes: Tensor | None = None
    """(1, 6) float32, pixels: how large the picture was, where it was cut, and how large it is; with `pooled`."""
    guidance: Tensor | None = None
    """(1, c''): the embedded guidance scale, for U-Nets that are distilled from a guided one, as consistency models."""

    def for_rows(self, rows: int) -> dict[str, object]:
        """The arguments of a U-Net's call with this number of rows."""
        arguments: dict[str, object] = {"encoder_hidden_states": self.tokens.expand(rows, -1, -1)}
        if self.pooled is not None:
            pooled = {"text_embeds": self.pooled.expand(rows, -1), "time_ids": self.sizes.expand(rows, -1)}
            arguments["added_cond_kwargs"] = pooled
        if self.guidance is not None:
            arguments["timestep_cond"] = self.guidance.expand(rows, -1)
        return arguments


@torch.inference_mode()
def encode_empty(
    encoders: Sequence[Encoder], unet: UNet2DConditionModel, size: tuple[int, int], device: torch.device, *, zeros: bool
) -> Prompt:
    """The empty prompt for a picture of `size` (width, height), by one text encoder or by Stable Diffusion XL's two.

    Two encoders give what their last layer but one returns, side by side. With `zeros` that is replaced by 0: Stable
    Diffusion XL was trained so where it had no prompt.
    """
    ids = [empty_prompt(tokenizer, encoder).to(device) for tokenizer, encoder in encoders]
    pooled = sizes = guidance = None
    if len(encoders) == 1:
        tokens = encoders[0][1](ids[0])[0]
    else:
        encoded = [encoder(of, output_hidden_states=True) for (_, encoder), of in zip(encoders, ids, strict=True)]
        tokens, pooled = torch.cat([each.hidden_states[-2] for each in encoded], dim=-1), encoded[-1][0]
        if pooled.ndim != 2:
            raise ValueError("its text_encoder_2 must also return a vector for the whole prompt")
        if zeros:
            tokens, pooled = torch.zeros_like(tokens), torch.zeros_like(pooled)
        width, height = size
        pooled = pooled.to(unet.dtype)
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=device)
    if tokens.ndim != 3:
        raise ValueError("its text_encoder must return a vector for each token, not one for the whole prompt")
    if channels := unet.config.time_cond_proj_dim:
        scale = torch.tensor([1000 * (GUIDANCE - 1)], device=device)
        guidance = get_timestep_embedding(scale, channels, downscale_freq_shift=1).to(unet.dtype)
    return Prompt(tokens.to(unet.dtype), pooled, sizes, guidance)


def empty_prompt(tokenizer: PreTrainedTokenizerBase, text_encoder: nn.Module, name: str = "") -> Tensor:
    """The token ids of the empty prompt, (1, n) int64: start, end, and padding to the length of the longest prompt.

    n is the tokenizer's limit, 77 for Stable Diffusion, or the text encoder's if that is lower or the tokenizer has
    none. Raises `ValueError` if the text encoder cannot read these tokens, or if they do not form a prompt. `name` is
    what follows "tokenizer" and "text_encoder" in the names of the parts.
    """
    config, own, its = text_encoder.config, f"its tokenizer{name}", f"its text_encoder{name}"
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    length = min((limit for limit in limits if type(limit) is int), default=0)
    if not 2 <= length <= 2**16:
        raise ValueError(f"{own}'s model_max_length must be from 2 tokens to {2**16}, not {limits[0]!r}")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{own} has no padding token (pad_token in tokenizer_config.json)")
    ids = tokenizer("", padding="max_length", max_length=length, truncation=True).input_ids
    if ids[0] == ids[1] or not {*ids[:2]} <= set(tokenizer.all_special_ids):
        raise ValueError(f"{own} does not put a start token and an end token around a prompt")
    if max(ids) >= config.vocab_size:
        raise ValueError(f"{own}'s token {max(ids)} is not among {its}'s {config.vocab_size}")
    return torch.tensor([ids])
