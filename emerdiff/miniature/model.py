"""The miniature's networks: Stable Diffusion 1.x's classes and topology in narrower channels.

Four levels, two layers a block, the same block types, 8x smaller latents of 4 channels. At a side of 512 the
16x16 cross-attention block is `up_blocks[1]`, as in Stable Diffusion; at 256 it is `up_blocks[2]`.
"""

from collections.abc import Iterable

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 128
TEXT_LENGTH = 77  # tokens


def new_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges are learned from `captions`; padded and cut to 77 tokens."""
    blank = CLIPTokenizer(model_max_length=TEXT_LENGTH)
    return blank.train_new_from_iterator(captions, vocab_size=1024)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_vae(side: int) -> AutoencoderKL:
    """1.6 M parameters. No attention at the middle: it would cost as much as the rest."""
    return AutoencoderKL(
        sample_size=side,
        latent_channels=4,
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


UNETS = {  # by side of the picture: channels and attention heads of the four levels
    256: ((32, 96, 128, 128), (1, 3, 4, 4)),  # what two CPU cores can train in an hour or two
    512: ((48, 96, 192, 144), (1, 2, 4, 3)),  # 16.4 M parameters, for a GPU; few wide heads, as 64x64 tokens are many
}


def new_unet(side: int) -> UNet2DConditionModel:
    channels, heads = UNETS[side]
    return UNet2DConditionModel(
        sample_size=side // 8,
        block_out_channels=channels,
        attention_head_dim=heads,  # diffusers' name for the number of heads, kept for old checkpoints
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x's noise schedule and timestep spacing."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
