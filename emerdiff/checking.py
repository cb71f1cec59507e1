"""Checks that the parts of a pipeline fit together, before any picture is opened."""

import inspect
import json
import math
from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerBase

from .prompt import SIZES, Encoder, empty_prompt


def check_parts(
    vae: AutoencoderKL | AutoencoderTiny, encoders: Mapping[str, Encoder], unet: UNet2DConditionModel
) -> None:
    """Raises `ValueError` if the parts, each of a supported kind, do not belong together.

    `encoders` are one or two, by what follows "tokenizer" and "text_encoder" in their names: "" and "_2".
    """
    if not isinstance(vae, AutoencoderKL | AutoencoderTiny):
        raise ValueError(f"its vae is a {type(vae).__name__}; EmerDiff needs an AutoencoderKL or AutoencoderTiny")
    check_latents(vae, unet.config.in_channels)
    widths = [getattr(encoder.config, "hidden_size", None) for _, encoder in encoders.values()]
    expected = unet.config.cross_attention_dim
    if None in widths or sum(widths) != expected:
        whose = "its text_encoder's outputs have" if len(widths) == 1 else "its text encoders' outputs have together"
        raise ValueError(f"{whose} {' + '.join(map(str, widths))} channels, but its unet expects {expected}")
    _check_pooled(encoders, unet)
    for name, (tokenizer, encoder) in encoders.items():
        check_tokenizer(tokenizer, encoder, name)


def _check_pooled(encoders: Mapping[str, Encoder], unet: UNet2DConditionModel) -> None:
    """Refuses a U-Net that needs two text encoders without them, or encoders of another size."""
    config, needed = unet.config, unet.config.addition_embed_type == "text_time"
    if needed != (len(encoders) == 2):
        raise ValueError(
            "its unet is one of Stable Diffusion XL's, which need a text_encoder_2 and a tokenizer_2"
            if needed
            else "it has two text encoders, but its unet is made for one"
        )
    if needed:
        pooled = getattr(encoders["_2"][1].config, "projection_dim", None)
        total = config.projection_class_embeddings_input_dim
        if pooled is None or total != pooled + SIZES * config.addition_time_embed_dim:
            raise ValueError(
                f"its unet expects {total} channels for the whole prompt and the picture's size, not {pooled} and "
                f"{SIZES} times {config.addition_time_embed_dim} (a refiner? EmerDiff needs the base model)"
            )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, encoder: nn.Module, name: str) -> None:
    known, embedded = len(tokenizer), getattr(encoder.config, "vocab_size", None)
    if known != embedded:
        raise ValueError(
            f"its tokenizer{name} has {known} tokens, but its text_encoder{name} {embedded}: vocab.json and "
            f"merges.txt, or tokenizer.json, must be those that the text_encoder{name} was trained with"
        )
    if sorted(tokenizer.get_vocab().values()) != list(range(known)):
        raise ValueError(
            f"its tokenizer{name} does not number its tokens from 0 to {known - 1}: is its vocabulary damaged?"
        )
    empty_prompt(tokenizer, encoder, name)
    pieces = _pieces(tokenizer)
    for what in ("bos_token", "eos_token"):
        if (token := getattr(tokenizer, what)) in pieces:
            raise ValueError(f"its tokenizer{name}'s {what}, {token!r}, is a piece of words: text would be cut there")


def _pieces(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The tokens that words are spelled with: characters, and what the merges make of them."""
    spelling = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merged = {"".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in spelling.get("merges", ())}
    suffix = spelling.get("end_of_word_suffix") or ""
    return merged | {token for token in spelling["vocab"] if len(token.removesuffix(suffix)) == 1}


def check_switches(config: Mapping[str, object], kind: type, whose: str) -> None:
    """Refuses a configuration in which what is on or off has another value: Python takes "no" for on.

    None stands for a default, and a list holds a switch for each level.
    """
    for parameter in inspect.signature(kind.__init__).parameters.values():
        value = config.get(parameter.name)
        switches = value if isinstance(value, list) else [value]
        if isinstance(parameter.default, bool) and not all(isinstance(one, bool | None) for one in switches):
            raise ValueError(f"{whose} {parameter.name} must be true or false, not {value!r}")


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
    settings = pipeline.settings(num_segments=2, image_area=side**2)
    feature = f"{pipeline.layers.block[settings.feature_layer]}.to_q"
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
