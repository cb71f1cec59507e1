"""Where in a U-Net the method reads and perturbs, found from the network's own structure."""

import math
from dataclasses import dataclass

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

GRID = 16  # cells a side of the low-resolution map at the model's native size (paper, section 3.1)


@dataclass(frozen=True)
class Layers:
    """Dotted names of modules in the U-Net, and the size of their grid."""

    feature: str
    """The cross-attention whose queries are clustered: the first of the 16x16 upward block."""
    modulation: str
    """The cross-attention whose output is perturbed: the third (or last) of that block."""
    differing: tuple[str, ...]
    """The transformer that holds it and the upward blocks after: where modulated rows differ from each other.

    Empty where the rows cannot be made to differ only from there, as more layers follow in the same block.
    """
    attention: tuple[str, ...]
    """Every query projection, and every key projection that does not read the prompt."""
    stride: int
    """Latent cells along each side of a grid cell."""


def find_layers(unet: nn.Module) -> Layers:
    """The layers of `unet`; raises `ValueError` with the reason where the architecture is not supported."""
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(
            f"EmerDiff needs a UNet2DConditionModel (Stable Diffusion 1.x or 2.x), not {type(unet).__name__}"
        )
    config = unet.config
    extra = [name for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if config.get(name)]
    if extra:
        raise ValueError(f"EmerDiff supports U-Nets conditioned on a prompt alone; this one has {', '.join(extra)}")
    if config.in_channels != config.out_channels:
        raise ValueError(
            f"EmerDiff needs a U-Net that takes noisy latents alone; this one takes {config.in_channels} channels "
            f"and predicts {config.out_channels} (an inpainting or editing model?)"
        )
    usable = [i for i, block in enumerate(unet.up_blocks) if _has_transformers(block)]
    if not usable:
        raise ValueError("EmerDiff needs an upward block with cross-attention; this U-Net has none")
    last = len(unet.up_blocks) - 1
    index = next((i for i in usable if native_latent_side(unet) // 2 ** (last - i) == GRID), usable[0])
    count = len(unet.up_blocks[index].attentions)
    third = f"up_blocks.{index}.attentions.{min(2, count - 1)}"
    differing = (third, *(f"up_blocks.{i}" for i in range(index + 1, last + 1)))
    return Layers(
        feature=f"up_blocks.{index}.attentions.0.transformer_blocks.0.attn2",
        modulation=f"{third}.transformer_blocks.0.attn2",
        differing=differing if count <= 3 else (),
        attention=_projections(unet),
        stride=2 ** (last - index),
    )


def native_latent_side(unet: UNet2DConditionModel) -> int:
    """Side of the latents that the U-Net was made for: 64 for Stable Diffusion 1.x."""
    side = unet.config.sample_size
    if side is None:
        raise ValueError("the U-Net's configuration lacks sample_size, the side of its latents")
    return side if isinstance(side, int) else math.isqrt(math.prod(side))


def _has_transformers(block: nn.Module) -> bool:
    transformers = getattr(block, "attentions", None) or ()
    return any(
        getattr(t.transformer_blocks[0], "attn2", None) for t in transformers if hasattr(t, "transformer_blocks")
    )


def _projections(unet: nn.Module) -> tuple[str, ...]:
    """Keys of the prompt are the same in every replay, so only those of self-attention are named."""
    names = []
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            names += [f"{name}.to_q"] if module.is_cross_attention else [f"{name}.to_q", f"{name}.to_k"]
    return tuple(names)
