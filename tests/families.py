"""Tiny random checkpoints of other families than Stable Diffusion 1.x and 2.x, as diffusers' own pipelines save them.

What is special in a family's configuration is as in its published checkpoints; widths, and depths above three, are not.
"""

import json

import torch
from conftest import small_parts
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.configuration_utils import ConfigMixin
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from emerdiff.miniature.model import new_tokenizer

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TURBO = EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="trailing")
XL_TURBO = EulerAncestralDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="trailing")
XL = EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading")
XL_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 3],
    "cross_attention_dim": 32 + 40,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
    "sample_size": 128,  # as in the original: the grid has 32 x 32 cells
}
SSD_UNET = {
    "transformer_layers_per_block": [1, [1, 1], [2, 2]],
    "reverse_transformer_layers_per_block": [[2, 2, 3], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}
VEGA_UNET = {
    "transformer_layers_per_block": [1, [1, 1], [2, 2]],
    "reverse_transformer_layers_per_block": [[1, 1, 2], [2, 1, 1], 1],
    "mid_block_type": None,
}
BK_TINY_UNET = {
    "layers_per_block": 1,
    "mid_block_type": None,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "sample_size": 64,
}


def xl_parts(**unet_changes) -> dict:
    """Parts like Stable Diffusion XL's: two text encoders, no attention at the latents' own resolution."""
    parts = small_parts(2, **XL_UNET | unet_changes)
    tokenizer = new_tokenizer(["a red house", "two cars on a street"])
    tokenizer.pad_token = "!"  # as in the original
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=40, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4,
        projection_dim=24, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vae = AutoencoderKL(**parts["vae"].config | {"scaling_factor": 0.13025, "force_upcast": True}).eval()
    second = {"text_encoder_2": CLIPTextModelWithProjection(text).eval(), "tokenizer_2": tokenizer}
    return parts | second | {"vae": vae, "scheduler": XL}


def parts_of(family: str) -> dict:
    torch.manual_seed(0)
    lcm = LCMScheduler(**BETAS)
    return {
        "SD-Turbo": lambda: small_parts(2) | {"scheduler": TURBO},
        "LCM": lambda: small_parts(time_cond_proj_dim=16) | {"scheduler": lcm},
        "BK-SDM-Small": lambda: small_parts(layers_per_block=1, mid_block_type=None),
        "BK-SDM-Tiny": lambda: small_parts(**BK_TINY_UNET),
        "SDXL": xl_parts,
        "SDXL-Turbo": lambda: xl_parts(sample_size=64) | {"scheduler": XL_TURBO},
        "LCM-SDXL": lambda: xl_parts(time_cond_proj_dim=16) | {"scheduler": lcm},
        "SSD-1B": lambda: xl_parts(**SSD_UNET),
        "Segmind-Vega": lambda: xl_parts(**VEGA_UNET),
    }[family]()


ORACLES = {  # by family: the oracle's arguments, layers by transformer and depth in the low-resolution upward block
    "SD-Turbo": {"block": 1, "feature": (0, 0), "modulation": (2, 0), "lowest": 99, "t_m": 299},
    "LCM": {"block": 1, "feature": (0, 0), "modulation": (2, 0), "lowest": 0, "t_m": 300, "ends_clean": True},
    "BK-SDM-Small": {"block": 1, "feature": (0, 0), "modulation": (1, 0)},
    "BK-SDM-Tiny": {"block": 0, "feature": (0, 0), "modulation": (1, 0)},
    "SDXL": {"block": 0, "feature": (0, 0), "modulation": (2, 2)},
    "SDXL-Turbo": {"block": 0, "feature": (0, 0), "modulation": (2, 2), "lowest": 99, "t_m": 299},
    "LCM-SDXL": {"block": 0, "feature": (0, 0), "modulation": (2, 2), "lowest": 0, "t_m": 300, "ends_clean": True},
    "SSD-1B": {"block": 0, "feature": (0, 0), "modulation": (2, 2)},
    "Segmind-Vega": {"block": 0, "feature": (0, 0), "modulation": (2, 1)},
}


def library_pipeline(family: str):
    parts = parts_of(family)
    if "text_encoder_2" in parts:
        return StableDiffusionXLPipeline(**parts, add_watermarker=False)
    kind = LatentConsistencyModelPipeline if family == "LCM" else StableDiffusionPipeline
    return kind(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


# --- Single files


UNET_NAMES = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
OF_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OF_VAE = {
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def single_file(parts: dict) -> dict[str, torch.Tensor]:
    """The weights of a small Stable Diffusion 1.x, named as in the original code's checkpoints."""
    unet, vae, text = (parts[name].state_dict() for name in ("unet", "vae", "text_encoder"))
    levels, layers = len(parts["unet"].config.block_out_channels), parts["unet"].config.layers_per_block

    def of_unet(name: str) -> str:
        for new, old in UNET_NAMES.items():
            name = old + name[len(new) :] if name.startswith(f"{new}.") else name
        way, _, rest = name.partition("_blocks.")
        if way in ("down", "up"):
            block, kind, index, *rest = rest.split(".")
            first, count = (1, layers + 1) if way == "down" else (0, layers + 1)
            last = kind.endswith("samplers")
            place = first + int(block) * count + (layers if last else int(index))
            if kind == "downsamplers":
                within, rest = "0.op", rest[1:]
            elif kind == "upsamplers":
                within = "2" if int(block) else "1"  # after a transformer, if there is one
            else:
                within = "0" if kind == "resnets" else "1"
            name = ".".join([f"{'input' if way == 'down' else 'output'}_blocks", str(place), within, *rest])
        if ".1." not in name or "transformer" not in name and "proj" not in name.split(".")[-2]:
            for new, old in OF_RESNET.items():
                name = name.replace(f".{new}.", f".{old}.")
        return f"model.diffusion_model.{name}"

    def of_vae(name: str) -> str:
        for new, old in OF_VAE.items():
            name = name.replace(new, old)
        pieces = name.split(".")
        if pieces[1] in ("down_blocks", "up_blocks"):
            up = pieces[1] == "up_blocks"
            block = levels_of_vae - 1 - int(pieces[2]) if up else int(pieces[2])
            way, kind = ("up", "upsample") if up else ("down", "downsample")
            within = ["block", *pieces[4:]] if pieces[3] == "resnets" else [kind, *pieces[5:]]
            pieces[1:] = [way, str(block), *within]
        return "first_stage_model." + ".".join(pieces)

    assert levels == 3
    levels_of_vae = len(parts["vae"].config.block_out_channels)
    named = {of_unet(name): tensor for name, tensor in unet.items()}
    named |= {of_vae(name): tensor for name, tensor in vae.items()}
    for name, tensor in named.items():  # the autoencoder's attention was written with convolutions
        if ".mid.attn_1." in name and tensor.ndim == 2:
            named[name] = tensor[..., None, None]
    prefix = "cond_stage_model.transformer.text_model."
    named |= {prefix + name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    return {name: tensor.contiguous() for name, tensor in named.items()}


# --- Configurations at true size, as published


UNETS = {
    "SD 1.5": {"sample_size": 64, "cross_attention_dim": 768},
    "SD 2.1": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "BK-SDM-Tiny": BK_TINY_UNET | {"cross_attention_dim": 768, "block_out_channels": (320, 640, 1280)},
    "SDXL": XL_UNET
    | {
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 768 + 1280,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
        "use_linear_projection": True,
    },
}
UNETS["SSD-1B"] = UNETS["SDXL"] | {
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}


def without_weights(name: str) -> dict:
    """Parts of a checkpoint in true size, on the device "meta"; the tokenizers know few words."""
    xl, velocity = name in ("SDXL", "SSD-1B"), name == "SD 2.1"
    tokenizer = new_tokenizer(["a red house", "two cars on a street"])
    width = UNETS[name]["cross_attention_dim"] if not xl else 768

    def text(width: int, layers: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=width // 64, projection_dim=width, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip

    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            scaling_factor=0.13025 if xl else 0.18215,
        )
        parts = {
            "vae": vae,
            "text_encoder": CLIPTextModel(text(width, 23 if velocity else 12)),
            "tokenizer": tokenizer,
            "unet": UNet2DConditionModel(**UNETS[name]),
            "scheduler": XL,
        }
        if xl:
            parts |= {"text_encoder_2": CLIPTextModelWithProjection(text(1280, 32)), "tokenizer_2": tokenizer}
    if velocity:
        prediction = {"prediction_type": "v_prediction", "set_alpha_to_one": False, "clip_sample": False}
        parts["scheduler"] = DDIMScheduler(**BETAS, steps_offset=1, **prediction)
    return parts


def save_configurations(folder, name: str):
    """A checkpoint in true size of which the weights have not been fetched yet."""
    parts = without_weights(name)
    index = {"_class_name": "StableDiffusionXLPipeline" if "text_encoder_2" in parts else "StableDiffusionPipeline"}
    for part, of in parts.items():
        configuration = of.config if part.startswith("text_encoder") else of
        save = configuration.save_config if isinstance(of, ConfigMixin) else configuration.save_pretrained
        save(folder / part)
        index[part] = ["diffusers" if isinstance(of, ConfigMixin) else "transformers", type(of).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
