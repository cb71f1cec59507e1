"""Where in a U-Net the method reads and perturbs, found from the network's own structure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

CONDITIONING = (  # settings of a U-Net that ask for more than a prompt
    "addition_embed_type",
    "addition_time_embed_dim",
    "class_embed_type",
    "dual_cross_attention",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "projection_class_embeddings_input_dim",
    "time_cond_proj_dim",
)
GRID = 16  # side, in cells, of the low-resolution map at the model's native size (paper, section 3.1)


@dataclass(frozen=True)
class Layers:
    """Dotted names of modules in the U-Net, and the size of their grid."""

    features: tuple[str, ...]
    """The cross-attentions of the 16x16 upward block, in order. The queries of one of them are clustered."""
    modulation: str
    """The cross-attention whose output is perturbed: the third (or last) of that block."""
    differing: tuple[str, ...]
    """The transformer that holds it, and the upward blocks after it: the layers in which perturbed rows differ.

    Empty if further layers follow in the same block: one row cannot then become several at that point.
    """
    self_attention: tuple[str, ...]
    """Every attention layer that does not read the prompt."""
    cross_attention: tuple[str, ...]
    """Every attention layer that reads the prompt."""
    stride: int
    """Latent cells along each side of a grid cell."""


def check_conditioning(config: Mapping[str, object]) -> None:
    """Raises `ValueError` if a U-Net of this configuration is conditioned on more than a prompt."""
    extra = [name for name in CONDITIONING if config.get(name) is not None and config.get(name) is not False]
    if config.get("attention_type", "default") != "default":
        extra.append("attention_type")
    if extra:
        raise ValueError(f"EmerDiff supports U-Nets conditioned only on a prompt; this one also has {', '.join(extra)}")
    if type(config.get("cross_attention_dim", 0)) is not int:
        raise ValueError(
            "EmerDiff needs a U-Net whose layers all read the same prompt; the cross_attention_dim of this one is "
            f"{config['cross_attention_dim']!r}"
        )


def find_layers(unet: nn.Module) -> Layers:
    """The layers of `unet`; raises `ValueError` with the reason if its architecture is not supported."""
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(
            f"EmerDiff needs a UNet2DConditionModel (Stable Diffusion 1.x or 2.x), not {type(unet).__name__}"
        )
    config = unet.config
    check_conditioning(config)
    if config.in_channels != config.out_channels:
        raise ValueError(
            f"EmerDiff needs a U-Net that takes only noisy latents; this one takes {config.in_channels} channels "
            f"and predicts {config.out_channels} (an inpainting or editing model?)"
        )
    usable = [i for i, block in enumerate(unet.up_blocks) if _has_transformers(block)]
    if not usable:
        raise ValueError("EmerDiff needs an upward block with cross-attention; this U-Net has none")
    last = len(unet.up_blocks) - 1
    index = next((i for i in usable if native_latent_side(unet) // 2 ** (last - i) == GRID), usable[0])
    count = len(unet.up_blocks[index].attentions)
    third = f"up_blocks.{index}.attentions.{min(2, count - 1)}"
    attention = [(name, module) for name, module in unet.named_modules() if isinstance(module, Attention)]
    if outside := [name for name, module in attention if module.residual_connection]:
        raise ValueError(f"EmerDiff supports attention only in transformers; this U-Net also has it in {outside[0]}")
    differing = (third, *(f"up_blocks.{i}" for i in range(index + 1, last + 1)))
    return Layers(
        features=tuple(f"up_blocks.{index}.attentions.{i}.transformer_blocks.0.attn2" for i in range(count)),
        modulation=f"{third}.transformer_blocks.0.attn2",
        differing=differing if count <= 3 else (),
        self_attention=tuple(name for name, module in attention if not module.is_cross_attention),
        cross_attention=tuple(name for name, module in attention if module.is_cross_attention),
        stride=2 ** (last - index),
    )


def native_latent_side(unet: UNet2DConditionModel) -> int:
    """Side of the latents that the U-Net was made for: 64 for Stable Diffusion 1.x. `ValueError` if it is not known."""
    side = unet.config.sample_size
    if side is None:
        raise ValueError("the U-Net's configuration lacks sample_size, the side of its latents")
    sides = side if isinstance(side, list | tuple) else [side, side]
    if len(sides) != 2 or any(type(s) is not int or s < 1 for s in sides):
        raise ValueError(
            f"sample_size in the U-Net's configuration, the side of its latents, must be a whole number, not {side!r}"
        )
    return math.isqrt(math.prod(sides))


def _has_transformers(block: nn.Module) -> bool:
    """Whether all layers of the block are followed by a transformer that reads the prompt."""
    transformers = getattr(block, "attentions", None) or ()
    return bool(transformers) and all(
        len(getattr(t, "transformer_blocks", ())) and getattr(t.transformer_blocks[0], "attn2", None)
        for t in transformers
    )
