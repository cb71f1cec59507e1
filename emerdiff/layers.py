"""Where in a U-Net the method reads and perturbs, found from the network's own structure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

CONDITIONING = (  # settings of a U-Net that ask for conditions that a prompt does not give
    "class_embed_type",
    "dual_cross_attention",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
)
POOLED = "addition_time_embed_dim", "projection_class_embeddings_input_dim"  # with an addition_embed_type alone
GRID = 16  # side, in cells, of the low-resolution map at the model's native size (paper, section 3.1)
TAKES = {  # channels of the U-Net's input, where they are not those of its output, and what gives the others
    5: "a depth map",
    7: "a small picture",
    8: "a picture to be edited",
    9: "a picture with a hole to be filled",
}


@dataclass(frozen=True)
class Layers:
    """Dotted names of modules in the U-Net, and the size of their grid."""

    block: tuple[str, ...]
    """The cross-attentions of the low-resolution upward block, in the order in which they run.

    The queries of one are clustered; the output of one is perturbed. Three in Stable Diffusion 1.x and 2.x, thirty in
    Stable Diffusion XL, two where a block has one layer.
    """
    modulation: str
    """The one that is perturbed: the last of the block's third transformer, or of its last."""
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
    later: tuple[str, ...]
    """The upward blocks after the low-resolution one."""

    @property
    def modulated(self) -> int:
        """The index in the block of the one that is perturbed."""
        return self.block.index(self.modulation)

    def modulated_at(self, index: int | None) -> "Layers":
        """The same, but perturbing the block's cross-attention with this index; None: as they are."""
        if index is None:
            return self
        name = self.block[index]
        return replace(self, modulation=name, differing=_differing(name, self.block, self.later))


def check_conditioning(config: Mapping[str, object]) -> None:
    """Raises `ValueError` if a U-Net of this configuration takes a condition that a prompt does not give.

    A prompt also gives Stable Diffusion XL's pooled embedding; the picture's size and a guidance scale are known.
    """
    extra = [name for name in CONDITIONING if config.get(name) not in (None, False)]
    kind = config.get("addition_embed_type")
    if kind not in (None, "text_time"):
        extra.append(f"addition_embed_type {kind!r}")
    extra += [name for name in POOLED if kind is None and config.get(name) is not None]
    if config.get("attention_type", "default") != "default":
        extra.append("attention_type")
    if extra:
        raise ValueError(
            "EmerDiff supports U-Nets conditioned only on a prompt, as those of Stable Diffusion 1.x, 2.x and XL are; "
            f"this one also has {', '.join(extra)}"
        )
    if type(config.get("cross_attention_dim", 0)) is not int:
        raise ValueError(
            "EmerDiff needs a U-Net whose layers all read the same prompt; the cross_attention_dim of this one is "
            f"{config['cross_attention_dim']!r}"
        )


def check_channels(takes: int, predicts: int) -> None:
    """Raises `ValueError` if a U-Net with these numbers of channels is given more than latents."""
    if takes != predicts:
        also = (predicts == 4 and TAKES.get(takes)) or "something else"
        raise ValueError(
            f"EmerDiff needs a U-Net that takes only noisy latents; this one takes {takes} channels and predicts "
            f"{predicts}, because it is also given {also}: use the text-to-image checkpoint that it was made from"
        )


def find_layers(unet: nn.Module) -> Layers:
    """The layers of `unet`; raises `ValueError` with the reason if its architecture is not supported."""
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(
            f"EmerDiff needs a UNet2DConditionModel (Stable Diffusion 1.x, 2.x or XL), not {type(unet).__name__}"
        )
    config = unet.config
    check_conditioning(config)
    check_channels(config.in_channels, config.out_channels)
    usable = [i for i, block in enumerate(unet.up_blocks) if _has_transformers(block)]
    if not usable:
        raise ValueError("EmerDiff needs an upward block with cross-attention; this U-Net has none")
    last = len(unet.up_blocks) - 1
    index = next((i for i in usable if native_latent_side(unet) // 2 ** (last - i) == GRID), usable[0])
    attention = [(name, module) for name, module in unet.named_modules() if isinstance(module, Attention)]
    if outside := [name for name, module in attention if module.residual_connection]:
        raise ValueError(f"EmerDiff supports attention only in transformers; this U-Net also has it in {outside[0]}")
    by_transformer = [
        [f"up_blocks.{index}.attentions.{i}.transformer_blocks.{j}.attn2" for j in range(len(t.transformer_blocks))]
        for i, t in enumerate(unet.up_blocks[index].attentions)
    ]
    block = tuple(name for names in by_transformer for name in names)
    modulation = by_transformer[:3][-1][-1]
    later = tuple(f"up_blocks.{i}" for i in range(index + 1, last + 1))
    return Layers(
        block=block,
        modulation=modulation,
        differing=_differing(modulation, block, later),
        self_attention=tuple(name for name, module in attention if not module.is_cross_attention),
        cross_attention=tuple(name for name, module in attention if module.is_cross_attention),
        stride=2 ** (last - index),
        later=later,
    )


def _differing(modulation: str, block: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    """What `Layers.differing` says, for any layer of the block."""
    transformer, last = (name.partition(".transformer_blocks")[0] for name in (modulation, block[-1]))
    return (transformer, *later) if transformer == last else ()


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
