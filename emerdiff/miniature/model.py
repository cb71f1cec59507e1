"""The miniature's networks: Stable Diffusion 1.x's classes and topology in narrower channels.

Four levels, two layers a block, the same block types, 8x smaller latents of 4 channels. At its side of 256 the
16x16 cross-attention block is `up_blocks[2]`; in Stable Diffusion, at 512, it is `up_blocks[1]`.
"""

from collections.abc import Iterable

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 128
TEXT_LENGTH = 77  # tokens
VAE_WIDTH = 32
SIDE = 256  # of the pictures, in pixels


def new_tokenizer(captions: Iterable[str], vocabulary: int = 1024, length: int = TEXT_LENGTH) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges are learned from `captions`; padded and cut to `length` tokens.

    It has at most `vocabulary` tokens, among them all bytes: it can spell any caption.
    """
    blank = CLIPTokenizer(model_max_length=length)
    return blank.train_new_from_iterator(captions, vocab_size=vocabulary)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**text_config(tokenizer)))


def text_config(tokenizer: CLIPTokenizer) -> dict:
    """The configuration of a small text encoder for the tokens of a tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@torch.no_grad()
def start_text_encoder(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, begun: CLIPTextModel, begun_tokenizer: CLIPTokenizer
) -> None:
    """Give `encoder` the weights of `begun`, which may have another tokenizer.

    Tokens with the same string are the same. A new token starts as the mean of the pieces that `begun_tokenizer` spells
    it with, or stays as it is if there are none.
    """
    rows, begun_rows = (of.get_input_embeddings().weight for of in (encoder, begun))
    ids, begun_ids, spell = tokenizer.get_vocab(), begun_tokenizer.get_vocab(), begun_tokenizer.backend_tokenizer.model
    started = rows.clone()
    for token, row in ids.items():
        if token in begun_ids:
            started[row] = begun_rows[begun_ids[token]]
            continue
        pieces = [piece.id for piece in spell.tokenize(token.removesuffix("</w>"))]
        if known := [piece for piece in pieces if piece != begun_tokenizer.unk_token_id]:
            started[row] = begun_rows[known].mean(0)
    for weight, of_begun in zip(encoder.parameters(), begun.parameters(), strict=True):
        weight.copy_(started if of_begun is begun_rows else of_begun)


def new_vae() -> AutoencoderTiny:
    """0.5 M parameters, no normalisation: it decodes fast and learns fast.

    It starts as a blur: three channels carry the mean colour of 8x8 pixels to the latents and back, so that
    training begins with detail.
    """
    vae = AutoencoderTiny(
        encoder_block_out_channels=(VAE_WIDTH,) * 4,
        decoder_block_out_channels=(VAE_WIDTH,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
    )
    _start_as_blur(list(vae.encoder.layers.children()), list(vae.decoder.layers.children()))
    return vae


@torch.no_grad()
def _start_as_blur(encoder: list[nn.Module], decoder: list[nn.Module]) -> None:
    """Latents 0 to 2 become 2 * mean colour - 1, with the colour in [0, 1]; other channels stay random."""
    point, blur = torch.zeros(3, 3), torch.tensor([1.0, 2.0, 1.0])
    point[1, 1], blur = 1, torch.outer(blur, blur) / 16

    def carry(conv: nn.Conv2d, kernel: torch.Tensor, shift: float = 0) -> None:
        conv.weight[:3] = torch.eye(3, conv.in_channels)[..., None, None] * kernel
        if conv.bias is not None:
            conv.bias[:3] = shift

    for module in (*encoder[:-1], *decoder[1:-1]):
        if isinstance(module, AutoencoderTinyBlock):
            carry(module.conv[-1], 0 * point)  # the residual of these channels
        elif isinstance(module, nn.Conv2d):
            carry(module, blur if module.stride == (2, 2) else point)
    carry(encoder[-1], 2 * point, -1)
    carry(decoder[0], point / 2, 0.5)
    carry(decoder[-1], point)


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=(32, 96, 128, 128),
        attention_head_dim=(1, 3, 4, 4),  # diffusers' name for the number of heads, kept for old checkpoints
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule and timestep spacing."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
