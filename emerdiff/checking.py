"""Checks that the parts of a pipeline fit together, before any picture is opened."""

import math

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn


def check_parts(
    vae: AutoencoderKL | AutoencoderTiny, text_encoder: nn.Module, tokenizer, unet: UNet2DConditionModel
) -> None:
    """Raises `ValueError` if the parts, each of a supported kind, do not belong together."""
    if not isinstance(vae, AutoencoderKL | AutoencoderTiny):
        raise ValueError(f"its vae is a {type(vae).__name__}; EmerDiff needs an AutoencoderKL or AutoencoderTiny")
    check_latents(vae, unet.config.in_channels)
    width, expected = getattr(text_encoder.config, "hidden_size", None), unet.config.cross_attention_dim
    if width != expected:
        raise ValueError(f"its text_encoder's outputs have {width} channels, but its unet expects {expected}")
    known, embedded = len(tokenizer), getattr(text_encoder.config, "vocab_size", None)
    if known != embedded:
        raise ValueError(
            f"its tokenizer has {known} tokens, but its text_encoder {embedded}: vocab.json and merges.txt, or "
            "tokenizer.json, must be those that the text_encoder was trained with"
        )
    if sorted(tokenizer.get_vocab().values()) != list(range(known)):
        raise ValueError(f"its tokenizer does not number its tokens from 0 to {known - 1}: is its vocabulary damaged?")
    empty_prompt(tokenizer, text_encoder)


def empty_prompt(tokenizer, text_encoder: nn.Module) -> Tensor:
    """The token ids of the empty prompt, (1, n) int64: start, end, and padding to the length of the longest prompt.

    n is the tokenizer's limit, 77 for Stable Diffusion, or the text encoder's if that is lower or the tokenizer has
    none. Raises `ValueError` if the text encoder cannot read these tokens, or if they do not form a prompt.
    """
    config = text_encoder.config
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    length = min((limit for limit in limits if type(limit) is int), default=0)
    if not 2 <= length <= 2**16:
        raise ValueError(f"its tokenizer's model_max_length must be from 2 tokens to {2**16}, not {limits[0]!r}")
    if tokenizer.pad_token_id is None:
        raise ValueError("its tokenizer has no padding token (pad_token in tokenizer_config.json)")
    ids = tokenizer("", padding="max_length", max_length=length, truncation=True).input_ids
    if ids[0] == ids[1] or not {*ids[:2]} <= set(tokenizer.all_special_ids):
        raise ValueError("its tokenizer does not put a start token and an end token around a prompt")
    if max(ids) >= config.vocab_size:
        raise ValueError(f"its tokenizer's token {max(ids)} is not among its text_encoder's {config.vocab_size}")
    return torch.tensor([ids])


def check_latents(vae: AutoencoderKL | AutoencoderTiny, channels: int) -> None:
    """Refuses an autoencoder unless its latents have this many channels and are scaled by a single number."""
    config = vae.config
    if config.latent_channels != channels:
        raise ValueError(f"its vae's latents have {config.latent_channels} channels, but its unet takes {channels}")
    pictures = config.in_channels, config.out_channels
    if pictures != (3, 3):
        raise ValueError(f"its vae must read and write RGB, not pictures of {pictures[0]} and {pictures[1]} channels")
    scale = config.scaling_factor
    if type(scale) not in (int, float) or not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"the scaling_factor of its vae must be a positive number, not {scale!r}")
    if extra := [name for name in ("shift_factor", "latents_mean", "latents_std") if config.get(name)]:
        raise ValueError(f"EmerDiff scales latents by scaling_factor alone, but its vae has {', '.join(extra)}")


@torch.inference_mode()
def try_out(pipeline) -> None:
    """Runs each network of an `EmerDiffPipeline` on the device "meta" once: only shapes are computed, in no time.

    Raises whatever they raise, and `ValueError` if a shape differs from what the configurations promise or a layer
    never runs, such as one for a condition other than the prompt.
    """
    unet, side = pipeline.unet, 512
    prompt = pipeline.text_encoder(empty_prompt(pipeline.tokenizer, pipeline.text_encoder).to("meta"))[0]
    if prompt.ndim != 3:
        raise ValueError("its text_encoder must return a vector for each token, not one for the whole prompt")
    settings = pipeline.settings(num_segments=2, image_area=side**2)
    feature = f"{pipeline.layers.features[settings.feature_layer]}.to_q"
    layers = [name for name, module in unet.named_modules() if next(module.parameters(recurse=False), None) is not None]
    image = Image.linear_gradient("L").resize((side, side))
    outputs = pipeline.outputs(image, layers, settings.feature_timestep, settings)
    latents = outputs["conv_out"]  # (1, 4, 64, 64)
    picture = pipeline.vae.decode(latents).sample  # (1, 3, 512, 512)
    height = side // pipeline.vae_scale_factor
    shapes = {
        "its unet's prediction": (latents.shape, (1, unet.config.in_channels, height, height)),
        "its vae's picture": (picture.shape, (1, 3, side, side)),
        "its unet's features": (outputs[feature].shape[:2], (1, (height // pipeline.layers.stride) ** 2)),
    }
    for name, (shape, expected) in shapes.items():
        if tuple(shape) != expected:
            raise ValueError(f"{name} has shape {tuple(shape)}, not {expected}")
